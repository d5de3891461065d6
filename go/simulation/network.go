package simulation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// maxOnTheWay bounds the bytes that are on their way in one direction of a link: then the writer waits.
const maxOnTheWay = 256 << 10

// Conditions are what a link does to messages, the same in both directions.
type Conditions struct {
	Delay          time.Duration // Of every message.
	Jitter         time.Duration // Added to it, evenly spread from 0. Messages still keep their order.
	Loss           float64       // Probability that a message is lost, 0 to 1.
	BytesPerSecond int64         // 0: no limit.
}

func (c Conditions) validate() error {
	if c.Delay < 0 || c.Jitter < 0 || c.BytesPerSecond < 0 || !(c.Loss >= 0 && c.Loss <= 1) {
		return fmt.Errorf("conditions %+v: nothing may be negative, and loss is 0 to 1", c)
	}
	return nil
}

// Traffic counts what nodes have written to links.
type Traffic struct {
	Messages, Bytes uint64 // Handed to a link,
	Lost            uint64 // and how many of these messages got lost, by chance or in a partition.
}

type traffic struct{ messages, bytes, lost atomic.Uint64 }

// cable is a link between two nodes as configured, whether there is a connection on it or not.
type cable struct {
	name string
	cond Conditions
	seed [2]uint64
	sum  *traffic

	conns chan link.Conn // To the listening side.
	done  chan struct{}  // Closed when the listening side is.
	once  sync.Once

	mu    sync.Mutex
	cut   bool // No connections.
	split bool // The ends are in two parts of a partition.
	live  []*lane
	count uint64 // Connections so far.
}

var (
	errCut   = errors.New("the link is cut")
	errSplit = errors.New("no answer: the mesh is partitioned")
)

func newCable(name string, cond Conditions, seed [2]uint64, sum *traffic) *cable {
	return &cable{name: name, cond: cond, seed: seed, sum: sum, conns: make(chan link.Conn), done: make(chan struct{})}
}

func (c *cable) Addr() string   { return c.name }
func (c *cable) String() string { return "simulated " + c.name }

func (c *cable) Accept() (link.Conn, error) {
	select {
	case conn := <-c.conns:
		return conn, nil
	case <-c.done:
		return nil, fmt.Errorf("simulated link %s: %w", c.name, link.ErrClosed)
	}
}

// Close ends the listening side.
func (c *cable) Close() error {
	c.once.Do(func() { close(c.done) })
	return nil
}

func (c *cable) Dial(ctx context.Context) (link.Conn, error) {
	near, far, err := c.connect()
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", c.name, err)
	}
	select {
	case c.conns <- far:
		return near, nil
	case <-c.done:
		err = errors.New("nobody listens")
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	_ = near.Close()
	return nil, fmt.Errorf("dial %s: %w", c.name, err)
}

func (c *cable) connect() (near, far *conn, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.cut:
		return nil, nil, errCut
	case c.split:
		return nil, nil, errSplit
	}
	c.count++
	there, back := c.newLane(0), c.newLane(1)
	c.live = []*lane{there, back} // What was there before is closed: nodes keep one link to a peer.
	return &conn{c.name, back, there}, &conn{c.name, there, back}, nil
}

func (c *cable) newLane(direction uint64) *lane {
	return &lane{
		cond: c.cond, sum: c.sum, rng: rand.New(rand.NewPCG(c.seed[0], c.seed[1]<<32|c.count<<1|direction)),
		arrived: make(chan struct{}, 1), room: make(chan struct{}, 1), ended: make(chan struct{}), stopped: make(chan struct{}),
	}
}

// setCut closes the link for good, or lets dials succeed again.
func (c *cable) setCut(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = cut
	if cut {
		for _, l := range c.live {
			l.end(true)
		}
		c.live = nil
	}
}

// setSplit makes messages vanish, or arrive again.
func (c *cable) setSplit(split bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.split = split
	for _, l := range c.live {
		l.mu.Lock()
		l.split = split
		l.mu.Unlock()
	}
}

func (c *cable) up() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.cut && !c.split
}

// conn is one end of a connection.
type conn struct {
	name    string
	in, out *lane
}

func (c *conn) String() string { return "simulated " + c.name }

func (c *conn) ReadBatch() (wire.Batch, error) { return c.in.read() }

func (c *conn) WriteBatch(parts ...wire.Batch) error { return c.out.write(parts) }

