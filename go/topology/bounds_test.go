package topology

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

const (
	testNodes = 1024
	testSeen  = 8192
	testBytes = 4 << 20
)

func small() *DB {
	db := New("a", 1)
	db.maxNodes = testNodes
	db.SetLink("b", 1)
	return db
}

func forged(name string, i int, list map[wire.NodeID]float64) wire.RouteUpdate {
	return wire.RouteUpdate{NodeID: wire.NodeID(name), UpdateID: fmt.Sprint(name, i), UpdateEpoch: 1, UpdateSequence: uint64(i + 1), Connections: list}
}

// TestForgedNames lets a neighbour invent nodes without end: real nodes stay, memory does not grow.
func TestForgedNames(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	db := small()
	db.Apply(forged("b", 0, map[wire.NodeID]float64{"a": 1, "c": 1}), now)
	db.Apply(forged("c", 0, map[wire.NodeID]float64{"b": 1}), now)
	refused := 0
	for i := range 3 * testNodes {
		now = now.Add(time.Millisecond / 2)
		if db.Apply(forged(fmt.Sprint("forged", i), 0, map[wire.NodeID]float64{}), now).Ignored == IgnoredTooMuch {
			refused++
		}
	}
	if len(db.order) > testNodes || len(db.order) != len(db.nodes) {
		t.Errorf("%d nodes in order, %d by name, limit %d", len(db.order), len(db.nodes), testNodes)
	}
	if len(db.Routes().ByName()) != 2 {
		t.Errorf("routes %v, want b and c", db.Routes().ByName())
	}
	if !db.Knows(wire.NodeID(fmt.Sprint("forged", 3*testNodes-1))) && refused == 0 {
		t.Error("the last name is unknown though none was refused")
	}
	if e := db.Apply(forged("c", 1, map[wire.NodeID]float64{"b": 2}), now); e.Ignored != "" {
		t.Errorf("an update of a real node is ignored in a full table: %+v", e)
	}
	if e := db.Apply(forged("newcomer", 0, nil), now.Add(purgeInterval)); e.Ignored != "" {
		t.Errorf("no room is made for a newcomer: %+v", e)
	}
}

// TestForgedReachableNames fills the table with nodes that have routes: those cannot be told from real ones, so newcomers
// are refused, at little cost.
func TestForgedReachableNames(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	db := small()
	before, this := wire.NodeID("a"), wire.NodeID("b")
	for i := range testNodes - 2 {
		next := wire.NodeID(fmt.Sprint("n", i))
		db.Apply(forged(string(this), i, map[wire.NodeID]float64{before: 1, next: 1}), now)
		before, this = this, next
	}
	db.Apply(forged(string(this), 0, map[wire.NodeID]float64{before: 1}), now)
	// Edges return with the second update, once their other end has confirmed them.
	before, this = "a", "b"
	for i := range testNodes - 2 {
		next := wire.NodeID(fmt.Sprint("n", i))
		db.Apply(forged(string(this), testNodes+i, map[wire.NodeID]float64{before: 1, next: 1}), now)
		before, this = this, next
	}
	routes := len(db.Routes().ByName())
	if routes != testNodes-1 {
		t.Fatalf("%d routes, want %d", routes, testNodes-1)
	}
	for i := range 1000 {
		if e := db.Apply(forged(fmt.Sprint("late", i), 0, nil), now); e.Ignored != IgnoredTooMuch {
			t.Fatalf("newcomer in a table full of reachable nodes: %+v", e)
		}
	}
	if len(db.order) != testNodes || len(db.Routes().ByName()) != routes {
		t.Errorf("%d nodes (limit %d), %d routes, before %d", len(db.order), testNodes, len(db.Routes().ByName()), routes)
	}
}

func TestLongNames(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	db := small()
	db.maxBytes = testBytes
	long := strings.Repeat("x", 60000)
	for i := range 300 {
		now = now.Add(time.Second)
		u := forged(fmt.Sprint(i, long), 0, map[wire.NodeID]float64{})
		u.UpdateID = fmt.Sprint(i) // One as long as the name would be refused.
		db.Apply(u, now)
		if db.bytes > testBytes {
			t.Fatalf("%d bytes after %d updates, limit %d", db.bytes, i, testBytes)
		}
	}
	if len(db.order) < 20 {
		t.Errorf("only %d nodes are left", len(db.order))
	}
	sum := 0
	for _, n := range db.order {
		sum += n.bytes
	}
	if sum != db.bytes {
		t.Errorf("counted %d bytes, nodes have %d", db.bytes, sum)
	}
}

func TestSeenIDs(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	s := newSeenIDs(testSeen)
	for i := range testSeen + 100 {
		if !s.add(fmt.Sprint(i), now) {
			t.Fatalf("ID %d counts as seen", i)
		}
	}
	if s.size != testSeen || len(s.set) != testSeen {
		t.Fatalf("size %d, set %d, want %d", s.size, len(s.set), testSeen)
	}
	if s.add(fmt.Sprint(testSeen), now) || s.add("100", now) {
		t.Error("a remembered ID counts as new")
	}
	if !s.add("99", now) {
		t.Error("the oldest was not forgotten")
	}
	s.expire(now.Add(Retention - 1))
	if s.size != testSeen {
		t.Errorf("size %d before retention ends", s.size)
	}
	for i := range 10 {
		s.add(fmt.Sprint("young", i), now.Add(time.Minute))
	}
	s.expire(now.Add(Retention))
	if s.size != 10 || len(s.set) != 10 || len(s.ring) == testSeen {
		t.Errorf("after retention: size %d, set %d, ring %d", s.size, len(s.set), len(s.ring))
	}
	if s.add("young3", now) {
		t.Error("a young ID was forgotten")
	}
}

// TestHashCollision gives two nodes one hash: the first name has it.
func TestHashCollision(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	db := New("a", 1)
	db.SetLink("b", 1)
	db.SetLink("c", 2)
	db.nodes["c"].hash = db.nodes["b"].hash
	db.Apply(forged("b", 0, map[wire.NodeID]float64{"a": 1}), now)
	table := db.Routes()
	if r, ok := table.Next(wire.Hash("b")); !ok || r.Node != "b" {
		t.Errorf("route %+v, want that of b", r)
	}
	if name, _ := table.Name(wire.Hash("b")); name != "b" || len(table.ByName()) != 2 {
		t.Errorf("name %q, routes %v", name, table.ByName())
	}
}
