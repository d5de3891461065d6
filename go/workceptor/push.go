package workceptor

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/pyreceptor/pyreceptor/go/workceptor/remote"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// forgetAfter is how long a node is not asked again that did not know how to push, unless its sessions break before.
const forgetAfter = 10 * time.Minute

// pushers remembers which nodes do not push the progress of units, nor know names of submissions. The zero value knows none.
type pushers struct {
	mu   sync.Mutex
	lack map[string]time.Time // When it said so.
}

func (p *pushers) mayOffer(node string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	said, lacks := p.lack[node]
	return !lacks || time.Since(said) > forgetAfter
}

func (p *pushers) refused(node string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lack == nil {
		p.lack = map[string]time.Time{}
	}
	p.lack[node] = time.Now()
}

func (p *pushers) forget(node string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.lack, node)
}

// follow asks the executor to push.
func (m *mirror) follow(conn *remote.Conn) (*remote.Following, error) {
	signature, err := m.w.sign()
	if err != nil {
		return nil, err
	}
	return conn.Follow(m.id, m.size, signature)
}

// pushed takes what the executor pushes until unit and output are complete.
func (m *mirror) pushed(f *remote.Following) error {
	var ended *remote.Status
	for {
		news, err := f.Next()
		switch {
		case errors.Is(err, io.EOF):
			return errors.New("the executor has ended the session before the end of the unit")
		case err != nil:
			return err
		case news.Released:
			return remote.ErrUnknownUnit
		case ended != nil && (news.Output > 0 || news.Ended != nil || news.Status != nil && news.Status.StdoutSize != ended.StdoutSize):
			return errors.New("the executor has more to say of a unit that has ended than the checksum of its output")
		case news.Ended != nil:
			ended, m.last = news.Ended, news.Ended
			if err := m.ended(); err != nil {
				return err
			}
		case news.Output > 0:
			if err := m.take(f); err != nil {
				return err
			}
		case news.Status != nil:
			m.last = news.Status
			if news.Status.State.Complete() {
				return nil // Its output came before.
			}
			s := *news.Status
			s.StdoutSize = max(m.size, s.StdoutSize)
			m.show(s, s.Detail)
		}
	}
}

// ended makes the unit complete before the executor has the checksum of its output. What was not copied in one go waits for that.
func (m *mirror) ended() error {
	if m.resumed {
		return nil
	}
	m.w.owe(sumWait)
	return m.finish()
}

// take stores one record of output.
func (m *mirror) take(f *remote.Following) error {
	buf := pieces.Get().(*[pieceSize]byte)
	defer pieces.Put(buf)
	for {
		piece := buf[m.size%pieceSize:] // The kernel copies faster what lies as in the file, and caches whole pieces as one.
		n, err := filler{f}.Read(piece)
		if n > 0 {
			written, err := m.stdout.Write(piece[:n])
			m.size += int64(written)
			m.behind.Grown(m.stdout, m.size, m.j.hasRead())
			if err != nil {
				return m.cannotStore(err)
			}
			m.j.grow(m.size)
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// cannotStore shows on the unit why it does not get on.
func (m *mirror) cannotStore(err error) error {
	now := m.j.look().rec
	m.j.apply(true, unit.Event{Kind: unit.Mirror, To: now.State, Detail: "Error writing stdout: " + err.Error(), Size: unit.KeepSize})
	return fmt.Errorf("output cannot be stored: %w", err)
}
