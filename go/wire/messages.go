package wire

import (
	"encoding/json"
	"fmt"
	"time"
)

// RouteUpdate is one node's list of neighbours, flooded through the mesh. The same message, sent before a link is
// established, is the handshake. Fields are emitted in this order, keys of Connections sorted by byte value.
type RouteUpdate struct {
	NodeID             NodeID             // The origin: whose neighbours these are.
	UpdateID           string             // Eight random characters of 0-9a-zA-Z, unique for an hour mesh-wide.
	UpdateEpoch        uint64             // Start-up stamp of the origin: unix seconds shifted left by 24, low bits free.
	UpdateSequence     uint64             // Counts every route message of the origin, from 1.
	Connections        map[NodeID]float64 // Neighbour to link cost. A null decodes as nil, which is not the same as {}.
	ForwardingNode     NodeID             // The neighbour that put the message on this link; rewritten at every hop.
	SuspectedDuplicate uint64             // Non-zero: the epoch of a node that uses the origin's ID as well.
	// KeepAlive is how often the sender of a handshake message speaks on a link, in milliseconds; 0 stands for the
	// route period of ten seconds and is left out. Existing nodes neither send nor read it.
	KeepAlive uint32 `json:",omitempty"`
	// Greets says that the origin and every node that has passed the update on tell a new neighbour at once all that they
	// know. A node that learns of the origin by it need not repeat its own update for it. Existing nodes neither send nor
	// pass it on.
	Greets bool `json:",omitempty"`
}

// ParseRouteUpdate decodes a whole route message. Field names match in any letter case and unknown fields are ignored,
// as existing nodes do; integers must be plain (no sign, fraction or exponent) and nothing may follow the object. The
// meaning of the values is not judged here: see package topology. The strings may share memory: who keeps a short one for
// long clones it.
func ParseRouteUpdate(msg []byte) (RouteUpdate, error) {
	if len(msg) > 0 && Type(msg[0]) == TypeRoute {
		if u, ok := parseRouteLayout(msg[1:]); ok {
			return u, nil
		}
	}
	var u RouteUpdate
	if err := parseJSON(msg, TypeRoute, &u); err != nil {
		return RouteUpdate{}, err
	}
	return u, nil
}

// Append appends the whole route message to dst.
func (u *RouteUpdate) Append(dst []byte) ([]byte, error) {
	if msg, ok := appendRoute(dst, u); ok {
		return msg, nil
	}
	return appendJSON(dst, TypeRoute, u)
}

// ConnType says what a service is, for display only: a dialer must know by its own configuration.
type ConnType uint8

// The connection types of an [Advertisement].
const (
	ConnDatagram  ConnType = 0
	ConnStream    ConnType = 1 // Stream without a TLS profile (still encrypted, not authenticated).
	ConnStreamTLS ConnType = 2 // Stream with a TLS profile.
)

// WorkCommand is one work type that a node offers.
type WorkCommand struct {
	WorkType string
	Secure   bool // Submissions must be signed.
}

// Advertisement tells the mesh that a node offers a service. It is forwarded byte for byte.
type Advertisement struct {
	NodeID       NodeID
	Service      string
	Time         time.Time // The origin's clock when this was made; a receiver keeps only the latest.
	ConnType     ConnType
	Tags         map[string]string // nil is sent as null.
	WorkCommands []WorkCommand     // Only on control services; nil is sent as null.
	Cancel       bool              // True withdraws the service.
}

// ParseAdvertisement decodes a whole service advertisement. An object without NodeID or Service is an error: existing
// nodes crash on some of these, so they must not be passed on.
func ParseAdvertisement(msg []byte) (Advertisement, error) {
	var a Advertisement
	if err := parseJSON(msg, TypeAdvert, &a); err != nil {
		return Advertisement{}, err
	}
	if err := checkService(TypeAdvert, a.NodeID, a.Service); err != nil {
		return Advertisement{}, err
	}
	return a, nil
}

func checkService(t Type, node NodeID, service string) error {
	if node == "" || service == "" {
		return fmt.Errorf("%s without %s", t, missing(node == "", "NodeID", "Service"))
	}
	if _, err := Service(service); err != nil {
		return fmt.Errorf("%s: %w", t, err)
	}
	return nil
}

func missing(first bool, a, b string) string {
	if first {
		return a
	}
	return b
}

// Append appends the whole advertisement message to dst.
func (a *Advertisement) Append(dst []byte) ([]byte, error) {
	return appendJSON(dst, TypeAdvert, a)
}

// Withdrawal says that a service is gone, as an [Advertisement] with Cancel does. Existing nodes, which would pass one of
// those round for ever, never see it. It is forwarded byte for byte.
type Withdrawal struct {
	NodeID  NodeID
	Service string
	Time    time.Time // By the clock that dates the node's advertisements: only earlier ones are withdrawn.
}

// ParseWithdrawal decodes a whole withdrawal.
func ParseWithdrawal(msg []byte) (Withdrawal, error) {
	var w Withdrawal
	if err := parseJSON(msg, TypeGone, &w); err != nil {
		return Withdrawal{}, err
	}
	if err := checkService(TypeGone, w.NodeID, w.Service); err != nil {
		return Withdrawal{}, err
	}
	return w, nil
}

// Append appends the whole withdrawal to dst.
func (w *Withdrawal) Append(dst []byte) ([]byte, error) {
	return appendJSON(dst, TypeGone, w)
}

// Problem is why a packet could not be delivered, as the wire and error texts spell it.
type Problem string

// The problems a node reports.
const (
	ProblemServiceUnknown Problem = "service unknown"
	ProblemExpired        Problem = "message expired"
	ProblemFirewall       Problem = "blocked by firewall"
)

// Unreachable is the payload of a data message from and to the service "unreach": the addresses of the offending packet
// and what was wrong with it. The node that noticed is the source of the packet that carries it.
type Unreachable struct {
	FromNode    NodeID
	ToNode      NodeID
	FromService string
	ToService   string
	Problem     Problem
}

// ParseUnreachable decodes an unreachable notice from a packet's payload.
func ParseUnreachable(payload []byte) (Unreachable, error) {
	var u Unreachable
	if err := json.Unmarshal(payload, &u); err != nil {
		return Unreachable{}, fmt.Errorf("unreachable notice: %w", err)
	}
	return u, nil
}

// AppendPayload appends the notice as a packet payload.
func (u *Unreachable) AppendPayload(dst []byte) ([]byte, error) {
	b, err := json.Marshal(u)
	if err != nil {
		return dst, fmt.Errorf("unreachable notice: %w", err)
	}
	return append(dst, b...), nil
}

func parseJSON(msg []byte, want Type, v any) error {
	if len(msg) == 0 {
		return fmt.Errorf("%w: empty", ErrShort)
	}
	if Type(msg[0]) != want {
		return fmt.Errorf("%w: %s, want %s", ErrType, Type(msg[0]), want)
	}
	if err := json.Unmarshal(msg[1:], v); err != nil {
		return fmt.Errorf("%s message: %w", want, err)
	}
	return nil
}

func appendJSON(dst []byte, t Type, v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return dst, fmt.Errorf("%s message: %w", t, err)
	}
	return append(append(dst, byte(t)), b...), nil
}
