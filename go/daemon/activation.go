package daemon

import (
	"cmp"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/control"
)

// firstInherited is the number of the first descriptor that a service manager passes on.
const firstInherited = 3

// sockets are those that the service manager opened for this process: sd_listen_fds(3). A directive that wants to listen
// where one of them does gets it, again after every reload. So does the only directive of its kind if a socket has the name
// of the kind ("FileDescriptorName=ws-listener"): its address is then that of the socket.
type sockets struct {
	all []*givenSocket

	mu sync.Mutex // For what all of them have noted.
}

// givenSocket is one socket, of which directives get copies.
type givenSocket struct {
	file *os.File
	name string   // FileDescriptorName, "" for none.
	addr net.Addr // nil for what is not a socket of a kind that is used.
	user string   // The kind of the open directive that uses it, "" for none.
	told bool     // That it is not used.
}

// inheritedSockets goes by the variables LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES.
func inheritedSockets(environ []string) *sockets {
	if lookupEnv(environ, "LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil
	}
	n, err := strconv.Atoi(lookupEnv(environ, "LISTEN_FDS"))
	if err != nil || n < 0 || n > 1024 {
		return nil
	}
	names := strings.Split(lookupEnv(environ, "LISTEN_FDNAMES"), ":")
	s := &sockets{}
	for i := range n {
		fd := firstInherited + i
		unix.CloseOnExec(fd)
		given := &givenSocket{file: os.NewFile(uintptr(fd), "LISTEN_FD_"+strconv.Itoa(fd))}
		if len(names) == n {
			given.name = names[i]
		}
		given.addr = listeningAt(given.file)
		s.all = append(s.all, given)
	}
	return s
}

// listeningAt is the address of a socket that accepts connections or takes datagrams, nil for everything else.
func listeningAt(file *os.File) net.Addr {
	if l, err := net.FileListener(file); err == nil {
		defer func() { _ = l.Close() }()
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false) // The manager's own.
		}
		if accepting, err := unix.GetsockoptInt(int(file.Fd()), unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || accepting == 0 {
			return nil // A connection: Accept=yes.
		}
		return l.Addr()
	}
	if c, err := net.FilePacketConn(file); err == nil {
		defer func() { _ = c.Close() }()
		if u, ok := c.(*net.UDPConn); ok && u.RemoteAddr() == nil {
			return u.LocalAddr()
		}
	}
	return nil
}

// take returns what serves a directive that wants to listen at an address, nil if there is nothing. What another directive
// holds, or the same one as it was before a reload, is in use.
func (d *Daemon) take(network, address, directive string) (*givenSocket, error) {
	s := d.sockets
	if s == nil {
		return nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.all, func(g *givenSocket) bool {
		return g.addr != nil && g.addr.Network() == network && sameAddress(g.addr, address)
	})
	if i < 0 && countKind(d.target, directive) == 1 {
		i = slices.IndexFunc(s.all, func(g *givenSocket) bool {
			return g.addr != nil && g.addr.Network() == network && g.name == directive && (g.user == "" || g.user == directive)
		})
	}
	if i < 0 {
		return nil, nil
	}
	g := s.all[i]
	if g.user != "" {
		return nil, fmt.Errorf("%s: socket %s of the service manager, held by %s: %w", directive, g.addr, g.user, unix.EADDRINUSE)
	}
	g.user = directive
	d.log.Debug("Using a socket of the service manager", "directive", directive, "address", g.addr.String())
	return g, nil
}

func countKind(cfg *config.Config, directive string) (n int) {
	for _, d := range cfg.Directives {
		if d.Name == directive {
			n++
		}
	}
	return n
}

func (s *sockets) giveBack(g *givenSocket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g.user = ""
}

// stream opens a stream socket, one of the service manager's if it has one for the directive.
func (d *Daemon) stream(network, address, directive string, open func() (net.Listener, error)) (net.Listener, error) {
	g, err := d.take(network, address, directive)
	if err != nil {
		return nil, err
	}
	if g == nil {
		return open()
	}
	l, err := net.FileListener(g.file)
	if err != nil {
		d.sockets.giveBack(g)
		return nil, fmt.Errorf("socket of the service manager for %s: %w", directive, err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	return &givenListener{Listener: l, closed: sync.OnceFunc(func() { d.sockets.giveBack(g) })}, nil
}

// listenTCP opens a TCP port for a directive.
func (d *Daemon) listenTCP(address, directive string) (net.Listener, error) {
	return d.stream("tcp", address, directive, func() (net.Listener, error) { return net.Listen("tcp", address) })
}

// listenUnix opens a Unix socket for a directive.
func (d *Daemon) listenUnix(path string, mode fs.FileMode, directive string) (net.Listener, error) {
	l, err := d.stream("unix", path, directive, func() (net.Listener, error) { return control.ListenUnix(path, mode) })
	if err != nil {
		return nil, fmt.Errorf("error opening Unix socket: %w", err)
	}
	return l, nil
}

// givenListener can be used again after its end.
type givenListener struct {
	net.Listener
	closed func()
}

func (l *givenListener) Close() error {
	defer l.closed()
	return l.Listener.Close()
}

// packets is a copy of a socket for datagrams.
func (g *givenSocket) packets() (*net.UDPConn, error) {
	c, err := net.FilePacketConn(g.file)
	if err != nil {
		return nil, fmt.Errorf("socket of the service manager for %s: %w", g.addr, err)
	}
	return c.(*net.UDPConn), nil
}

// tellUnused says once which sockets nothing uses: whoever connects to one of them would wait for ever.
func (s *sockets) tellUnused(log *slog.Logger) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.all {
		if g.user == "" && !g.told {
			if g.addr == nil {
				log.Warn("The service manager passed something that is no listening socket: it is not used (Accept=yes does not work)", "name", g.name)
			} else {
				log.Warn("Nothing uses a socket of the service manager: let a directive listen at its address, or set FileDescriptorName to the name of the only directive of its kind",
					"network", g.addr.Network(), "address", cmp.Or(g.addr.String(), "(none)"), "name", g.name)
			}
		}
		g.told = g.user == ""
	}
}

func (s *sockets) close() {
	if s == nil {
		return
	}
	for _, g := range s.all {
		_ = g.file.Close()
	}
}

// sameAddress compares a socket's address with a configured one; all addresses of the machine are one address.
func sameAddress(a net.Addr, address string) bool {
	var ip net.IP
	var port int
	switch a := a.(type) {
	case *net.TCPAddr:
		ip, port = a.IP, a.Port
	case *net.UDPAddr:
		ip, port = a.IP, a.Port
	default:
		path, err := filepath.Abs(address)
		return a.String() == address || err == nil && a.String() == path
	}
	want, err := net.ResolveTCPAddr("tcp", address) // Names and ports of UDP are resolved alike.
	if err != nil || want.Port != port {
		return false
	}
	all := func(ip net.IP) bool { return ip == nil || ip.IsUnspecified() }
	return want.IP.Equal(ip) || all(want.IP) && all(ip)
}
