package control

import (
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// peerOf returns the user and the groups of the process that connected, as they were then.
func peerOf(conn *net.UnixConn) (uid int, groups []int, ok bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, nil, false
	}
	_ = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			return
		}
		uid, ok = int(cred.Uid), true
		groups = append([]int{int(cred.Gid)}, supplementary(fd)...)
	})
	return uid, groups, ok
}

// supplementary returns the further groups of the process at the other end; none before Linux 4.13.
func supplementary(fd uintptr) []int {
	for room := 64; ; {
		ids := make([]uint32, room)
		size := uint32(len(ids) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&ids[0])), uintptr(unsafe.Pointer(&size)), 0)
		if errno == unix.ERANGE && int(size/4) > room {
			room = int(size / 4)
			continue
		}
		if errno != 0 {
			return nil
		}
		groups := make([]int, size/4)
		for i := range groups {
			groups[i] = int(ids[i])
		}
		return groups
	}
}
