package link

import (
	"net"
	"sync"

	"github.com/pyreceptor/pyreceptor/go/socket"
)

const (
	maxRecords    = 128 << 10 // Written by one system call.
	largestRecord = 5 + 1<<14 + 2048
)

// recordConn lies below TLS and moves many records by one system call. Reads go straight to the buffer of crypto/tls,
// which takes some 50 KiB at a time; between cork and uncork it collects what is written.
type recordConn struct {
	net.Conn

	eager bool // Reads take what is there and do not wait.
	more  bool // The last read took all that it had room for.

	mu     sync.Mutex // crypto/tls also writes while it reads.
	corked bool
	out    []byte
	failed error
}

func newRecordConn(conn net.Conn) *recordConn { return &recordConn{Conn: socket.Direct(conn)} }

// nothingYet is what an eager read returns if it would have to wait. crypto/tls takes a passing error of the network for
// no end: the next read goes on where this one has stopped, within a record too.
type nothingYet struct{}

func (nothingYet) Error() string   { return "nothing has arrived" }
func (nothingYet) Timeout() bool   { return true }
func (nothingYet) Temporary() bool { return true }

var _ net.Error = nothingYet{}

// Read implements net.Conn.
func (c *recordConn) Read(p []byte) (n int, err error) {
	now, can := c.Conn.(interface{ ReadNow([]byte) (int, error) })
	switch {
	case !c.eager:
		n, err = c.Conn.Read(p)
	case can && c.more:
		n, err = now.ReadNow(p)
	}
	c.more = n == len(p)
	if c.eager && n == 0 && err == nil {
		err = nothingYet{}
	}
	return n, err
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
