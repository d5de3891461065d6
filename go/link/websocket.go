package link

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"

	"github.com/gorilla/websocket"

	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

const (
	webSocketInbox  = 256 << 10 // Bytes that may wait to be read; then the peer has to wait.
	webSocketBuffer = 64 << 10  // Of the socket.
	maxWriteBuffer  = 256 << 10 // Bytes per system call.
	maxFrameHeader  = 14
)

// webSocketConn carries one message per WebSocket message. Reading is gorilla's, in a goroutine that collects what has
// arrived; writing is done here, many frames per system call.
type webSocketConn struct {
	ws     *websocket.Conn
	conn   net.Conn // Below ws.
	name   string
	client bool // Clients mask what they send.

	in   *lane
	last wire.Batch

	once     sync.Once
	wg       sync.WaitGroup
	closeErr error
}

func newWebSocketConn(ws *websocket.Conn, client bool) *webSocketConn {
	c := &webSocketConn{ws: ws, conn: ws.NetConn(), client: client, in: newLane(webSocketInbox)}
	kind := "ws"
	if _, ok := c.conn.(*tls.Conn); ok {
		kind = "wss"
	}
	c.name = fmt.Sprintf("%s %s->%s", kind, c.conn.LocalAddr(), c.conn.RemoteAddr())
	ws.SetReadLimit(wire.MaxMessage)
	ws.SetPingHandler(c.pong)
	c.wg.Go(func() { c.in.close(c.readError(c.read())) })
	return c
}

func (c *webSocketConn) String() string { return c.name }

// read passes messages on until the connection ends; text is as good as binary.
func (c *webSocketConn) read() (err error) {
	defer fault.Into(&err)
	frame := make([]byte, wire.FrameOverhead, wire.FrameOverhead+512)
	for {
		_, r, err := c.ws.NextReader()
		if err != nil {
			return err
		}
		if frame, err = readAll(frame[:wire.FrameOverhead], r); err != nil {
			return err
		}
		if len(frame) == wire.FrameOverhead {
			continue // Empty messages crash existing nodes and mean nothing.
		}
		binary.LittleEndian.PutUint16(frame, uint16(len(frame)-wire.FrameOverhead))
		if err := c.in.write(frame); err != nil {
			return err
		}
	}
}

// readAll appends what r has, which gorilla's read limit bounds.
func readAll(b []byte, r io.Reader) ([]byte, error) {
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if errors.Is(err, io.EOF) {
			return b, nil
		}
		if err != nil {
			return b, err
		}
	}
}

func (c *webSocketConn) readError(err error) error {
	var closed *websocket.CloseError
	switch {
	case errors.Is(err, websocket.ErrReadLimit):
		return fmt.Errorf("the peer sent a message of more than %d bytes", wire.MaxMessage)
	case errors.Is(err, net.ErrClosed) || errors.Is(err, ErrClosed):
		return ErrClosed
	case errors.As(err, &closed) && (closed.Code == websocket.CloseNormalClosure || closed.Code == websocket.CloseGoingAway ||
		closed.Code == websocket.CloseNoStatusReceived || closed.Code == websocket.CloseAbnormalClosure):
		return io.EOF // The last one stands for a connection that just ended, which is how Receptor ends them.
	}
	return explained(err)
}

func (c *webSocketConn) ReadBatch() (wire.Batch, error) {
	got, err := c.in.read(c.last)
	c.last = got
	return got, err
}

// pong answers a ping. Like everything that is written here it is whole frames in one Write, which the connection does
// not mix with others.
func (c *webSocketConn) pong(payload string) error {
	_, err := c.conn.Write(c.appendFrame(nil, websocket.PongMessage, []byte(payload)))
	return err
}

var writeBuffers = sync.Pool{New: func() any { b := make([]byte, 0, maxWriteBuffer); return &b }}

func (c *webSocketConn) WriteBatch(parts ...wire.Batch) error {
	buf := writeBuffers.Get().(*[]byte)
	defer writeBuffers.Put(buf)
	out := (*buf)[:0]
	for _, b := range parts {
		for msg, rest, ok := b.Next(); ok; msg, rest, ok = rest.Next() {
			if len(msg) == 0 {
				continue
			}
			if len(out)+maxFrameHeader+len(msg) > cap(out) {
				if err := c.flush(out); err != nil {
					return err
				}
				out = out[:0]
			}
			out = c.appendFrame(out, websocket.BinaryMessage, msg)
		}
	}
	return c.flush(out)
}

func (c *webSocketConn) flush(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	_, err := c.conn.Write(b)
	if errors.Is(err, net.ErrClosed) {
		return ErrClosed
	}
	return err
}

// appendFrame appends an unfragmented frame (RFC 6455, section 5.2).
func (c *webSocketConn) appendFrame(out []byte, opcode byte, payload []byte) []byte {
	const final, masked = 0x80, 0x80
	var mask byte
	if c.client {
		mask = masked
	}
	out = append(out, final|opcode)
	switch n := len(payload); {
	case n < 126:
		out = append(out, mask|byte(n))
	case n <= 0xffff:
		out = binary.BigEndian.AppendUint16(append(out, mask|126), uint16(n))
	default:
		out = binary.BigEndian.AppendUint64(append(out, mask|127), uint64(n))
	}
	if !c.client {
		return append(out, payload...)
	}
	key := rand.Uint32()
	out = binary.LittleEndian.AppendUint32(out, key)
	start := len(out)
	out = append(out, payload...)
	maskBytes(out[start:], key)
	return out
}

// maskBytes applies a key, whose bytes in the order of the wire are those of a little-endian integer.
func maskBytes(b []byte, key uint32) {
	wide := uint64(key)<<32 | uint64(key)
	for ; len(b) >= 8; b = b[8:] {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^wide)
	}
	for i := range b {
		b[i] ^= byte(key >> (8 * (i % 4)))
	}
}

// Close drops the connection without a closing frame, as existing nodes do.
func (c *webSocketConn) Close() error {
	c.once.Do(func() {
		c.closeErr = hangUp(c.conn)
		c.in.close(ErrClosed)
		c.wg.Wait()
	})
	return c.closeErr
}
