package link

import (
	"encoding/binary"
	"net"
	"sync"

	"github.com/pyreceptor/pyreceptor/go/socket"
)

const (
	recordHeader  = 5         // Type, version, length of a TLS record.
	minRecords    = 4 << 10   // What an idle connection holds for reading.
	maxRecords    = 256 << 10 // What a busy one does, in both directions.
	largestRecord = recordHeader + 1<<14 + 2048
	quietReads    = 16 // Small reads after which a connection is idle again.
)

// recordConn lies below TLS and moves many records by one system call. It reads whatever has arrived and hands it up record by
// record, so that it knows what crypto/tls has still to decrypt; between cork and uncork it collects what is written.
type recordConn struct {
	net.Conn

	buf        []byte // Received bytes are buf[start:end].
	start, end int
	left       int // Of the record that is being handed up.
	quiet      int // Small reads since the last larger one.

	mu     sync.Mutex // crypto/tls also writes while it reads.
	corked bool
	out    []byte
	failed error
}

func newRecordConn(conn net.Conn) *recordConn {
	return &recordConn{Conn: socket.Direct(conn), buf: make([]byte, minRecords)}
}

// Read returns bytes of one record only.
func (c *recordConn) Read(p []byte) (int, error) {
	if c.start == c.end {
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	if c.left == 0 {
		for c.end-c.start < recordHeader {
			if err := c.fill(); err != nil {
				return 0, err
			}
		}
		c.left = c.recordSize()
	}
	n := copy(p, c.buf[c.start:min(c.end, c.start+c.left)])
	c.start += n
	c.left -= n
	return n, nil
}

func (c *recordConn) recordSize() int {
	return recordHeader + int(binary.BigEndian.Uint16(c.buf[c.start+3:]))
}

// fill reads once more, with more room if there was too little the last time.
func (c *recordConn) fill() error {
	full := c.end == len(c.buf)
	if c.start > 0 {
		c.end = copy(c.buf, c.buf[c.start:c.end])
		c.start = 0
	}
	switch {
	case full && len(c.buf) < maxRecords:
		c.resize(min(4*len(c.buf), maxRecords))
		c.quiet = 0
	case c.quiet >= quietReads && len(c.buf) > minRecords && c.end <= minRecords:
		c.resize(minRecords)
	}
	n, err := c.Conn.Read(c.buf[c.end:])
	c.end += n
	if n > minRecords {
		c.quiet = 0
	} else {
		c.quiet++
	}
	if n > 0 {
		return nil // The error comes again.
	}
	return err
}

// resize moves what has been read to memory of another size.
func (c *recordConn) resize(size int) {
	var buf []byte
	if size == maxRecords {
		buf = (*recordSlabs.Get().(*[]byte))[:size]
	} else {
		buf = make([]byte, size)
	}
	copy(buf, c.buf[:c.end])
	if slab := c.buf[:0]; len(c.buf) == maxRecords {
		recordSlabs.Put(&slab)
	}
	c.buf = buf
}

// ready reports whether a whole record of data waits, so that reading the TLS connection does not wait. Small ones do not
// count: they may be messages of TLS itself, such as session tickets, after which it would wait for data.
func (c *recordConn) ready() bool {
	if c.left > 0 || c.end-c.start < recordHeader {
		return false
	}
	size := c.recordSize()
	return size >= largestRecord/2 && c.end-c.start >= size
}

// cork makes writes wait for uncork or until a good deal is there.
func (c *recordConn) cork() {
	c.mu.Lock()
	c.corked = true
	c.mu.Unlock()
}

// uncork writes what waits and reports whether any of it could not be written.
func (c *recordConn) uncork() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = false
	c.flushLocked()
	if slab := c.out; slab != nil { // Empty again.
		recordSlabs.Put(&slab)
		c.out = nil
	}
	return c.failed
}

// recordSlabs are the buffers of busy connections.
var recordSlabs = sync.Pool{New: func() any { b := make([]byte, 0, maxRecords+largestRecord); return &b }}

func (c *recordConn) flushLocked() {
	if len(c.out) > 0 && c.failed == nil {
		_, c.failed = c.Conn.Write(c.out)
	}
	c.out = c.out[:0]
}

// Write implements net.Conn.
func (c *recordConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed != nil {
		return 0, c.failed
	}
	if !c.corked {
		return c.Conn.Write(p)
	}
	if c.out == nil {
		c.out = *recordSlabs.Get().(*[]byte)
	}
	c.out = append(c.out, p...)
	if len(c.out) >= maxRecords {
		c.flushLocked()
	}
	return len(p), c.failed
}
