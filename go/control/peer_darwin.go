package control

import (
	"net"

	"golang.org/x/sys/unix"
)

// peerOf returns the user and the groups of the process that connected, as they were then.
func peerOf(conn *net.UnixConn) (uid int, groups []int, ok bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, nil, false
	}
	_ = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptXucred(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
		if err != nil {
			return
		}
		uid, ok = int(cred.Uid), true
		for _, g := range cred.Groups[:min(int(cred.Ngroups), len(cred.Groups))] {
			groups = append(groups, int(g))
		}
	})
	return uid, groups, ok
}
