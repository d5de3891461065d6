package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/control"
	bulk "github.com/pyreceptor/pyreceptor/go/socket"
)

// endpoint is where a directive listens.
type endpoint struct {
	network   string // tcp, udp or unix.
	address   string // host:port, or a path.
	directive string
	failed    string      // What errors begin with, "" for nothing.
	mode      fs.FileMode // Of a Unix socket.
}

// endpoints are those of a directive, by its section.
func endpoints(section any) []endpoint {
	port := func(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
	switch s := section.(type) {
	case config.TCPListener:
		return []endpoint{{"tcp", bindAddress(s.BindAddr, s.Port), "tcp-listener", "", 0}}
	case config.WSListener:
		return []endpoint{{"tcp", bindAddress(s.BindAddr, s.Port), "ws-listener", "", 0}}
	case config.UDPListener:
		return []endpoint{{"udp", bindAddress(s.BindAddr, s.Port), "udp-listener", "", 0}}
	case config.TCPServer:
		return []endpoint{{"tcp", port(s.BindAddr, s.Port), "tcp-server", "error listening on TCP", 0}}
	case config.UDPServer:
		return []endpoint{{"udp", port(s.BindAddr, s.Port), "udp-server", "error listening on UDP", 0}}
	case config.UnixServer:
		return []endpoint{{"unix", s.Filename, "unix-socket-server", "error opening Unix socket", s.Permissions}}
	case config.MetricsListener:
		return []endpoint{{"tcp", port(s.BindAddr, s.Port), "metrics-listener", "error listening on TCP socket", 0}}
	case config.ControlService:
		var all []endpoint
		if s.Filename != "" {
			all = append(all, endpoint{"unix", s.Filename, "control-service", "error opening Unix socket", s.Permissions})
		}
		if s.TCPListen != "" {
			all = append(all, endpoint{"tcp", s.TCPListen, "control-service", "error listening on TCP socket", 0})
		}
		return all
	}
	return nil
}

// open begins to listen. With share, others may have the place who let it be shared.
func (e endpoint) open(share bool) (io.Closer, net.Addr, error) {
	conf := net.ListenConfig{Control: bulk.Near}
	if share {
		conf.Control = func(network, address string, c syscall.RawConn) error {
			return errors.Join(bulk.Near(network, address, c), setShared(c, true))
		}
	}
	switch e.network {
	case "unix":
		l, err := control.ListenUnix(e.address, e.mode)
		if errors.Is(err, control.ErrLocked) {
			err = fmt.Errorf("%w (another program holds %s.lock: a daemon that is running, most likely)", err, e.address)
		}
		if err != nil {
			return nil, nil, e.error(err)
		}
		return l, l.Addr(), nil
	case "udp":
		if _, err := net.ResolveUDPAddr("udp", e.address); err != nil {
			if e.failed == "" {
				return nil, nil, err
			}
			return nil, nil, fmt.Errorf("could not resolve address %s: %w", e.address, err)
		}
		c, err := conf.ListenPacket(context.Background(), "udp", e.address)
		if err != nil {
			return nil, nil, e.error(err)
		}
		return c, c.LocalAddr(), nil
	}
	l, err := conf.Listen(context.Background(), "tcp", e.address)
	if err != nil {
		return nil, nil, e.error(err)
	}
	return l, l.Addr(), nil
}

func (e endpoint) error(err error) error {
	if e.failed == "" {
		return err
	}
	return fmt.Errorf("%s: %w", e.failed, err)
}

// sockets are what directives listen on: those that the service manager opened for this process, and those that this process
// opens. A directive has a handle of its own and closes that.
//
// A reload first takes a second handle of all that it is going to close, and opens all that is new. So nothing can
// take the place of anything meanwhile, and where one directive follows another there is no moment in which nobody listens.
type sockets struct {
	all []*socket
}

// socket is one of them. Handles are a *net.TCPListener, a *net.UDPConn or a listener on a Unix socket.
type socket struct {
	network string
	wanted  string // The address as it was configured; "" if that was done elsewhere.
	addr    net.Addr
	mode    fs.FileMode
	owner   *piece    // nil: nobody listens.
	handle  io.Closer // The owner's.
	source  io.Closer // What further handles are made of, if there may be some.
	next    io.Closer // For the next owner, already made.

	manager bool   // Of the service manager: it stays open.
	name    string // Its FileDescriptorName, "" for none.
	told    bool   // That it is not used.
}

// duplicate makes another handle.
func duplicate(h io.Closer) (io.Closer, error) {
	if l, ok := h.(interface{ Duplicate() (net.Listener, error) }); ok {
		return l.Duplicate()
	}
	f, err := h.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, ok := h.(*net.UDPConn); ok {
		return net.FilePacketConn(f)
	}
	return net.FileListener(f)
}

// find returns the socket for an endpoint that can be had, nil if there is none. One of the service manager that somebody
// keeps is an error.
func (s *sockets) find(e endpoint, cfg *config.Config, can func(*socket) bool) (*socket, error) {
	var kept *socket
	look := func(fits func(*socket) bool) *socket {
		for _, x := range s.all {
			if x.network != e.network || !x.manager && !can(x) || !fits(x) {
				continue
			}
			if can(x) {
				return x
			}
			kept = x
		}
		return nil
	}
	x := look(func(x *socket) bool { return x.wanted == e.address || sameAddress(x.addr, e.address) })
	if x == nil && kept == nil && countKind(cfg, e.directive) == 1 {
		x = look(func(x *socket) bool {
			return x.name == e.directive && (x.owner == nil || x.owner.directive.Name == e.directive)
		})
	}
	if x == nil && kept != nil {
		return nil, fmt.Errorf("%s: socket %s of the service manager, held by %s: %w", e.directive, kept.addr, kept.owner.directive.Name, unix.EADDRINUSE)
	}
	return x, nil
}

func countKind(cfg *config.Config, directive string) (n int) {
	for _, d := range cfg.Directives {
		if d.Name == directive {
			n++
		}
	}
	return n
}

// listenAt gives the piece that is being opened a handle of its endpoint.
func (d *Daemon) listenAt(e endpoint) (io.Closer, error) {
	x, err := d.sockets.find(e, d.target, func(x *socket) bool { return x.owner == nil })
	if err != nil {
		return nil, err
	}
	if x == nil {
		h, addr, err := e.open(false)
		if err != nil {
			return nil, err
		}
		d.sockets.all = append(d.sockets.all, &socket{network: e.network, wanted: e.address, addr: addr, mode: e.mode, owner: d.opening, handle: h})
		return h, nil
	}
	if x.manager {
		d.log.Debug("Using a socket of the service manager", "directive", e.directive, "address", x.addr.String())
	} else if x.mode != e.mode {
		if err := os.Chmod(e.address, e.mode); err != nil {
			return nil, e.error(err)
		}
		x.mode = e.mode
	}
	x.handle, x.next = x.next, nil
	if x.handle == nil {
		if x.handle, err = duplicate(x.source); err != nil {
			return nil, e.error(err)
		}
	}
	x.owner = d.opening
	return x.handle, nil
}

// listenStream is listenAt for what accepts connections.
func (d *Daemon) listenStream(e endpoint) (net.Listener, error) {
	h, err := d.listenAt(e)
	if err != nil {
		return nil, err
	}
	return h.(net.Listener), nil
}

// listenUDP is listenAt for datagrams.
func (d *Daemon) listenUDP(e endpoint) (*net.UDPConn, error) {
	h, err := d.listenAt(e)
	if err != nil {
		return nil, err
	}
	return h.(*net.UDPConn), nil
}

// leave takes note that a piece has ended, and closes what it did not.
func (s *sockets) leave(p *piece) {
	s.all = slices.DeleteFunc(s.all, func(x *socket) bool {
		if x.owner != p {
			return false
		}
		_ = x.handle.Close()
		x.owner, x.handle = nil, nil
		return x.source == nil
	})
}

// hold keeps what a piece listens on open, whatever the piece does.
func (s *sockets) hold(p *piece) (err error) {
	for _, x := range s.all {
		if x.owner == p && x.source == nil {
			if x.source, err = duplicate(x.handle); err != nil {
				return err
			}
		}
	}
	return nil
}

// reserve sees to it that a directive will get its endpoint: what one of those has that are leaving, what nobody has, or a new socket.
// It returns who has it until then.
func (s *sockets) reserve(e endpoint, cfg *config.Config, leaving []*piece) (*piece, error) {
	can := func(x *socket) bool {
		return x.next == nil && x.source != nil && (x.owner == nil || slices.Contains(leaving, x.owner))
	}
	x, err := s.find(e, cfg, can)
	if err != nil {
		return nil, err
	}
	if x == nil {
		x = &socket{network: e.network, wanted: e.address, mode: e.mode}
		if x.source, x.addr, err = s.openAmong(e, leaving); err != nil {
			return nil, err
		}
		s.all = append(s.all, x)
	}
	if x.next, err = duplicate(x.source); err != nil {
		return nil, e.error(err)
	}
	return x.owner, nil
}

// openAmong opens an endpoint. Where the system sees only those in the way that are leaving, as when a port of one address is to
// become that of all, they and the new one share the place until they are gone; with anybody else it is not shared.
func (s *sockets) openAmong(e endpoint, leaving []*piece) (io.Closer, net.Addr, error) {
	h, addr, err := e.open(false)
	if !errors.Is(err, unix.EADDRINUSE) || e.network == "unix" {
		return h, addr, err
	}
	var inTheWay []syscall.Conn
	for _, x := range s.all {
		if x.network != e.network || !overlap(x.addr, e.address) {
			continue
		}
		c, ok := x.source.(syscall.Conn)
		if !ok || x.next != nil || !slices.Contains(leaving, x.owner) {
			return nil, nil, err
		}
		inTheWay = append(inTheWay, c)
	}
	if len(inTheWay) == 0 {
		return nil, nil, err
	}
	share(inTheWay, true)
	defer share(inTheWay, false)
	if h, addr, err = e.open(true); err == nil {
		share([]syscall.Conn{h.(syscall.Conn)}, false)
	}
	return h, addr, err
}

func share(all []syscall.Conn, shared bool) {
	for _, c := range all {
		if raw, err := c.SyscallConn(); err == nil {
			_ = setShared(raw, shared) // Where it fails, the next bind does.
		}
	}
}

func setShared(c syscall.RawConn, shared bool) (err error) {
	value := 0
	if shared {
		value = 1
	}
	if controlErr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, value) }); controlErr != nil {
		return controlErr
	}
	return err
}

