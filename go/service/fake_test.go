package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

var errReset = errors.New("reset by the peer")

// half is one direction of a fake mesh stream: a bounded buffer that ends with data, with a reset, or with a reader who
// wants no more.
type half struct {
	mu   sync.Mutex
	cond *sync.Cond
	buf  []byte
	err  error // What the reader gets once buf is empty.
	stop error // What the writer gets.
}

func newHalf() *half { h := &half{}; h.cond = sync.NewCond(&h.mu); return h }

func (h *half) end(readErr, writeErr error, discard bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if readErr != nil && h.err == nil {
		h.err = readErr
		if discard {
			h.buf = nil
		}
	}
	if writeErr != nil && h.stop == nil {
		h.stop = writeErr
	}
	h.cond.Broadcast()
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.buf) == 0 && h.err == nil {
		h.cond.Wait()
	}
	if len(h.buf) == 0 {
		return 0, h.err
	}
	n := copy(p, h.buf)
	h.buf = h.buf[n:]
	h.cond.Broadcast()
	return n, nil
}

func (h *half) write(p []byte) (n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(p) > 0 {
		for len(h.buf) >= 4096 && h.stop == nil {
			h.cond.Wait()
		}
		if h.stop != nil {
			return n, h.stop
		}
		c := min(len(p), 4096-len(h.buf))
		h.buf = append(h.buf, p[:c]...)
		p, n = p[c:], n+c
		h.cond.Broadcast()
	}
	return n, nil
}

// fakeStream behaves as a mesh stream does.
type fakeStream struct {
	net.Conn // nil: no test needs addresses or deadlines.
	in, out  *half
}

func fakePair() (a, b *fakeStream) {
	x, y := newHalf(), newHalf()
	return &fakeStream{in: x, out: y}, &fakeStream{in: y, out: x}
}

func (s *fakeStream) Read(p []byte) (int, error)  { return s.in.read(p) }
func (s *fakeStream) Write(p []byte) (int, error) { return s.out.write(p) }
func (s *fakeStream) CloseWrite() error           { s.out.end(io.EOF, net.ErrClosed, false); return nil }
func (s *fakeStream) CloseRead() error            { s.in.end(net.ErrClosed, errReset, true); return nil }
func (s *fakeStream) Close() error                { _ = s.CloseWrite(); return s.CloseRead() }

func (s *fakeStream) Abort(uint64) error {
	s.out.end(errReset, net.ErrClosed, true)
	s.in.end(net.ErrClosed, errReset, true)
	return nil
}

// fakeMesh is a mesh of one node.
type fakeMesh struct {
	mu       sync.Mutex
	services map[string]*fakeListener
}

type fakeListener struct {
	name   string
	tags   map[string]string
	accept chan Stream
	closed chan struct{}
	once   sync.Once
}

func newFakeMesh() *fakeMesh { return &fakeMesh{services: map[string]*fakeListener{}} }

func (m *fakeMesh) ListenStream(service string, tags map[string]string) (Listener, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.services[service] != nil {
		return nil, fmt.Errorf("service %s is already listening", service)
	}
	l := &fakeListener{name: service, tags: tags, accept: make(chan Stream), closed: make(chan struct{})}
	m.services[service] = l
	return l, nil
}

func (m *fakeMesh) DialStream(ctx context.Context, _ wire.NodeID, service string) (Stream, error) {
	m.mu.Lock()
	l := m.services[service]
	m.mu.Unlock()
	if l == nil {
		return nil, errors.New("service unknown")
	}
	near, far := fakePair()
	select {
	case l.accept <- far:
		return near, nil
	case <-l.closed:
		return nil, errors.New("service unknown")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *fakeListener) Accept() (Stream, error) {
	select {
	case s := <-l.accept:
		return s, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *fakeListener) Close() error { l.once.Do(func() { close(l.closed) }); return nil }

// tcpPair returns both ends of a TCP connection.
func tcpPair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{c, s} {
		_ = c.SetDeadline(time.Now().Add(time.Minute)) // A hang becomes a failure.
		t.Cleanup(func() { _ = c.Close() })
	}
	return c.(*net.TCPConn), s.(*net.TCPConn)
}
