package topology_test

import (
	"fmt"
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/topology"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

const ownEpoch = 1000

type edges = map[wire.NodeID]float64

var updateID int

// update makes an update with a fresh ID.
func update(origin wire.NodeID, epoch, seq uint64, list edges) wire.RouteUpdate {
	updateID++
	return wire.RouteUpdate{
		NodeID: origin, UpdateID: fmt.Sprint("u", updateID), UpdateEpoch: epoch, UpdateSequence: seq,
		Connections: list, ForwardingNode: "b",
	}
}

func notice(origin wire.NodeID, epoch, seq, duplicate uint64) wire.RouteUpdate {
	u := update(origin, epoch, seq, nil)
	u.SuspectedDuplicate = duplicate
	return u
}

func withID(u wire.RouteUpdate, id string) wire.RouteUpdate {
	u.UpdateID = id
	return u
}

// TestApply has one case per rule. Each starts with node a, epoch 1000, linked to b, knowing b and c behind it.
func TestApply(t *testing.T) {
	accepted := topology.Effects{Forward: true}
	changed := topology.Effects{Forward: true, Recompute: true}
	newcomer := func(n wire.NodeID) topology.Effects {
		return topology.Effects{Forward: true, Recompute: true, Announce: true, NewNode: n}
	}
	ignored := func(why string) topology.Effects { return topology.Effects{Ignored: why} }
	for _, tc := range []struct {
		name   string
		before []wire.RouteUpdate
		u      wire.RouteUpdate
		want   topology.Effects
		known  map[wire.NodeID]edges // What differs from the start; nil value: absent.
	}{
		{name: "empty node ID", u: update("", 1, 1, edges{}), want: ignored(topology.IgnoredNoNode)},
		{name: "own update comes back", u: update("a", ownEpoch, 9, edges{"x": 1}), want: ignored(topology.IgnoredOwn)},
		{name: "own epoch goes before suspicion", u: notice("a", ownEpoch, 9, ownEpoch), want: ignored(topology.IgnoredOwn)},
		{
			name: "we are the newer duplicate", u: notice("a", 900, 9, ownEpoch),
			want: topology.Effects{Shutdown: true, Ignored: topology.IgnoredShutdown},
		},
		{
			name: "suspicion goes before the newer epoch", u: notice("a", 1001, 9, ownEpoch),
			want: topology.Effects{Shutdown: true, Ignored: topology.IgnoredShutdown},
		},
		{
			name: "a newer node has our ID", u: update("a", 1001, 1, edges{"b": 1}),
			want: topology.Effects{DuplicateOf: 1001, Ignored: topology.IgnoredNewTwin},
		},
		{
			name:   "a copy of the newer node's update asks no second time",
			before: []wire.RouteUpdate{withID(update("a", 1001, 1, edges{"b": 1}), "twin")},
			u:      withID(update("a", 1001, 1, edges{"b": 1}), "twin"), want: ignored(topology.IgnoredSeen),
		},
		{name: "an older node has our ID", u: update("a", 999, 1, edges{"b": 1}), want: ignored(topology.IgnoredOldTwin)},
		{name: "a notice about somebody else's epoch under our ID", u: notice("a", 999, 1, 5), want: ignored(topology.IgnoredOldTwin)},
		{
			name: "update ID already seen", before: []wire.RouteUpdate{withID(update("d", 1, 1, edges{}), "same")},
			u: withID(update("c", 10, 99, edges{"x": 1}), "same"), want: ignored(topology.IgnoredSeen), known: map[wire.NodeID]edges{"d": {}},
		},
		{name: "update ID too long", u: withID(update("c", 10, 6, edges{"x": 1}), strings.Repeat("u", topology.MaxUpdateID+1)), want: ignored(topology.IgnoredLongID)},
		{
			name: "even an empty update ID is seen once", before: []wire.RouteUpdate{withID(update("d", 1, 1, edges{}), "")},
			u: withID(update("c", 10, 99, edges{"x": 1}), ""), want: ignored(topology.IgnoredSeen), known: map[wire.NodeID]edges{"d": {}},
		},
		{
			name:   "the ID of an ignored update counts as seen",
			before: []wire.RouteUpdate{withID(update("c", 10, 1, edges{"x": 1}), "stale")},
			u:      withID(update("c", 10, 99, edges{"x": 1}), "stale"), want: ignored(topology.IgnoredSeen),
		},
		{name: "smaller epoch", u: update("c", 9, 99, edges{"x": 1}), want: ignored(topology.IgnoredStale)},
		{name: "same epoch and sequence", u: update("c", 10, 5, edges{"x": 1}), want: ignored(topology.IgnoredStale)},
		{name: "same epoch, smaller sequence", u: update("c", 10, 4, edges{"x": 1}), want: ignored(topology.IgnoredStale)},
		{
			name: "greater epoch with any sequence", u: update("c", 11, 1, edges{"b": 3}), want: changed,
			known: map[wire.NodeID]edges{"c": {"b": 3}},
		},
		{name: "unchanged list", u: update("c", 10, 6, edges{"b": 2}), want: accepted},
		{
			name: "changed cost", u: update("c", 10, 6, edges{"b": 2.5}), want: changed,
			known: map[wire.NodeID]edges{"c": {"b": 2.5}},
		},
		{
			name: "an omitted node loses its edge towards the origin", u: update("c", 10, 6, edges{}), want: changed,
			known: map[wire.NodeID]edges{"c": {}, "b": {"a": 1}},
		},
		{
			name:   "an edge counts as soon as both ends list it, in whatever order they say so",
			before: []wire.RouteUpdate{update("c", 10, 6, edges{})},
			u:      update("c", 10, 7, edges{"b": 2}), want: changed,
			known: map[wire.NodeID]edges{"c": {"b": 2}, "b": {"a": 1, "c": 2}},
		},
		{
			name: "our own links stay whatever others say", u: update("b", 10, 6, edges{"c": 2}), want: changed,
			known: map[wire.NodeID]edges{"a": {"b": 1}, "b": {"c": 2}},
		},
		{
			name: "no edge is added on behalf of others", u: update("c", 10, 6, edges{"b": 2, "a": 1}), want: changed,
			known: map[wire.NodeID]edges{"c": {"b": 2}},
		},
		{
			name: "unknown origin", u: update("d", 1, 1, edges{"c": 1}), want: newcomer("d"),
			known: map[wire.NodeID]edges{"d": {}}, // Until c confirms it.
		},
		{
			name: "unknown origin without neighbours", u: update("d", 1, 1, edges{}), want: newcomer("d"),
			known: map[wire.NodeID]edges{"d": {}},
		},
		{name: "unknown origin with null is no destination", u: update("d", 1, 1, nil), want: newcomer("d")},
		{
			name: "null from a known origin empties its list", u: update("c", 10, 6, nil), want: changed,
			known: map[wire.NodeID]edges{"c": {}, "b": {"a": 1}},
		},
		{
			name: "an empty neighbour name is tolerated", u: update("c", 10, 6, edges{"b": 2, "": 1}), want: changed,
			known: map[wire.NodeID]edges{"c": {"b": 2, "": 1}},
		},
		{name: "cost zero", u: update("c", 10, 6, edges{"b": 0}), want: ignored(topology.IgnoredBadCost)},
		{name: "negative cost", u: update("c", 10, 6, edges{"b": -1}), want: ignored(topology.IgnoredBadCost)},
		{name: "cost not a number", u: update("c", 10, 6, edges{"b": math.NaN()}), want: ignored(topology.IgnoredBadCost)},
		{name: "infinite cost", u: update("c", 10, 6, edges{"b": math.Inf(1)}), want: ignored(topology.IgnoredBadCost)},
		{name: "absurd cost", u: update("c", 10, 6, edges{"b": 1e300}), want: ignored(topology.IgnoredBadCost)},
		{name: "one bad cost spoils all", u: update("d", 1, 1, edges{"b": 1, "c": -1}), want: ignored(topology.IgnoredBadCost)},
		{
			name: "an update with a bad cost leaves the sequence alone", before: []wire.RouteUpdate{update("c", 10, 6, edges{"b": -1})},
			u: update("c", 10, 6, edges{"b": 2}), want: accepted,
		},
		{name: "a notice is forwarded and its list not used", u: notice("c", 10, 7, 77), want: accepted},
		{name: "a notice makes no node known", u: notice("d", 1, 1, 2), want: accepted},
		{
			name:   "a notice restores the older twin",
			before: []wire.RouteUpdate{update("c", 20, 1, edges{"b": 2}), notice("c", 10, 6, 20)},
			u:      update("c", 10, 7, edges{"b": 2}), want: accepted,
		},
		{
			name:   "a notice about another epoch changes nothing",
			before: []wire.RouteUpdate{update("c", 20, 1, edges{"b": 2}), notice("c", 10, 6, 21)},
			u:      update("c", 10, 7, edges{"b": 2}), want: ignored(topology.IgnoredStale),
		},
		{name: "64-bit numbers are exact", before: []wire.RouteUpdate{update("c", math.MaxUint64-1, 1, edges{"b": 2})},
			u: update("c", math.MaxUint64, 1, edges{"b": 2}), want: accepted},
	} {
		t.Run(tc.name, func(t *testing.T) {
			db := topology.New("a", ownEpoch)
			db.SetLink("b", 1)
			db.Apply(update("b", 10, 5, edges{"a": 1, "c": 2}), start)
			db.Apply(update("c", 10, 5, edges{"b": 2}), start)
			for _, u := range tc.before {
				db.Apply(u, start)
			}
			if got := db.Apply(tc.u, start); got != tc.want {
				t.Errorf("got  %+v\nwant %+v", got, tc.want)
			}
			want := map[wire.NodeID]edges{"a": {"b": 1}, "b": {"a": 1, "c": 2}, "c": {"b": 2}}
			maps.Copy(want, tc.known)
			if got := db.Known(); !maps.EqualFunc(got, want, maps.Equal) {
				t.Errorf("table %v, want %v", got, want)
			}
		})
	}
}

func TestLinks(t *testing.T) {
	db := topology.New("a", ownEpoch)
	db.SetLink("b", 1.5)
	db.SetLink("c", 2)
	if got, want := db.Links(), (edges{"b": 1.5, "c": 2}); !maps.Equal(got, want) {
		t.Errorf("links %v, want %v", got, want)
	}
	wantRoutes(t, db, "b b 1.5", "c c 2")
	db.Links()["z"] = 1 // A copy.
	db.RemoveLink("b")
	wantRoutes(t, db, "c c 2")
	want := map[wire.NodeID]edges{"a": {"c": 2}, "b": {}, "c": {"a": 2}}
	if got := db.Known(); !maps.EqualFunc(got, want, maps.Equal) {
		t.Errorf("a lost neighbour stays known: table %v, want %v", got, want)
	}
	if e := db.Apply(update("b", 1, 1, edges{}), start); e.NewNode != "b" || !e.Announce {
		t.Errorf("a neighbour's first update is that of an unknown origin, got %+v", e)
	}
}

func TestSetLinkRefusesNonsense(t *testing.T) {
	for _, cost := range []float64{0, -1, math.NaN(), math.Inf(1), 1e16} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("cost %v was taken", cost)
				}
			}()
			topology.New("a", 1).SetLink("b", cost)
		}()
	}
}

