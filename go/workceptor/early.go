package workceptor

import (
	"context"
	"io"
	"os"
	"sync/atomic"

	"github.com/pyreceptor/pyreceptor/go/workceptor/remote"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// earlyFrom is how large a payload is that sets out for the executor before all of it is here.
const earlyFrom = 1 << 20

// early is a payload that is sent while it comes. Its end is sent only once it is complete and durable here and the record
// says whom to ask about it. Whatever goes wrong before, the payload is sent anew, as any other; an executor that knows
// the names of submissions, and no other is sent to early, has deleted the half unit by then.
type early struct {
	w    *remoteWorker
	ctx  context.Context
	stop context.CancelFunc

	size  atomic.Int64  // Bytes in the file.
	grown chan struct{} // Has a value when there may be more.
	whole chan struct{} // Closed when size is all there is.

	named chan struct{} // Closed when id is known.
	id    unit.ID
	done  chan struct{} // Closed at the end, when err is known.
	err   error

	file *os.File
	at   int64 // Bytes that were read of file.
}

// payloadGrew takes notice that n bytes have come of a payload which has size bytes by now. One that has become large sets out, if the
// executor is one to send to early, for the next step to conclude.
func (w *remoteWorker) payloadGrew(n, size int64) {
	if size-n < earlyFrom && size >= earlyFrom {
		w.setOut(size)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.early.grow(size)
}

func (w *remoteWorker) setOut(size int64) {
	e := w.j.e
	if !e.pushers.mayOffer(w.extra().RemoteNode) {
		return
	}
	p := &early{
		w: w, grown: make(chan struct{}, 1), whole: make(chan struct{}), named: make(chan struct{}), done: make(chan struct{}),
		err: errNoAnswerYet, // A bug that ends send is not the executor's acceptance.
	}
	p.ctx, p.stop = context.WithCancel(e.ctx)
	p.size.Store(size)
	if !e.begin(func() {
		defer close(p.done)
		p.err = p.send()
	}) {
		p.stop()
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.early = p
}

// grow tells the size that the file has by now. A nil early takes no notice.
func (p *early) grow(size int64) {
	if p == nil {
		return
	}
	p.size.Store(size)
	select {
	case p.grown <- struct{}{}:
	default:
	}
}

// giveUp ends an attempt whose payload will never be whole, or is sent in another way.
func (p *early) giveUp() {
	if p != nil {
		p.stop()
	}
}

func (p *early) send() (err error) {
	defer p.stop()
	if p.file, err = p.w.j.dir.ReadStdin(); err != nil {
		return err
	}
	defer p.file.Close()
	conn, err := p.w.connect(p.ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	req, err := p.w.request()
	if err != nil {
		return err
	}
	if req.Submission == "" {
		return remote.ErrNotOffered
	}
	id, begun, err := conn.Submit(req)
	if err != nil {
		return err
	}
	p.id = id
	close(p.named)
	if begun {
		return nil
	}
	return conn.SendPayload(req.Node, p)
}

// Read returns what has come of the payload, and waits for more.
func (p *early) Read(b []byte) (int, error) {
	for {
		if have := p.size.Load() - p.at; have > 0 {
			n, err := p.file.ReadAt(b[:min(int64(len(b)), have)], p.at)
			p.at += int64(n)
			if n > 0 {
				return n, nil
			}
			if err == io.EOF { // Somebody has cut the file, so this is not the end of the payload.
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
		select {
		case <-p.ctx.Done():
			return 0, p.ctx.Err()
		case <-p.grown:
		case <-p.whole:
			if p.at == p.size.Load() {
				return 0, io.EOF
			}
		}
	}
}

// lost reports whether the attempt has come to nothing, and another may do better at once.
func (p *early) lost() bool {
	select {
	case <-p.done:
		return p.id == "" || p.err != nil && !isRefused(p.err)
	default:
		return false
	}
}

// conclude sends the rest of the payload, which is complete and durable by now. begun is false if nothing has set out, or that
// came to nothing.
func (p *early) conclude(ctx context.Context) (begun bool, err error) {
	if p == nil {
		return false, nil
	}
	defer p.giveUp()
	select {
	case <-p.named:
	case <-p.done:
	case <-ctx.Done():
		return true, ctx.Err()
	}
	if p.lost() {
		return false, nil
	}
	// Written before the payload is complete: whatever breaks from here on, we know whom to ask about.
	if err := p.w.setRemoteID(p.id); err != nil {
		return true, err
	}
	close(p.whole)
	select {
	case <-p.done:
	case <-ctx.Done():
		return true, ctx.Err()
	}
	if p.err == nil {
		p.w.setStarted()
	}
	return true, p.err
}
