package link

import (
	"sync"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

const (
	laneKeep = 16 << 10  // Memory that an idle lane holds on to.
	laneSlab = 512 << 10 // What a busy one takes from the pool.
)

// slabs are the buffers of busy lanes, given back when they go idle.
var slabs = sync.Pool{New: func() any { b := make([]byte, laneSlab); return &b }}

// roomFor returns b with room for n more bytes.
func roomFor(b wire.Batch, n int) wire.Batch {
	if len(b)+n <= cap(b) || len(b)+n <= laneKeep || len(b)+n > laneSlab {
		return b // Enough; or append does it.
	}
	slab := *slabs.Get().(*[]byte)
	return slab[:copy(slab, b)]
}

// shrunk returns what an idle lane keeps of the memory of b.
func shrunk(b wire.Batch) wire.Batch {
	if cap(b) == laneSlab {
		slab := []byte(b[:laneSlab])
		slabs.Put(&slab)
	}
	if cap(b) > laneKeep {
		return nil
	}
	return b[:0]
}

// lane passes messages from one goroutine to another within the process: frames are appended to pending until the
// reader takes all of it, so under load one hand-over moves many.
type lane struct {
	limit int // Bytes that may wait.

	mu      sync.Mutex
	changed sync.Cond
	pending wire.Batch
	err     error // Set by close: what the reader gets once pending is out, and the writer at once.
}

func newLane(limit int) *lane {
	l := &lane{limit: limit}
	l.changed.L = &l.mu
	return l
}

// close ends the lane; the first cause stays.
func (l *lane) close(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = cause
		l.changed.Broadcast()
	}
}

// read waits for frames and takes all of them. spare is the result of the read before, whose memory is used again.
func (l *lane) read(spare wire.Batch) (wire.Batch, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.pending) == 0 {
		if l.err != nil {
			return nil, l.err
		}
		spare, l.pending = shrunk(spare), shrunk(l.pending)
		l.changed.Wait()
	}
	got := l.pending
	l.pending = spare[:0]
	l.changed.Broadcast()
	return got, nil
}

// write appends whole frames and waits for room.
func (l *lane) write(frames wire.Batch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.err == nil && len(l.pending) >= l.limit {
		l.changed.Wait()
	}
	if l.err != nil {
		return l.err
	}
	l.appendLocked(frames)
	return nil
}

func (l *lane) appendLocked(frames wire.Batch) {
	l.pending = append(roomFor(l.pending, len(frames)), frames...)
	if len(l.pending) == len(frames) { // It was empty: the reader may wait.
		l.changed.Broadcast()
	}
}

// offer appends the messages of a run, all of size bytes but the last, which may be shorter, as far as there is room for
// them. It returns how many bytes they take.
func (l *lane) offer(run []byte, size int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := len(l.pending)
	for l.err == nil && len(run) > 0 {
		msg := run[:min(size, len(run))]
		run = run[len(msg):]
		if len(l.pending)+wire.FrameOverhead+len(msg) > l.limit {
			break
		}
		l.pending, _ = wire.AppendFrame(roomFor(l.pending, wire.FrameOverhead+len(msg)), msg)
	}
	if was == 0 && len(l.pending) > 0 {
		l.changed.Broadcast()
	}
	return len(l.pending) - was
}

// discard forgets what waits and returns how many bytes that was.
func (l *lane) discard() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.pending)
	l.pending = nil
	return n
}
