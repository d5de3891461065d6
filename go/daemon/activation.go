package daemon

import (
	"cmp"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// firstInherited is the number of the first descriptor that a service manager passes on.
const firstInherited = 3

// inheritedSockets are those that the service manager opened for this process: sd_listen_fds(3), by the variables LISTEN_PID,
// LISTEN_FDS and LISTEN_FDNAMES. A directive that wants to listen where one of them does gets it, again after every reload. So does
// the only directive of its kind if a socket has the name of the kind ("FileDescriptorName=ws-listener"): its address is
// then that of the socket.
func inheritedSockets(environ []string) *sockets {
	s := new(sockets)
	if LookupEnv(environ, "LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return s
	}
	n, err := strconv.Atoi(LookupEnv(environ, "LISTEN_FDS"))
	if err != nil || n < 0 || n > 1024 {
		return s
	}
	names := strings.Split(LookupEnv(environ, "LISTEN_FDNAMES"), ":")
	for i := range n {
		fd := firstInherited + i
		unix.CloseOnExec(fd)
		name := ""
		if len(names) == n {
			name = names[i]
		}
		s.inherit(os.NewFile(uintptr(fd), "LISTEN_FD_"+strconv.Itoa(fd)), name)
	}
	return s
}

// inherit keeps what the manager passed; the file is closed.
func (s *sockets) inherit(file *os.File, name string) {
	defer file.Close()
	given := &socket{manager: true, name: name}
	given.source, given.addr = handleOf(file)
	if given.addr != nil {
		given.network = given.addr.Network()
	}
	s.all = append(s.all, given)
}

// handleOf makes a handle of a socket that accepts connections or takes datagrams; nil for everything else.
func handleOf(file *os.File) (io.Closer, net.Addr) {
	if l, err := net.FileListener(file); err == nil {
		accepting, err := unix.GetsockoptInt(int(file.Fd()), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		if err == nil && accepting != 0 {
			return l, l.Addr()
		}
		_ = l.Close() // A connection: Accept=yes.
	}
	if c, err := net.FilePacketConn(file); err == nil {
		if u, ok := c.(*net.UDPConn); ok && u.RemoteAddr() == nil {
			return u, u.LocalAddr()
		}
		_ = c.Close()
	}
	return nil, nil
}

// tellUnused says once which sockets nothing uses: whoever connects to one of them would wait for ever.
func (s *sockets) tellUnused(log *slog.Logger) {
	for _, g := range s.all {
		if !g.manager {
			continue
		}
		if g.owner == nil && !g.told {
			if g.addr == nil {
				log.Warn("The service manager passed something that is no listening socket: it is not used (Accept=yes does not work)", "name", g.name)
			} else {
				log.Warn("Nothing uses a socket of the service manager: let a directive listen at its address, or set FileDescriptorName to the name of the only directive of its kind",
					"network", g.addr.Network(), "address", cmp.Or(g.addr.String(), "(none)"), "name", g.name)
			}
		}
		g.told = g.owner == nil
	}
}

// close gives up the sockets of the service manager.
func (s *sockets) close() {
	for _, g := range s.all {
		if g.manager && g.source != nil {
			_ = g.source.Close()
		}
	}
}
