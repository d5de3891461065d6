package netceptor

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/pyreceptor/pyreceptor/go/policy"
	"github.com/pyreceptor/pyreceptor/go/topology"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// destination is what the forwarding table says about one node.
type destination struct {
	name wire.NodeID
	self bool
	next *neighbour // nil: no route.
	cost float64
}

// forwarding is an immutable snapshot: every known node, by position in the directory.
type forwarding struct {
	dir   *topology.Directory
	dests []destination
}

// byHash finds a node by the hash that packets carry; nil if it is not known.
func (f *forwarding) byHash(h wire.NodeHash) *destination {
	if i, ok := f.dir.ByHash(h); ok {
		return &f.dests[i]
	}
	return nil
}

func (f *forwarding) byName(name wire.NodeID) *destination {
	if i, ok := f.dir.ByName(name); ok {
		return &f.dests[i]
	}
	return nil
}

// Counters are the packets of a node by what became of them, since it started.
type Counters struct {
	Forwarded, Delivered, Originated                         uint64
	DropUnknownHash, DropNoRoute, DropQueueFull, DropExpired uint64
	DropMalformed, DropReceiver, DropSpoofed                 uint64
	DropFirewall                                             uint64 // Rejected or dropped by [Config].Policy.
	DropTooLarge                                             uint64 // Messages that a link could not carry.
}

type counters struct {
	forwarded, delivered, originated                         atomic.Uint64
	dropUnknownHash, dropNoRoute, dropQueueFull, dropExpired atomic.Uint64
	dropMalformed, dropReceiver, dropSpoofed                 atomic.Uint64
	dropFirewall, dropTooLarge                               atomic.Uint64

	stretches chan struct{} // See [Node.Stretches].
}

// Stretch is how many packets make a stretch: about 10 MB of a stream.
const Stretch = 8192

// passed counts packets that were forwarded, delivered or originated, and tells of every stretch that is full.
func (c *counters) passed(counter *atomic.Uint64, packets uint64) {
	if total := counter.Add(packets); total/Stretch != (total-packets)/Stretch {
		select {
		case c.stretches <- struct{}{}:
		default: // Nobody has looked since the last one.
		}
	}
}

// Stretches tells that much passes through the node: it has a value after every [Stretch] packets forwarded, delivered or
// originated, and no more than one until it is read. There is one such channel for all readers.
func (n *Node) Stretches() <-chan struct{} { return n.count.stretches }

// Counters returns the packet counts.
func (n *Node) Counters() Counters {
	c := &n.count
	return Counters{
		Forwarded: c.forwarded.Load(), Delivered: c.delivered.Load(), Originated: c.originated.Load(),
		DropUnknownHash: c.dropUnknownHash.Load(), DropNoRoute: c.dropNoRoute.Load(),
		DropQueueFull: c.dropQueueFull.Load(), DropExpired: c.dropExpired.Load(),
		DropMalformed: c.dropMalformed.Load(), DropReceiver: c.dropReceiver.Load(), DropSpoofed: c.dropSpoofed.Load(),
		DropFirewall: c.dropFirewall.Load(), DropTooLarge: c.dropTooLarge.Load(),
	}
}

// receiver is the forwarding state of one link's reader: what the last packet resolved to, since packets come in runs,
// and the neighbours whose writers are owed a wake-up at the end of the batch.
type receiver struct {
	table    *forwarding
	fromHash wire.NodeHash
	toHash   wire.NodeHash
	from, to *destination
	touched  []*neighbour
}

func (r *receiver) lookup(table *forwarding, h wire.Header) (from, to *destination) {
	if r.table != table || r.fromHash != h.From || r.toHash != h.To {
		r.table, r.fromHash, r.toHash = table, h.From, h.To
		r.from, r.to = table.byHash(h.From), table.byHash(h.To)
	}
	return r.from, r.to
}

func (r *receiver) touch(nb *neighbour) {
	for _, t := range r.touched {
		if t == nb {
			return
		}
	}
	r.touched = append(r.touched, nb)
}

// flush wakes the writers of the links that the batch was forwarded to.
func (r *receiver) flush() {
	for i, nb := range r.touched {
		nb.queue.wake()
		r.touched[i] = nil
	}
	r.touched = r.touched[:0]
}

// receiveRun handles data messages that have the same header. Those that simply pass, through or in, do so as one; in
// every other case each packet has its own fate.
func (n *Node) receiveRun(r *receiver, run wire.Batch) {
	msg, rest, ok := run.Next()
	if len(rest) > 0 && n.passRun(r, msg, run) {
		return
	}
	for ; ok; msg, rest, ok = rest.Next() {
		n.receivePacket(r, msg)
	}
}

