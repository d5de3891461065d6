package link

import (
	"bytes"
	"crypto/tls"
	"net"
	"sync/atomic"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// countedConn counts the calls that move bytes.
type countedConn struct {
	net.Conn
	reads, writes atomic.Int64
}

func (c *countedConn) Read(p []byte) (int, error)  { c.reads.Add(1); return c.Conn.Read(p) }
func (c *countedConn) Write(p []byte) (int, error) { c.writes.Add(1); return c.Conn.Write(p) }

// TestManyRecordsInOneCall: what a batch costs in system calls does not grow with its TLS records.
func TestManyRecordsInOneCall(t *testing.T) {
	server, client := testTLS(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client.ServerName = "127.0.0.1"
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	counted := &countedConn{Conn: near}
	dialer, listener := tls.Client(newRecordConn(counted), client), tls.Server(newRecordConn(far), server)
	shaken := make(chan error, 1)
	go func() { shaken <- listener.Handshake() }()
	if err := dialer.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	counted.writes.Store(0)
	out, in := NewStream(dialer, "tls"), NewStream(listener, "tls")
	defer out.Close()
	defer in.Close()

	message := bytes.Repeat([]byte("0123456789abcdef"), 1<<10) // 16 KiB: more than a record holds with its header.
	const messages = 64
	var batch wire.Batch
	for range messages {
		batch, _ = wire.AppendFrame(batch, message)
	}
	written := make(chan error, 1)
	go func() { written <- out.WriteBatch(frames("hello"), batch) }()
	got := read(t, in, messages+1)
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	for i, m := range got[1:] {
		if m != string(message) {
			t.Fatalf("message %d is not what was sent", i)
		}
	}
	if n := counted.writes.Load(); n > int64(len(batch))/maxRecords+2 {
		t.Errorf("%d bytes took %d writes, want one for %d bytes", len(batch), n, maxRecords)
	}
	go func() { written <- in.WriteBatch(frames("back")) }()
	if got := read(t, out, 1); got[0] != "back" {
		t.Errorf("got %q", got)
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
}
