package netceptor

import (
	"context"
	"errors"
	"sync"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

const (
	// transitLimit bounds the packets that wait for one link, in bytes. Over it a packet in transit is dropped.
	transitLimit = 4 << 20
	// localLimit is where a local sender starts to wait instead: lower, so that its own queue does not delay its pings.
	localLimit = 512 << 10
	// controlLimit bounds the route messages and advertisements that wait for one link. A peer that lets so much pile up
	// does not read at all: the link is closed.
	controlLimit = 16 << 20
	// greetingLimit is how much of that a new neighbour is told at once: what is more comes with the next periods.
	greetingLimit = 8 << 20
)

var (
	errQueueFull   = errors.New("send queue full")
	errQueueClosed = errors.New("link closed")
)

// closedChan is a channel that is always ready.
var closedChan = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// sendQueue holds what waits to be written to one link, as ready-made frames in one piece of memory per class: control
// messages, which are written first and never dropped, and packets. The writer swaps the buffers for empty ones, so a
// packet is copied once on its way through a node and costs no allocation.
type sendQueue struct {
	mu            sync.Mutex
	control, data wire.Batch
	draining      bool          // Close once everything queued is written.
	closed        bool          // Nothing is accepted any more.
	room          chan struct{} // Closed at the next swap; nil if nobody waits.
	ready         chan struct{} // One token while there is something to write.
}

func newSendQueue() *sendQueue { return &sendQueue{ready: make(chan struct{}, 1)} }

// wake tells the writer that there is something. Callers of push with wake=false owe one call.
func (q *sendQueue) wake() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// push queues one packet in parts. errQueueFull means that limit bytes wait already.
func (q *sendQueue) push(limit int, parts ...[]byte) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return errQueueClosed
	}
	if len(q.data) > limit {
		return errQueueFull
	}
	size := wire.FrameOverhead
	for _, p := range parts {
		size += len(p)
	}
	var err error
	q.data, err = wire.AppendFrame(roomFor(q.data, size), parts...)
	return err
}

// pushTransit queues a run of packets in transit, all or none, and sets their hop count. errQueueFull means that they
// would make more than transitLimit bytes wait.
func (q *sendQueue) pushTransit(run wire.Batch, hops uint8) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return errQueueClosed
	}
	start := len(q.data)
	if start+len(run) > transitLimit {
		return errQueueFull
	}
	q.data = append(roomFor(q.data, len(run)), run...)
	q.data[start:].PatchHops(hops)
	return nil
}

// pushRun queues packets of a local sender that have one header and lie one behind the other, all of the same size but
// the last.
func (q *sendQueue) pushRun(header, run []byte, size int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return errQueueClosed
	}
	if len(q.data) > localLimit {
		return errQueueFull
	}
	packets := (len(run) + size - 1) / size
	q.data = roomFor(q.data, len(run)+packets*(wire.FrameOverhead+len(header)))
	for len(run) > 0 {
		packet := run[:min(size, len(run))]
		run = run[len(packet):]
		var err error
		if q.data, err = wire.AppendFrame(q.data, header, packet); err != nil {
			return err
		}
	}
	return nil
}

// pushRunWait is pushRun that waits for room until ctx ends, and wakes the writer.
func (q *sendQueue) pushRunWait(ctx context.Context, header, run []byte, size int) error {
	return q.waiting(ctx, func() error { return q.pushRun(header, run, size) })
}

// pushWait queues one packet of a local sender and waits for room until ctx ends.
func (q *sendQueue) pushWait(ctx context.Context, parts ...[]byte) error {
	return q.waiting(ctx, func() error { return q.push(localLimit, parts...) })
}

// waiting tries to push until there is room or ctx ends.
func (q *sendQueue) waiting(ctx context.Context, push func() error) error {
	for {
		err := push()
		if err == nil {
			q.wake()
			return nil
		}
		if !errors.Is(err, errQueueFull) {
			return err
		}
		select {
		case <-q.waitRoom():
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (q *sendQueue) waitRoom() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || len(q.data) <= localLimit {
		return closedChan
	}
	if q.room == nil {
		q.room = make(chan struct{})
	}
	return q.room
}

// pushControl queues one control message and wakes the writer, unless the message can wait for the next one.
func (q *sendQueue) pushControl(msg []byte, canWait bool) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.draining {
		return errQueueClosed
	}
	if len(q.control) > controlLimit {
		return errQueueFull
	}
	var err error
	q.control, err = wire.AppendFrame(roomFor(q.control, wire.FrameOverhead+len(msg)), msg)
	if !canWait {
		q.wake()
	}
	return err
}

// controlWaiting is how many bytes of control messages wait.
func (q *sendQueue) controlWaiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.control)
}

// drain lets the writer finish what is queued; then next reports the end.
func (q *sendQueue) drain() {
	q.mu.Lock()
	q.draining = true
	q.mu.Unlock()
	q.wake()
}

func (q *sendQueue) close() {
	q.mu.Lock()
	q.closed = true
	if q.room != nil {
		close(q.room)
		q.room = nil
	}
	q.mu.Unlock()
	q.wake()
}

// next waits for something to write and takes all of it, leaving the spare buffers in its place. ok is false once the
// queue is closed, or drained and empty.
func (q *sendQueue) next(spareControl, spareData wire.Batch) (control, data wire.Batch, ok bool) {
	for {
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			return nil, nil, false
		}
		if len(q.control)+len(q.data) > 0 {
			control, q.control = q.control, spareControl[:0]
			data, q.data = q.data, spareData[:0]
			if q.room != nil {
				close(q.room)
				q.room = nil
			}
			q.mu.Unlock()
			return control, data, true
		}
		if q.draining {
			q.mu.Unlock()
			return nil, nil, false
		}
		q.control, q.data = shrunk(q.control), shrunk(q.data) // Going idle.
		spareControl, spareData = shrunk(spareControl), shrunk(spareData)
		q.mu.Unlock()
		<-q.ready
	}
}