// wantRoutes compares all routes, written "node nexthop cost".
func wantRoutes(t *testing.T, db *topology.DB, want ...string) {
	t.Helper()
	table := db.Routes()
	got := map[string]bool{}
	for name, r := range table.ByName() {
		got[fmt.Sprint(r.Node, " ", r.NextHop, " ", r.Cost)] = true
		if byHash, ok := table.Next(wire.Hash(name)); !ok || byHash != r {
			t.Errorf("by hash %v %v, by name %v", byHash, ok, r)
		}
	}
	for _, w := range want {
		if !got[w] {
			t.Errorf("no route %q; got %v", w, got)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got routes %v, want %v", got, want)
	}
}

func TestRoutes(t *testing.T) {
	for _, tc := range []struct {
		name    string
		links   edges
		updates map[wire.NodeID]edges
		want    []string
	}{
		{name: "alone"},
		{name: "neighbour that said nothing yet", links: edges{"b": 2}, want: []string{"b b 2"}},
		{
			name: "the announcer's own cost counts on each edge", links: edges{"b": 1},
			updates: map[wire.NodeID]edges{"b": {"a": 1, "c": 2}, "c": {"b": 7}}, want: []string{"b b 1", "c c-via b 3"},
		},
		{
			name: "a detour is taken when it is cheaper", links: edges{"b": 1, "c": 5},
			updates: map[wire.NodeID]edges{"b": {"a": 1, "c": 1}, "c": {"a": 5, "b": 1}}, want: []string{"b b 1", "c c-via b 2"},
		},
		{
			name: "equal costs: fewer hops", links: edges{"b": 1, "c": 2},
			updates: map[wire.NodeID]edges{"b": {"a": 1, "c": 1}, "c": {"a": 2, "b": 1}}, want: []string{"b b 1", "c c 2"},
		},
		{
			name: "equal costs and hops: smaller name of the first hop", links: edges{"c": 1, "b": 1},
			updates: map[wire.NodeID]edges{"b": {"a": 1, "d": 1}, "c": {"a": 1, "d": 1}, "d": {"b": 1, "c": 1}},
			want:    []string{"b b 1", "c c 1", "d c-via b 2"},
		},
		{
			name: "names only in lists of others are no destinations", links: edges{"b": 1},
			updates: map[wire.NodeID]edges{"b": {"a": 1, "ghost": 1}}, want: []string{"b b 1"},
		},
		{
			name: "a one-sided edge leads one way", links: edges{"b": 1},
			updates: map[wire.NodeID]edges{"c": {"b": 1}}, want: []string{"b b 1"},
		},
		{
			name: "nobody routes through ourselves", links: edges{"b": 1},
			updates: map[wire.NodeID]edges{"b": {"a": 1}, "d": {"a": 1, "e": 1}, "e": {"d": 1}}, want: []string{"b b 1"},
		},
		{
			name: "an edge to oneself is harmless", links: edges{"b": 1},
			updates: map[wire.NodeID]edges{"b": {"a": 1, "b": 1, "": 4}}, want: []string{"b b 1"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			db := topology.New("a", ownEpoch)
			for peer, cost := range tc.links {
				db.SetLink(peer, cost)
			}
			// Twice, because an edge that its other end had not confirmed comes back with the second update.
			for seq := range uint64(2) {
				for origin, list := range tc.updates {
					db.Apply(update(origin, 1, seq+1, list), start)
				}
			}
			for i := range tc.want {
				tc.want[i] = strings.ReplaceAll(tc.want[i], " c-via ", " ")
			}
			wantRoutes(t, db, tc.want...)
		})
	}
}

func TestTable(t *testing.T) {
	db := topology.New("a", ownEpoch)
	db.SetLink("b", 1)
	db.Apply(update("b", 1, 1, edges{"a": 1}), start)
	first := db.Routes()
	db.Apply(update("b", 1, 2, edges{"a": 1}), start)
	if db.Routes() != first {
		t.Error("an unchanged update made a new table")
	}
	db.Apply(update("far", 1, 1, edges{}), start)
	second := db.Routes()
	if !second.Equal(first) {
		t.Error("a node without a route changed the routes")
	}
	for _, name := range []wire.NodeID{"a", "b", "far"} {
		if got, ok := second.Name(wire.Hash(name)); !ok || got != name {
			t.Errorf("hash of %s leads to %q, %v", name, got, ok)
		}
	}
	if _, ok := second.Name(wire.Hash("nobody")); ok {
		t.Error("an unknown hash has a name")
	}
	if _, ok := second.Next(wire.Hash("a")); ok {
		t.Error("there is a route to ourselves")
	}
	db.RemoveLink("b")
	if third := db.Routes(); third.Equal(second) || len(second.ByName()) != 1 || len(third.ByName()) != 0 {
		t.Errorf("after the link was lost: %v, before: %v", third.ByName(), second.ByName())
	}
	if n := testing.AllocsPerRun(100, func() { second.Next(wire.Hash("b")) }); n != 0 {
		t.Errorf("Next allocates %v times", n)
	}
}

func TestSweep(t *testing.T) {
	db := topology.New("a", ownEpoch)
	db.SetLink("b", 1)
	db.SetLink("silent", 1)
	db.RemoveLink("silent")
	db.Apply(update("b", 1, 1, edges{"a": 1, "c": 1}), start)
	db.Apply(update("c", 1, 1, edges{"b": 1}), start)
	db.Apply(withID(update("gone", 1, 1, edges{"c": 1}), "once"), start)
	wantKnown := func(want bool, names ...wire.NodeID) {
		t.Helper()
		for _, n := range names {
			if got := db.Knows(n); got != want {
				t.Errorf("knows %s: %v, want %v", n, got, want)
			}
		}
	}
	db.Sweep(start)
	almost := start.Add(topology.Retention - 1)
	db.Sweep(almost)
	wantKnown(true, "a", "b", "c", "gone", "silent")
	if e := db.Apply(withID(update("gone", 1, 2, edges{}), "once"), almost); e.Ignored != topology.IgnoredSeen {
		t.Errorf("an update ID was forgotten early: %+v", e)
	}
	db.Sweep(start.Add(topology.Retention))
	wantKnown(true, "a", "b", "c") // Silent, but reachable.
	wantKnown(false, "gone", "silent")
	if e := db.Apply(withID(update("gone", 1, 1, edges{"c": 1}), "once"), start.Add(topology.Retention)); e.NewNode != "gone" {
		t.Errorf("a forgotten node does not return as a new one: %+v", e)
	}
}

// TestRestartedPeer: what a peer's former life listed is forgotten as soon as it introduces itself anew.
func TestRestartedPeer(t *testing.T) {
	db := topology.New("a", 1)
	db.SetLink("b", 1)
	update := func(node wire.NodeID, id string, epoch, seq uint64, lists map[wire.NodeID]float64) {
		db.Apply(wire.RouteUpdate{NodeID: node, UpdateID: id, UpdateEpoch: epoch, UpdateSequence: seq, ForwardingNode: "b", Connections: lists}, time.Unix(0, 0))
	}
	update("b", "1", 5, 9, map[wire.NodeID]float64{"a": 1, "c": 1})
	update("c", "2", 5, 9, map[wire.NodeID]float64{"b": 1})
	reaches := func(node wire.NodeID) bool {
		_, ok := db.Routes().Route(node)
		return ok
	}
	if !reaches("c") {
		t.Fatal("no route to c")
	}
	db.RemoveLink("b")
	db.Introduce("b", 5) // The same life: nothing is forgotten.
	db.SetLink("b", 1)
	if !reaches("c") {
		t.Error("a new link to the same life of b lost the route to c")
	}
	db.RemoveLink("b")
	db.Introduce("b", 6)
	db.SetLink("b", 1)
	if !reaches("b") || reaches("c") {
		t.Errorf("after a restart of b: route to b %v, to c %v; want only that to b", reaches("b"), reaches("c"))
	}
	update("b", "3", 5, 10, map[wire.NodeID]float64{"a": 1, "c": 1})
	if reaches("c") {
		t.Error("an update of the former life was taken")
	}
	update("b", "4", 6, 2, map[wire.NodeID]float64{"a": 1, "c": 1})
	if !reaches("c") {
		t.Error("no route to c although the new life of b lists it")
	}
}

// TestHasTwin: what a node says that uses our ID counts while it is repeated, and if one of its neighbours says so too.
func TestHasTwin(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	says := func(db *topology.DB, node wire.NodeID, epoch uint64, duplicate uint64, neighbours ...wire.NodeID) {
		edges := map[wire.NodeID]float64{}
		for _, name := range neighbours {
			edges[name] = 1
		}
		db.Apply(wire.RouteUpdate{NodeID: node, UpdateID: fmt.Sprint(node, epoch, duplicate, neighbours), UpdateEpoch: epoch,
			UpdateSequence: 1, Connections: edges, SuspectedDuplicate: duplicate}, at)
	}
	for _, c := range []struct {
		name  string
		say   func(db *topology.DB)
		later time.Duration
		want  bool
	}{
		{"links that both ends tell of", func(db *topology.DB) { says(db, "x", 1, 0, "n"); says(db, "n", 5, 0, "x") }, topology.TwinLife, true},
		{"the same, long ago", func(db *topology.DB) { says(db, "x", 1, 0, "n"); says(db, "n", 5, 0, "x") }, topology.TwinLife + 1, false},
		{"a neighbour alone", func(db *topology.DB) { says(db, "x", 1, 0, "n") }, 0, false},
		{"a notice and a neighbour", func(db *topology.DB) { says(db, "x", 1, 0, "n"); says(db, "n", 5, 10, "x") }, 0, false},
		{"links that nobody confirms", func(db *topology.DB) { says(db, "x", 1, 0, "y"); says(db, "n", 5, 0, "x") }, 0, false},
		{"links of another life", func(db *topology.DB) { says(db, "x", 1, 0, "n"); says(db, "n", 4, 0, "x") }, 0, false},
		{"our own links", func(db *topology.DB) { db.SetLink("x", 1); says(db, "x", 1, 0, "n"); says(db, "n", 5, 0, "x") }, 0, false},
	} {
		db := topology.New("n", 10)
		c.say(db)
		if got := db.HasTwin(5, at.Add(c.later)); got != c.want {
			t.Errorf("%s: a twin is there: %v, want %v", c.name, got, c.want)
		}
	}
}
