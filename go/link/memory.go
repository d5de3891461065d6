package link

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// memoryLimit bounds what one direction of a memory link holds, in bytes: then the writer waits, as on a socket.
const memoryLimit = 1 << 20

// Memory is a network inside the process: names instead of addresses, no system calls, safe in a testing/synctest
// bubble (everything that waits waits on channels).
type Memory struct {
	mu        sync.Mutex
	listeners map[string]*memoryListener
}

// NewMemory returns an empty network.
func NewMemory() *Memory { return &Memory{listeners: map[string]*memoryListener{}} }

// Listen accepts links under name.
func (m *Memory) Listen(name string) (Listener, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.listeners[name] != nil {
		return nil, fmt.Errorf("memory listener %s: name is taken", name)
	}
	l := &memoryListener{net: m, name: name, conns: make(chan Conn), done: make(chan struct{})}
	m.listeners[name] = l
	return l, nil
}

// Dialer makes links to the listener called name.
func (m *Memory) Dialer(name string) Dialer { return memoryDialer{m, name} }

type memoryDialer struct {
	net  *Memory
	name string
}

func (d memoryDialer) String() string { return "memory " + d.name }

func (d memoryDialer) Dial(ctx context.Context) (Conn, error) {
	d.net.mu.Lock()
	l := d.net.listeners[d.name]
	d.net.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("dial memory %s: nobody listens", d.name)
	}
	near, far := Pipe()
	select {
	case l.conns <- far:
		return near, nil
	case <-l.done:
		return nil, fmt.Errorf("dial memory %s: nobody listens", d.name)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type memoryListener struct {
	net   *Memory
	name  string
	conns chan Conn
	done  chan struct{}
	once  sync.Once
}

func (l *memoryListener) Addr() string { return l.name }

func (l *memoryListener) Accept() (Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, fmt.Errorf("memory listener %s: %w", l.name, ErrClosed)
	}
}

func (l *memoryListener) Close() error {
	l.once.Do(func() {
		l.net.mu.Lock()
		delete(l.net.listeners, l.name)
		l.net.mu.Unlock()
		close(l.done)
	})
	return nil
}

// Pipe returns the two ends of a link in memory.
func Pipe() (Conn, Conn) {
	ab, ba := newLane(), newLane()
	return &memoryConn{in: ba, out: ab}, &memoryConn{in: ab, out: ba}
}

// lane is one direction. Batches are appended to pending until the reader takes all of it.
type lane struct {
	mu      sync.Mutex
	pending wire.Batch
	closed  bool          // By either end.
	changed chan struct{} // Closed and replaced at every change.
}

func newLane() *lane { return &lane{changed: make(chan struct{})} }

func (l *lane) notifyLocked() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *lane) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		l.notifyLocked()
	}
}

func (l *lane) read(spare wire.Batch) (wire.Batch, error) {
	for {
		l.mu.Lock()
		if len(l.pending) > 0 {
			got := l.pending
			l.pending = spare[:0]
			l.notifyLocked()
			l.mu.Unlock()
			return got, nil
		}
		closed, changed := l.closed, l.changed
		l.mu.Unlock()
		if closed {
			return nil, io.EOF
		}
		<-changed
	}
}

func (l *lane) write(b wire.Batch) error {
	for {
		l.mu.Lock()
		if l.closed {
			l.mu.Unlock()
			return io.ErrClosedPipe
		}
		if len(l.pending) < memoryLimit {
			l.pending = append(l.pending, b...)
			l.notifyLocked()
			l.mu.Unlock()
			return nil
		}
		changed := l.changed
		l.mu.Unlock()
		<-changed
	}
}

type memoryConn struct {
	in, out *lane
	last    wire.Batch
	mu      sync.Mutex
	closed  bool
}

func (c *memoryConn) String() string { return "memory" }

func (c *memoryConn) ReadBatch() (wire.Batch, error) {
	got, err := c.in.read(c.last)
	if err != nil && c.isClosed() {
		err = ErrClosed
	}
	c.last = got
	return got, err
}

func (c *memoryConn) WriteBatch(parts ...wire.Batch) error {
	for _, p := range parts {
		if len(p) == 0 {
			continue
		}
		if err := c.out.write(p); err != nil {
			if c.isClosed() {
				return ErrClosed
			}
			return err
		}
	}
	return nil
}

func (c *memoryConn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

func (c *memoryConn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.in.close()
	c.out.close()
	return nil
}
