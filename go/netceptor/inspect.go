package netceptor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/topology"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// Link is one established link.
type Link struct {
	Node      wire.NodeID
	Cost      float64
	Address   string    // As the transport names it, for example "tcp 10.0.0.1:40312->10.0.0.2:2222".
	Backend   string    // Name of the backend that it comes from.
	Since     time.Time // When it was established,
	Heard     time.Time // and when the peer was heard last.
	Sent      uint64    // Bytes since then, framing included,
	Received  uint64    // in both directions.
	KeepAlive bool      // Both sides speak every second: the peer is one of ours, and a dead link is noticed in seconds.
}

// Links returns the established links in the order of their nodes' names.
func (n *Node) Links() []Link {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := make([]Link, 0, len(n.links))
	for _, id := range slices.Sorted(maps.Keys(n.links)) {
		nb := n.links[id]
		l := Link{
			Node: id, Cost: nb.cost, Address: nb.conn.String(), Since: nb.since,
			Heard: n.born.Add(time.Duration(nb.heard.Load())), KeepAlive: nb.beats,
			Sent: nb.sent.Load(), Received: nb.received.Load(),
		}
		if nb.backend != nil {
			l.Backend = nb.backend.name
		}
		all = append(all, l)
	}
	return all
}

// Inspect returns what is known about every node, as the nodes themselves announce it, and the routes that follow from
// it. This node comes first.
func (n *Node) Inspect() ([]topology.Known, *topology.Table) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.db.Inspect(), n.routes
}

// Service is a service of the mesh as it was advertised.
type Service struct {
	wire.Advertisement
	Seen time.Time // When the advertisement came; zero for own services.
}

// Services returns all services known, the own ones first, then by node and name.
func (n *Node) Services() []Service {
	n.mu.Lock()
	defer n.mu.Unlock()
	ads := n.advertsLocked()
	all := make([]Service, len(ads))
	for i, ad := range ads {
		all[i].Advertisement = ad
		if ad.NodeID != n.id {
			all[i].Seen = n.adverts[advertKey{ad.NodeID, ad.Service}].seen
		}
	}
	return all
}

// TLS describes the handshake behind the stream. The peer's certificates are those that the TLS profile of the service
// has asked for and accepted; without a profile there are none.
func (s *Stream) TLS() tls.ConnectionState { return s.qc.ConnectionState().TLS }

// Service returns one service of a node.
func (n *Node) Service(node wire.NodeID, name string) (Service, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if a := n.own[name]; a != nil && node == n.id {
		return Service{Advertisement: n.shownLocked(name, a)}, true
	}
	if ad := n.adverts[advertKey{node, name}]; ad != nil && !ad.Cancel {
		return Service{ad.Advertisement, ad.seen}, true
	}
	return Service{}, false
}

// ByOutcome returns the counts by name: forwarded, delivered, originated, and those of lost packets, which begin with
// dropped_.
func (c Counters) ByOutcome() map[string]uint64 {
	return map[string]uint64{
		"forwarded": c.Forwarded, "delivered": c.Delivered, "originated": c.Originated,
		"dropped_unknown_node": c.DropUnknownHash, "dropped_no_route": c.DropNoRoute, "dropped_queue_full": c.DropQueueFull,
		"dropped_expired": c.DropExpired, "dropped_malformed": c.DropMalformed, "dropped_receiver": c.DropReceiver,
		"dropped_spoofed": c.DropSpoofed, "dropped_firewall": c.DropFirewall, "dropped_too_large": c.DropTooLarge,
	}
}

// Streams returns how many streams are open, and how many shared connections carry some of them.
func (n *Node) Streams() (open, shared int) {
	n.streamsMu.Lock()
	defer n.streamsMu.Unlock()
	return len(n.streams), len(n.muxes)
}

// BackendState says what a backend is doing.
type BackendState string

// The states of backends.
const (
	BackendUp        BackendState = "up"        // It has a link, at least one.
	BackendListening BackendState = "listening" // It has none yet.
	BackendDialing   BackendState = "dialing"
	BackendWaiting   BackendState = "waiting" // For the next try.
	BackendStandby   BackendState = "standby" // Its peer is linked already: it dials when that link is gone.
	BackendStopped   BackendState = "stopped" // There will be no more tries.
)

// BackendStatus describes a backend at one moment.
type BackendStatus struct {
	Name    string // For example "tcp hub:2222" or "listener 0.0.0.0:2222".
	Kind    string // "dialer", "listener" or "link".
	Options LinkOptions
	State   BackendState
	Peers   []wire.NodeID // Of its established links, by name.
	Tries   uint64        // Dials, or connections accepted.
	Made    uint64        // Links established.
	Failure *LinkFailure  // The last one; nil: none since the start.
	NextTry time.Time     // If State is BackendWaiting.
}

