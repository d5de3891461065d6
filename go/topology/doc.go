// Package topology is the link-state database of one mesh node: what every node said about its neighbours, and the
// shortest paths that follow from it.
//
// It makes no I/O, starts no goroutines and never looks at the clock. Updates go in with [DB.Apply], which returns what
// the caller is to do next; the result comes out of [DB.Routes] as an immutable [Table]:
//
//	db := topology.New("alpha", epoch)
//	db.SetLink("bravo", 1)
//	e := db.Apply(update, now)
//	if e.Forward { ... }                     // flood on, except to where it came from
//	if e.Recompute { routes.Store(db.Routes()) } // usually a little later, so that several changes cost one computation
//
// A [DB] belongs to one goroutine at a time. A [Table] never changes and may be read from everywhere.
//
// # What an update does
//
// An update is one node's complete list of neighbours with the cost of each link, stamped by its origin with an epoch
// (constant for the life of the process, larger after each restart) and a sequence number. Rules, in this order:
//
//  1. No node ID: ignored.
//  2. Our own ID: never applied and never forwarded. Our own epoch means that our update came back. A
//     SuspectedDuplicate that equals our epoch says that we are the newer of two nodes of this name
//     ([Effects].Shutdown); [DB.HasTwin] says whether anything but that notice shows such a node. A greater epoch than ours means that somebody started later under our name, and
//     [Effects].DuplicateOf asks for the notice that tells it so; several copies of one such update ask once.
//  3. An UpdateID that was seen within the last hour, from whomever: ignored.
//  4. A SuspectedDuplicate that is not zero: only puts the stored epoch and sequence back to those of the older twin,
//     if they are the newer twin's. The neighbours are not used. Forwarded.
//  5. A smaller epoch than the stored one, or the same with a sequence that is not larger: ignored.
//  6. A cost that is not above zero, not a number, or above [MaxCost]: the whole update is ignored, since a cost that
//     is not positive freezes the path computation of some nodes it might reach.
//  7. Otherwise the list replaces the stored one if it differs. Our own links are not touched: only [DB.SetLink] and
//     [DB.RemoveLink] change them.
//
// An edge counts if both ends list each other, or if the other end has not been heard yet. Existing nodes instead delete
// one-sided edges as updates come in, so that what they know after a link came up depends on the order of the updates,
// and may be wrong until the next period. Both agree once the two ends have been heard.
//
// A null list is an empty one, except that it does not make a node known that nobody knew: that node is no destination
// until it lists something, if only {}.
//
// # Paths
//
// The cost of a path is the sum of the costs announced by the node nearer to us on each edge. Destinations are the
// nodes with a list of their own and our neighbours; names that appear only in the lists of others are not. Of several
// paths the cheapest wins, among equals the one with fewer hops, then the one whose first hop has the smallest name by
// byte value. The choice depends on the graph alone, not on the order of updates, so it does not flap.
//
// # Bounds
//
// Anybody can invent nodes, so everything is bounded. Update IDs are remembered as 64-bit keyed hashes, at most
// [MaxSeen]; beyond that the oldest are forgotten early, which is harmless because epoch and sequence still tell an old
// update. At most [MaxNodes] nodes and about [MaxBytes] of names are kept. When a new node or a longer list does not
// fit, an eighth of the nodes, those that cannot be reached and have been silent longest, is forgotten (at most once per
// second); if that is not enough the update is ignored. Apart from that, a node that is unreachable and has been silent for
// [Retention] is forgotten by [DB.Sweep]. Its updates have left the memory of seen IDs by then too, so nothing is lost
// if it returns. Nodes that can be reached are never forgotten.
package topology
