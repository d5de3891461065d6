package socket

import (
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// unpaced takes a socket from an algorithm of congestion control that paces, BBR in any version, to one that does not and
// that every kernel lets every process choose.
func unpaced(c syscall.RawConn) {
	_ = c.Control(func(fd uintptr) { // A socket without such algorithms is none of TCP.
		name, err := unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
		if err == nil && strings.HasPrefix(name, "bbr") {
			_ = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno")
		}
	})
}
