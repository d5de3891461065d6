package topology

import (
	"cmp"
	"iter"
	"math"
	"slices"
	"strings"
	"time"
	"unique"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

const (
	// MaxCost is the highest cost of a link that is believed. Sums of it stay finite and exact enough to compare.
	MaxCost = 1e15
	// MaxNodes is how many nodes a database holds.
	MaxNodes = 16384
	// MaxBytes is about how much memory the names of nodes and neighbours may take.
	MaxBytes = 64 << 20
	// MaxSeen is how many update IDs are remembered: an hour of a mesh of some 1,400 nodes.
	MaxSeen = 1 << 19
	// MaxUpdateID is the longest update ID that is taken, in bytes; nodes make them of 8. A longer one would only be carried
	// through the mesh and kept.
	MaxUpdateID = 128
	// Retention is how long an update ID is remembered, and how long a node that can no longer be reached.
	Retention = time.Hour
	// TwinLife is how long what an older node with our ID says of its links counts: it says so every ten seconds.
	TwinLife = 30 * time.Second
)

// Reasons for [Effects].Ignored.
const (
	IgnoredNoNode   = "empty node ID"
	IgnoredOwn      = "own update came back"
	IgnoredOldTwin  = "update of an older node with our ID"
	IgnoredSeen     = "update ID already seen"
	IgnoredStale    = "older than the update we have"
	IgnoredBadCost  = "cost out of range"
	IgnoredTooMuch  = "no room for more nodes"
	IgnoredShutdown = "says that we are a duplicate"
	IgnoredNewTwin  = "update of a newer node with our ID"
	IgnoredLongID   = "update ID too long"
)

// purgeInterval is the least time between two attempts to make room, which cost a path computation each.
const purgeInterval = time.Second

// nodeOverhead and edgeOverhead are about what a node or an edge takes beside its name.
const (
	nodeOverhead = 256
	edgeOverhead = 48
)

// ValidCost reports whether a link may have this cost: above zero and at most [MaxCost].
func ValidCost(cost float64) bool {
	return cost > 0 && cost <= MaxCost // NaN fails both.
}

// Effects says what the caller of [DB.Apply] has to do.
type Effects struct {
	Forward     bool        // Flood the update on to all neighbours but the one it came from.
	Recompute   bool        // The topology changed: the last Table is stale.
	Announce    bool        // Schedule an own update: the origin was not known before.
	NewNode     wire.NodeID // Learn the hash of this name; "" if there is none to learn.
	DuplicateOf uint64      // Not zero: at once flood an own update with this as SuspectedDuplicate.
	Shutdown    bool        // Somebody says that we are the newer of two nodes with our ID. Anyone can claim that: see [DB.HasTwin].
	Ignored     string      // Why the update was not applied; "" if it was.
}

// node is all we know about one name that is in the table or has sent updates.
type node struct {
	name    wire.NodeID
	hash    wire.NodeHash
	listed  bool // Has an entry in the table, so it is a destination.
	updated bool // Epoch and sequence are set.
	epoch   uint64
	seq     uint64
	heard   time.Time // Last accepted update; zero if none and not swept yet.
	edges   edges
	bytes   int  // What it counts against MaxBytes.
	arcs    arcs // The same edges, ready for the path computation.

	shared unique.Handle[wire.NodeID] // Of name: databases in one process share it.
}

// DB is the link-state database of one node. It is not safe for concurrent use.
type DB struct {
	self  *node // Its edges are the own links.
	epoch uint64

	nodes map[wire.NodeID]*node
	order []*node // The same nodes, in the order in which they were learnt; self first.
	bytes int

	maxNodes, maxBytes int

	seen      seenIDs
	lastPurge time.Time

	twin twin

	table *Table // nil: stale.
	paths pathScratch
}

// twin is what an older node with our ID has said last.
type twin struct {
	epoch      uint64
	heard      time.Time
	neighbours []wire.NodeID

	accuser uint64    // The epoch of the node that says we are its duplicate,
	accused time.Time // and when it said so last.
}

// New returns the database of the node self, whose own updates carry the given epoch.
func New(self wire.NodeID, epoch uint64) *DB {
	db := &DB{
		epoch: epoch, nodes: map[wire.NodeID]*node{}, seen: newSeenIDs(MaxSeen),
		maxNodes: MaxNodes, maxBytes: MaxBytes,
	}
	db.self = db.add(self)
	db.list(db.self)
	db.self.updated = true
	return db
}

// Apply folds one update into the database and says what to do next. The update must have passed the checks of the link
// it came on (its ForwardingNode is the neighbour at the other end). A stale or repeated update is normal: every update
// arrives by several paths. Apply keeps no part of u.
func (db *DB) Apply(u wire.RouteUpdate, now time.Time) Effects {
	switch {
	case u.NodeID == "":
		return Effects{Ignored: IgnoredNoNode}
	case len(u.UpdateID) > MaxUpdateID:
		return Effects{Ignored: IgnoredLongID}
	case u.NodeID == db.self.name:
		return db.applyOwn(u, now)
	case !db.seen.add(u.UpdateID, now):
		return Effects{Ignored: IgnoredSeen}
	}
	n := db.nodes[u.NodeID]
	if u.SuspectedDuplicate != 0 {
		if n != nil && n.updated && n.epoch == u.SuspectedDuplicate {
			n.epoch, n.seq = u.UpdateEpoch, u.UpdateSequence
		}
		return Effects{Forward: true}
	}
	known := n != nil && n.updated
	if known && (u.UpdateEpoch < n.epoch || u.UpdateEpoch == n.epoch && u.UpdateSequence <= n.seq) {
		return Effects{Ignored: IgnoredStale}
	}
	for _, c := range u.Connections {
		if !ValidCost(c) {
			return Effects{Ignored: IgnoredBadCost}
		}
	}
	changed := n == nil || !n.listed && u.Connections != nil || n.listed && !n.edges.equal(u.Connections)
	if changed && !db.makeRoom(n, u, now) {
		return Effects{Ignored: IgnoredTooMuch}
	}
	if n == nil {
		n = db.add(u.NodeID)
	}
	if !n.updated {
		db.paths.forgetArcs() // Edges to it counted until now, whether it lists them or not.
	}
	n.updated, n.epoch, n.seq, n.heard = true, u.UpdateEpoch, u.UpdateSequence, now
	e := Effects{Forward: true, Announce: !known}
	if !known {
		e.NewNode = u.NodeID
	}
	if changed {
		db.table = nil
		e.Recompute = true
	}
	if changed && (n.listed || u.Connections != nil) {
		db.replace(n, u.Connections)
	}
	return e
}

// Seen reports whether an update with this ID was applied within [Retention]: applying it again would do nothing.
func (db *DB) Seen(updateID []byte) bool { return db.seen.has(updateID) }

// applyOwn handles an update that carries our own ID.
func (db *DB) applyOwn(u wire.RouteUpdate, now time.Time) Effects {
	switch {
	case u.UpdateEpoch == db.epoch:
		return Effects{Ignored: IgnoredOwn}
	case u.SuspectedDuplicate == db.epoch && db.epoch != 0:
		db.twin.accuser, db.twin.accused = u.UpdateEpoch, now
		return Effects{Shutdown: true, Ignored: IgnoredShutdown}
	case u.UpdateEpoch < db.epoch:
		if u.SuspectedDuplicate != 0 {
			return Effects{Ignored: IgnoredOldTwin}
		}
		db.twin.epoch, db.twin.heard, db.twin.neighbours = u.UpdateEpoch, now, nil
		for name := range u.Connections {
			db.twin.neighbours = append(db.twin.neighbours, db.ownName(name))
		}
		accused := db.twin.accuser == u.UpdateEpoch && now.Sub(db.twin.accused) <= TwinLife
		return Effects{Shutdown: accused, Ignored: IgnoredOldTwin}
	case !db.seen.add(u.UpdateID, now):
		return Effects{Ignored: IgnoredSeen}
	}
	return Effects{DuplicateOf: u.UpdateEpoch, Ignored: IgnoredNewTwin}
}

// replace makes edges the list of n.
func (db *DB) replace(n *node, edges map[wire.NodeID]float64) {
	db.list(n)
	for _, e := range slices.Clone(n.edges) {
		if _, stays := edges[e.to]; !stays {
			db.removeEdge(n, e.to)
		}
	}
	for name, cost := range edges {
		db.setEdge(n, name, cost)
	}
	db.bytes -= n.bytes
	n.bytes = sizeOf(n.name, edges)
	db.bytes += n.bytes
}

// list makes n a destination.
func (db *DB) list(n *node) {
	if !n.listed {
		n.listed = true
		db.paths.renumber()
		db.paths.forgetArcs()
	}
}

func (db *DB) setEdge(n *node, to wire.NodeID, cost float64) {
	i, had := n.edges.find(to)
	if !had {
		n.edges = slices.Insert(n.edges, i, edge{to: db.ownName(to)})
	}
	n.edges[i].cost = cost
	db.edgeChanged(n, to)
}

// ownName returns name as a string that shares no memory with a message.
func (db *DB) ownName(name wire.NodeID) wire.NodeID {
	if n := db.nodes[name]; n != nil {
		return n.name
	}
	return wire.NodeID(strings.Clone(string(name)))
}

// edgeChanged notes that the edge from n to another node, and whether the one back counts, must be looked at again.
func (db *DB) edgeChanged(n *node, to wire.NodeID) {
	n.arcs.stale()
	if x := db.nodes[to]; x != nil {
		x.arcs.stale()
	}
}

// confirms reports whether an edge from a node called name to n counts: n lists it too, or has not been heard yet. An
// edge that one end alone knows is one that is just coming up or going down, whatever order the news of it come in.
func (n *node) confirms(name wire.NodeID) bool {
	_, back := n.edges.find(name)
	return back || !n.updated
}

// HasTwin reports whether a node of the given epoch lives in the mesh under our ID, as far as it shows from here: it has
// told of its links lately, and a node that we have no link to is at the other end of one of them and says so too. That is
// what somebody has to say who uses our ID; a notice alone says nothing.
func (db *DB) HasTwin(epoch uint64, now time.Time) bool {
	if db.twin.epoch != epoch || now.Sub(db.twin.heard) > TwinLife {
		return false
	}
	return slices.ContainsFunc(db.twin.neighbours, func(name wire.NodeID) bool {
		_, linked := db.self.edges.find(name)
		x := db.nodes[name]
		if x == nil || linked {
			return false
		}
		_, listed := x.edges.find(db.self.name)
		return listed
	})
}

func (db *DB) removeEdge(n *node, to wire.NodeID) {
	if i, had := n.edges.find(to); had {
		n.edges = slices.Delete(n.edges, i, i+1)
		db.edgeChanged(n, to)
	}
}

// SetLink records that we have a link to peer at the given cost, in both directions, and makes the peer known.
// A cost that is not [ValidCost] is a programming error and panics: links are configured, not received.
func (db *DB) SetLink(peer wire.NodeID, cost float64) {
	if !ValidCost(cost) || peer == db.self.name {
		panic("topology: invalid link")
	}
	n := db.nodes[peer]
	if n == nil {
		n = db.add(peer)
	}
	db.list(n)
	db.setEdge(db.self, peer, cost)
	db.setEdge(n, db.self.name, cost)
	db.table = nil
}

// Introduce records with which epoch a peer has introduced itself on a new link. If it was restarted, what its former life
// said of its links holds no more, and what it says now has not come yet.
func (db *DB) Introduce(peer wire.NodeID, epoch uint64) {
	n := db.nodes[peer]
	if n == nil || n == db.self || !n.updated || n.epoch >= epoch {
		return
	}
	n.epoch, n.seq = epoch, 0
	if n.listed {
		db.replace(n, nil)
		db.table = nil
	}
}

// RemoveLink records that the link to peer is gone. The peer stays known.
func (db *DB) RemoveLink(peer wire.NodeID) {
	db.removeEdge(db.self, peer)
	if n := db.nodes[peer]; n != nil {
		db.removeEdge(n, db.self.name)
	}
	db.table = nil
}

// Links returns a copy of our own links: neighbour to cost.
func (db *DB) Links() map[wire.NodeID]float64 { return db.self.edges.asMap() }

// Known returns the table: every node with the neighbours that confirm their link to it, ourselves included.
func (db *DB) Known() map[wire.NodeID]map[wire.NodeID]float64 {
	known := make(map[wire.NodeID]map[wire.NodeID]float64, len(db.order))
	for _, n := range db.order {
		if n.listed {
			known[n.name] = db.confirmed(n)
		}
	}
	return known
}

func (db *DB) confirmed(n *node) map[wire.NodeID]float64 {
	if n == db.self { // Our own links are what they are.
		return n.edges.asMap()
	}
	known := make(map[wire.NodeID]float64, len(n.edges))
	for _, e := range n.edges {
		if x := db.nodes[e.to]; x == nil || x.confirms(n.name) {
			known[e.to] = e.cost
		}
	}
	return known
}

// Knows reports whether name is in the database: ourselves, a neighbour, or the origin of an accepted update that was not
// forgotten since. Who keeps things by node name uses it, after [DB.Sweep], to drop what nobody knows any more.
func (db *DB) Knows(name wire.NodeID) bool { return db.nodes[name] != nil }

// Sweep forgets update IDs that are older than [Retention] and nodes that have been unreachable and silent as long. Call
// it every minute or so; it costs little when nothing expires.
func (db *DB) Sweep(now time.Time) {
	db.seen.expire(now)
	routes := db.Routes()
	db.forget(func(n *node) bool {
		if n.heard.IsZero() {
			n.heard = now // A neighbour that never sent an update: its time starts here.
		}
		return now.Sub(n.heard) >= Retention && !db.reachable(n, routes)
	})
}

func (db *DB) reachable(n *node, t *Table) bool {
	_, ok := t.Route(n.name)
	_, linked := db.self.edges.find(n.name)
	return ok || linked || n == db.self
}

// makeRoom reports whether the update u about n (nil: not known yet) fits, after forgetting others if it must.
func (db *DB) makeRoom(n *node, u wire.RouteUpdate, now time.Time) bool {
	fits := func() bool {
		need, more := sizeOf(u.NodeID, u.Connections), 1
		if n != nil {
			need, more = need-n.bytes, 0
		}
		return len(db.order)+more <= db.maxNodes && (need <= 0 || db.bytes+need <= db.maxBytes)
	}
	if fits() {
		return true
	}
	if !db.lastPurge.IsZero() && now.Sub(db.lastPurge) < purgeInterval {
		return false
	}
	db.lastPurge = now
	db.purge(n)
	return fits()
}

// purge forgets the eighth of the nodes that are unreachable and have been silent longest, but never keep.
func (db *DB) purge(keep *node) {
	routes := db.Routes()
	var idle []*node
	for _, n := range db.order {
		if n != keep && !db.reachable(n, routes) {
			idle = append(idle, n)
		}
	}
	slices.SortStableFunc(idle, func(a, b *node) int { return a.heard.Compare(b.heard) })
	drop := map[*node]bool{}
	for _, n := range idle[:min(len(idle), max(1, len(db.order)/8))] {
		drop[n] = true
	}
	db.forget(func(n *node) bool { return drop[n] })
}

// forget removes the nodes for which which is true; never ourselves. It keeps no route from being valid, because only
// unreachable nodes are removed.
func (db *DB) forget(which func(*node) bool) {
	removed := false
	db.order = slices.DeleteFunc(db.order, func(n *node) bool {
		if n == db.self || !which(n) {
			return false
		}
		for _, e := range n.edges {
			db.edgeChanged(n, e.to)
		}
		delete(db.nodes, n.name)
		db.bytes -= n.bytes
		removed = true
		return true
	})
	if removed {
		db.paths.renumber()
		db.paths.forgetArcs()
		db.table = nil
	}
}

func (db *DB) add(name wire.NodeID) *node {
	shared := unique.Make(name)
	name = shared.Value()
	n := &node{name: name, shared: shared, hash: wire.Hash(name), bytes: sizeOf(name, nil)}
	db.nodes[name] = n
	db.order = append(db.order, n)
	db.bytes += n.bytes
	return n // Not a destination yet, so the numbering of the others holds.
}

func sizeOf(name wire.NodeID, edges map[wire.NodeID]float64) int {
	size := nodeOverhead + len(name)
	for k := range edges {
		size += edgeOverhead + len(k)
	}
	return size
}

// Route is the way to one node.
type Route struct {
	Node    wire.NodeID // The destination.
	NextHop wire.NodeID // The neighbour to hand packets to.
	Cost    float64     // Sum over the path.
}

// Directory gives every destination of a moment a position. It never changes, and the tables computed while the
// destinations stay the same share one.
type Directory struct {
	names  []wire.NodeID // By position; "" for what is no destination. Position 0 is the node itself.
	byName map[wire.NodeID]int32
	byHash map[wire.NodeHash]int32
}

// Size is above every position.
func (d *Directory) Size() int { return len(d.names) }

// NameAt returns the name at a position; "" if no destination has it.
func (d *Directory) NameAt(i int) wire.NodeID { return d.names[i] }

// ByName returns the position of a node.
func (d *Directory) ByName(name wire.NodeID) (int, bool) {
	i, ok := d.byName[name]
	return int(i), ok
}

// ByHash returns the position of the node with this hash; of two names with one hash, of the one learnt first. It does
// not allocate.
func (d *Directory) ByHash(hash wire.NodeHash) (int, bool) {
	i, ok := d.byHash[hash]
	return int(i), ok
}

func newDirectory(db *DB) *Directory {
	d := &Directory{
		names:  make([]wire.NodeID, len(db.order)),
		byName: make(map[wire.NodeID]int32, len(db.order)), byHash: make(map[wire.NodeHash]int32, len(db.order)),
	}
	for i, n := range db.order {
		if !n.listed {
			continue
		}
		d.names[i], d.byName[n.name] = n.name, int32(i)
		if _, taken := d.byHash[n.hash]; !taken {
			d.byHash[n.hash] = int32(i)
		}
	}
	return d
}

// Table holds the routes of one moment. It never changes and is safe for concurrent use.
type Table struct {
	dir  *Directory
	hops []hop // By position.
	len  int
}

// hop is where packets for one destination go next; an empty name stands for no route.
type hop struct {
	next wire.NodeID
	cost float64
}

// Directory returns the destinations that the table is about, those without a route included.
func (t *Table) Directory() *Directory { return t.dir }

// Len is the number of nodes that can be reached, without ourselves.
func (t *Table) Len() int { return t.len }

// At returns the route to the node at a position of the directory.
func (t *Table) At(i int) (Route, bool) {
	h := t.hops[i]
	return Route{Node: t.dir.names[i], NextHop: h.next, Cost: h.cost}, h.next != ""
}

// Route returns the route to a node.
func (t *Table) Route(name wire.NodeID) (Route, bool) {
	i, ok := t.dir.byName[name]
	if !ok {
		return Route{}, false
	}
	return t.At(int(i))
}

// All yields the route to every node that can be reached, without ourselves, in the order in which they were learnt.
func (t *Table) All() iter.Seq[Route] {
	return func(yield func(Route) bool) {
		for i := range t.hops {
			if r, ok := t.At(i); ok && !yield(r) {
				return
			}
		}
	}
}

// Next returns the route to the node with this hash. It does not allocate. Of two names with one hash the one that was
// learnt first has it.
func (t *Table) Next(hash wire.NodeHash) (Route, bool) {
	i, ok := t.dir.byHash[hash]
	if !ok {
		return Route{}, false
	}
	return t.At(int(i))
}

// Name returns the name behind a hash if it is a destination: ourselves or another node, whether it can be reached or
// not. Packets from or to any other hash belong to nobody.
func (t *Table) Name(hash wire.NodeHash) (wire.NodeID, bool) {
	i, ok := t.dir.byHash[hash]
	if !ok {
		return "", false
	}
	return t.dir.names[i], true
}

// Equal reports whether both tables lead to the same nodes by the same next hops at the same costs.
func (t *Table) Equal(o *Table) bool {
	if t.dir == o.dir {
		return slices.Equal(t.hops, o.hops)
	}
	if t.len != o.len {
		return false
	}
	for r := range t.All() {
		if other, ok := o.Route(r.Node); !ok || other != r {
			return false
		}
	}
	return true
}

// Routes computes the shortest paths. It returns the same Table until the topology changes.
func (db *DB) Routes() *Table {
	if db.table != nil {
		return db.table
	}
	db.paths.compute(db)
	t := &Table{dir: db.paths.dir, hops: make([]hop, db.paths.dir.Size())}
	for i := range t.hops {
		l := db.paths.best[i]
		if i == 0 || math.IsInf(l.cost, 1) || !db.order[i].listed {
			continue
		}
		t.hops[i] = hop{next: db.paths.peers[l.first], cost: l.cost}
		t.len++
	}
	db.table = t
	return t
}

// label is the length of a path: the cost first, then the number of hops, then the rank of its first hop by name.
type label struct {
	cost  float64
	hops  int32
	first int32
}

func (a label) compare(b label) int {
	return cmp.Or(cmp.Compare(a.cost, b.cost), cmp.Compare(a.hops, b.hops), cmp.Compare(a.first, b.first))
}
