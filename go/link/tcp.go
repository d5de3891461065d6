package link

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"

	"github.com/pyreceptor/pyreceptor/go/socket"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

const (
	minReadBuffer = 8 << 10   // An idle link holds this much.
	maxReadBuffer = 128 << 10 // A busy one up to this; both half and twice cost more when measured.
	bulkRead      = 16 << 10  // A read of so much is one of many.
)

// streamConn frames messages on a byte stream.
type streamConn struct {
	conn net.Conn
	tls  *recordConn // Below conn, if that is TLS of this package.
	name string

	buf        []byte // Received bytes are buf[start:end]; buf[:start] was handed out by the last ReadBatch.
	start, end int
	bulk       bool  // The last read over TLS was a large one.
	err        error // Of the last read, reported once the whole messages before it are out.

	parts   [][]byte    // Scratch of WriteBatch.
	sending net.Buffers // The unsent rest of it; a field because WriteTo would move a variable to the heap.

	once     sync.Once
	closeErr error
}

// NewStream carries messages over a byte stream that the caller has set up, framed as on TCP links. The returned Conn
// owns conn. kind names the transport in logs.
func NewStream(conn net.Conn, kind string) Conn {
	c := &streamConn{
		conn: socket.Direct(conn),
		name: fmt.Sprintf("%s %s->%s", kind, conn.LocalAddr(), conn.RemoteAddr()),
		buf:  make([]byte, minReadBuffer),
	}
	if secure, ok := conn.(*tls.Conn); ok {
		c.tls, _ = secure.NetConn().(*recordConn)
	}
	return c
}

func (c *streamConn) String() string { return c.name }

func (c *streamConn) ReadBatch() (wire.Batch, error) {
	c.compact()
	for {
		if n := wire.Batch(c.buf[:c.end]).Whole(); n > 0 {
			c.start = n
			return wire.Batch(c.buf[:n]), nil
		}
		if c.err != nil {
			return nil, c.err
		}
		if c.end == len(c.buf) {
			c.grow()
		}
		if c.bulk {
			runtime.Gosched() // Meanwhile more arrives: a tenth more gets through a relay.
		}
		n, err := c.conn.Read(c.buf[c.end:])
		c.end += n
		c.bulk = c.tls != nil && n >= bulkRead
		if err == nil && c.tls != nil {
			err = c.readRecords()
		}
		c.err = c.readError(err)
	}
}

// readRecords decrypts what has arrived besides, as far as it fits.
func (c *streamConn) readRecords() error {
	c.tls.eager = true
	defer func() { c.tls.eager = false }()
	for c.end < len(c.buf) {
		n, err := c.conn.Read(c.buf[c.end:])
		c.end += n
		if errors.Is(err, nothingYet{}) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// compact moves the unfinished message to the front, and grows the buffer if the last read filled it: more is waiting.
func (c *streamConn) compact() {
	full := c.end == len(c.buf)
	c.end = copy(c.buf, c.buf[c.start:c.end])
	c.start = 0
	if full && len(c.buf) < maxReadBuffer {
		c.grow()
	}
}

func (c *streamConn) grow() {
	bigger := make([]byte, min(max(2*len(c.buf), 64<<10), maxReadBuffer))
	copy(bigger, c.buf[:c.end])
	c.buf = bigger
}

func (c *streamConn) readError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, net.ErrClosed):
		return ErrClosed
	case errors.Is(err, io.EOF) && c.end > 0 && wire.Batch(c.buf[:c.end]).Whole() < c.end:
		return io.ErrUnexpectedEOF
	default:
		return explained(err)
	}
}

func (c *streamConn) WriteBatch(parts ...wire.Batch) error {
	bufs := c.parts[:0]
	for _, p := range parts {
		if len(p) > 0 {
			bufs = append(bufs, p)
		}
	}
	c.parts, c.sending = bufs, bufs
	if c.tls != nil {
		c.tls.cork()
	}
	_, err := c.sending.WriteTo(c.conn)
	if c.tls != nil {
		err = cmp.Or(c.tls.uncork(), err)
	}
	if errors.Is(err, net.ErrClosed) {
		return ErrClosed
	}
	return err
}

func (c *streamConn) Close() error {
	c.once.Do(func() { c.closeErr = hangUp(c.conn) })
	return c.closeErr
}

// hangUp closes the connection below TLS, if there is TLS: saying goodbye in TLS waits for a peer that does not read.
// The messages are framed and their order is the protocol's business, so a cut is no attack that TLS would notice.
func hangUp(conn net.Conn) error {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	return conn.Close()
}

type tcpDialer struct{ address string }

// DialTCP makes TCP links to address, host:port. Names are resolved at every dial.
func DialTCP(address string) Dialer { return tcpDialer{address} }

func (d tcpDialer) String() string { return "tcp " + d.address }

func (d tcpDialer) Dial(ctx context.Context) (Conn, error) {
	conn, err := socket.Dialer().DialContext(ctx, "tcp", d.address)
	if err != nil {
		return nil, err
	}
	return NewStream(conn, "tcp"), nil
}

type tcpListener struct {
	net.Listener
	once sync.Once
	err  error // Of closing.
}

// ListenTCP accepts TCP links on address, host:port; port 0 takes any free one.
func ListenTCP(address string) (Listener, error) {
	l, err := socket.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	return &tcpListener{Listener: l}, nil
}

// ServeTCP accepts TCP links on a listener that somebody else has opened; it owns l from then on. conf is for links over
// TLS, nil for plain ones.
func ServeTCP(l net.Listener, conf *tls.Config) Listener {
	if conf != nil {
		return tlsListener{newTLSAcceptor(l, conf)}
	}
	return &tcpListener{Listener: l}
}

func (l *tcpListener) Addr() string { return l.Listener.Addr().String() }

func (l *tcpListener) Accept() (Conn, error) {
	conn, err := l.Listener.Accept()
	if errors.Is(err, net.ErrClosed) {
		return nil, fmt.Errorf("tcp listener %s: %w", l.Addr(), ErrClosed)
	}
	if err != nil {
		return nil, err
	}
	return NewStream(conn, "tcp"), nil
}

func (l *tcpListener) Close() error {
	l.once.Do(func() { l.err = l.Listener.Close() })
	return l.err
}
