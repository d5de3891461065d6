package link

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

const hang = time.Minute

// transport is one way to carry a link.
type transport struct {
	name     string
	lossy    bool // Messages may be lost, and nothing tells that the peer closed.
	max      int  // Largest message.
	listen   func() (Listener, error)
	dialerTo func(addr string) (Dialer, error)
}

func transports(tb testing.TB) []transport {
	server, client := testTLS(tb)
	memory, made := NewMemory(), 0
	return []transport{
		{"tcp", false, wire.MaxMessage, func() (Listener, error) { return ListenTCP("127.0.0.1:0") },
			func(a string) (Dialer, error) { return DialTCP(a), nil }},
		{"tls", false, wire.MaxMessage, func() (Listener, error) { return ListenTLS("127.0.0.1:0", server) },
			func(a string) (Dialer, error) { return DialTLS(a, client), nil }},
		{"udp", true, MaxUDPMessage, func() (Listener, error) { return ListenUDP("127.0.0.1:0") },
			func(a string) (Dialer, error) { return DialUDP(a), nil }},
		{"ws", false, wire.MaxMessage, func() (Listener, error) { return ListenWebSocket("127.0.0.1:0", "/", nil) },
			func(a string) (Dialer, error) { return DialWebSocket("ws://"+a+"/x", WebSocketOptions{}) }},
		{"wss", false, wire.MaxMessage, func() (Listener, error) { return ListenWebSocket("127.0.0.1:0", "/", server) },
			func(a string) (Dialer, error) { return DialWebSocket("wss://"+a, WebSocketOptions{TLS: client}) }},
		{"memory", false, wire.MaxMessage, func() (Listener, error) { made++; return memory.Listen(fmt.Sprint(made)) },
			func(a string) (Dialer, error) { return memory.Dialer(a), nil }},
	}
}

// testTLS returns profiles of a listener for 127.0.0.1 and of a dialer that trusts it.
func testTLS(tb testing.TB) (server, client *tls.Config) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, &tls.Config{RootCAs: pool}
}

// each runs f for every transport, and asserts that nothing is left of it.
func each(t *testing.T, f func(t *testing.T, tr transport)) {
	for _, tr := range transports(t) {
		t.Run(tr.name, func(t *testing.T) {
			noLeaks(t)
			f(t, tr)
		})
	}
}

// noLeaks makes the test fail if its end, after all other clean-up, finds more goroutines or file descriptors than now.
func noLeaks(t *testing.T) {
	t.Helper()
	goroutines, fds := runtime.NumGoroutine(), openFiles()
	t.Cleanup(func() {
		deadline := time.Now().Add(hang)
		for runtime.NumGoroutine() > goroutines || openFiles() > fds {
			if time.Now().After(deadline) {
				stacks := make([]byte, 1<<20)
				t.Fatalf("%d goroutines and %d files are open, %d and %d were at the start\n%s", runtime.NumGoroutine(), openFiles(),
					goroutines, fds, stacks[:runtime.Stack(stacks, true)])
			}
			runtime.Gosched() // The runtime and net/http end theirs without telling anybody.
		}
	})
}

func openFiles() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}

// link makes a listener and one link to it. Over UDP the listener's end exists once the dialer has said something.
func (tr transport) link(tb testing.TB) (dialer, accepted Conn) {
	tb.Helper()
	l, err := tr.listen()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	dialer = tr.dial(tb, l.Addr())
	if tr.lossy {
		if err := dialer.WriteBatch(frames("knock")); err != nil {
			tb.Fatal(err)
		}
	}
	accepted = <-accepting(tb, l)
	if tr.lossy {
		if got := read(tb, accepted, 1); got[0] != "knock" {
			tb.Fatalf("the first message is %q", got)
		}
	}
	return dialer, accepted
}

