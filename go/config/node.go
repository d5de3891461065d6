package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/pyreceptor/pyreceptor/go/policy"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// Level is a log level.
type Level string

// The log levels, loudest last.
const (
	LevelError   Level = "error"
	LevelWarning Level = "warning"
	LevelInfo    Level = "info"
	LevelDebug   Level = "debug"
)

var levels = []Level{LevelError, LevelWarning, LevelInfo, LevelDebug}

// Node is who this node is. Every configuration has exactly one.
type Node struct {
	ID      wire.NodeID   // Never empty: the host's name where none was given.
	DataDir string        // Parent of the unit folders. Never empty.
	MaxIdle time.Duration // How long a link may stay silent before it counts as dead; at least MinIdle.
	// FirewallRules decide about every packet, the first that matches; none accepts all. They compile.
	FirewallRules []policy.Rule
	// How work-kubernetes speaks to clusters; empty: as the environment says (RECEPTOR_KUBE_...).
	KubeSupportReconnect, KubeQPS, KubeBurst, KubeRateLimiter string

	maxIdle string // As written.
}

// MinIdle is the shortest and the default idle time of a link: peers repeat their routes every 10 s, so it forgives one
// lost update.
const MinIdle = 21 * time.Second

// maxNodeID is the longest node ID in bytes: the ID names a folder, and file systems allow no more.
const maxNodeID = 255

// LogLevel sets what is logged.
type LogLevel struct {
	Level  Level
	Format string           // text or json.
	Areas  map[string]Level // Levels of parts of the node, of LogAreas.

	text  string
	areas []string
}

// LogAreas are the parts of a node whose levels can be set on their own.
var LogAreas = []string{"mesh", "work", "control", "services", "tls"}

// Process is how the process behaves.
type Process struct {
	WatchConfig  bool          // Read the configuration again when a file of it changes.
	DrainTimeout time.Duration // How long a stop waits for connections and commands of clients to end; 0: not at all.

	drain string
}

// LocalOnly keeps a node without links running.
type LocalOnly struct {
	Local bool // Has no effect; accepted because existing files have it.
}

// Trace logs every packet, at level debug.
type Trace struct{}

// Version asks for the version instead of a node.
type Version struct{}

// nodeDirectives are about the node and its process.
func nodeDirectives() []*directive {
	return []*directive{
		of(directive{name: "node", help: "Who this node is", times: once, required: true, bare: "id"},
			Node{DataDir: "/tmp/receptor"}, checkNode,
			text("id", "Node ID, unique in the mesh", func(n *Node) *wire.NodeID { return &n.ID }).shown("local host name"),
			text("datadir", "Directory in which to store units of work", func(n *Node) *string { return &n.DataDir }),
			firewallRules("firewallrules", `Which packets may pass, first match wins, as [{"action":"reject","fromnode":"/edge.*/","toservice":"control"}]`,
				func(n *Node) *[]policy.Rule { return &n.FirewallRules }),
			text("maxidleconnectiontimeout", "How long a link may be silent before it is dropped, as a duration such as 1.5h, 30m or 30m10s",
				func(n *Node) *string { return &n.maxIdle }).shown("21s"),
			text("receptorkubesupportreconnect", "Whether pod logs can be read on after a break: enabled, disabled or auto", func(n *Node) *string { return &n.KubeSupportReconnect }),
			text("receptorkubeclientsetqps", "Requests a second to a cluster", func(n *Node) *string { return &n.KubeQPS }).shown("100"),
			text("receptorkubeclientsetburst", "Requests to a cluster at once", func(n *Node) *string { return &n.KubeBurst }).shown("10 times the former"),
			text("receptorkubeclientsetratelimiter", "Limiter of requests to a cluster: tokenbucket, never or always", func(n *Node) *string { return &n.KubeRateLimiter }).shown("tokenbucket"),
		),
		of(directive{name: "local-only", help: "Run a node that has no links to other nodes", times: once},
			LocalOnly{}, nil,
			boolean("local", "Accepted for compatibility; in version 2, false is as if the directive were not there", func(l *LocalOnly) *bool { return &l.Local }),
		),
		of(directive{name: "version", help: "Show the version and exit", times: alone}, Version{}, nil),
		of(directive{name: "trace", help: "Log every packet and what becomes of it; needs log level debug", times: once}, Trace{}, nil),
		of(directive{name: "log-level", help: "What to log", times: once, bare: "level"},
			LogLevel{text: string(LevelInfo), Format: "text"}, checkLogLevel,
			text("level", "One of error, warning, info, debug", func(l *LogLevel) *string { return &l.text }).among("error", "warning", "info", "debug"),
			text("format", "How a line is written: text or json", func(l *LogLevel) *string { return &l.Format }).among("text", "json"),
			list("areas", "Level of a part of the node, as mesh=debug; the parts are "+strings.Join(LogAreas, ", "), func(l *LogLevel) *[]string { return &l.areas }),
		),
		of(directive{name: "process", help: "How the process behaves", times: once},
			Process{drain: "0s"}, checkProcess,
			boolean("watchconfig", "Read the configuration again when a file of it changes; version 2 does so unless told not to", func(p *Process) *bool { return &p.WatchConfig }),
			text("draintimeout", "How long a stop waits for connections and commands of clients to end, as in 30s; 0s is not at all", func(p *Process) *string { return &p.drain }),
		),
	}
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
	defer func() { n.maxIdle = n.MaxIdle.String() }()
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
	written := l.text
	l.text = strings.ToLower(l.text)
	l.Level = Level(l.text)
	l.Format = strings.ToLower(l.Format)
	if l.Format != "text" && l.Format != "json" {
		c.refuse("format", "one of text, json", "%s is not a valid log format", l.Format)
	}
	for _, text := range l.areas {
		area, level, ok := strings.Cut(strings.ToLower(text), "=")
		switch {
		case !ok || !slices.Contains(LogAreas, area):
			c.refuse("areas", "write it as mesh=debug; the parts are "+strings.Join(LogAreas, ", "), "%s is not a part of the node and a level", text)
		case !slices.Contains(levels, Level(level)):
			c.refuse("areas", "one of error, warning, info, debug", "%s is not a valid log level name", level)
		default:
			if l.Areas == nil {
				l.Areas = make(map[string]Level)
			}
			l.Areas[area] = Level(level)
		}
	}
	if !slices.Contains(levels, l.Level) {
		c.refuse("level", "one of error, warning, info, debug", "%s is not a valid log level name", written)
	}
}

func checkProcess(c *checker, p *Process) {
	if c.second && !c.entry.has("watchconfig") {
		p.WatchConfig = true
	}
	d, err := time.ParseDuration(p.drain)
	switch {
	case err != nil || d < 0:
		c.refuse("draintimeout", "as in 30s or 2m", "draintimeout %s is not a duration", p.drain)
	case d > time.Hour:
		c.refuse("draintimeout", "at most 1h", "draintimeout %s is too long to wait for", p.drain)
	default:
		p.DrainTimeout, p.drain = d, d.String()
	}
}
