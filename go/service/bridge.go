package service

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/socket"
)

// Stream is a byte stream whose sending direction ends on its own, as of *net.TCPConn, *net.UnixConn and mesh streams.
//
// Two more methods are used where a Stream has them: Abort(code uint64) error resets both directions, CloseRead() error
// tells the sender to stop.
type Stream interface {
	net.Conn
	CloseWrite() error
}

// Carried says what a [Bridge] did.
type Carried struct {
	AB, BA int64 // Bytes that were read from one stream and written to the other.
	// Err is nil if both directions came to an end of data that was passed on. Else at least one was cut; it is the
	// first error.
	Err error
}

// Bridge copies between a and b, both ways, until both directions have ended, and closes both.
//
// The end of data read from one side is passed on with CloseWrite while the other direction goes on. If reading fails
// (the peer reset the stream), both are reset. If writing fails, the peer wants no more: the sender is told to stop
// where that can be told, and the other direction goes on until it ends by itself, so that an answer sent before the
// end arrives. When ctx ends, both are reset. A panic of either stream is a failure of it.
func Bridge(ctx context.Context, a, b Stream) Carried {
	j := &join{}
	stop := context.AfterFunc(ctx, func() { j.reset(a, b) })
	defer stop()
	done := Carried{}
	var wg sync.WaitGroup
	wg.Go(func() { done.AB = j.oneWay(b, a) })
	done.BA = j.oneWay(a, b)
	wg.Wait()
	_ = a.Close()
	_ = b.Close()
	done.Err = j.failure()
	if ctx.Err() != nil && done.Err != nil {
		done.Err = context.Cause(ctx)
	}
	return done
}

// Reset ends a stream so that its peer sees a failure, not the end of data, as far as the transport can tell the two
// apart: a Unix socket cannot.
func Reset(s Stream) {
	switch c := s.(type) {
	case interface{ Abort(code uint64) error }:
		_ = c.Abort(0)
	case interface{ SetLinger(sec int) error }:
		_ = c.SetLinger(0)
	}
	_ = s.Close()
}

// join is what the two directions of a bridge share.
type join struct {
	mu  sync.Mutex
	err error // The first error, see fail.
}

func (j *join) fail(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil {
		j.err = err
	}
}

func (j *join) failure() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

// reset resets both streams. A bug that is found in the end of one does not keep the other from its own.
func (j *join) reset(a, b Stream) {
	for _, s := range [...]Stream{a, b} {
		if err := fault.Try(func() error { Reset(s); return nil }); err != nil {
			j.fail(err)
			_ = fault.Try(s.Close)
		}
	}
}

// oneWay copies from src to dst until one of them ends, and passes that on.
func (j *join) oneWay(dst, src Stream) (n int64) {
	defer fault.Catch(func(e *fault.Error) {
		j.fail(e)
		j.reset(dst, src)
	})
	n, readErr, writeErr := transfer(socket.Direct(dst), socket.Direct(src))
	if readErr == nil && writeErr == nil {
		writeErr = dst.CloseWrite()
	}
	switch {
	case writeErr != nil:
		j.fail(writeErr)
		closeRead(src)
	case readErr != nil:
		j.fail(readErr)
		Reset(dst)
		Reset(src)
	}
	return n
}

// closeRead tells the sender to stop where that can be told. A Read that waits returns.
func closeRead(src any) {
	if c, ok := src.(interface{ CloseRead() error }); ok {
		_ = c.CloseRead()
	}
}

// stopped tells the sender to stop, because of an error. A bug that is found by that is the error then.
func stopped(src any, because error) (err error) {
	defer fault.Into(&err)
	closeRead(src)
	return because
}

const (
	idleBuffer = 1 << 10   // What a direction without traffic holds.
	busyBuffer = 256 << 10 // What one with traffic borrows.
)

var busyBuffers = sync.Pool{New: func() any { return new([busyBuffer]byte) }}

// transfer copies until the end of data (no error) or until reading or writing fails: with a small buffer of its own
// while little arrives, and with a large borrowed one while much does.
func transfer(dst io.Writer, src io.Reader) (n int64, readErr, writeErr error) {
	small := make([]byte, idleBuffer)
	for {
		got, err := read(src, small)
		readErr, writeErr = pass(dst, small[:got], err, &n)
		if got == len(small) && readErr == nil && writeErr == nil {
			readErr, writeErr = copyBusy(dst, src, &n)
		}
		if readErr == io.EOF {
			return n, nil, writeErr
		}
		if readErr != nil || writeErr != nil {
			return n, readErr, writeErr
		}
	}
}

// copyBusy copies until less arrives at once than the small buffer holds.
func copyBusy(dst io.Writer, src io.Reader, n *int64) (readErr, writeErr error) {
	large := busyBuffers.Get().(*[busyBuffer]byte)
	defer busyBuffers.Put(large)
	for {
		got, err := read(src, large[:])
		readErr, writeErr = pass(dst, large[:got], err, n)
		if got == len(large) && readErr == nil && writeErr == nil {
			got, readErr, writeErr = copyBulk(dst, src, n)
		}
		if got < idleBuffer || readErr != nil || writeErr != nil {
			return readErr, writeErr
		}
	}
}

// bulkBuffers is how many large buffers one direction of a bulk copy has: one is filled, the other written. With more of
// them every byte costs more, as they do not fit into the cache of a core with what else is on its way.
const bulkBuffers = 2

// piece is what a Read of copyBulk returned.
type piece struct {
	buffer *[busyBuffer]byte
	size   int
}

// copyBulk copies until less arrives at once than a large buffer holds, and returns how much that was. Writing has a
// goroutine of its own: neither side waits for the other while there is more to do.
func copyBulk(dst io.Writer, src io.Reader, n *int64) (got int, readErr, writeErr error) {
	empty, full := make(chan *[busyBuffer]byte, bulkBuffers), make(chan piece, bulkBuffers)
	for range bulkBuffers {
		empty <- busyBuffers.Get().(*[busyBuffer]byte)
	}
	var writer sync.WaitGroup
	var failed atomic.Bool
	writer.Go(func() {
		for p := range full {
			if !failed.Load() && p.size > 0 {
				var wrote int
				wrote, writeErr = write(dst, p.buffer[:p.size])
				*n += int64(wrote)
				if writeErr != nil {
					failed.Store(true)
					writeErr = stopped(src, writeErr)
				}
			}
			empty <- p.buffer
		}
	})
	for got = busyBuffer; got == busyBuffer && readErr == nil && !failed.Load(); {
		buffer := <-empty
		got, readErr = read(src, buffer[:])
		full <- piece{buffer, got}
	}
	close(full)
	writer.Wait()
	for range bulkBuffers {
		busyBuffers.Put(<-empty)
	}
	return got, readErr, writeErr
}

// pass writes what a Read returned.
func pass(dst io.Writer, p []byte, readErr error, n *int64) (error, error) {
	if len(p) == 0 {
		return readErr, nil
	}
	wrote, err := write(dst, p)
	*n += int64(wrote)
	return readErr, err
}

// read and write make a bug that is found below them the failure of this stream.
func read(src io.Reader, p []byte) (n int, err error) {
	defer fault.Into(&err)
	return src.Read(p)
}

func write(dst io.Writer, p []byte) (n int, err error) {
	defer fault.Into(&err)
	return dst.Write(p)
}
