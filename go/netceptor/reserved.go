package netceptor

import (
	"context"
	"errors"
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// The reserved services: every node answers them and nobody can listen on them.
var (
	servicePing    = mustService("ping")
	serviceUnreach = mustService("unreach")
)

func mustService(name string) wire.ServiceName {
	s, err := wire.Service(name)
	if err != nil {
		panic(err)
	}
	return s
}

func reserved(s wire.ServiceName) bool { return s == servicePing || s == serviceUnreach }

// pingTimeout is how long a probe is waited for unless the caller's context ends earlier.
const pingTimeout = 10 * time.Second

// answerPing replies with an empty packet. A probe that comes from a reserved service is not answered: two nodes would
// answer each other for ever.
func (n *Node) answerPing(from wire.NodeID, h wire.Header) (answered bool) {
	if reserved(h.FromService) {
		n.count.dropSpoofed.Add(1)
		return false
	}
	n.count.passed(&n.count.delivered, 1)
	n.sendQuietly(from, wire.Header{Hops: wire.MaxHops, FromService: servicePing, ToService: h.FromService}, nil)
	return true
}

// notify tells the sender of a packet why it did not arrive, unless the packet was itself a notice.
func (n *Node) notify(from, to wire.NodeID, h wire.Header, cause error) {
	if h.FromService == serviceUnreach && !errors.Is(cause, ErrServiceUnknown) {
		return
	}
	u := wire.Unreachable{
		FromNode: from, FromService: h.FromService.String(),
		ToNode: to, ToService: h.ToService.String(),
		Problem: wire.Problem(cause.Error()),
	}
	payload, err := u.AppendPayload(nil)
	if err != nil {
		return
	}
	n.sendQuietly(from, wire.Header{Hops: wire.MaxHops, FromService: serviceUnreach, ToService: serviceUnreach}, payload)
}

// sendQuietly sends an answer of the node itself. It runs on a link's reader, so it does not wait: if the link is full
// the answer is lost, as it might be anywhere else on the way.
func (n *Node) sendQuietly(to wire.NodeID, h wire.Header, payload []byte) {
	switch err := n.originate(n.never, to, h, payload); {
	case err == nil, errors.Is(err, ErrFirewall): // The firewall has counted it.
	case errors.Is(err, ErrNoRoute), errors.Is(err, ErrNoNextHop):
		n.count.dropNoRoute.Add(1)
	default:
		n.count.dropQueueFull.Add(1)
	}
}

// noticeOwn tells a socket of this node that its packet was refused here. The sender learns it from the error as well,
// but a stream that is being dialled sends its packets in the background.
func (n *Node) noticeOwn(to wire.NodeID, h wire.Header, problem wire.Problem) {
	n.socketsMu.RLock()
	pc := n.sockets[h.FromService]
	n.socketsMu.RUnlock()
	if pc != nil {
		pc.notice(Notice{Reporter: n.id, Unreachable: wire.Unreachable{
			FromNode: n.id, FromService: h.FromService.String(),
			ToNode: to, ToService: h.ToService.String(),
			Problem: problem,
		}})
	}
}

// receiveNotice passes an unreachable notice to the socket whose packet it is about.
func (n *Node) receiveNotice(reporter wire.NodeID, payload []byte) {
	u, err := wire.ParseUnreachable(payload)
	if err != nil || u.FromNode != n.id {
		n.count.dropMalformed.Add(1)
		return
	}
	service, err := wire.Service(u.FromService)
	if err != nil {
		n.count.dropMalformed.Add(1)
		return
	}
	n.socketsMu.RLock()
	pc := n.sockets[service]
	n.socketsMu.RUnlock()
	if pc != nil {
		pc.notice(Notice{Unreachable: u, Reporter: reporter})
	}
}

// Ping sends one probe with the given hop budget and waits for the answer, at most ten seconds.
func (n *Node) Ping(ctx context.Context, target wire.NodeID, hops uint8) Pong {
	ctx, cancel := context.WithTimeoutCause(ctx, pingTimeout, ErrTimeout)
	defer cancel()
	target = target.At(n.id)
	pc, err := n.ListenPacket("", nil)
	if err != nil {
		return Pong{From: n.id, Err: err}
	}
	defer pc.Close()
	start := time.Now()
	err = n.originate(ctx, target, wire.Header{Hops: hops, FromService: pc.service, ToService: servicePing}, nil)
	if err != nil {
		return Pong{From: n.id, RTT: time.Since(start), Err: err}
	}
	from, err := pc.awaitAnswer(ctx)
	return Pong{From: from, RTT: time.Since(start), Err: err}
}

// Traceroute probes with 0, 1, 2 ... hops until the target answers or a probe ends with anything but [ErrExpired], and
// reports each. Hop 0 is this node.
func (n *Node) Traceroute(ctx context.Context, target wire.NodeID, each func(hop int, p Pong)) {
	for hop := 0; hop <= wire.MaxHops; hop++ {
		p := n.Ping(ctx, target, uint8(hop))
		each(hop, p)
		if !errors.Is(p.Err, ErrExpired) {
			return
		}
	}
}