// passRun forwards or delivers a run whose first message is msg, if nothing stands against it.
func (n *Node) passRun(r *receiver, msg []byte, run wire.Batch) bool {
	h, err := wire.ParseHeader(msg)
	if err != nil || n.tracing.Load() || n.policy.Load() != nil { // Rules count their packets.
		return false
	}
	from, to := r.lookup(n.table.Load(), h)
	if from == nil || to == nil || from.self {
		return false
	}
	switch {
	case to.self:
		return n.handRun(h, run)
	case h.Hops == 0 || to.next == nil:
		return false
	}
	if to.next.queue.pushTransit(run, h.Hops-1) != nil {
		return false
	}
	n.count.passed(&n.count.forwarded, run.Count())
	r.touch(to.next)
	return true
}

// receivePacket handles one data message from a link: deliver, forward, or drop. It never blocks.
func (n *Node) receivePacket(r *receiver, msg []byte) {
	h, err := wire.ParseHeader(msg)
	if err != nil {
		n.count.dropMalformed.Add(1)
		if n.tracing.Load() {
			n.log.Debug("packet", "outcome", "dropped_malformed", "bytes", len(msg), "err", err)
		}
		return
	}
	tracing, payload := n.tracing.Load(), len(msg)-wire.HeaderSize
	table := n.table.Load()
	from, to := r.lookup(table, h)
	if (from == nil || to == nil || to.next == nil && !to.self) && n.refresh(table) {
		from, to = r.lookup(n.table.Load(), h)
	}
	switch {
	case from == nil || to == nil:
		n.count.dropUnknownHash.Add(1)
		if tracing {
			n.traceUnknown("dropped_unknown_node", from, to, h, payload)
		}
		return
	case from.self:
		// Nobody else sends in our name; answering could loop (a ping from our own ping service, for instance).
		n.count.dropSpoofed.Add(1)
		if tracing {
			n.trace("dropped_spoofed", from.name, to.name, h, payload)
		}
		return
	}
	switch n.judge(from.name, to.name, h, payload) {
	case policy.Reject:
		n.notify(from.name, to.name, h, ErrFirewall)
		return
	case policy.Drop:
		return
	}
	outcome := "forwarded"
	switch {
	case to.self:
		if err := n.deliver(from.name, h, msg[wire.HeaderSize:]); err != nil {
			n.notify(from.name, to.name, h, err)
		}
		return // Traced where it is delivered.
	case h.Hops == 0:
		n.count.dropExpired.Add(1)
		outcome = "dropped_expired"
		n.notify(from.name, to.name, h, ErrExpired)
	case to.next == nil:
		n.count.dropNoRoute.Add(1)
		outcome = "dropped_no_route"
	default:
		wire.PatchHops(msg, h.Hops-1)
		switch err := to.next.queue.push(transitLimit, msg); {
		case err == nil:
			n.count.passed(&n.count.forwarded, 1)
			r.touch(to.next)
		case errors.Is(err, errQueueFull):
			n.count.dropQueueFull.Add(1)
			outcome = "dropped_queue_full"
			r.touch(to.next)
		default:
			n.count.dropNoRoute.Add(1)
			outcome = "dropped_no_route"
		}
	}
	if !tracing {
		return
	}
	if to.next != nil {
		n.trace(outcome, from.name, to.name, h, payload, "via", to.next.id)
	} else {
		n.trace(outcome, from.name, to.name, h, payload)
	}
}

// judge asks the firewall about a packet and counts those that it holds back.
func (n *Node) judge(from, to wire.NodeID, h wire.Header, payload int) policy.Verdict {
	p := n.policy.Load()
	if p == nil {
		return policy.Accept
	}
	v := p.Judge(from, to, h.FromService, h.ToService)
	if v != policy.Accept {
		n.count.dropFirewall.Add(1)
		if n.tracing.Load() {
			n.trace("dropped_firewall", from, to, h, payload)
		}
	}
	return v
}

// SetPolicy replaces the rules of the firewall for packets from now on; nil accepts everything. Streams of this node whose
// packets the new rules reject end with [ErrFirewall], at both ends.
func (n *Node) SetPolicy(p *policy.Policy) {
	n.endRejected(p)
	n.policy.Store(p)
}

// Policy returns the rules of the firewall, nil if there are none.
func (n *Node) Policy() *policy.Policy { return n.policy.Load() }

// originate sends a packet of this node's own, waiting for room on the link until ctx ends. Errors are the package's. A
// packet that the firewall drops counts as sent.
func (n *Node) originate(ctx context.Context, to wire.NodeID, h wire.Header, payload []byte) error {
	err := n.send(ctx, to, h, payload)
	if n.tracing.Load() {
		n.traceSent(to, h, len(payload), len(payload), err)
	}
	return err
}

