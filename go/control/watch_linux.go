package control

import (
	"errors"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// awaitHangup waits until the other end of conn is gone for good (true) or the read deadline has passed (false). ok is
// false if conn is not a socket. It reads nothing and holds no thread while it waits.
func awaitHangup(conn net.Conn) (lost, ok bool) {
	if c, isTLS := conn.(interface{ NetConn() net.Conn }); isTLS {
		conn = c.NetConn()
	}
	c, isSocket := conn.(syscall.Conn)
	if !isSocket {
		return false, false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return false, false
	}
	err = raw.Read(hungUp)
	return !errors.Is(err, os.ErrDeadlineExceeded), true
}

// hungUp reports whether both directions of a socket are closed.
func hungUp(fd uintptr) bool {
	p := []unix.PollFd{{Fd: int32(fd)}}
	for {
		n, err := unix.Poll(p, 0)
		if err == unix.EINTR {
			continue
		}
		return err != nil || n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
	}
}
