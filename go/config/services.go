package config

import (
	"io/fs"
	"strings"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// ControlService offers the control protocol on up to three listeners.
type ControlService struct {
	Service     string // Name in the mesh; empty: not offered there.
	Filename    string // Path of a unix socket; empty: none.
	Permissions fs.FileMode
	TCPListen   string // host:port; empty: none.
	TLS         string // Profile of the mesh listener.
	TCPTLS      string // Profile of the TCP listener.

	permissions int
}

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

// serviceDirectives are what a node offers, in the mesh and beside it.
func serviceDirectives() []*directive {
	return []*directive{
		of(directive{name: "control-service", help: "Offer the control service", group: services},
			ControlService{Service: "control", permissions: 0o600}, checkControlService,
			text("service", "Name of the service in the mesh, empty to not offer it there", func(c *ControlService) *string { return &c.Service }),
			text("filename", "Path of a Unix socket to listen on", func(c *ControlService) *string { return &c.Filename }),
			number("permissions", "Permissions of the socket, in octal", func(c *ControlService) *int { return &c.permissions }).shown("0600"),
			text("tls", "Name of the tls-server for the mesh listener", func(c *ControlService) *string { return &c.TLS }),
			text("tcplisten", "TCP address to listen on, as port (loopback only) or host:port", func(c *ControlService) *string { return &c.TCPListen }),
			text("tcptls", "Name of the tls-server for the TCP listener", func(c *ControlService) *string { return &c.TCPTLS }),
		),
		of(directive{name: "tcp-server", help: "Listen for TCP and forward to a service in the mesh", group: services},
			TCPServer{BindAddr: "0.0.0.0"}, checkTCPServer,
			number("port", "Local TCP port to listen on", func(t *TCPServer) *int { return &t.Port }).need(),
			text("bindaddr", "Local address to bind to", func(t *TCPServer) *string { return &t.BindAddr }),
			text("remotenode", "Node to connect to", func(t *TCPServer) *wire.NodeID { return &t.RemoteNode }).need(),
			text("remoteservice", "Service to connect to", func(t *TCPServer) *string { return &t.RemoteService }).need(),
			text("tlsserver", "Name of the tls-server for the TCP side", func(t *TCPServer) *string { return &t.TLSServer }),
			text("tlsclient", "Name of the tls-client for the mesh side", func(t *TCPServer) *string { return &t.TLSClient }),
		),
		of(directive{name: "tcp-client", help: "Offer a service in the mesh and forward to TCP", group: services},
			TCPClient{}, checkTCPClient,
			text("service", "Name of the service in the mesh", func(t *TCPClient) *string { return &t.Service }).need(),
			text("address", "TCP address to connect to, as host:port", func(t *TCPClient) *string { return &t.Address }).need(),
			text("tlsserver", "Name of the tls-server for the mesh side", func(t *TCPClient) *string { return &t.TLSServer }),
			text("tlsclient", "Name of the tls-client for the TCP side", func(t *TCPClient) *string { return &t.TLSClient }),
		),
	}
}

func checkControlService(c *checker, s *ControlService) {
	if s.Service == "" && s.Filename == "" && s.TCPListen == "" {
		c.problem(c.entry.pos, "give service, filename or tcplisten", "no listeners specified")
	}
	c.service(s.Service)
	c.tlsServer("tls", s.TLS)
	if s.TCPListen != "" {
		c.tlsServer("tcptls", s.TCPTLS)
		s.TCPListen = c.tcpListen(s.TCPListen)
	}
	if s.permissions < 0 || s.permissions > 0o777 {
		c.refuse("permissions", "permissions are octal: write 0660, not 660", "permissions %d are mode 0%o, which no socket can have", s.permissions, s.permissions)
	}
	s.Permissions = fs.FileMode(s.permissions & 0o777)
}

// tcpListen completes PORT to host:port. The control service asks nobody who they are, so a port alone is for this
// machine only.
func (c *checker) tcpListen(s string) string {
	if !strings.Contains(s, ":") {
		s = "127.0.0.1:" + s
	}
	c.address("tcplisten", s)
	return s
}

func checkTCPServer(c *checker, t *TCPServer) {
	if t.RemoteNode == "" {
		c.refuse("remotenode", "", "remotenode must not be empty")
	}
	switch n := len(t.RemoteService); {
	case n == 0:
		c.refuse("remoteservice", "", "remoteservice must not be empty")
	case n > wire.MaxService:
		c.refuse("remoteservice", "at most 8 bytes", "service name %s too long", t.RemoteService)
	}
	c.tlsServer("tlsserver", t.TLSServer)
	c.tlsClient("tlsclient", t.TLSClient)
}

func checkTCPClient(c *checker, t *TCPClient) {
	c.service(t.Service)
	c.address("address", t.Address)
	c.tlsServer("tlsserver", t.TLSServer)
	c.tlsClient("tlsclient", t.TLSClient)
}

// service takes a name for a stream service of this node.
func (c *checker) service(name string) {
	if name == "" {
		return
	}
	if len(name) > wire.MaxService {
		c.refuse("service", "at most 8 bytes", "error listening on Receptor network: service name %s too long", name)
		return
	}
	if first, taken := c.services[name]; taken {
		c.refuse("service", givenAt(first), "error listening on Receptor network: service %s is already listening", name)
		return
	}
	c.services[name] = c.entry.pos
}