func (n *Node) send(ctx context.Context, to wire.NodeID, h wire.Header, payload []byte) error {
	if len(payload) > wire.MaxPayload {
		return ErrPayloadSize
	}
	n.count.passed(&n.count.originated, 1)
	switch n.judge(n.id, to, h, len(payload)) {
	case policy.Reject:
		n.noticeOwn(to, h, wire.ProblemFirewall)
		return ErrFirewall
	case policy.Drop:
		return nil
	}
	table := n.table.Load()
	dest := table.byName(to)
	if (dest == nil || dest.next == nil && !dest.self) && n.refresh(table) {
		dest = n.table.Load().byName(to)
	}
	h.From, h.To = n.hash, wire.Hash(to)
	switch {
	case dest != nil && dest.self:
		return n.deliver(n.id, h, payload)
	case h.Hops == 0:
		return ErrExpired
	case dest == nil || dest.next == nil:
		return ErrNoRoute
	}
	n.announceFirst()
	h.Hops--
	var header [wire.HeaderSize]byte
	err := dest.next.queue.pushWait(ctx, h.AppendTo(header[:0]), payload)
	if errors.Is(err, errQueueClosed) {
		return ErrNoNextHop
	}
	return err
}

// originateRun is originate for a run of packets that lie one behind the other and have all the same size but the last,
// which may be shorter. h is complete.
func (n *Node) originateRun(ctx context.Context, to wire.NodeID, h wire.Header, run []byte, size int) error {
	err := n.sendRun(ctx, to, h, run, size)
	if n.tracing.Load() {
		n.traceSent(to, h, len(run), size, err)
	}
	return err
}

func (n *Node) sendRun(ctx context.Context, to wire.NodeID, h wire.Header, run []byte, size int) error {
	n.count.passed(&n.count.originated, uint64((len(run)+size-1)/size))
	switch n.judge(n.id, to, h, len(run)) {
	case policy.Reject:
		n.noticeOwn(to, h, wire.ProblemFirewall)
		return ErrFirewall
	case policy.Drop:
		return nil
	}
	dest := n.table.Load().byHash(h.To)
	switch {
	case dest != nil && dest.self:
		for len(run) > 0 {
			packet := run[:min(size, len(run))]
			run = run[len(packet):]
			if err := n.deliver(n.id, h, packet); err != nil {
				return err
			}
		}
		return nil
	case h.Hops == 0:
		return ErrExpired
	case dest == nil || dest.next == nil:
		return ErrNoRoute
	}
	n.announceFirst()
	h.Hops--
	var header [wire.HeaderSize]byte
	err := dest.next.queue.pushRunWait(ctx, h.AppendTo(header[:0]), run, size)
	if errors.Is(err, errQueueClosed) {
		return ErrNoNextHop
	}
	return err
}

// deliver hands a packet to the local service it is for.
func (n *Node) deliver(from wire.NodeID, h wire.Header, payload []byte) error {
	outcome, err := n.hand(from, h, payload)
	if n.tracing.Load() {
		if err != nil {
			n.trace("refused", from, n.id, h, len(payload), "err", err)
		} else {
			n.trace(outcome, from, n.id, h, len(payload))
		}
	}
	return err
}

func (n *Node) hand(from wire.NodeID, h wire.Header, payload []byte) (outcome string, err error) {
	switch h.ToService {
	case servicePing:
		if !n.answerPing(from, h) {
			return "dropped_spoofed", nil
		}
		return "delivered", nil
	case serviceUnreach:
		n.receiveNotice(from, payload)
		return "delivered", nil
	}
	n.socketsMu.RLock()
	pc := n.sockets[h.ToService]
	n.socketsMu.RUnlock()
	if pc == nil {
		return "", ErrServiceUnknown
	}
	if refuses := pc.refuses.Load(); refuses != nil && (*refuses)(payload) {
		return "", ErrServiceUnknown
	}
	if !pc.receive(from, h, payload) {
		n.count.dropReceiver.Add(1)
		return "dropped_receiver", nil
	}
	n.count.passed(&n.count.delivered, 1)
	return "delivered", nil
}

// handRun gives a run of packets to the socket it is for, if there is one that wants them all.
func (n *Node) handRun(h wire.Header, run wire.Batch) bool {
	n.socketsMu.RLock()
	pc := n.sockets[h.ToService]
	n.socketsMu.RUnlock()
	if pc == nil || pc.refuses.Load() != nil {
		return false
	}
	queued := uint64(pc.receiveRun(h, run))
	n.count.passed(&n.count.delivered, queued)
	n.count.dropReceiver.Add(run.Count() - queued)
	return true
}
