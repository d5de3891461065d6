package config

import (
	"io/fs"
	"maps"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// maxNodeID is the longest node ID in bytes: the ID names a folder, and file systems allow no more.
const maxNodeID = 255

// checker applies the rules that go beyond types, directive after directive.
type checker struct {
	*parser
	entry     *entry
	services  map[string]Position // Stream services of this node.
	workTypes map[string]Position
	profiles  profiles
}

// check applies them to all directives and completes the sections.
func check(p *parser) {
	c := &checker{
		parser:    p,
		services:  map[string]Position{"ping": {}, "unreach": {}},
		workTypes: map[string]Position{"remote": {}},
		profiles:  defined(p),
	}
	for _, e := range p.entries {
		if e.spec.check != nil {
			e.spec.check(c, e, e.section)
		}
	}
}

// refuse reports a problem with a parameter.
func (c *checker) refuse(param, hint, format string, args ...any) {
	pos, ok := c.entry.given[param]
	if !ok {
		pos = c.entry.pos
	}
	c.problem(pos, hint, format, args...)
}

func checkNode(c *checker, n *Node) {
	if n.ID == "" {
		c.defaultID(n)
	}
	checkNodeID(c, n.ID)
	if n.DataDir == "" {
		n.DataDir = filepath.Join(os.TempDir(), "receptor")
	}
	n.MaxIdle = MinIdle
	if n.maxIdle == "" {
		return
	}
	idle, err := time.ParseDuration(n.maxIdle)
	switch {
	case err != nil:
		c.refuse("maxidleconnectiontimeout", "", "failed to parse MaxIdleConnectionTimeout from configuration file -- valid examples include '1.5h', '30m', '30m10s'")
	case idle < MinIdle:
		c.refuse("maxidleconnectiontimeout", "the shortest is 21s", "user defined maxIdleConnectionTimeout [%d] is less than the default default timeout [%d]", idle, MinIdle)
	default:
		n.MaxIdle = idle
	}
}

func (c *checker) defaultID(n *Node) {
	host, err := os.Hostname()
	switch {
	case err != nil:
		c.refuse("id", "give the node an ID, as in --node id=NAME", "no node ID specified and the local host name is unknown: %v", err)
	case strings.EqualFold(host, "localhost") || strings.HasPrefix(strings.ToLower(host), "localhost."):
		c.refuse("id", "give the node an ID, as in --node id=NAME", "no node ID specified and local host name is localhost")
	default:
		n.ID = wire.NodeID(host)
	}
}

func checkNodeID(c *checker, id wire.NodeID) {
	s := string(id)
	switch {
	case s == "": // Reported already.
	case strings.EqualFold(s, "localhost"):
		c.refuse("id", "", "node ID %q is reserved", "localhost")
	case s == "." || s == ".." || strings.Contains(s, "/") || strings.ContainsFunc(s, unicode.IsControl):
		c.refuse("id", "it names a folder: no /, no control characters, neither . nor ..", "node ID %q cannot be used", s)
	case !utf8.ValidString(s):
		c.refuse("id", "", "node ID %q is not valid UTF-8", s)
	case len(s) > maxNodeID:
		c.refuse("id", "", "node ID is %d bytes long, at most %d are allowed", len(s), maxNodeID)
	}
}

func checkLogLevel(c *checker, l *LogLevel) {
	l.Level = Level(strings.ToLower(l.text))
	if !slices.Contains([]Level{LevelError, LevelWarning, LevelInfo, LevelDebug}, l.Level) {
		c.refuse("level", "one of error, warning, info, debug", "%s is not a valid log level name", l.text)
	}
}

func checkTCPListener(c *checker, l *TCPListener) {
	c.costs(l.Cost, l.NodeCost)
	c.tlsServer("tls", l.TLS)
}

func checkTCPPeer(c *checker, p *TCPPeer) {
	c.address("address", p.Address)
	c.cost(p.Cost)
	c.tlsClient("tls", p.TLS)
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

func checkWorkCommand(c *checker, w *WorkCommand) {
	if first, taken := c.workTypes[w.WorkType]; taken {
		c.refuse("worktype", givenAt(first), "work type %s already registered", w.WorkType)
	} else {
		c.workTypes[w.WorkType] = c.entry.pos
	}
	if w.VerifySignature {
		c.refuse("verifysignature", "", "VerifySignature for work command '%s' is true, but the work verification public key is not specified", w.WorkType)
	}
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

// givenAt says where a name was taken; reserved names were taken nowhere.
func givenAt(first Position) string {
	if s := first.String(); s != "" {
		return "first given at " + s
	}
	return "the name is reserved"
}

func (c *checker) address(param, address string) {
	if _, _, err := net.SplitHostPort(address); err != nil {
		c.refuse(param, "", "%s", err)
	}
}

func (c *checker) cost(cost float64) {
	if !positive(cost) {
		c.refuse("cost", "", "connection cost must be positive")
	}
}

func (c *checker) costs(cost float64, nodeCost map[wire.NodeID]float64) {
	c.cost(cost)
	for _, peer := range slices.Sorted(maps.Keys(nodeCost)) {
		if !positive(nodeCost[peer]) {
			c.refuse("nodecost", "", "connection cost must be positive for %s", peer)
		}
	}
}

// positive is what route computation can work with.
func positive(cost float64) bool { return cost > 0 && !math.IsInf(cost, 1) }
