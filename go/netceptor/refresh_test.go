package netceptor

import (
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// news is an update that leaves the routes to be computed, as of a crowd of them.
func news(n *Node, id wire.NodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.db.Apply(wire.RouteUpdate{
		NodeID: id, UpdateID: string(id), UpdateEpoch: 1, UpdateSequence: 1, ForwardingNode: id,
		Connections: map[wire.NodeID]float64{},
	}, time.Now())
	n.routesAt = time.Now().Add(time.Hour)
	n.stale.Store(true)
}

// TestLostPacketsHaveRoutesComputed: also when the last time took a while, as it does on a busy machine; but they do not
// keep a node busy.
func TestLostPacketsHaveRoutesComputed(t *testing.T) {
	n := testNode(t, "a")
	spend := func(took time.Duration) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.spentLocked(took)
	}
	wantRefresh := func(id wire.NodeID, want bool) {
		t.Helper()
		old := n.table.Load()
		if got := n.refresh(old); got != want {
			t.Errorf("at %s: a packet that has no way may look again: %v, want %v", id, got, want)
		}
		if known := n.table.Load().byName(id) != nil; known != want {
			t.Errorf("%s is known: %v, want %v", id, known, want)
		}
	}
	wantRefresh("nobody", false) // There are no news.
	news(n, "b")
	wantRefresh("b", true)
	spend(20 * time.Millisecond)
	news(n, "c")
	wantRefresh("c", true)
	spend(time.Hour)
	news(n, "d")
	wantRefresh("d", false)
}

// TestRoutesComputedMeanwhile: a packet that was looked up in an old table is looked up in the new one, whoever made it.
func TestRoutesComputedMeanwhile(t *testing.T) {
	n := testNode(t, "a")
	old := n.table.Load()
	news(n, "b")
	n.mu.Lock()
	n.computeRoutesLocked()
	n.mu.Unlock()
	if !n.refresh(old) {
		t.Error("a packet that has no way in an old table may not look again")
	}
	if n.refresh(n.table.Load()) {
		t.Error("a packet that has no way in the newest table may look again")
	}
}