func (tr transport) dial(tb testing.TB, addr string) Conn {
	tb.Helper()
	d, err := tr.dialerTo(addr)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(tb.Context(), hang)
	defer cancel()
	if tr.name == "memory" { // Dial waits for Accept.
		done := make(chan Conn, 1)
		go func() {
			c, err := d.Dial(context.WithoutCancel(ctx))
			if err != nil {
				tb.Error(err)
			}
			done <- c
		}()
		c := &lateConn{ready: done}
		tb.Cleanup(func() { _ = c.Close() })
		return c
	}
	c, err := d.Dial(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	return c
}

// lateConn is a connection that is still being made.
type lateConn struct {
	ready chan Conn
	once  sync.Once
	conn  Conn
}

func (l *lateConn) get() Conn                            { l.once.Do(func() { l.conn = <-l.ready }); return l.conn }
func (l *lateConn) ReadBatch() (wire.Batch, error)       { return l.get().ReadBatch() }
func (l *lateConn) WriteBatch(parts ...wire.Batch) error { return l.get().WriteBatch(parts...) }
func (l *lateConn) Close() error                         { return l.get().Close() }
func (l *lateConn) String() string                       { return l.get().String() }

func accepting(tb testing.TB, l Listener) <-chan Conn {
	out := make(chan Conn, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			tb.Error(err)
			close(out)
			return
		}
		tb.Cleanup(func() { _ = c.Close() })
		out <- c
	}()
	return out
}

func frames(msgs ...string) wire.Batch {
	var b wire.Batch
	for _, m := range msgs {
		b, _ = wire.AppendFrame(b, []byte(m))
	}
	return b
}

// read returns the next n messages, empty ones left out.
func read(tb testing.TB, c Conn, n int) (got []string) {
	tb.Helper()
	for len(got) < n {
		batch, err := c.ReadBatch()
		if err != nil {
			tb.Fatalf("after %d of %d messages: %v", len(got), n, err)
		}
		for msg, rest, ok := batch.Next(); ok; msg, rest, ok = rest.Next() {
			if len(msg) > 0 {
				got = append(got, string(msg))
			}
			batch = rest
		}
		if len(batch) != 0 {
			tb.Fatalf("a batch ends in the middle of a frame: %d bytes are left", len(batch))
		}
	}
	return got
}

func TestMessagesArriveWholeAndInOrder(t *testing.T) {
	each(t, func(t *testing.T, tr transport) {
		seed := mrand.Uint64()
		t.Logf("seed %d", seed)
		rng := mrand.New(mrand.NewPCG(seed, 0))
		near, far := tr.link(t)
		for _, pair := range [][2]Conn{{near, far}, {far, near}} {
			for range 20 {
				var want []string
				parts := make([]wire.Batch, 3)
				for i := range parts {
					for range rng.IntN(8) {
						size := 1 + rng.IntN(2000)
						if rng.IntN(10) == 0 {
							size = tr.max - rng.IntN(2)
						}
						msg := strings.Repeat(string(rune('a'+len(want)%26)), size)
						want = append(want, msg)
						parts[i] = append(parts[i], frames(msg)...)
					}
				}
				sent := make(chan error, 1)
				go func() { sent <- pair[0].WriteBatch(parts...) }()
				got := read(t, pair[1], len(want))
				if err := <-sent; err != nil {
					t.Fatal(err)
				}
				for i := range want {
					if got[i] != want[i] {
						t.Fatalf("message %d has %d bytes %.1q, want %d bytes %.1q", i, len(got[i]), got[i], len(want[i]), want[i])
					}
				}
			}
		}
	})
}

func TestEmptyMessagesAreSurvived(t *testing.T) {
	each(t, func(t *testing.T, tr transport) {
		near, far := tr.link(t)
		if err := near.WriteBatch(nil, wire.Batch{0, 0}, append(wire.Batch{0, 0}, frames("x")...), wire.Batch{}); err != nil {
			t.Fatal(err)
		}
		if got := read(t, far, 1); got[0] != "x" {
			t.Errorf("got %q, want x", got)
		}
	})
}

func TestCloseUnblocksReader(t *testing.T) {
	each(t, func(t *testing.T, tr transport) {
		near, far := tr.link(t)
		for _, c := range []Conn{near, far} {
			ended := make(chan error, 1)
			go func() { _, err := c.ReadBatch(); ended <- err }()
			runtime.Gosched()
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			// The first close of a pair ends both; the second end may have seen the end of its peer before its own.
			if err := <-ended; c == near && !errors.Is(err, ErrClosed) || err == nil {
				t.Errorf("the read ended with %v, want ErrClosed", err)
			}
			_ = c.Close()
			if err := c.WriteBatch(frames("x")); !errors.Is(err, ErrClosed) {
				t.Errorf("write after close: %v, want ErrClosed", err)
			}
		}
	})
}

