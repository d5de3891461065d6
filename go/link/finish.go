package link

import (
	"crypto/tls"
	"io"
	"net"
	"time"
)

// maxUnread is how many bytes of the peer [Finish] throws away.
const maxUnread = 8 << 20

// Finish is Close for a connection whose peer is to read what was written last. A TCP connection that is closed while bytes
// of the peer are unread, or on their way, is reset, and the peer may find that before the last words. So this end says that it
// has said everything and throws away what still comes, until the peer closes, for as long as wait at most. It does not
// return before; Close ends it.
func Finish(c Conn, wait time.Duration) error {
	var below net.Conn
	switch c := c.(type) {
	case *streamConn:
		below = c.conn
	case *webSocketConn:
		below = c.conn
	}
	if half, ok := halfOf(below); ok && half.SetReadDeadline(time.Now().Add(wait)) == nil && half.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, half, maxUnread)
	}
	return c.Close()
}

// halfConn is a connection whose directions end one by one.
type halfConn interface {
	net.Conn
	CloseWrite() error
}

// halfOf is the socket below conn, if there is one.
func halfOf(conn net.Conn) (halfConn, bool) {
	for {
		switch c := conn.(type) {
		case *tls.Conn: // Its own way to end one direction waits for a peer that does not read.
			conn = c.NetConn()
		case *recordConn:
			conn = c.Conn
		case *cappedConn:
			conn = c.Conn
		default:
			half, ok := conn.(halfConn)
			return half, ok
		}
	}
}