// LinkFailure is a link that ended, or a try to make one that failed.
type LinkFailure struct {
	Time time.Time
	Peer wire.NodeID // Empty if the peer had not introduced itself.
	Err  error
}

// Backends returns the node's backends in the order in which they were started, without those that were closed.
func (n *Node) Backends() []BackendStatus {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := make([]BackendStatus, len(n.backends))
	made := make(map[*Backend][]wire.NodeID)
	for _, nb := range n.links {
		made[nb.backend] = append(made[nb.backend], nb.id)
	}
	for i, b := range n.backends {
		all[i] = b.status()
		all[i].Peers = slices.Sorted(slices.Values(made[b]))
		if len(made[b]) > 0 {
			all[i].State = BackendUp
		}
	}
	return all
}

func (b *Backend) status() BackendStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := BackendStatus{
		Name: b.name, Kind: b.kind, Options: b.opt, State: b.state, Tries: b.tries, Made: b.made,
	}
	s.Options.NodeCost, s.Options.AllowedPeers = maps.Clone(b.opt.NodeCost), slices.Clone(b.opt.AllowedPeers)
	if b.failure != nil {
		failure := *b.failure
		s.Failure = &failure
	}
	if b.state == BackendWaiting {
		s.NextTry = b.nextTry
	}
	return s
}

// noteState keeps what a backend does now, for [Node.Backends].
func (b *Backend) noteState(s BackendState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state = s
	if s == BackendDialing {
		b.tries++
	}
}

// noteMade counts an established link.
func (b *Backend) noteMade() {
	if b == nil { // A link without a backend.
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.made++
}

// noteWaiting is noteState with the time of the next try.
func (b *Backend) noteWaiting(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state, b.nextTry = BackendWaiting, time.Now().Add(d)
}

// noteFailure keeps the end of a link, or of a try to make one, and tells subscribers of one that is news.
func (b *Backend) noteFailure(peer wire.NodeID, err error) {
	now, about := time.Now(), peer
	if linked, ok := errors.AsType[*linkedError](err); ok {
		about = linked.peer
	}
	b.mu.Lock()
	news := peer == "" && (b.failure == nil || b.failure.Peer != about || b.failure.Err.Error() != err.Error())
	b.failure = &LinkFailure{Time: now, Peer: about, Err: err}
	b.mu.Unlock()
	if !news {
		return
	}
	b.node.mu.Lock()
	defer b.node.mu.Unlock()
	b.node.publishLocked(Event{Kind: BackendFailed, Backend: b.name, Err: err})
}

// forgetBackend takes a backend that is closed out of the list.
func (n *Node) forgetBackend(b *Backend) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.backends = slices.DeleteFunc(n.backends, func(x *Backend) bool { return x == b })
}

// linkFault is an error whose cause has a name of its own.
type linkFault struct {
	kind string
	news string // The same for both ends that find it, for the log; empty: the text tells.
	error
}

func (f *linkFault) Unwrap() error { return f.error }

// LinkErrorKind says in a word why a link ended or could not be made: refused, unreachable, name, timeout, tls, rejected,
// cost, not allowed, own id, already linked, silent, closed or other.
func LinkErrorKind(err error) string {
	if fault, ok := errors.AsType[*linkFault](err); ok {
		return fault.kind
	}
	if _, ok := errors.AsType[*linkedError](err); ok {
		return "already linked"
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return "name"
	}
	for _, known := range []struct {
		err  error
		kind string
	}{
		{errPeerRejected, "rejected"}, {errNoHandshake, "timeout"},
		{syscall.ECONNREFUSED, "refused"}, {syscall.ENETUNREACH, "unreachable"}, {syscall.EHOSTUNREACH, "unreachable"},
		{syscall.ETIMEDOUT, "timeout"}, {context.DeadlineExceeded, "timeout"},
	} {
		if errors.Is(err, known.err) {
			return known.kind
		}
	}
	if isTLS(err) {
		return "tls"
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return "timeout"
	}
	for _, known := range []error{io.EOF, io.ErrUnexpectedEOF, link.ErrClosed, ErrClosed, syscall.ECONNRESET, syscall.EPIPE, net.ErrClosed} {
		if errors.Is(err, known) {
			return "closed"
		}
	}
	return "other"
}

// isTLS reports whether a handshake failed, for whatever reason.
func isTLS(err error) bool {
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return true
	}
	text := err.Error() // The rest of crypto/tls and package identity has texts alone.
	return strings.Contains(text, "tls: ") || strings.Contains(text, "x509: ") || strings.Contains(text, "RVF failed")
}

func faultf(kind, format string, args ...any) error {
	return &linkFault{kind: kind, error: fmt.Errorf(format, args...)}
}
