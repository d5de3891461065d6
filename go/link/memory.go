package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// memoryLimit bounds what one direction of a memory link holds, in bytes: then the writer waits, as on a socket.
const memoryLimit = 256 << 10

// Memory is a network inside the process: names instead of addresses, no system calls, safe in a testing/synctest
// bubble (everything that waits waits on channels and conditions).
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
	ab, ba := newLane(memoryLimit), newLane(memoryLimit)
	return &memoryConn{in: ba, out: ab}, &memoryConn{in: ab, out: ba}
}

type memoryConn struct {
	in, out *lane
	last    wire.Batch
	closed  atomic.Bool
}

func (c *memoryConn) String() string { return "memory" }

func (c *memoryConn) ReadBatch() (wire.Batch, error) {
	got, err := c.in.read(c.last)
	c.last = got
	return got, c.cause(err)
}

func (c *memoryConn) WriteBatch(parts ...wire.Batch) error {
	for _, p := range parts {
		if len(p) == 0 {
			continue
		}
		if err := c.out.write(p); errors.Is(err, io.EOF) {
			return c.cause(io.ErrClosedPipe)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// cause is ErrClosed in the place of err if this end was closed.
func (c *memoryConn) cause(err error) error {
	if err != nil && c.closed.Load() {
		return ErrClosed
	}
	return err
}

func (c *memoryConn) Close() error {
	c.closed.Store(true)
	c.in.close(io.EOF)
	c.out.close(io.EOF)
	return nil
}
