package socket

import (
	"bytes"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// connected returns both ends of a connection over a socket.
func connected(t *testing.T, network, address string) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial(network, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = near.Close(); _ = far.Close() })
	return near, far
}

// TestDirectMovesTheSameBytes: more than fits into the socket and into one call, past a reader that comes late.
func TestDirectMovesTheSameBytes(t *testing.T) {
	sent := bytes.Repeat([]byte("0123456789abcdefghijklmnopqrstuvwxyz"), 1<<18)
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "s")} {
		near, far := connected(t, network, address)
		out, in := Direct(near), Direct(far)
		written := make(chan error, 1)
		go func() {
			n, err := out.Write(sent)
			if err == nil && n != len(sent) {
				err = io.ErrShortWrite
			}
			_ = out.(interface{ CloseWrite() error }).CloseWrite()
			written <- err
		}()
		got, err := io.ReadAll(in)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%s: %d of %d bytes arrived (%v), or others", network, len(got), len(sent), err)
		}
		if err := <-written; err != nil {
			t.Errorf("%s: %v", network, err)
		}
		if n, err := in.Read(make([]byte, 8)); n != 0 || err != io.EOF {
			t.Errorf("%s: at the end, %d bytes and %v", network, n, err)
		}
	}
}

// TestDirectFailsAlike: every failure is the error that the connection itself gives.
func TestDirectFailsAlike(t *testing.T) {
	some := make([]byte, 8)
	failures := map[string]func(near, far net.Conn) error{
		"deadline of a read": func(near, _ net.Conn) error {
			_ = near.SetReadDeadline(time.Unix(1, 0))
			_, err := near.Read(some)
			return err
		},
		"deadline of a write": func(near, _ net.Conn) error {
			_ = near.SetWriteDeadline(time.Unix(1, 0))
			_, err := near.Write(some)
			return err
		},
		"read after close": func(near, _ net.Conn) error {
			_ = near.Close()
			_, err := near.Read(some)
			return err
		},
		"write after close": func(near, _ net.Conn) error {
			_ = near.Close()
			_, err := near.Write(some)
			return err
		},
		"reset by the peer": func(near, far net.Conn) error {
			_ = far.(*net.TCPConn).SetLinger(0)
			_ = far.Close()
			_, err := near.Read(some)
			return err
		},
		"write after the last": func(near, _ net.Conn) error {
			_ = near.(interface{ CloseWrite() error }).CloseWrite()
			_, err := near.Write(some)
			return err
		},
	}
	for what, fail := range failures {
		fails := func(through func(net.Conn) net.Conn) *net.OpError {
			near, far := connected(t, "tcp", "127.0.0.1:0")
			failure, ok := fail(through(near), far).(*net.OpError)
			if !ok {
				t.Fatalf("%s: no error of package net", what)
			}
			return failure
		}
		want, got := fails(func(c net.Conn) net.Conn { return c }), fails(Direct)
		if got.Op != want.Op || got.Net != want.Net || got.Err.Error() != want.Err.Error() || got.Timeout() != want.Timeout() {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
}

// TestDirectLeavesOthersAlone: what is no socket, or more than one, keeps its own ways.
func TestDirectLeavesOthersAlone(t *testing.T) {
	near, _ := net.Pipe()
	for _, c := range []net.Conn{near, &struct{ net.Conn }{near}, &struct{ *net.TCPConn }{}} {
		if Direct(c) != c {
			t.Errorf("%T was replaced", c)
		}
	}
}
