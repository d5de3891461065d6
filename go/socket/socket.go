// Package socket moves bulk data through TCP and Unix sockets with less effort than package net. Links, proxies and the
// sockets of programs use it alike.
package socket

import "net"

// Direct returns a connection that moves bulk data with less effort, if conn is a TCP or Unix socket on a system where
// there is such a way; else it returns conn. The two are one connection and may be used beside each other.
//
// Go has its scheduler told of every system call, since it might wait. One that takes more than some 20 µs then loses its
// core to another thread, and has to get one back at its end. A large read or write takes longer without ever waiting,
// and where the machine is full, all that this brings is context switches: a stream through two daemons and a relay made
// 27,000 a GB in each of them, and makes 7,000 when the calls are not announced, for an eighth to a sixth less of the
// processor.
func Direct(conn net.Conn) net.Conn {
	switch s := conn.(type) {
	case *net.TCPConn:
		return direct(s)
	case *net.UnixConn:
		return direct(s)
	default: // Also what wraps a socket: it has its own ideas of reading and writing.
		return conn
	}
}
