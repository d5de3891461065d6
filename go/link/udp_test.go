package link

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

func udpSocket(t *testing.T, to string) net.Conn {
	t.Helper()
	c, err := net.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetReadDeadline(time.Now().Add(hang))
	return c
}

func listenUDP(t *testing.T, address string) *udpListener {
	t.Helper()
	l, err := ListenUDP(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.(*udpListener)
}

func TestUDPDatagramIsMessage(t *testing.T) {
	for _, bind := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::1]:0"} {
		noLeaks(t)
		l, err := ListenUDP(bind)
		if err != nil && strings.HasPrefix(bind, "[") {
			t.Skip("no IPv6 here")
		}
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(l.Addr())
		host := map[bool]string{true: "::1", false: "127.0.0.1"}[strings.HasPrefix(bind, "[")]
		raw := udpSocket(t, net.JoinHostPort(host, port))
		for _, m := range []string{"", "hello", "", "again"} {
			if _, err := raw.Write([]byte(m)); err != nil {
				t.Fatal(err)
			}
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, s, 2); got[0] != "hello" || got[1] != "again" {
			t.Errorf("%s: got %q, want the two that are not empty", bind, got)
		}
		if want := raw.LocalAddr().String(); !strings.HasSuffix(s.String(), "->"+want) {
			t.Errorf("the session is called %s, want the peer's address %s in it", s, want)
		}
		if err := s.WriteBatch(frames("one", "two")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		for _, want := range []string{"one", "two"} {
			if n, err := raw.Read(buf); err != nil || string(buf[:n]) != want {
				t.Errorf("the peer got %q, %v; want %s", buf[:n], err, want)
			}
		}
		_ = l.Close()
	}
}

func TestUDPTooLarge(t *testing.T) {
	tr := transports(t)[2]
	near, far := tr.link(t)
	large := frames(strings.Repeat("x", MaxUDPMessage+1))
	for _, pair := range [][2]Conn{{near, far}, {far, near}} {
		err := pair[0].WriteBatch(frames("before"), append(large, large...), frames("after"))
		tooLarge, ok := errors.AsType[*TooLargeError](err)
		if !ok || tooLarge.Messages != 2 {
			t.Errorf("got %v, want two messages reported", err)
		}
		if got := read(t, pair[1], 2); got[0] != "before" || got[1] != "after" {
			t.Errorf("got %q, want the messages around", got)
		}
	}
}

// A closed port ends the link of a dialer, so that it dials again.
func TestUDPRefused(t *testing.T) {
	gone := udpSocket(t, "127.0.0.1:9")
	address := gone.LocalAddr().String()
	_ = gone.Close()
	c, err := DialUDP(address).Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.WriteBatch(frames("anybody?")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ReadBatch(); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v, want connection refused", err)
	}
}

func TestUDPNameThatDoesNotResolveFailsTheDial(t *testing.T) {
	if _, err := DialUDP("no-such-host.invalid:1").Dial(t.Context()); err == nil {
		t.Error("dial succeeded")
	}
}

// A session that is closed starts anew with the next datagram from its address.
func TestUDPSessionStartsAnew(t *testing.T) {
	l := listenUDP(t, "127.0.0.1:0")
	raw := udpSocket(t, l.Addr())
	for _, m := range []string{"first", "second"} {
		if _, err := raw.Write([]byte(m)); err != nil {
			t.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, s, 1); got[0] != m {
			t.Errorf("got %q, want %s", got, m)
		}
		_ = s.Close()
	}
}

// Strangers push each other out, never those who have answered.
func TestUDPStrangersAreBounded(t *testing.T) {
	l := listenUDP(t, "127.0.0.1:0")
	raw := udpSocket(t, l.Addr())
	_, _ = raw.Write([]byte("honest"))
	friend, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := friend.WriteBatch(frames("and you?")); err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	_, _ = raw.Write([]byte("me too"))
	if got := read(t, friend, 2); got[1] != "me too" {
		t.Fatalf("got %q", got)
	}
	var strangers []Conn
	const flood = 5 * maxNewSessions
	for i := range flood {
		l.deliver(0, sender(i), []byte("boo"), 3)
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		strangers = append(strangers, s)
	}
	l.mu.Lock()
	sessions := len(l.sessions)
	l.mu.Unlock()
	if sessions != maxNewSessions+1 {
		t.Errorf("%d sessions after %d strangers, want %d", sessions, flood, maxNewSessions+1)
	}
	for i, s := range strangers {
		batch, err := s.ReadBatch() // What came before the end is still there.
		if err == nil && i < flood-maxNewSessions {
			_, err = s.ReadBatch()
		}
		if old := i < flood-maxNewSessions; old != errors.Is(err, errEvicted) {
			t.Fatalf("stranger %d of %d: %q, %v", i, flood, batch, err)
		}
		_ = s.Close()
	}
	if _, err := raw.Write([]byte("still here")); err != nil {
		t.Fatal(err)
	}
	if got := read(t, friend, 1); got[0] != "still here" {
		t.Errorf("the friend got %q", got)
	}
	if held := l.held.Load(); held != 0 {
		t.Errorf("%d bytes are counted as unread, want 0", held)
	}
}

// A reader that does not read costs its own messages and no more memory than agreed.
func TestUDPUnreadMessagesAreBounded(t *testing.T) {
	l := listenUDP(t, "127.0.0.1:0")
	msg := make([]byte, 60000)
	const peers = 100
	for i := range peers {
		for range 2 * sessionInbox / len(msg) {
			l.deliver(0, sender(i), msg, len(msg))
		}
	}
	if held := l.held.Load(); held > listenerInbox+int64(len(msg))+wire.FrameOverhead || held < listenerInbox/2 {
		t.Errorf("%d bytes are held, want about %d", held, listenerInbox)
	}
	for range peers {
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Close()
	}
	if held := l.held.Load(); held != 0 {
		t.Errorf("%d bytes are counted as unread after all sessions are closed", held)
	}
}

func TestUDPListenerCloseEndsItsSessions(t *testing.T) {
	noLeaks(t)
	l := listenUDP(t, "127.0.0.1:0")
	raw := udpSocket(t, l.Addr())
	_, _ = raw.Write([]byte("x"))
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	read(t, s, 1)
	ended := make(chan error, 1)
	go func() { _, err := s.ReadBatch(); ended <- err }()
	_ = l.Close()
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Errorf("the session ended with %v, want ErrClosed", err)
	}
	if err := s.WriteBatch(frames("x")); !errors.Is(err, ErrClosed) {
		t.Errorf("write: %v, want ErrClosed", err)
	}
	_ = raw.Close()
}

func ExampleListenUDP() {
	l, err := ListenUDP("127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(l.Close())
	// Output: <nil>
}
