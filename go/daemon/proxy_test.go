package daemon

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// proxied links two daemons, a with a tcp-client to target and b with a tcp-server, and returns the latter's address.
func proxied(t *testing.T, target string) string {
	t.Helper()
	meshAddr, entry := freePort(t), freePort(t)
	_, meshPort, _ := net.SplitHostPort(meshAddr)
	_, entryPort, _ := net.SplitHostPort(entry)
	var b *Daemon
	for _, args := range [][]string{
		{"--node", "a", "--tcp-listener", "bindaddr=127.0.0.1", "port=" + meshPort, "--tcp-client", "service=target", "address=" + target},
		{"--node", "b", "--tcp-peer", meshAddr, "--tcp-server", "bindaddr=127.0.0.1", "port=" + entryPort, "remotenode=a", "remoteservice=target"},
	} {
		d, err := Build(t.Context(), parse(t, args...), Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = d.Close() })
		b = d
	}
	if _, _, err := b.Node.WaitRoute(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	return entry
}

// serveOne serves one connection at a time with handle and returns the address.
func serveOne(t *testing.T, handle func(c *net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			handle(c.(*net.TCPConn))
			_ = c.Close()
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return l.Addr().String()
}

func connect(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

func TestF122F123ProxiesBetweenDaemons(t *testing.T) {
	t.Run("an answer after the end of the request", func(t *testing.T) {
		target := serveOne(t, func(c *net.TCPConn) {
			request, err := io.ReadAll(c)
			if err == nil {
				_, _ = c.Write(append([]byte("got "), request...))
			}
		})
		c := connect(t, proxied(t, target))
		text := strings.Repeat("question ", 100_000)
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		_ = c.CloseWrite()
		if got, err := io.ReadAll(c); err != nil || string(got) != "got "+text {
			t.Errorf("got %d bytes, %v; want %d and a clean end", len(got), err, len(text)+4)
		}
	})
	t.Run("a reset by the target", func(t *testing.T) {
		target := serveOne(t, func(c *net.TCPConn) {
			_, _ = io.ReadFull(c, make([]byte, 1))
			_ = c.SetLinger(0)
		})
		c := connect(t, proxied(t, target))
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %v, want connection reset", err)
		}
	})
	t.Run("a reset by the client", func(t *testing.T) {
		began, ended := make(chan struct{}), make(chan error, 1)
		target := serveOne(t, func(c *net.TCPConn) {
			_, _ = io.ReadFull(c, make([]byte, 1))
			close(began)
			_, err := io.ReadAll(c)
			ended <- err
		})
		c := connect(t, proxied(t, target))
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		<-began
		_ = c.SetLinger(0)
		_ = c.Close()
		if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the target got %v, want connection reset", err)
		}
	})
	t.Run("a target that refuses", func(t *testing.T) {
		c, err := net.Dial("tcp", proxied(t, "127.0.0.1:1"))
		if err == nil { // Else the reset was quicker than the dial.
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			_, err = c.Read(make([]byte, 1))
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %v, want connection reset", err)
		}
	})
}
