package link

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/wire"
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

// TestUDPMessagesStayApart: messages that pass the kernel together are one datagram each, in order, to peers that know
// nothing of that, and so are theirs and ours to us; also where the kernel refuses to take them together.
func TestUDPMessagesStayApart(t *testing.T) {
	draw := rand.New(rand.NewPCG(1, 2))
	var messages []string
	for i := range 200 { // Runs of one size, some with a shorter end, and sizes that change all the time.
		size := []int{1, 36, 1200, 1488, 9000, 40000, MaxUDPMessage}[draw.IntN(7)]
		for range 1 + draw.IntN(1+min(100, 200_000/size)) {
			messages = append(messages, strings.Repeat(string(rune('a'+i%26)), size))
		}
		if i%3 == 0 {
			messages = append(messages, strings.Repeat("e", 1+draw.IntN(size)))
		}
	}
	for _, refused := range []bool{false, true} {
		t.Run(fmt.Sprintf("refused %v", refused), func(t *testing.T) {
			noLeaks(t)
			l := listenUDP(t, "127.0.0.1:0")
			near, err := DialUDP(l.Addr()).Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer near.Close()
			plain := udpSocket(t, l.Addr())
			enlargeBuffers(plain.(*net.UDPConn))
			if _, err := plain.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			toPlain, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			read(t, toPlain, 1)
			write(t, near, "hello")
			toNear, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			read(t, toNear, 1)
			if refused { // The kernel does not split what it is to send without a checksum.
				for _, c := range []*net.UDPConn{l.conn, near.(*udpConn).conn} {
					raw, err := c.SyscallConn()
					if err != nil {
						t.Fatal(err)
					}
					err = raw.Control(func(fd uintptr) {
						if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
							t.Error(err)
						}
					})
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			fromLink := func(c Conn) func(n int) []string { return func(n int) []string { return read(t, c, n) } }
			buf := make([]byte, slotSize)
			for _, way := range []struct {
				name    string
				from    Conn
				receive func(n int) []string
			}{
				{"dialer to listener", near, fromLink(toNear)},
				{"listener to dialer", toNear, fromLink(near)},
				{"listener to another program", toPlain, func(n int) (got []string) {
					for range n {
						size, err := plain.Read(buf)
						if err != nil {
							t.Fatal(err)
						}
						got = append(got, string(buf[:size]))
					}
					return got
				}},
			} {
				for rest := messages; len(rest) > 0; {
					var batch wire.Batch
					n := 0
					for ; n < len(rest) && n < 100 && len(batch) < 100<<10; n++ { // What the buffers of the sockets hold.
						batch, _ = wire.AppendFrame(batch, []byte(rest[n]))
					}
					if err := way.from.WriteBatch(batch); err != nil {
						t.Fatal(err)
					}
					for i, got := range way.receive(n) {
						if got != rest[i] {
							t.Fatalf("%s: message %d has %d bytes, want the %d that were sent", way.name, i, len(got), len(rest[i]))
						}
					}
					rest = rest[n:]
				}
			}
			out := near.(*udpConn).out
			if refused != (out.whole < MaxUDPMessage) {
				t.Errorf("datagrams of %d bytes and more travel alone; the kernel refuses: %v", out.whole, refused)
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
