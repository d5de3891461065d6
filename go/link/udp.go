package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

const (
	// MaxUDPMessage is the largest message that a UDP link carries, in bytes.
	MaxUDPMessage = 65507

	udpSocketBuffer = 4 << 20 // Asked of the system, which may grant less.
	maxSessions     = 4096    // Of one listener: peers that have answered.
	maxNewSessions  = 128     // And those that have not.
	sessionInbox    = 1 << 20 // Bytes that one session may hold unread; more is lost, as in a socket.
	listenerInbox   = 64 << 20
	udpPause        = 10 * time.Millisecond
)

// TooLargeError is what WriteBatch returns after it has left out messages that are too large for the transport and sent
// the others. The link is as good as before.
type TooLargeError struct {
	Messages int // How many.
	Limit    int // Bytes that one may have, at most; the network may allow less.
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%d messages too large for a link of %d bytes per message", e.Messages, e.Limit)
}

// tooLarge is nil for no messages.
func tooLarge(messages int) error {
	if messages == 0 {
		return nil
	}
	return &TooLargeError{Messages: messages, Limit: MaxUDPMessage}
}

var errEvicted = errors.New("given up for newer sessions: no answer yet, and too many strangers at a time")

type udpDialer struct{ address string }

// DialUDP makes UDP links to address, host:port: one datagram per message, no length in front, at most [MaxUDPMessage]
// bytes. Every link has a socket of its own. Dial fails only if the name cannot be resolved; that nobody listens shows
// as an error of the first read, if the peer's system says so.
func DialUDP(address string) Dialer { return udpDialer{address} }

func (d udpDialer) String() string { return "udp " + d.address }

func (d udpDialer) Dial(ctx context.Context) (Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "udp", d.address)
	if err != nil {
		return nil, err
	}
	c, err := newUDPConn(conn.(*net.UDPConn))
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

// udpConn is the dialer's end: a connected socket.
type udpConn struct {
	conn *net.UDPConn
	name string
	in   *udpReceiver
	out  *udpSender

	next, have int // The runs of the last receive that are still to be handed out.
	batch      wire.Batch
	once       sync.Once
	err        error // Of closing.
}

func newUDPConn(conn *net.UDPConn) (*udpConn, error) {
	enlargeBuffers(conn)
	in, err := newUDPReceiver(conn)
	if err != nil {
		return nil, err
	}
	out, err := newUDPSender(conn)
	if err != nil {
		return nil, err
	}
	return &udpConn{conn: conn, in: in, out: out, name: fmt.Sprintf("udp %s->%s", conn.LocalAddr(), conn.RemoteAddr())}, nil
}

// enlargeBuffers makes room for a burst: nothing slows the peer down, and what does not fit is lost.
func enlargeBuffers(conn *net.UDPConn) {
	_ = conn.SetReadBuffer(udpSocketBuffer)
	_ = conn.SetWriteBuffer(udpSocketBuffer)
}

func (c *udpConn) String() string { return c.name }

func (c *udpConn) ReadBatch() (wire.Batch, error) {
	c.batch = c.batch[:0]
	for len(c.batch) == 0 { // Empty datagrams are no messages.
		if c.next == c.have {
			c.batch = shrunk(c.batch)
			n, err := c.in.receive()
			if c.next, c.have = 0, n; err != nil {
				return nil, udpError(err)
			}
		}
		for ; c.next < c.have && len(c.batch) < maxReadBuffer; c.next++ {
			_, run, size := c.in.run(c.next)
			for len(run) > 0 {
				msg := run[:min(size, len(run))]
				run = run[len(msg):]
				c.batch, _ = wire.AppendFrame(roomFor(c.batch, wire.FrameOverhead+len(msg)), msg)
			}
		}
	}
	return c.batch, nil
}

func (c *udpConn) WriteBatch(parts ...wire.Batch) error { return udpError(c.out.send(nil, parts)) }

func (c *udpConn) Close() error {
	c.once.Do(func() { c.err = c.conn.Close() })
	return c.err
}

func udpError(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return ErrClosed
	}
	return err
}

// udpListener shares one socket between the sessions of all peers, told apart by their address.
type udpListener struct {
	conn     *net.UDPConn
	in       *udpReceiver
	accepted chan *udpSession

	mu       sync.Mutex
	sessions map[endpoint]*udpSession
	known    int // Sessions that have answered.
	closed   bool
	young    newest[*udpSession] // The others.

	held   atomic.Int64 // Bytes in all inboxes.
	done   chan struct{}
	broken chan struct{} // Closed when nothing is received any more, since
	fault  error         // a bug was found.
	once   sync.Once
	wg     sync.WaitGroup
	err    error // Of closing.
}

// ListenUDP accepts UDP links on address, host:port. The first datagram from an unknown address opens a session, which
// is a link like any other. A session ends when the peer's system says (by ICMP) that nobody listens there any more; a
// firewall may keep that to itself. Close ends the sessions with the listener. On a listener for all addresses of the
// host a session answers from the address that its first datagram came to.
//
// Sender addresses can be forged. So a session is on probation until its address has sent something after this end had
// sent something, which a peer does within one round trip. 128 sessions may be on probation: the oldest is given up
// for the next. Beyond 4096 others, new ones stay on probation. Unread messages may take 1 MiB per session and 64 MiB
// in all; more are lost.
func ListenUDP(address string) (Listener, error) {
	addr, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return nil, err
	}
	conn, err := net.ListenUDP("udp", addr)
	if err != nil {
		return nil, err
	}
	return ServeUDP(conn)
}

