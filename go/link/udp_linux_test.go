package link

import (
	"errors"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// sender makes up the address of a peer.
func sender(i int) endpoint {
	e := endpoint{length: unix.SizeofSockaddrInet4}
	copy(e.raw[:], []byte{unix.AF_INET, 0, byte(i >> 8), byte(i), 127, 0, 0, 1})
	return e
}

// TestUDPAnswersFromTheAddressThatWasAsked: on a host with several addresses, which a connected socket insists on.
func TestUDPAnswersFromTheAddressThatWasAsked(t *testing.T) {
	for _, c := range []struct{ bind, host string }{{"0.0.0.0:0", "127.0.0.2"}, {"[::]:0", "127.0.0.2"}, {"[::]:0", "::1"}} {
		t.Run(c.bind+" "+c.host, func(t *testing.T) {
			noLeaks(t)
			l, err := ListenUDP(c.bind)
			if err != nil {
				t.Skip("no IPv6 here: ", err)
			}
			defer l.Close()
			_, port, _ := net.SplitHostPort(l.Addr())
			near, err := DialUDP(net.JoinHostPort(c.host, port)).Dial(t.Context())
			if err != nil {
				t.Skip("no IPv6 here: ", err)
			}
			defer near.Close()
			write(t, near, "question")
			far, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if got := read(t, far, 1); got[0] != "question" {
				t.Errorf("got %q", got)
			}
			write(t, far, "answer")
			if got := read(t, near, 1); got[0] != "answer" {
				t.Errorf("got %q", got)
			}
		})
	}
}

// TestUDPSessionEndsWhenItsPeerIsGone: that one of many peers has closed its socket ends its session, and only that.
func TestUDPSessionEndsWhenItsPeerIsGone(t *testing.T) {
	for _, bind := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::]:0"} {
		t.Run(bind, func(t *testing.T) {
			noLeaks(t)
			l, err := ListenUDP(bind)
			if err != nil {
				t.Skip("no IPv6 here: ", err)
			}
			defer l.Close()
			_, port, _ := net.SplitHostPort(l.Addr())
			pair := func() (near, far Conn) {
				near, err := DialUDP("127.0.0.1:" + port).Dial(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				write(t, near, "hello")
				if far, err = l.Accept(); err != nil {
					t.Fatal(err)
				}
				read(t, far, 1)
				return near, far
			}
			stays, staysFar := pair()
			defer stays.Close()
			for range 20 {
				goes, goesFar := pair()
				if err := goes.Close(); err != nil {
					t.Fatal(err)
				}
				write(t, goesFar, "anybody?")
				if _, err := goesFar.ReadBatch(); !errors.Is(err, unix.ECONNREFUSED) {
					t.Fatalf("the session of a peer that is gone ended with %v, want connection refused", err)
				}
				write(t, staysFar, "still there?")
				if got := read(t, stays, 1); got[0] != "still there?" {
					t.Errorf("got %q", got)
				}
			}
		})
	}
}

func write(t *testing.T, c Conn, msg string) {
	t.Helper()
	if err := c.WriteBatch(frames(msg)); err != nil {
		t.Fatal(err)
	}
}
