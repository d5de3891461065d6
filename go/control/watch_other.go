//go:build !linux

package control

import (
	"net"
	"syscall"
)

// awaitHangup knows no way, on this system, to tell a closed socket from a half-closed one: a client that is gone is
// noticed when something is written to it.
func awaitHangup(conn net.Conn) (lost, ok bool) {
	_, isSocket := conn.(syscall.Conn)
	return false, isSocket
}

// deserted knows no way either: the end of a client's data is the end of its payload.
func deserted(net.Conn) bool { return false }
