package link

import (
	"bytes"
	"crypto/tls"
	"io"
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

// TestRecordsGiveTheirMemoryBack: a connection that was busy holds little again once it is quiet, and loses nothing.
func TestRecordsGiveTheirMemoryBack(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	c := newRecordConn(far)
	defer c.Close()
	record := func(size int) []byte {
		return append([]byte{23, 3, 3, byte(size >> 8), byte(size)}, bytes.Repeat([]byte{byte(size)}, size)...)
	}
	exchange := func(sizes ...int) {
		var sent []byte
		for _, size := range sizes {
			sent = append(sent, record(size)...)
		}
		go func() { _, _ = near.Write(sent) }()
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("records of %v bytes did not arrive as they were sent: %v", sizes, err)
		}
	}
	for range 3 {
		for range 2 * maxRecords >> 14 {
			exchange(1<<14, 1<<14, 1<<14, 1<<14, 1<<14, 1<<14, 1<<14, 1<<14)
		}
		if len(c.buf) != maxRecords {
			t.Fatalf("a busy connection reads %d bytes at a time, want %d", len(c.buf), maxRecords)
		}
		for range quietReads + 2 {
			exchange(100)
		}
		if len(c.buf) != minRecords {
			t.Errorf("a quiet connection holds %d bytes, want %d", len(c.buf), minRecords)
		}
	}
}

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