// release ends hold and reserve: what nobody listens on is closed.
func (s *sockets) release() {
	s.all = slices.DeleteFunc(s.all, func(x *socket) bool {
		if x.next != nil {
			_ = x.next.Close()
			x.next = nil
		}
		if x.manager || x.source == nil {
			return false
		}
		_ = x.source.Close()
		x.source = nil
		return x.owner == nil
	})
}

// sameAddress compares a socket's address with a configured one; all addresses of the machine are one address.
func sameAddress(a net.Addr, address string) bool {
	if ip, want, ok := samePort(a, address); ok {
		return want.Equal(ip) || everywhere(want) && everywhere(ip)
	}
	if u, ok := a.(*net.UnixAddr); ok {
		path, err := filepath.Abs(address)
		return u.Name == address || err == nil && u.Name == path
	}
	return false
}

// overlap reports whether a socket's address and a configured one have something in common.
func overlap(a net.Addr, address string) bool {
	ip, want, ok := samePort(a, address)
	return ok && (want.Equal(ip) || everywhere(want) || everywhere(ip))
}

func everywhere(ip net.IP) bool { return ip == nil || ip.IsUnspecified() }

// samePort returns the IP addresses of a socket and of a configured address that has its port.
func samePort(a net.Addr, address string) (ip, want net.IP, ok bool) {
	var port int
	switch a := a.(type) {
	case *net.TCPAddr:
		ip, port = a.IP, a.Port
	case *net.UDPAddr:
		ip, port = a.IP, a.Port
	default:
		return nil, nil, false
	}
	addr, err := net.ResolveTCPAddr("tcp", address) // Names and ports of UDP are resolved alike.
	if err != nil || addr.Port != port {
		return nil, nil, false
	}
	return ip, addr.IP, true
}