func TestPeerThatStopsReading(t *testing.T) {
	each(t, func(t *testing.T, tr transport) {
		if tr.lossy {
			t.Skip("messages that nobody reads are lost: nothing blocks")
		}
		near, far := tr.link(t)
		for i, c := range []Conn{near, far} {
			if i == 1 {
				_, c = tr.link(t)
			}
			ended := make(chan error, 1)
			started := make(chan struct{})
			go func() {
				big := frames(strings.Repeat("x", wire.MaxMessage))
				close(started)
				for {
					if err := c.WriteBatch(big, big, big, big); err != nil {
						ended <- err
						return
					}
				}
			}()
			<-started
			for range 100 {
				runtime.Gosched()
			}
			_ = c.Close()
			if err := <-ended; !errors.Is(err, ErrClosed) {
				t.Errorf("the write ended with %v, want ErrClosed", err)
			}
		}
	})
}

func TestPeerCloses(t *testing.T) {
	each(t, func(t *testing.T, tr transport) {
		if tr.lossy {
			t.Skip("there is no sign of a close")
		}
		near, far := tr.link(t)
		if err := near.WriteBatch(frames("last", "words")); err != nil {
			t.Fatal(err)
		}
		if got := read(t, far, 1); got[0] != "last" { // Both, or the read below gets the second.
			t.Errorf("got %q", got)
		}
		_ = near.Close()
		for {
			if _, err := far.ReadBatch(); err != nil {
				if !errors.Is(err, io.EOF) {
					t.Errorf("got %v, want EOF", err)
				}
				break
			}
		}
	})
}

func TestListenerCloses(t *testing.T) {
	each(t, func(t *testing.T, tr transport) {
		l, err := tr.listen()
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { _, err := l.Accept(); ended <- err }()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, ErrClosed) {
			t.Errorf("Accept ended with %v, want ErrClosed", err)
		}
		if err := l.Close(); err != nil {
			t.Errorf("second close: %v", err)
		}
		if _, err := l.Accept(); !errors.Is(err, ErrClosed) {
			t.Errorf("Accept after close: %v, want ErrClosed", err)
		}
	})
}

func TestManyLinks(t *testing.T) {
	each(t, func(t *testing.T, tr transport) {
		l, err := tr.listen()
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		var wg sync.WaitGroup
		defer wg.Wait()
		const links = 20
		wg.Go(func() { // Every link echoes its first message.
			for range links {
				c, err := l.Accept()
				if err != nil {
					t.Error(err)
					return
				}
				wg.Go(func() {
					defer c.Close()
					b, err := c.ReadBatch()
					if err == nil {
						err = c.WriteBatch(b)
					}
					if err != nil {
						t.Error(err)
					}
					_, _ = c.ReadBatch() // Until the peer has it.
				})
			}
		})
		var clients sync.WaitGroup
		for i := range links {
			clients.Go(func() {
				c := tr.dial(t, l.Addr())
				msg := fmt.Sprint("link ", i)
				if err := c.WriteBatch(frames(msg)); err != nil {
					t.Error(err)
					return
				}
				if b, err := c.ReadBatch(); err != nil || !bytes.Equal(b, frames(msg)) {
					t.Errorf("%s got %q, %v", msg, b, err)
				}
				_ = c.Close()
			})
		}
		clients.Wait()
		if tr.lossy {
			_ = l.Close() // Nothing else tells the echoes to end.
		}
	})
}

func TestDialHonoursContext(t *testing.T) {
	noLeaks(t)
	l, err := net.Listen("tcp", "127.0.0.1:0") // Accepts and says nothing.
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, client := testTLS(t)
	for name, address := range map[string]string{"tls": l.Addr().String(), "ws": "ws://" + l.Addr().String(), "wss": "wss://" + l.Addr().String()} {
		d := DialTLS(address, client)
		if name != "tls" {
			if d, err = DialWebSocket(address, WebSocketOptions{TLS: client}); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			c, err := l.Accept()
			if err == nil {
				_, _ = c.Read(make([]byte, 1)) // The dialer has connected and speaks.
				cancel()
				_ = c.Close()
			}
		}()
		if _, err := d.Dial(ctx); err == nil {
			t.Errorf("%s: dial succeeded against a mute listener", name)
		}
		cancel()
	}
}
