package config

import (
	"io/fs"
	"strings"

	"github.com/pyreceptor/pyreceptor/go/policy/access"
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
	// Allow says who may use which commands; nil: who can reach a listener may use all. The rules compile.
	Allow []access.Rule

	permissions int
	allow       []map[string]any
}

// serviceDirectives are what a node offers, in the mesh and beside it.
func serviceDirectives() []*directive {
	return []*directive{
		of(directive{name: "control-service", help: "Offer the control service", group: services},
			ControlService{Service: "control", permissions: 0o600}, checkControlService,
			text("service", "Name of the service in the mesh, empty to not offer it there", func(c *ControlService) *string { return &c.Service }).names(),
			text("filename", "Path of a Unix socket to listen on", func(c *ControlService) *string { return &c.Filename }).names(),
			number("permissions", "Permissions of the socket, in octal", func(c *ControlService) *int { return &c.permissions }).mode(),
			text("tls", "Name of the tls-server for the mesh listener", func(c *ControlService) *string { return &c.TLS }),
			text("tcplisten", "TCP address to listen on, as port (loopback only) or host:port", func(c *ControlService) *string { return &c.TCPListen }),
			text("tcptls", "Name of the tls-server for the TCP listener", func(c *ControlService) *string { return &c.TCPTLS }),
			dicts("allow", `Who may use which commands, as [{"commands":["status","work submit"],"uid":"root"}]; keys: commands (* is all), listener, uid, gid, node, certnode`,
				func(c *ControlService) *[]map[string]any { return &c.allow }),
		),
	}
}

func checkControlService(c *checker, s *ControlService) {
	if s.Service == "" && s.Filename == "" && s.TCPListen == "" {
		c.refuse("", "give service, filename or tcplisten", "no listeners specified")
	}
	c.service("service", s.Service)
	c.tlsServer("tls", s.TLS)
	if s.TCPListen != "" {
		c.tlsServer("tcptls", s.TCPTLS)
		s.TCPListen = c.tcpListen(s.TCPListen)
	}
	s.Permissions = c.permissions(s.permissions)
	if s.allow == nil {
		return
	}
	var err error
	if s.Allow, err = access.Parse(s.allow); err != nil {
		c.refuse("allow", `a rule looks like {commands: [status, work submit], certnode: controller}`, "%s", oneLine(err))
	}
}

// oneLine joins the lines of an error.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// tcpListen completes PORT to host:port. The control service asks nobody who they are, so a port alone is for this
// machine only.
func (c *checker) tcpListen(s string) string {
	if !strings.Contains(s, ":") {
		s = "127.0.0.1:" + s
	}
	c.address("tcplisten", s)
	return s
}

// service takes the name of a service of this node, which a parameter gives.
func (c *checker) service(param, name string) {
	if name == "" {
		return
	}
	if len(name) > wire.MaxService {
		c.refuse(param, "at most 8 bytes", "error listening on Receptor network: service name %s too long", name)
		return
	}
	if first, taken := c.services[name]; taken {
		c.refuse(param, givenAt(first), "error listening on Receptor network: service %s is already listening", name)
		return
	}
	c.services[name] = c.entry.pos
}
