package config

import (
	"slices"
	"sync"

	"github.com/pyreceptor/pyreceptor/go/policy"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// directive describes one directive. The table below is all that the parsers, the help and the completion know.
type directive struct {
	name     string
	help     string
	group    group
	times    multiplicity
	required bool   // A default one is supplied where it is missing.
	hidden   bool   // In neither help nor completion.
	bare     string // Name of the parameter that takes a value without a name; empty: none does.
	params   []param

	fresh func() any                          // Pointer to a section with the defaults.
	value func(section any) any               // What such a pointer points to.
	check func(c *checker, e *entry, sec any) // Rules beyond types; may be nil.
}

// group is a part of the help text.
type group uint8

const (
	general group = iota
	resources
	backends
	services
	workers
	certificates
)

var groupTitles = [...]string{
	resources:    "Commands to configure resources that other commands use:",
	backends:     "Commands to configure back-ends, which connect nodes together:",
	services:     "Commands to configure services that run on top of the mesh:",
	workers:      "Commands to configure workers that process units of work:",
	certificates: "Commands to make certificates instead of running a node:",
}

type multiplicity uint8

const (
	repeatable multiplicity = iota
	once
	alone // Must be the only directive.
)

// kind is the type of a parameter.
type kind uint8

const (
	kindString kind = iota
	kindInt
	kindFloat
	kindBool
	kindList  // []string
	kindCosts // map[string]float64
	kindRules // []policy.Rule
)

var kindLabels = [...]string{
	kindString: "string",
	kindInt:    "int",
	kindFloat:  "float64",
	kindBool:   "bool",
	kindList:   "[]string (may be repeated)",
	kindCosts:  "JSON dict of string to float64",
	kindRules:  "JSON list of dicts",
}

// goTypes are the type names in error texts.
var goTypes = [...]string{
	kindString: "string",
	kindInt:    "int",
	kindFloat:  "float64",
	kindBool:   "bool",
	kindList:   "[]string",
	kindCosts:  "map[string]float64",
	kindRules:  "[]map[string]string",
}

// param describes one parameter. Values are string, int, float64, bool, []string, map[string]float64 or []policy.Rule
// by kind.
type param struct {
	name     string
	help     string
	kind     kind
	required bool
	def      string // Default in the help where the section's own default does not tell.
	set      func(section, value any)
	get      func(section any) any // nil for lists and maps.
}

func (p param) need() param { p.required = true; return p }

func (p param) shown(def string) param { p.def = def; return p }

// of builds a directive for sections of type S.
func of[S any](d directive, defaults S, check func(c *checker, s *S), params ...param) *directive {
	d.params = params
	d.fresh = func() any { s := defaults; return &s }
	d.value = func(section any) any { return *section.(*S) }
	if check != nil {
		d.check = func(c *checker, e *entry, section any) { c.entry = e; check(c, section.(*S)) }
	}
	return &d
}

func text[S any, V ~string](name, help string, at func(*S) *V) param {
	return param{name: name, help: help, kind: kindString,
		set: func(s, v any) { *at(s.(*S)) = V(v.(string)) },
		get: func(s any) any { return string(*at(s.(*S))) }}
}

func number[S any](name, help string, at func(*S) *int) param {
	return param{name: name, help: help, kind: kindInt,
		set: func(s, v any) { *at(s.(*S)) = v.(int) },
		get: func(s any) any { return *at(s.(*S)) }}
}

func float[S any](name, help string, at func(*S) *float64) param {
	return param{name: name, help: help, kind: kindFloat,
		set: func(s, v any) { *at(s.(*S)) = v.(float64) },
		get: func(s any) any { return *at(s.(*S)) }}
}

func boolean[S any](name, help string, at func(*S) *bool) param {
	return param{name: name, help: help, kind: kindBool,
		set: func(s, v any) { *at(s.(*S)) = v.(bool) },
		get: func(s any) any { return *at(s.(*S)) }}
}

func list[S any, V ~string](name, help string, at func(*S) *[]V) param {
	return param{name: name, help: help, kind: kindList, set: func(s, v any) {
		in, out := v.([]string), []V(nil)
		if in != nil {
			out = make([]V, len(in))
		}
		for i, text := range in {
			out[i] = V(text)
		}
		*at(s.(*S)) = out
	}}
}

func costs[S any, K ~string](name, help string, at func(*S) *map[K]float64) param {
	return param{name: name, help: help, kind: kindCosts, set: func(s, v any) {
		out := make(map[K]float64)
		for k, cost := range v.(map[string]float64) {
			out[K(k)] = cost
		}
		*at(s.(*S)) = out
	}}
}

func firewallRules[S any](name, help string, at func(*S) *[]policy.Rule) param {
	return param{name: name, help: help, kind: kindRules, set: func(s, v any) { *at(s.(*S)) = v.([]policy.Rule) }}
}

// lookup returns the directive called name (lower case), nil if there is none.
func lookup(name string) *directive {
	all := schema()
	if i := slices.IndexFunc(all, func(d *directive) bool { return d.name == name }); i >= 0 {
		return all[i]
	}
	return nil
}

// param returns the parameter called name (lower case), nil if there is none.
func (d *directive) param(name string) *param {
	if i := slices.IndexFunc(d.params, func(p param) bool { return p.name == name }); i >= 0 {
		return &d.params[i]
	}
	return nil
}

// schema is the table of all directives. Built when first needed: the process that runs a command never needs it.
var schema = sync.OnceValue(func() []*directive {
	return []*directive{
		of(directive{name: "node", help: "Who this node is", times: once, required: true, bare: "id"},
			Node{DataDir: "/tmp/receptor"}, checkNode,
			text("id", "Node ID, unique in the mesh", func(n *Node) *wire.NodeID { return &n.ID }).shown("local host name"),
			text("datadir", "Directory in which to store units of work", func(n *Node) *string { return &n.DataDir }),
			firewallRules("firewallrules", `Which packets may pass, first match wins, as [{"action":"reject","fromnode":"/edge.*/","toservice":"control"}]`,
				func(n *Node) *[]policy.Rule { return &n.FirewallRules }),
			text("maxidleconnectiontimeout", "How long a link may be silent before it is dropped, as a duration such as 1.5h, 30m or 30m10s",
				func(n *Node) *string { return &n.maxIdle }).shown("21s"),
		),
		of(directive{name: "local-only", help: "Run a node that has no links to other nodes", times: once},
			LocalOnly{}, nil,
			boolean("local", "Accepted for compatibility, has no effect", func(l *LocalOnly) *bool { return &l.Local }),
		),
		of(directive{name: "version", help: "Show the version and exit", times: alone}, Version{}, nil),
		of(directive{name: "trace", help: "Accepted for compatibility, has no effect", times: once}, Trace{}, nil),
		of(directive{name: "log-level", help: "What to log", times: once, bare: "level"},
			LogLevel{text: string(LevelInfo)}, checkLogLevel,
			text("level", "One of error, warning, info, debug", func(l *LogLevel) *string { return &l.text }),
		),

		tlsServerDirective(),
		tlsClientDirective(),

		of(directive{name: "tcp-listener", help: "Accept links from other nodes over TCP", group: backends, bare: "port"},
			TCPListener{BindAddr: "0.0.0.0", Cost: 1}, checkTCPListener,
			text("bindaddr", "Local address to bind to, IPv6 in brackets", func(l *TCPListener) *string { return &l.BindAddr }),
			number("port", "Local TCP port to listen on, 0 for any free one", func(l *TCPListener) *int { return &l.Port }).need(),
			text("tls", "Name of the tls-server to use", func(l *TCPListener) *string { return &l.TLS }),
			float("cost", "Cost of a link, more than 0", func(l *TCPListener) *float64 { return &l.Cost }),
			costs("nodecost", "Costs of links to particular nodes", func(l *TCPListener) *map[wire.NodeID]float64 { return &l.NodeCost }),
			list("allowedpeers", "IDs of the nodes that may connect, all if absent", func(l *TCPListener) *[]wire.NodeID { return &l.AllowedPeers }),
		),
		of(directive{name: "tcp-peer", help: "Keep a link to another node over TCP", group: backends, bare: "address"},
			TCPPeer{Redial: true, Cost: 1}, checkTCPPeer,
			text("address", "Where the other node listens, as host:port", func(p *TCPPeer) *string { return &p.Address }).need(),
			boolean("redial", "Connect again after a failure or loss", func(p *TCPPeer) *bool { return &p.Redial }),
			text("tls", "Name of the tls-client to use", func(p *TCPPeer) *string { return &p.TLS }),
			float("cost", "Cost of the link, more than 0; the same at both ends", func(p *TCPPeer) *float64 { return &p.Cost }),
			list("allowedpeers", "IDs of the nodes that may answer, all if absent", func(p *TCPPeer) *[]wire.NodeID { return &p.AllowedPeers }),
		),
		of(directive{name: "udp-listener", help: "Accept links from other nodes over UDP", group: backends, bare: "port"},
			UDPListener{BindAddr: "0.0.0.0", Cost: 1}, checkUDPListener,
			text("bindaddr", "Local address to bind to, IPv6 in brackets", func(l *UDPListener) *string { return &l.BindAddr }),
			number("port", "Local UDP port to listen on, 0 for any free one", func(l *UDPListener) *int { return &l.Port }).need(),
			float("cost", "Cost of a link, more than 0", func(l *UDPListener) *float64 { return &l.Cost }),
			costs("nodecost", "Costs of links to particular nodes", func(l *UDPListener) *map[wire.NodeID]float64 { return &l.NodeCost }),
			list("allowedpeers", "IDs of the nodes that may connect, all if absent", func(l *UDPListener) *[]wire.NodeID { return &l.AllowedPeers }),
		),
		of(directive{name: "udp-peer", help: "Keep a link to another node over UDP", group: backends, bare: "address"},
			UDPPeer{Redial: true, Cost: 1}, checkUDPPeer,
			text("address", "Where the other node listens, as host:port", func(p *UDPPeer) *string { return &p.Address }).need(),
			boolean("redial", "Connect again after a failure or loss", func(p *UDPPeer) *bool { return &p.Redial }),
			float("cost", "Cost of the link, more than 0; the same at both ends", func(p *UDPPeer) *float64 { return &p.Cost }),
			list("allowedpeers", "IDs of the nodes that may answer, all if absent", func(p *UDPPeer) *[]wire.NodeID { return &p.AllowedPeers }),
		),
		of(directive{name: "ws-listener", help: "Accept links from other nodes over WebSocket", group: backends, bare: "port"},
			WSListener{BindAddr: "0.0.0.0", Path: "/", Cost: 1}, checkWSListener,
			text("bindaddr", "Local address to bind to, IPv6 in brackets", func(l *WSListener) *string { return &l.BindAddr }),
			number("port", "Local TCP port to listen on, 0 for any free one", func(l *WSListener) *int { return &l.Port }).need(),
			text("path", "Path of the URL to answer; / answers all", func(l *WSListener) *string { return &l.Path }),
			text("tls", "Name of the tls-server to use", func(l *WSListener) *string { return &l.TLS }),
			float("cost", "Cost of a link, more than 0", func(l *WSListener) *float64 { return &l.Cost }),
			costs("nodecost", "Costs of links to particular nodes", func(l *WSListener) *map[wire.NodeID]float64 { return &l.NodeCost }),
			list("allowedpeers", "IDs of the nodes that may connect, all if absent", func(l *WSListener) *[]wire.NodeID { return &l.AllowedPeers }),
		),
		of(directive{name: "ws-peer", help: "Keep a link to another node over WebSocket", group: backends, bare: "address"},
			WSPeer{Redial: true, Cost: 1}, checkWSPeer,
			text("address", "URL of the other node, as ws://host:port/path or wss://host:port/path", func(p *WSPeer) *string { return &p.Address }).need(),
			boolean("redial", "Connect again after a failure or loss", func(p *WSPeer) *bool { return &p.Redial }),
			text("tls", "Name of the tls-client to use with wss", func(p *WSPeer) *string { return &p.TLS }),
			text("extraheader", "One more header of the request, as Name: value", func(p *WSPeer) *string { return &p.header }),
			float("cost", "Cost of the link, more than 0; the same at both ends", func(p *WSPeer) *float64 { return &p.Cost }),
			list("allowedpeers", "IDs of the nodes that may answer, all if absent", func(p *WSPeer) *[]wire.NodeID { return &p.AllowedPeers }),
		),

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

		of(directive{name: "work-command", help: "Offer a type of work that runs a command", group: workers},
			WorkCommand{}, checkWorkCommand,
			text("worktype", "Name of the type of work", func(w *WorkCommand) *string { return &w.WorkType }).need(),
			text("command", "Command to run", func(w *WorkCommand) *string { return &w.Command }).need(),
			text("params", "Parameters of the command", func(w *WorkCommand) *string { return &w.Params }),
			boolean("allowruntimeparams", "Let the submitter add parameters", func(w *WorkCommand) *bool { return &w.AllowRuntimeParams }),
			boolean("verifysignature", "Accept signed submissions only", func(w *WorkCommand) *bool { return &w.VerifySignature }),
		),
		certInitDirective(),
		certMakeReqDirective(),
		certSignReqDirective(),
		of(directive{name: "command-runner", help: "Run the command of one unit of work", group: workers, times: once, hidden: true},
			CommandRunner{}, nil,
			text("command", "Command to run", func(r *CommandRunner) *string { return &r.Command }).need(),
			text("params", "Parameters of the command", func(r *CommandRunner) *string { return &r.Params }).need(),
			text("unitdir", "Directory of the unit", func(r *CommandRunner) *string { return &r.UnitDir }).need(),
		),
	}
})
