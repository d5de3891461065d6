//go:build !linux

package socket

import "syscall"

func unpaced(syscall.RawConn) {}
