package link

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/fault"
)

// buggyListener makes connections that panic over what they read while armed.
type buggyListener struct {
	net.Listener
	armed *atomic.Bool
}

func (l buggyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return buggyConn{c, l.armed}, err
}

type buggyConn struct {
	net.Conn
	armed *atomic.Bool
}

func (c buggyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.armed.Load() {
		panic("a bug")
	}
	return n, err
}

func isFault(err error) bool {
	_, ok := errors.AsType[*fault.Error](err)
	return ok
}

// TestABugEndsOneHandshake: it is a failure of that handshake, and the next one succeeds.
func TestABugEndsOneHandshake(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	armed := new(atomic.Bool)
	server, client := testTLS(t)
	l := ServeTCP(buggyListener{tcp, armed}, server)
	defer l.Close()
	armed.Store(true)
	if c, err := DialTLS(l.Addr(), client).Dial(t.Context()); err == nil {
		_ = c.Close()
		t.Error("a handshake succeeded over a connection that panics")
	}
	if _, err := l.Accept(); !isFault(err) || !strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("Accept said %v, want the fault and the peer", err)
	}
	armed.Store(false)
	near, err := DialTLS(l.Addr(), client).Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = far.Close()
}

// TestABugEndsOneWebSocket: the link ends for its reader, with the fault.
func TestABugEndsOneWebSocket(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	armed := new(atomic.Bool)
	l, err := ServeWebSocket(buggyListener{tcp, armed}, "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d, err := DialWebSocket("ws://"+l.Addr(), WebSocketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	near, err := d.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	armed.Store(true)
	if err := near.WriteBatch(frames("find it")); err != nil {
		t.Fatal(err)
	}
	if _, err := far.ReadBatch(); !isFault(err) {
		t.Errorf("the reader got %v, want the fault", err)
	}
	_ = far.Close()
	if _, err := near.ReadBatch(); err == nil {
		t.Error("the other end is still linked")
	}
}

// TestABugEndsOneUDPSession: of several peers of a listener.
func TestABugEndsOneUDPSession(t *testing.T) {
	l := listenUDP(t, "127.0.0.1:0")
	var sessions []*udpSession
	var peers []io.Writer
	for range 2 {
		raw := udpSocket(t, l.Addr())
		peers = append(peers, raw)
		if _, err := raw.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		read(t, s, 1)
		sessions = append(sessions, s.(*udpSession))
	}
	l.deliver(0, sessions[0].peer, []byte("x"), -1) // No run has such a size.
	if _, err := sessions[0].ReadBatch(); !isFault(err) {
		t.Errorf("the reader got %v, want the fault", err)
	}
	if _, err := peers[1].Write([]byte("still here")); err != nil {
		t.Fatal(err)
	}
	if got := read(t, sessions[1], 1); got[0] != "still here" {
		t.Errorf("the other peer's message came as %q", got)
	}
}