// ServeUDP accepts UDP links on a socket that somebody else has opened; it owns conn from then on.
func ServeUDP(conn *net.UDPConn) (Listener, error) {
	enlargeBuffers(conn)
	in, err := newUDPReceiver(conn)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	in.serve(conn)
	l := &udpListener{
		conn: conn, in: in, accepted: make(chan *udpSession, maxNewSessions),
		sessions: map[endpoint]*udpSession{}, young: newest[*udpSession]{limit: maxNewSessions},
		done: make(chan struct{}), broken: make(chan struct{}),
	}
	l.wg.Go(l.receive)
	return l, nil
}

func (l *udpListener) Addr() string { return l.conn.LocalAddr().String() }

func (l *udpListener) Accept() (Conn, error) {
	for {
		select {
		case s := <-l.accepted:
			if !s.gone.Load() {
				return s, nil
			}
			_ = s.Close() // Given up before anybody saw it.
		case <-l.broken:
			return nil, l.fault
		case <-l.done:
			return nil, fmt.Errorf("udp listener %s: %w", l.Addr(), ErrClosed)
		}
	}
}

func (l *udpListener) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.err = l.conn.Close()
		l.wg.Wait()
		l.endAll(ErrClosed)
	})
	return l.err
}

func (l *udpListener) endAll(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, s := range l.sessions {
		s.in.close(cause)
	}
	clear(l.sessions)
}

// receive hands every datagram to its session. A bug found over one is the end of all of them.
func (l *udpListener) receive() {
	defer fault.Catch(func(e *fault.Error) {
		l.fault = fmt.Errorf("udp listener %s: %w", l.Addr(), e)
		close(l.broken)
		l.endAll(l.fault)
	})
	for {
		n, err := l.in.receive()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // Out of memory, or about a datagram of some session: the others go on.
			select {
			case <-time.After(udpPause):
			case <-l.done:
				return
			}
			continue
		}
		for _, peer := range l.in.refused {
			l.fail(peer, syscall.ECONNREFUSED) // Its system says that nobody listens there any more.
		}
		for i := range n {
			if from, run, size := l.in.run(i); len(run) > 0 {
				l.deliver(i, from, run, size)
			}
		}
	}
}

// fail ends the session of a peer, if there is one.
func (l *udpListener) fail(peer endpoint, cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.sessions[peer]; s != nil {
		l.endLocked(s, cause)
	}
}

// deliver hands run i of the last receive, datagrams of size bytes, to its session.
func (l *udpListener) deliver(i int, from endpoint, run []byte, size int) {
	s := l.session(i, from)
	if s == nil || l.held.Load() > listenerInbox {
		return
	}
	defer fault.Catch(func(e *fault.Error) { l.fail(from, e) })
	l.held.Add(int64(s.in.offer(run, size)))
}

// session is that of the sender of run i, a new one if need be.
func (l *udpListener) session(i int, from endpoint) *udpSession {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sessions[from]
	if s == nil {
		return l.openLocked(from, l.in.local(i))
	}
	if !s.known && s.wrote.Load() && l.known < maxSessions {
		s.known = true
		l.known++
		l.young.remove(s)
	}
	return s
}

// openLocked starts a session; nil if Accept is too far behind.
func (l *udpListener) openLocked(from endpoint, local source) *udpSession {
	out, err := newUDPSender(l.conn)
	if err != nil {
		return nil
	}
	out.from = local
	s := &udpSession{
		listener: l, peer: from, out: out, in: newLane(sessionInbox),
		name: fmt.Sprintf("udp %s->%s", l.conn.LocalAddr(), from),
	}
	select {
	case l.accepted <- s:
	default:
		return nil
	}
	l.sessions[from] = s
	if old, full := l.young.add(s); full {
		l.endLocked(old, errEvicted)
	}
	return s
}

// endLocked takes a session out: the next datagram from its address opens a new one.
func (l *udpListener) endLocked(s *udpSession, cause error) {
	s.gone.Store(true)
	s.in.close(cause)
	if l.sessions[s.peer] != s {
		return
	}
	delete(l.sessions, s.peer)
	if s.known {
		l.known--
	}
}

// udpSession is the listener's end of one link.
type udpSession struct {
	listener *udpListener
	peer     endpoint
	name     string
	in       *lane
	out      *udpSender

	last  wire.Batch
	wrote atomic.Bool
	gone  atomic.Bool
	known bool // The peer has answered. Guarded by listener.mu.
}

func (s *udpSession) String() string { return s.name }

func (s *udpSession) ReadBatch() (wire.Batch, error) {
	got, err := s.in.read(s.last)
	s.listener.held.Add(-int64(len(got)))
	s.last = got
	return got, err
}

func (s *udpSession) WriteBatch(parts ...wire.Batch) error {
	if s.gone.Load() {
		return ErrClosed
	}
	s.wrote.Store(true)
	return udpError(s.out.send(&s.peer, parts))
}

func (s *udpSession) Close() error {
	s.listener.mu.Lock()
	s.listener.endLocked(s, ErrClosed)
	s.listener.mu.Unlock()
	s.listener.young.remove(s)
	s.listener.held.Add(-int64(s.in.discard()))
	return nil
}
