package socket

import (
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// congestion is the algorithm of congestion control that a connection uses.
func congestion(t *testing.T, conn net.Conn) (name string) {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		name, failed = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	}); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	return name
}

// dialled is both ends of a connection to a listener.
func dialled(t *testing.T, l net.Listener, address string) (near, far net.Conn) {
	t.Helper()
	near, err := Dialer().DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = near.Close() })
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Close() })
	return near, far
}

// TestNothingIsPacedOnThisMachine looks at both ends of connections over loopback, and at what is for the network.
func TestNothingIsPacedOnThisMachine(t *testing.T) {
	one, other := connected(t, "tcp", "127.0.0.1:0") // As the machine has it.
	usual := congestion(t, one)
	if got := congestion(t, other); got != usual {
		t.Fatalf("one end uses %s, the other %s", got, usual)
	}
	want := usual
	if strings.HasPrefix(usual, "bbr") {
		want = "reno"
	}
	for _, at := range []string{"127.0.0.1:0", "[::1]:0", "localhost:0", "[::ffff:127.0.0.1]:0"} {
		l, err := Listen("tcp", at)
		if err != nil && strings.Contains(at, "::") {
			t.Logf("%s: %v", at, err) // No IPv6 here.
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		near, far := dialled(t, l, l.Addr().String())
		if got := [2]string{congestion(t, near), congestion(t, far)}; got != [2]string{want, want} {
			t.Errorf("%s: the ends use %v, want %s (the machine's is %s)", at, got, want, usual)
		}
	}
	everywhere, err := Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer everywhere.Close()
	_, port, err := net.SplitHostPort(everywhere.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, far := dialled(t, everywhere, net.JoinHostPort("127.0.0.1", port))
	if got := [2]string{congestion(t, near), congestion(t, far)}; got != [2]string{want, usual} {
		t.Errorf("with a listener for the network too, the ends use %v, want %s and %s", got, want, usual)
	}
}
