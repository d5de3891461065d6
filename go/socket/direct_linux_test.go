package socket

import (
	"errors"
	"io"
	"net"
	"testing"
)

// TestReadNow takes what is there and waits for nothing.
func TestReadNow(t *testing.T) {
	near, far := connected(t, "tcp", "127.0.0.1:0")
	in := Direct(near).(*directConn)
	some := make([]byte, 8)
	if n, err := in.ReadNow(some); n != 0 || err != nil {
		t.Errorf("nothing has arrived, and ReadNow gave %d bytes and %v", n, err)
	}
	if _, err := far.Write([]byte("now")); err != nil {
		t.Fatal(err)
	}
	if n, err := in.ReadNow(some); string(some[:n]) != "now" || err != nil {
		t.Errorf("got %q and %v", some[:n], err)
	}
	_ = far.Close()
	if n, err := in.ReadNow(some); n != 0 || err != io.EOF {
		t.Errorf("at the end, %d bytes and %v", n, err)
	}
	_ = near.Close()
	if _, err := in.ReadNow(some); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after close, %v", err)
	}
}