func (c *conn) Close() error {
	c.in.stop()
	c.out.end(false)
	return nil
}

// lane is one direction of a connection.
type lane struct {
	cond Conditions
	sum  *traffic

	arrived chan struct{} // One token when there is more to read,
	room    chan struct{} // and one when there is more room.
	ended   chan struct{} // Closed when nothing more will be written.
	stopped chan struct{} // Closed when nobody reads any more.

	mu        sync.Mutex
	rng       *rand.Rand
	queue     []parcel
	bytes     int       // In queue.
	sent      time.Time // When the last byte was on the line: the next message starts then.
	due       time.Time // When the last message arrives: no other arrives before it.
	split     bool
	isEnded   bool
	isStopped bool
}

// parcel is what one call wrote and the link has not lost.
type parcel struct {
	due    time.Time
	frames wire.Batch
}

func token(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// end is the writer's side: what is on its way still arrives, unless the link is cut.
func (l *lane) end(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if cut {
		l.queue, l.bytes = nil, 0
	}
	if !l.isEnded {
		l.isEnded = true
		close(l.ended)
	}
}

// stop is the reader's side.
func (l *lane) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue, l.bytes = nil, 0
	if !l.isStopped {
		l.isStopped = true
		close(l.stopped)
	}
}

func (l *lane) read() (wire.Batch, error) {
	for {
		frames, wait, err := l.take()
		if frames != nil || err != nil {
			return frames, err
		}
		var ended <-chan struct{}
		var timer <-chan time.Time
		if wait > 0 {
			timer = time.After(wait)
		} else {
			ended = l.ended
		}
		select {
		case <-timer:
		case <-l.arrived:
		case <-ended:
		case <-l.stopped:
		}
	}
}

// take returns the next parcel, or how long it is still on its way; 0 if there is none.
func (l *lane) take() (frames wire.Batch, wait time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.isStopped:
		return nil, 0, link.ErrClosed
	case len(l.queue) == 0 && l.isEnded:
		return nil, 0, io.EOF
	case len(l.queue) == 0:
		return nil, 0, nil
	}
	if wait := time.Until(l.queue[0].due); wait > 0 {
		return nil, wait, nil
	}
	frames = l.queue[0].frames
	l.queue[0] = parcel{}
	if l.queue = l.queue[1:]; len(l.queue) == 0 {
		l.queue = nil
	}
	l.bytes -= len(frames)
	token(l.room)
	return frames, 0, nil
}

func (l *lane) write(parts []wire.Batch) error {
	for {
		l.mu.Lock()
		if l.isEnded || l.isStopped {
			l.mu.Unlock()
			return io.ErrClosedPipe
		}
		if l.bytes < maxOnTheWay {
			l.sendLocked(parts)
			l.mu.Unlock()
			return nil
		}
		l.mu.Unlock()
		select {
		case <-l.room:
		case <-l.ended:
		case <-l.stopped:
		}
	}
}

func (l *lane) sendLocked(parts []wire.Batch) {
	size := 0
	for _, part := range parts {
		size += len(part)
	}
	if size == 0 {
		return
	}
	l.sum.bytes.Add(uint64(size))
	frames := make(wire.Batch, 0, size)
	for _, part := range parts {
		for msg, rest, ok := part.Next(); ok; msg, rest, ok = part.Next() {
			l.sum.messages.Add(1)
			if l.split || l.cond.Loss > 0 && l.rng.Float64() < l.cond.Loss {
				l.sum.lost.Add(1)
			} else {
				frames = append(frames, part[:wire.FrameOverhead+len(msg)]...)
			}
			part = rest
		}
	}
	now := time.Now()
	if l.cond.BytesPerSecond > 0 { // What gets lost has used the line too.
		if l.sent.Before(now) {
			l.sent = now
		}
		l.sent = l.sent.Add(time.Duration(float64(size) / float64(l.cond.BytesPerSecond) * float64(time.Second)))
		now = l.sent
	}
	due := now.Add(l.cond.Delay)
	if l.cond.Jitter > 0 {
		due = due.Add(time.Duration(l.rng.Int64N(int64(l.cond.Jitter))))
	}
	if due.Before(l.due) {
		due = l.due
	}
	l.due = due
	if len(frames) > 0 {
		l.queue = append(l.queue, parcel{due, frames})
		l.bytes += len(frames)
		token(l.arrived)
	}
}
