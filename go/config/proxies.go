package config

import (
	"io/fs"
	"net/netip"
	"strings"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// TCPServer is a TCP port whose connections go to a service in the mesh.
type TCPServer struct {
	Port          int
	BindAddr      string // IPv6 without brackets.
	RemoteNode    wire.NodeID
	RemoteService string
	TLSServer     string // Profile of the TCP side.
	TLSClient     string // Profile of the mesh side.
}

// TCPClient is a service in the mesh whose streams go to a TCP address.
type TCPClient struct {
	Service   string // Empty means a name made up at start.
	Address   string // host:port
	TLSServer string // Profile of the mesh side.
	TLSClient string // Profile of the TCP side.
}

// UDPServer is a UDP port whose datagrams go to a service in the mesh.
type UDPServer struct {
	Port          int
	BindAddr      string // IPv6 without brackets.
	RemoteNode    wire.NodeID
	RemoteService string
}

// UDPClient is a service in the mesh whose datagrams go to a UDP address.
type UDPClient struct {
	Service string // Empty means a name made up at start.
	Address string // host:port
}

// UnixServer is a Unix socket whose connections go to a service in the mesh.
type UnixServer struct {
	Filename      string
	Permissions   fs.FileMode
	RemoteNode    wire.NodeID
	RemoteService string
	TLS           string // tls-client of the mesh side.

	permissions int
}

// UnixClient is a service in the mesh whose streams go to a Unix socket.
type UnixClient struct {
	Service  string // Empty means a name made up at start.
	Filename string
	TLS      string // tls-server of the mesh side.
}

// CommandService is a service in the mesh that starts a command on a terminal for each stream.
type CommandService struct {
	Service string
	Command string // Split as a shell splits words, not empty.
	TLS     string // tls-server
}

// IPRouter joins IP networks over the mesh through a TUN interface.
type IPRouter struct {
	NetworkName string         // Also the name of its service.
	Interface   string         // Empty: the kernel chooses.
	LocalNet    netip.Prefix   // An IPv4 network of four addresses.
	Routes      []netip.Prefix // Networks that are reached through this node.

	localNet, routes string
}

// proxyDirectives carry what is not work between the mesh and the world outside.
func proxyDirectives() []*directive {
	return []*directive{
		of(directive{name: "tcp-server", help: "Listen for TCP and forward to a service in the mesh", group: services},
			TCPServer{BindAddr: "0.0.0.0"}, checkTCPServer,
			number("port", "Local TCP port to listen on", func(t *TCPServer) *int { return &t.Port }).need().names().between(0, 65535),
			text("bindaddr", "Local address to bind to", func(t *TCPServer) *string { return &t.BindAddr }).names(),
			text("remotenode", "Node to connect to", func(t *TCPServer) *wire.NodeID { return &t.RemoteNode }).need(),
			text("remoteservice", "Service to connect to", func(t *TCPServer) *string { return &t.RemoteService }).need(),
			text("tlsserver", "Name of the tls-server for the TCP side", func(t *TCPServer) *string { return &t.TLSServer }),
			text("tlsclient", "Name of the tls-client for the mesh side", func(t *TCPServer) *string { return &t.TLSClient }),
		),
		of(directive{name: "tcp-client", help: "Offer a service in the mesh and forward to TCP", group: services},
			TCPClient{}, checkTCPClient,
			text("service", "Name of the service in the mesh", func(t *TCPClient) *string { return &t.Service }).need().names(),
			text("address", "TCP address to connect to, as host:port", func(t *TCPClient) *string { return &t.Address }).need(),
			text("tlsserver", "Name of the tls-server for the mesh side", func(t *TCPClient) *string { return &t.TLSServer }),
			text("tlsclient", "Name of the tls-client for the TCP side", func(t *TCPClient) *string { return &t.TLSClient }),
		),
		of(directive{name: "udp-server", help: "Listen for UDP and forward to a service in the mesh", group: services},
			UDPServer{BindAddr: "0.0.0.0"}, checkUDPServer,
			number("port", "Local UDP port to listen on", func(u *UDPServer) *int { return &u.Port }).need().names().between(0, 65535),
			text("bindaddr", "Local address to bind to", func(u *UDPServer) *string { return &u.BindAddr }).names(),
			text("remotenode", "Node to send to", func(u *UDPServer) *wire.NodeID { return &u.RemoteNode }).need(),
			text("remoteservice", "Service to send to", func(u *UDPServer) *string { return &u.RemoteService }).need(),
		),
		of(directive{name: "udp-client", help: "Offer a service in the mesh and forward to UDP", group: services},
			UDPClient{}, checkUDPClient,
			text("service", "Name of the service in the mesh", func(u *UDPClient) *string { return &u.Service }).need().names(),
			text("address", "UDP address to send to, as host:port", func(u *UDPClient) *string { return &u.Address }).need(),
		),
		of(directive{name: "unix-socket-server", help: "Listen on a Unix socket and forward to a service in the mesh", group: services},
			UnixServer{permissions: 0o600}, checkUnixServer,
			text("filename", "Path of the socket to listen on", func(u *UnixServer) *string { return &u.Filename }).need().names(),
			number("permissions", "Permissions of the socket, in octal", func(u *UnixServer) *int { return &u.permissions }).mode(),
			text("remotenode", "Node to connect to", func(u *UnixServer) *wire.NodeID { return &u.RemoteNode }).need(),
			text("remoteservice", "Service to connect to", func(u *UnixServer) *string { return &u.RemoteService }).need(),
			text("tls", "Name of the tls-client for the mesh side", func(u *UnixServer) *string { return &u.TLS }),
		),
		of(directive{name: "unix-socket-client", help: "Offer a service in the mesh and forward to a Unix socket", group: services},
			UnixClient{}, checkUnixClient,
			text("service", "Name of the service in the mesh", func(u *UnixClient) *string { return &u.Service }).need().names(),
			text("filename", "Path of the socket to connect to", func(u *UnixClient) *string { return &u.Filename }).need(),
			text("tls", "Name of the tls-server for the mesh side", func(u *UnixClient) *string { return &u.TLS }),
		),
		of(directive{name: "command-service", help: "Offer a service in the mesh that runs a command on a terminal per connection", group: services},
			CommandService{}, checkCommandService,
			text("service", "Name of the service in the mesh", func(s *CommandService) *string { return &s.Service }).need().names(),
			text("command", "Command to run, with its parameters", func(s *CommandService) *string { return &s.Command }).need(),
			text("tls", "Name of the tls-server to use", func(s *CommandService) *string { return &s.TLS }),
		),
		of(directive{name: "ip-router", help: "Route IP packets through the mesh", group: services, plural: "iprouters"},
			IPRouter{}, checkIPRouter,
			text("networkname", "Name of the network, and of its service in the mesh", func(r *IPRouter) *string { return &r.NetworkName }).need().names(),
			text("interface", "Name of the network interface to make", func(r *IPRouter) *string { return &r.Interface }).shown("the next free tunN"),
			text("localnet", "Network of the interface, an IPv4 /30 as in 10.9.0.0/30", func(r *IPRouter) *string { return &r.localNet }).need(),
			text("routes", "Networks that are reached through this node, with commas between", func(r *IPRouter) *string { return &r.routes }),
		),
	}
}

func checkTCPServer(c *checker, t *TCPServer) {
	c.port("tcp", t.Port)
	c.remote(t.RemoteNode, t.RemoteService)
	c.tlsServer("tlsserver", t.TLSServer)
	c.tlsClient("tlsclient", t.TLSClient)
}

func checkTCPClient(c *checker, t *TCPClient) {
	c.service("service", t.Service)
	c.address("address", t.Address)
	c.tlsServer("tlsserver", t.TLSServer)
	c.tlsClient("tlsclient", t.TLSClient)
}

func checkUDPServer(c *checker, u *UDPServer) {
	c.port("udp", u.Port)
	c.remote(u.RemoteNode, u.RemoteService)
}

func checkUDPClient(c *checker, u *UDPClient) {
	c.service("service", u.Service)
	c.address("address", u.Address)
}

func checkUnixServer(c *checker, u *UnixServer) {
	c.filename(u.Filename)
	u.Permissions = c.permissions(u.permissions)
	c.remote(u.RemoteNode, u.RemoteService)
	c.tlsClient("tls", u.TLS)
}

func checkUnixClient(c *checker, u *UnixClient) {
	c.service("service", u.Service)
	c.filename(u.Filename)
	c.tlsServer("tls", u.TLS)
}

func checkCommandService(c *checker, s *CommandService) {
	c.service("service", s.Service)
	if strings.TrimSpace(s.Command) == "" {
		c.refuse("command", "as in command=\"bash -l\"", "command must not be empty")
	}
	c.tlsServer("tls", s.TLS)
}

func checkIPRouter(c *checker, r *IPRouter) {
	if r.NetworkName == "" {
		c.refuse("networkname", "", "networkname must not be empty")
	}
	c.service("networkname", r.NetworkName)
	if len(r.Interface) >= 16 || strings.ContainsAny(r.Interface, "/ \t\n") {
		c.refuse("interface", "at most 15 bytes without blanks and slashes", "interface name %q cannot be used", r.Interface)
	}
	if net, ok := c.cidr("localnet", r.localNet); ok {
		switch {
		case !net.Addr().Is4():
			c.refuse("localnet", "", "local network %s must be IPv4", r.localNet)
		case net.Bits() != 30:
			c.refuse("localnet", "as in 10.9.0.0/30", "local network %s must be a /30 CIDR", r.localNet)
		}
		r.LocalNet = net
	}
	for text := range strings.SplitSeq(r.routes, ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		if route, ok := c.cidr("routes", text); ok {
			r.Routes = append(r.Routes, route)
		}
	}
}

func (c *checker) cidr(param, text string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		c.refuse(param, "as in 192.168.7.0/24", "could not parse %s as a CIDR address", text)
	}
	return p.Masked(), err == nil
}

// remote checks the service that a proxy leads to.
func (c *checker) remote(node wire.NodeID, service string) {
	if node == "" {
		c.refuse("remotenode", "", "remotenode must not be empty")
	}
	switch n := len(service); {
	case n == 0:
		c.refuse("remoteservice", "", "remoteservice must not be empty")
	case n > wire.MaxService:
		c.refuse("remoteservice", "at most 8 bytes", "service name %s too long", service)
	}
}

// filename checks the path of a socket.
func (c *checker) filename(path string) {
	if path == "" {
		c.refuse("filename", "", "filename must not be empty")
	}
}

// permissions are those of a socket file.
func (c *checker) permissions(mode int) fs.FileMode {
	if mode < 0 || mode > 0o777 {
		c.refuse("permissions", "permissions are octal: write 0660, not 660", "permissions %d are mode 0%o, which no socket can have", mode, mode)
	}
	return fs.FileMode(mode & 0o777)
}

// port refuses what no port can be, in the words of the operating system's library.
func (c *checker) port(network string, port int) {
	if port >= 0 && port <= 65535 {
		return
	}
	prefix := "listen tcp: "
	if network == "udp" {
		prefix = ""
	}
	c.refuse("port", "", "%saddress %d: invalid port", prefix, port)
}
