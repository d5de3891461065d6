package link

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
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

// tlsPair makes a TLS connection over TCP whose near end moves its bytes through what through makes of the socket.
func tlsPair(t *testing.T, through func(net.Conn) net.Conn) (dialer, listener *tls.Conn) {
	t.Helper()
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
	dialer, listener = tls.Client(newRecordConn(through(near)), client), tls.Server(newRecordConn(far), server)
	shaken := make(chan error, 1)
	go func() { shaken <- listener.Handshake() }()
	if err := dialer.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	return dialer, listener
}

// TestManyRecordsInOneCall: what a batch costs in system calls does not grow with its TLS records.
func TestManyRecordsInOneCall(t *testing.T) {
	counted := &countedConn{}
	dialer, listener := tlsPair(t, func(near net.Conn) net.Conn { counted.Conn = near; return counted })
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

// TestManyRecordsInOneBatch: everything that has arrived is read at once, in however many records it came.
func TestManyRecordsInOneBatch(t *testing.T) {
	dialer, listener := tlsPair(t, func(near net.Conn) net.Conn { return near })
	out, in := NewStream(dialer, "tls"), NewStream(listener, "tls")
	defer out.Close()
	defer in.Close()
	const messages = 5 // As many as TCP sends without an answer: they have arrived when their writes return.
	for i := range messages {
		if err := out.WriteBatch(frames(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	batch, err := in.ReadBatch()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, rest, ok := batch.Next(); ok; _, rest, ok = rest.Next() {
		n++
	}
	if n != messages {
		t.Errorf("%d of %d messages that had arrived came with the first batch", n, messages)
	}
}

// piecesConn writes a few bytes at a time and lets others work after each.
type piecesConn struct{ net.Conn }

func (c piecesConn) Write(p []byte) (n int, err error) {
	for piece := range slices.Chunk(p, 997) {
		m, err := c.Conn.Write(piece)
		if n += m; err != nil {
			return n, err
		}
		runtime.Gosched()
	}
	return n, nil
}

// TestRecordsInPieces: a record of which only some has arrived is decrypted when the rest comes, and nothing is lost when
// the end comes instead.
func TestRecordsInPieces(t *testing.T) {
	dialer, listener := tlsPair(t, func(near net.Conn) net.Conn { return piecesConn{near} })
	out, in := NewStream(dialer, "tls"), NewStream(listener, "tls")
	defer out.Close()
	defer in.Close()
	message := bytes.Repeat([]byte("0123456789abcdef"), 1<<10)
	const messages = 64
	written := make(chan error, 1)
	go func() {
		var err error
		for i := 0; i < messages && err == nil; i++ {
			err = out.WriteBatch(frames(fmt.Sprintf("%d %s", i, message[:i<<8])))
		}
		written <- cmp.Or(err, out.Close())
	}()
	for i, got := range read(t, in, messages) {
		if want := fmt.Sprintf("%d %s", i, message[:i<<8]); got != want {
			t.Fatalf("message %d has %d bytes, want %d as they were sent", i, len(got), len(want))
		}
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if batch, err := in.ReadBatch(); err != io.EOF {
		t.Errorf("behind the last message came %d bytes and %v, want the end", len(batch), err)
	}
}
