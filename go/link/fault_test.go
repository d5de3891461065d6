package link

import (
	"crypto/tls"
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

func listenLoopback(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// connects dials a listener with TLS and takes what comes.
func connects(t *testing.T, l Listener, client *tls.Config) {
	t.Helper()
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

// TestABugEndsOneHandshake: it is a failure of that handshake, and the next one succeeds.
func TestABugEndsOneHandshake(t *testing.T) {
	tcp := listenLoopback(t)
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
	connects(t, l, client)
}

// TestABugEndsOneWebSocket: the link ends for its reader, with the fault.
func TestABugEndsOneWebSocket(t *testing.T) {
	tcp := listenLoopback(t)
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

// buggyAccepts panics when it accepts while armed.
type buggyAccepts struct {
	net.Listener
	armed *atomic.Bool
}

func (l buggyAccepts) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if l.armed.Swap(false) {
		_ = c.Close()
		panic("a bug")
	}
	return c, err
}

// TestABugEndsOneAccept: it is told as any other failure to accept, and the next connection is accepted.
func TestABugEndsOneAccept(t *testing.T) {
	tcp := listenLoopback(t)
	armed := new(atomic.Bool)
	armed.Store(true)
	server, client := testTLS(t)
	l := ServeTCP(buggyAccepts{tcp, armed}, server)
	defer l.Close()
	if c, err := DialTLS(l.Addr(), client).Dial(t.Context()); err == nil {
		_ = c.Close()
		t.Error("a handshake succeeded over a connection that was not accepted")
	}
	if _, err := l.Accept(); !isFault(err) {
		t.Errorf("Accept said %v, want the fault", err)
	}
	connects(t, l, client)
}

// TestABugEndsAWebSocketListener: who accepts hears of it.
func TestABugEndsAWebSocketListener(t *testing.T) {
	armed := new(atomic.Bool)
	armed.Store(true)
	l, err := ServeWebSocket(buggyAccepts{listenLoopback(t), armed}, "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := l.Accept(); !isFault(err) {
		t.Errorf("Accept said %v, want the fault", err)
	}
}

// TestABugEndsAUDPListener: its sessions end with the fault, and who accepts hears of it.
func TestABugEndsAUDPListener(t *testing.T) {
	l, err := ListenUDP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	send := func() Conn {
		c, err := DialUDP(l.Addr()).Dial(t.Context())
		if err == nil {
			err = c.WriteBatch(frames("x"))
		}
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	defer send().Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReadBatch(); err != nil {
		t.Fatal(err)
	}
	l.(*udpListener).mu.Lock()
	l.(*udpListener).sessions = nil // No session can be made any more.
	l.(*udpListener).mu.Unlock()
	defer send().Close()
	for err = nil; err == nil; _, err = l.Accept() { // The session may be told of before it is kept.
	}
	if !isFault(err) || !strings.Contains(err.Error(), l.Addr()) {
		t.Errorf("Accept said %v, want the fault and the listener", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
