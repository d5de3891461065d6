package config

import (
	"io/fs"
	"time"

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

// Node is who this node is. Every configuration has exactly one.
type Node struct {
	ID      wire.NodeID   // Never empty: the host's name where none was given.
	DataDir string        // Parent of the unit folders. Never empty.
	MaxIdle time.Duration // How long a link may stay silent before it counts as dead; at least MinIdle.
	// FirewallRules decide about every packet, the first that matches; none accepts all. They compile.
	FirewallRules []policy.Rule

	maxIdle string // As written.
}

// MinIdle is the shortest and the default idle time of a link: peers repeat their routes every 10 s, so it forgives one
// lost update.
const MinIdle = 21 * time.Second

// LogLevel sets what is logged.
type LogLevel struct {
	Level Level

	text string
}

// LocalOnly keeps a node without links running.
type LocalOnly struct {
	Local bool // Has no effect; accepted because existing files have it.
}

// Trace is accepted because existing files have it.
type Trace struct{}

// Version asks for the version instead of a node.
type Version struct{}

// TCPListener accepts links from peers over TCP.
type TCPListener struct {
	BindAddr     string // Host part, IPv6 in brackets.
	Port         int    // 0 means any free port.
	TLS          string
	Cost         float64                 // Of every link, > 0.
	NodeCost     map[wire.NodeID]float64 // Overrides Cost by peer.
	AllowedPeers []wire.NodeID           // nil admits everybody, an empty list nobody.
}

// TCPPeer keeps a link to one peer over TCP.
type TCPPeer struct {
	Address      string // host:port
	Redial       bool   // Try again after a failure or loss.
	TLS          string
	Cost         float64       // > 0; the other end must use the same.
	AllowedPeers []wire.NodeID // As in TCPListener.
}

// UDPListener accepts links from peers over UDP.
type UDPListener struct {
	BindAddr     string                  // Host part, IPv6 in brackets.
	Port         int                     // 0 means any free port.
	Cost         float64                 // Of every link, > 0.
	NodeCost     map[wire.NodeID]float64 // Overrides Cost by peer.
	AllowedPeers []wire.NodeID           // nil admits everybody, an empty list nobody.
}

// UDPPeer keeps a link to one peer over UDP.
type UDPPeer struct {
	Address      string        // host:port
	Redial       bool          // Try again after a failure or loss.
	Cost         float64       // > 0; the other end must use the same.
	AllowedPeers []wire.NodeID // As in UDPListener.
}

// WSListener accepts links from peers over WebSocket.
type WSListener struct {
	BindAddr     string // Host part, IPv6 in brackets.
	Port         int    // 0 means any free port.
	Path         string // Begins with a slash. If it ends with one, everything below is served too.
	TLS          string
	Cost         float64                 // Of every link, > 0.
	NodeCost     map[wire.NodeID]float64 // Overrides Cost by peer.
	AllowedPeers []wire.NodeID           // nil admits everybody, an empty list nobody.
}

// WSPeer keeps a link to one peer over WebSocket.
type WSPeer struct {
	Address      string // A ws:// or wss:// URL.
	Redial       bool   // Try again after a failure or loss.
	TLS          string
	HeaderName   string // One more header of the request; empty: none.
	HeaderValue  string
	Cost         float64       // > 0; the other end must use the same.
	AllowedPeers []wire.NodeID // As in WSListener.

	header string // As written.
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

// WorkCommand is a type of work that runs a command.
type WorkCommand struct {
	WorkType           string
	Command            string
	Params             string // Split as a POSIX shell splits words, nothing expanded.
	AllowRuntimeParams bool
	VerifySignature    bool
}

// CommandRunner is how the daemon starts itself as the process that runs one command.
type CommandRunner struct {
	Command string
	Params  string
	UnitDir string
}
