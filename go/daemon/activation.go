package daemon

import (
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// firstInherited is the number of the first descriptor that a service manager passes on.
const firstInherited = 3

// sockets are listening sockets that the service manager opened for this process: sd_listen_fds(3). A directive that
// wants to listen where one of them does gets it, again after every reload.
type sockets []*os.File

// inheritedSockets goes by the variables LISTEN_PID and LISTEN_FDS.
func inheritedSockets(environ []string) (all sockets) {
	if lookupEnv(environ, "LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil
	}
	n, err := strconv.Atoi(lookupEnv(environ, "LISTEN_FDS"))
	if err != nil || n > 1024 {
		return nil
	}
	for fd := firstInherited; fd < firstInherited+n; fd++ {
		unix.CloseOnExec(fd)
		all = append(all, os.NewFile(uintptr(fd), "LISTEN_FD_"+strconv.Itoa(fd)))
	}
	return all
}

// listen returns the socket that listens on an address, nil if there is none.
func (s sockets) listen(network, address string) net.Listener {
	for _, file := range s {
		l, err := net.FileListener(file) // A copy: the file stays for the next time.
		if err != nil {
			continue
		}
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false) // The manager's own.
		}
		if l.Addr().Network() == network && sameAddress(l.Addr(), address) {
			return l
		}
		_ = l.Close()
	}
	return nil
}

func (s sockets) close() {
	for _, file := range s {
		_ = file.Close()
	}
}

// sameAddress compares a socket's address with a configured one; all addresses of the machine are one address.
func sameAddress(a net.Addr, address string) bool {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return a.String() == address
	}
	want, err := net.ResolveTCPAddr("tcp", address)
	if err != nil || want.Port != tcp.Port {
		return false
	}
	all := func(ip net.IP) bool { return ip == nil || ip.IsUnspecified() }
	return want.IP.Equal(tcp.IP) || all(want.IP) && all(tcp.IP)
}
