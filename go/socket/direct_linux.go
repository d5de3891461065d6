package socket

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"
)

// directMost is how much one system call moves: for so long no other goroutine gets the core, nor does the collector.
const directMost = 256 << 10

// socket is what TCP and Unix connections have in common.
type socket interface {
	net.Conn
	syscall.Conn
	CloseRead() error
	CloseWrite() error
}

// directConn makes its system calls without telling the scheduler. The descriptors of package net do not block.
type directConn struct {
	socket
	raw syscall.RawConn
}

func direct(s socket) net.Conn {
	raw, err := s.SyscallConn()
	if err != nil {
		return s // It will say so itself when it is used.
	}
	return &directConn{s, raw}
}

func (c *directConn) Read(p []byte) (n int, err error) { return c.read(p, true) }

// ReadNow is Read that does not wait: no bytes and no error mean that none have arrived.
func (c *directConn) ReadNow(p []byte) (n int, err error) { return c.read(p, false) }

func (c *directConn) read(p []byte, wait bool) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	var errno syscall.Errno
	err = c.raw.Read(func(fd uintptr) bool {
		n, errno = move(syscall.SYS_READ, fd, p)
		return errno != syscall.EAGAIN || !wait
	})
	if errno == syscall.EAGAIN && err == nil {
		return 0, nil
	}
	if err = c.failure("read", err, errno); err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (c *directConn) Write(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	var errno syscall.Errno
	err = c.raw.Write(func(fd uintptr) bool {
		for n < len(p) {
			var wrote int
			if wrote, errno = move(syscall.SYS_WRITE, fd, p[n:]); errno != 0 {
				return errno != syscall.EAGAIN
			}
			n += wrote
		}
		return true
	})
	return n, c.failure("write", err, errno)
}

// move reads to p or writes from it, once.
func move(call, fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(min(len(p), directMost)))
		switch errno {
		case 0:
			return int(n), 0
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}

// failure is the error that package net has for the same failure: err is one of waiting, errno one of the system call.
func (c *directConn) failure(op string, err error, errno syscall.Errno) error {
	if waiting, ok := errors.AsType[*net.OpError](err); ok {
		waiting.Op = op
		return waiting
	}
	if err == nil && errno != 0 {
		return &net.OpError{Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError(op, errno)}
	}
	return err
}
