package netceptor

import (
	"errors"
	"fmt"
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// Errors that callers tell apart with errors.Is. Their texts are those that clients of existing nodes see.
var (
	ErrNoRoute        = errors.New("no route to node")
	ErrNoNextHop      = errors.New("no connection to next hop")
	ErrServiceUnknown = errors.New(string(wire.ProblemServiceUnknown))
	ErrExpired        = errors.New(string(wire.ProblemExpired))
	ErrFirewall       = errors.New(string(wire.ProblemFirewall))
	ErrServiceClosing = errors.New("the service is closing")
	ErrTimeout        = errors.New("timeout")
	ErrClosed         = errors.New("netceptor shutdown")
	ErrServiceInUse   = errors.New("service is already listening")
	ErrPayloadSize    = fmt.Errorf("payload too large for one datagram, which holds %d bytes", wire.MaxPayload)
	ErrDuplicateNode  = errors.New("another node with this ID was in the mesh first")
)

// errNoAnswer is the [ErrTimeout] of a dial whose packets nobody has refused.
var errNoAnswer = fmt.Errorf("%w: no answer: a firewall rule with the action drop on the way, a node that hangs, or a link that is dead", ErrTimeout)

// Addr is the address of a service in the mesh. It implements net.Addr.
type Addr struct {
	Node    wire.NodeID
	Service string
}

// Network returns "receptor".
func (a Addr) Network() string { return "receptor" }

// String returns "node:service".
func (a Addr) String() string { return fmt.Sprintf("%s:%s", a.Node, a.Service) }

// DialError says which stream could not be opened and why. Text is what existing nodes answer their control clients for
// the same cause; Err carries one of the package's errors where one applies.
type DialError struct {
	Addr Addr
	Text string // For example "context canceled" for a service that is not listening.
	Err  error
}

func (e *DialError) Error() string { return fmt.Sprintf("dial %s: %v", e.Addr, e.Err) }
func (e *DialError) Unwrap() error { return e.Err }

// LinkOptions are the rules of one backend.
type LinkOptions struct {
	Cost         float64                 // Cost of its links; > 0. Both ends must use the same.
	NodeCost     map[wire.NodeID]float64 // Overrides Cost by peer (listeners).
	AllowedPeers []wire.NodeID           // nil admits everybody, an empty list nobody.
	NoRedial     bool                    // A dialer gives up after the first failure or loss.
}

// Connection is one established link.
type Connection struct {
	NodeID wire.NodeID
	Cost   float64
}

// Status is a snapshot of what a node knows, as the control command "status" reports it.
type Status struct {
	NodeID               wire.NodeID
	Connections          []Connection
	KnownConnectionCosts map[wire.NodeID]map[wire.NodeID]float64
	RoutingTable         map[wire.NodeID]wire.NodeID
	Advertisements       []wire.Advertisement
}

// Pong is the answer to one probe.
type Pong struct {
	From wire.NodeID   // Who answered: the target, or the node where the probe ended. Empty after a timeout.
	RTT  time.Duration // From sending the probe to its answer.
	Err  error         // nil if the target answered; else one of the package's errors.
}

// EventKind says what happened.
type EventKind uint8

// The kinds of [Event].
const (
	PeerUp        EventKind = iota + 1 // A link to Node was established at Cost.
	PeerDown                           // The link to Node ended; Err says why.
	RoutesChanged                      // The routing table changed.
	ServiceSeen                        // Node, which may be this one, advertises Service, and did not before.
	ServiceGone                        // Node's Service was withdrawn, or is not repeated any more.
	BackendFailed                      // Backend could not make a link, for another reason (Err) than the time before.
)

// Event is a change that a subscriber learns of.
type Event struct {
	Kind    EventKind
	Time    time.Time
	Node    wire.NodeID
	Service string
	Cost    float64
	Backend string // Of BackendFailed: its name; of PeerUp: the connection.
	Err     error
}
