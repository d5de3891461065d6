package control

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// awaitHangup waits until the other end of conn is gone for good (true) or the read deadline has passed (false). ok is
// false if conn is not a socket. It reads nothing and holds no thread while it waits.
func awaitHangup(conn net.Conn) (lost, ok bool) {
	raw, _ := rawSocket(conn)
	if raw == nil {
		return false, false
	}
	err := raw.Read(hungUp)
	return !errors.Is(err, os.ErrDeadlineExceeded), true
}

// rawSocket returns the socket below conn, nil if there is none.
func rawSocket(conn net.Conn) (raw syscall.RawConn, isTCP bool) {
	if c, isTLS := conn.(interface{ NetConn() net.Conn }); isTLS {
		conn = c.NetConn()
	}
	_, isTCP = conn.(*net.TCPConn)
	if c, isSocket := conn.(syscall.Conn); isSocket {
		if raw, err := c.SyscallConn(); err == nil {
			return raw, isTCP
		}
	}
	return nil, isTCP
}

const (
	probeWait  = 10 * time.Second // How long a client's system may take to answer a probe: TCP sends it again and again.
	probePause = time.Millisecond // Nothing tells that a probe was acknowledged.
)

// deserted reports whether the client, whose data has ended, has closed its connection rather than its sending direction
// alone. A Unix socket tells. TCP has one message for both, but answers data for a closed connection with a reset: a
// byte of urgent data, which stays out of the stream that the client reads, is acknowledged or refused.
func deserted(conn net.Conn) bool {
	raw, isTCP := rawSocket(conn)
	if raw == nil {
		return false
	}
	gone := false
	look := func(fd uintptr) { gone = hungUp(fd) }
	if raw.Control(look) != nil || gone || !isTCP {
		return gone
	}
	var sendErr error
	err := raw.Control(func(fd uintptr) { sendErr = unix.Sendto(int(fd), []byte{0}, unix.MSG_OOB|unix.MSG_NOSIGNAL, nil) })
	if err != nil || sendErr != nil {
		return true
	}
	acknowledged := false
	for end := time.Now().Add(probeWait); time.Now().Before(end); time.Sleep(probePause) {
		err := raw.Control(func(fd uintptr) {
			info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
			gone = hungUp(fd)
			acknowledged = err == nil && info.Unacked == 0
		})
		if err != nil || gone {
			return true
		}
		if acknowledged {
			return false
		}
	}
	return true
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
