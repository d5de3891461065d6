package link

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
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

// FuzzRecords: what a peer sends goes up to TLS unchanged, whatever it is and however it arrives, and never more than
// one record at a time.
func FuzzRecords(f *testing.F) {
	f.Add([]byte("\x17\x03\x03\x00\x03abc\x17\x03\x03\x00\x00\x15\x03\x03\x00\x02\x01\x00"), uint16(7))
	f.Add([]byte("\x16\x03\x01\xff\xffhello"), uint16(3))
	f.Add(bytes.Repeat([]byte("\x17\x03\x03\x40\x11xxxxxxxxxxxxxxxx"), 1000), uint16(5000))
	f.Fuzz(func(t *testing.T, stream []byte, piece uint16) {
		var reads [][]byte
		for p := range slices.Chunk(bytes.Clone(stream), int(piece)+1) {
			reads = append(reads, p)
		}
		c := newRecordConn(&scripted{reads: reads})
		buf, got, ends := make([]byte, 1<<15), 0, 0
		for {
			whole := c.ready()
			n, err := c.Read(buf)
			if !bytes.Equal(buf[:n], stream[got:got+n]) {
				t.Fatalf("bytes %d to %d are not what came", got, got+n)
			}
			if got += n; err != nil {
				break
			}
			if n == 0 || got > ends && ends+recordHeader > len(stream) {
				t.Fatalf("%d bytes were handed up behind %d of %d", n, got-n, len(stream))
			}
			if got > ends {
				ends += recordHeader + int(binary.BigEndian.Uint16(stream[ends+3:]))
			}
			if got > ends {
				t.Fatalf("a read has gone beyond the record that ends at %d, to %d", ends, got)
			}
			if whole && got < ends {
				t.Fatalf("a record was ready whole, and %d of its bytes were not", ends-got)
			}
		}
		if len(stream)-ends >= recordHeader || ends <= len(stream) && got != ends || ends > len(stream) && got != len(stream) {
			t.Errorf("%d of %d bytes came out; the last record ends at %d", got, len(stream), ends)
		}
	})
}
