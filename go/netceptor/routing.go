package netceptor

import (
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"fmt"

	"github.com/pyreceptor/pyreceptor/go/topology"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// soonLocked moves a due time forward to d from now, never back.
func soonLocked(at *time.Time, d time.Duration) {
	t := time.Now().Add(d)
	if at.IsZero() || t.Before(*at) {
		*at = t
	}
}

// announceLocked schedules an own update. Floods keep a distance, so that a mesh that starts all at once stays calm.
func (n *Node) announceLocked() {
	soonLocked(&n.floodAt, max(floodDelay, n.spacingLocked()-time.Since(n.floodedAt)))
	n.kickLocked()
}

// spacingLocked is the distance between two floods. A node with very many neighbours has a long list to tell each of them, and
// would do nothing else while they come: with a thousand of them it is half a second.
func (n *Node) spacingLocked() time.Duration {
	return max(floodSpacing, time.Duration(len(n.told)*len(n.links))*time.Second/floodRate)
}

// announceJoinLocked schedules an own update that lists a new neighbour, right before which it is told nothing: see
// greetLocked. Neighbours that come together are told of together. A burst of such floods need not keep the distance.
func (n *Node) announceJoinLocked(nb *neighbour) {
	n.greetings = append(n.greetings, nb)
	n.untold.Store(true)
	if len(n.greetings) > 1 { // Their flood is due already.
		return
	}
	n.floodTokens = min(floodBurst, n.floodTokens+float64(time.Since(n.floodedAt))/float64(n.spacingLocked()))
	if n.floodTokens < 1 {
		n.announceLocked()
		return
	}
	n.floodTokens--
	soonLocked(&n.floodAt, joinDelay)
	n.kickLocked()
}

// announceFirst is for a packet of this node's own: who gets it must know the node, or could not answer.
func (n *Node) announceFirst() {
	if !n.untold.Load() {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.greetings) > 0 && !n.closed {
		n.floodLocked(0)
	}
}

// recomputeLocked schedules a computation of the routes. In a large mesh, where one takes longer and changes come in
// crowds, it waits longer for the crowd: 42 ms at 1,000 nodes, and at least four times as long as the last one took.
func (n *Node) recomputeLocked() {
	wait := max(time.Duration(len(n.updates))*routesPerNode, 4*n.routesTook)
	soonLocked(&n.routesAt, routingDelay+min(wait, 100*time.Millisecond))
	n.stale.Store(true)
	n.kickLocked()
}

// What one computation of the routes takes at most of a processor, with room for a slow one.
const (
	routesAtMost  = 200 * time.Microsecond
	routesPerNode = 40 * time.Microsecond
)

// The routes are computed without waiting for the crowd for a packet that would be lost, and for a link that comes or goes,
// but not without end: peers can make as many of either as they like.
var (
	forPackets = thrift{share: 5, burst: 500 * time.Millisecond}
	forLinks   = thrift{share: 10, burst: 100 * time.Millisecond}
)

// thrift is a limit on the time that is spent on something: one part in so many of all time, and a burst ahead.
type thrift struct {
	share time.Duration
	burst time.Duration
}

// spending is what has been spent of it.
type spending struct {
	thrift
	until time.Time // Spent up to then.
}

func (s *spending) may(now time.Time) bool {
	if earliest := now.Add(-s.burst); s.until.Before(earliest) {
		s.until = earliest
	}
	return !s.until.After(now)
}

func (s *spending) spend(took time.Duration) { s.until = s.until.Add(s.share * took) }

// refresh is for a packet that table has no way for: it computes the routes at once if news of them wait for their crowd,
// and reports whether it is worth looking again. So a node that has just come can be answered.
func (n *Node) refresh(table *forwarding) bool {
	if !n.stale.Load() {
		return n.table.Load() != table
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.routesAt.IsZero() && !n.closed {
		n.computeWithinLocked(&n.packetSpending)
	}
	return n.table.Load() != table
}

// computeWithinLocked computes the routes at once if there is time left for that, and reports whether it did.
func (n *Node) computeWithinLocked(s *spending) bool {
	if !s.may(time.Now()) {
		return false
	}
	n.computeRoutesLocked()
	s.spend(n.routesTook)
	return true
}

// linksChangedLocked computes the routes after a link has come or gone: at once, since packets must not go to a dead link,
// unless links come and go by the hundred.
func (n *Node) linksChangedLocked() {
	if !n.computeWithinLocked(&n.linkSpending) {
		n.recomputeLocked()
	}
}

// ownUpdateLocked makes the next route message about this node.
func (n *Node) ownUpdateLocked(duplicate uint64) wire.RouteUpdate {
	n.sequence++
	return wire.RouteUpdate{
		NodeID: n.id, UpdateID: randomName(), UpdateEpoch: n.epoch, UpdateSequence: n.sequence,
		Connections: n.db.Links(), ForwardingNode: n.id, SuspectedDuplicate: duplicate,
	}
}

// floodLocked sends an own update to every neighbour.
func (n *Node) floodLocked(duplicate uint64) {
	n.floodedAt = time.Now()
	n.floodAt = n.floodedAt.Add(routePeriod - beatPeriod + untilBeat(n.floodedAt)) // Together with a beat, and not later.
	n.untold.Store(false)
	defer func() { n.greetings = slices.Delete(n.greetings, 0, len(n.greetings)) }()
	if len(n.links) == 0 {
		return
	}
	u := n.ownUpdateLocked(duplicate)
	u.Greets = true
	if msg := n.encodeLocked(&u); msg != nil {
		repeats := duplicate == 0 && len(n.greetings) == 0 && wire.SameConnections(msg, n.told)
		n.passOnLocked(msg, nil, repeats, false)
		n.told = append(n.told[:0], msg...)
	}
	for _, nb := range n.greetings {
		n.greetLocked(nb)
	}
}

// encodeLocked makes the message that this node sends about u; nil if there is none. It is valid until the next call.
func (n *Node) encodeLocked(u *wire.RouteUpdate) []byte {
	u.ForwardingNode = n.id
	msg, err := u.Append(n.scratch[:0])
	if err != nil {
		n.log.Error("route update cannot be encoded", "node", u.NodeID, "err", err)
		return nil
	}
	n.scratch = msg
	if len(msg) <= wire.MaxMessage {
		n.oversize = n.oversize && u.NodeID != n.id
		return msg
	}
	n.count.dropTooLarge.Add(1)
	if u.NodeID == n.id && !n.oversize {
		n.oversize = true
		n.log.Error("this node has too many neighbours to tell the mesh of them; spread them over more nodes", "links", len(u.Connections), "bytes", len(msg), "limit", wire.MaxMessage)
	}
	return nil
}

// broadcastLocked queues a control message on every established link.
func (n *Node) broadcastLocked(msg []byte) {
	for _, nb := range n.links {
		nb.sendControl(msg)
	}
}

// passOnLocked sends an update to every neighbour but one. Existing nodes get it as they write them themselves, and at
// once; to others one that repeats what they have heard can go later. A neighbour that is still to be greeted is left out
// if it will be told then (kept): before that the mesh does not know it, and could not answer it.
func (n *Node) passOnLocked(msg []byte, except *neighbour, repeats, kept bool) {
	var plain []byte
	for _, nb := range n.links {
		switch {
		case nb == except || kept && !nb.greeted:
		case nb.beats && repeats:
			nb.sendSometime(msg)
		case nb.beats:
			nb.sendControl(msg)
		default:
			if plain == nil {
				plain = wire.PlainRoute(msg)
			}
			nb.sendControl(plain)
		}
	}
}

// receiveRouteLocked handles a route message on an established link; an error ends the link with a reject.
func (n *Node) receiveRouteLocked(nb *neighbour, u wire.RouteUpdate) error {
	if u.ForwardingNode != nb.id {
		return fmt.Errorf("peer %s now calls itself %.100q", nb.id, u.ForwardingNode)
	}
	if u.NodeID == nb.id {
		cost, listed := u.Connections[n.id]
		switch {
		case !listed && u.UpdateEpoch > nb.epoch:
			return faultf("closed", "peer %s was restarted", nb.id) // Over UDP it may be at the same address.
		case !listed && !nb.listsUs:
			return nil // A handshake message that was on its way.
		case !listed:
			return fmt.Errorf("peer %s does not list this node as its neighbour any more", nb.id)
		case cost != nb.cost:
			return nb.costFault(cost)
		}
		if !nb.listsUs {
			nb.listsUs = true
			n.wakeWaitersLocked()
		}
		if nb.doubtful {
			nb.doubtful = false
			nb.logEstablished()
		}
	}
	fx := n.db.Apply(u, time.Now())
	if fx.Shutdown && !n.db.HasTwin(u.UpdateEpoch, time.Now()) {
		n.logForgeryLocked(nb, u)
		return nil
	}
	if fx.Shutdown {
		n.log.Error(fmt.Sprintf("We are a duplicate node with ID %s and epoch %d.  Shutting down.", n.id, n.epoch), "peer", nb.id)
		n.shutdown(ErrDuplicateNode)
		return nil
	}
	if fx.DuplicateOf != 0 {
		n.log.Warn("another node uses this node's ID, or this node did before its clock was set back", "node", n.id, "peer", nb.id, "epoch", fx.DuplicateOf)
		n.floodLocked(fx.DuplicateOf)
		n.announceLocked() // The mesh may have taken the links of the other for ours.
	}
	var msg []byte
	if fx.Forward {
		msg = n.encodeLocked(&u)
	}
	repeats := false
	if fx.Ignored == "" && u.SuspectedDuplicate == 0 {
		repeats = n.rememberLocked(&u, msg)
	}
	if fx.Recompute {
		n.recomputeLocked()
	}
	if fx.Announce && !u.Greets {
		n.announceLocked()
	}
	if msg != nil {
		n.passOnLocked(msg, nb, repeats, u.SuspectedDuplicate == 0)
	}
	return nil
}

// rememberLocked keeps the last update of another node, as it was passed on. A new epoch means that the node was
// restarted: streams to its former life are over. It reports whether the update repeats the one before.
func (n *Node) rememberLocked(u *wire.RouteUpdate, msg []byte) (repeats bool) {
	heard := n.updates[u.NodeID]
	if heard == nil {
		heard = &heardUpdate{}
		n.updates[wire.NodeID(strings.Clone(string(u.NodeID)))] = heard
	} else if u.UpdateEpoch != heard.epoch {
		n.endFormerLife(wire.NodeID(strings.Clone(string(u.NodeID))))
	}
	repeats = heard.epoch == u.UpdateEpoch && wire.SameConnections(msg, heard.msg)
	heard.epoch, heard.at = u.UpdateEpoch, n.clock()
	n.keepLocked(heard, msg)
	return repeats
}

// maxUpdateBytes bounds what is kept of updates for new neighbours: two kilobytes for every node that there can be. One
// that finds no room reaches them with its next flood.
const maxUpdateBytes = 32 << 20

// keepLocked makes msg the message that is kept of heard; none if there is no room.
func (n *Node) keepLocked(heard *heardUpdate, msg []byte) {
	n.updateBytes -= cap(heard.msg)
	if cap(heard.msg) < len(msg) || cap(heard.msg) > 2*len(msg) {
		heard.msg = nil
		if n.updateBytes+len(msg) <= maxUpdateBytes {
			heard.msg = make([]byte, 0, len(msg))
		}
	}
	if heard.msg != nil {
		heard.msg = append(heard.msg[:0], msg...)
	}
	n.updateBytes += cap(heard.msg)
}

func (n *Node) endFormerLife(peer wire.NodeID) {
	n.wg.Go(func() {
		n.failStreams(errPeerRestarted, func(s *Stream) bool { return s.mux == nil && s.remote.Node == peer })
		n.failMuxes(errPeerRestarted, func(m *mux) bool { return m.remote.Node == peer })
	})
}

func (n *Node) logForgeryLocked(nb *neighbour, u wire.RouteUpdate) {
	if n.forgeryFrom == nb {
		return
	}
	n.forgeryFrom = nb
	n.log.Warn("a notice that this node is a duplicate is not believed: nothing else is heard of another node with this ID",
		"peer", nb.id, "epoch", u.UpdateEpoch)
}

// computeRoutesLocked computes the shortest paths and publishes the forwarding table.
func (n *Node) computeRoutesLocked() {
	start := time.Now()
	n.routesAt = time.Time{}
	routes := n.db.Routes()
	defer func() { // On a busy machine much of the time was spent by others.
		n.routesTook = min(time.Since(start), routesAtMost+time.Duration(routes.Directory().Size())*routesPerNode)
	}()
	t := &forwarding{dir: routes.Directory(), dests: make([]destination, routes.Directory().Size())}
	for i := range t.dests {
		d := &t.dests[i]
		d.name, d.self = t.dir.NameAt(i), i == 0
		if r, ok := routes.At(i); ok {
			d.next, d.cost = n.links[r.NextHop], r.Cost
		}
	}
	n.table.Store(t)
	n.stale.Store(false) // Last: whoever sees it looks at the new table.
	changed := n.routes == nil || !n.routes.Equal(routes)
	n.routes = routes
	if !changed {
		return
	}
	n.wakeWaitersLocked()
	n.publishLocked(Event{Kind: RoutesChanged})
	if n.log.Enabled(n.ctx, slog.LevelInfo) && routes.Directory().Size() > 1 {
		soonLocked(&n.tableAt, tableDelay)
		n.kickLocked()
	}
}

// wakeWaitersLocked lets [Node.WaitRoute] look again.
func (n *Node) wakeWaitersLocked() {
	close(n.routeChange)
	n.routeChange = make(chan struct{})
}

// logTableLocked logs the routes if they are not those that were logged last: a peer that is refused again and again comes
// and goes with every try.
func (n *Node) logTableLocked() {
	n.tableAt = time.Time{}
	if text := describe(n.db.Known(), n.routes); text != n.tableLogged {
		n.tableLogged = text
		n.log.Info(text)
	}
}

// describe is the routing change as operators know it: the links that exist, then the way to every node.
func describe(known map[wire.NodeID]map[wire.NodeID]float64, routes *topology.Table) string {
	var b strings.Builder
	b.WriteString("Known Connections:")
	for _, id := range slices.Sorted(maps.Keys(known)) {
		fmt.Fprintf(&b, "\n   %s:", id)
		for _, peer := range slices.Sorted(maps.Keys(known[id])) {
			fmt.Fprintf(&b, " %s(%.2f)", peer, known[id][peer])
		}
	}
	b.WriteString("\nRouting Table:")
	all := slices.SortedFunc(routes.All(), func(x, y topology.Route) int { return strings.Compare(string(x.Node), string(y.Node)) })
	for _, r := range all {
		fmt.Fprintf(&b, "\n   %s via %s", r.Node, r.NextHop)
	}
	return b.String()
}

// sweep forgets what is old.
func (n *Node) sweep() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.db.Sweep(time.Now())
	for name, heard := range n.updates {
		if !n.db.Knows(name) {
			n.updateBytes -= cap(heard.msg)
			delete(n.updates, name)
			n.recomputeLocked()
		}
	}
	n.sweepAdvertsLocked(time.Now())
}

// heardUpdate is the last update of another node and when it came.
type heardUpdate struct {
	epoch uint64
	at    int64  // By Node.clock.
	msg   []byte // As it was passed on; empty if there was no room for it.
}

// greetLocked tells a new neighbour everything instead of letting it wait for the next period: the last update of every
// node that is alive, as it was flooded, and the advertisements. To an existing node these are ordinary floods. A node
// without a route counts too: it may get one by an update that is still on its way, and its own is not repeated then.
//
// A neighbour whose clock was set back before it was restarted has a smaller epoch than in its former life, and nobody
// would heed it. It is told of that life, too: it will take it for a newer node with its ID, and the notice that it
// sends then makes the whole mesh heed the smaller epoch.
//
// The mesh is told of the neighbour first, so that when it has a route and sends a packet, the answer finds its way back.
func (n *Node) greetLocked(nb *neighbour) {
	if nb.cause != nil {
		return
	}
	nb.greeted = true
	now := n.clock()
	for name, heard := range n.updates {
		switch {
		case len(heard.msg) == 0:
		case name == nb.id && heard.epoch <= nb.epoch, name != nb.id && now-heard.at > int64(3*routePeriod):
		case nb.beats:
			nb.tell(heard.msg)
		default:
			nb.tell(wire.PlainRoute(heard.msg))
		}
	}
	n.sendKnownAdvertsLocked(nb)
}
