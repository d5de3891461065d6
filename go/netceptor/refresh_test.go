package netceptor

import (
	"fmt"
	"testing"
	"testing/synctest"
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
		n.packetSpending.spend(took)
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

// TestLinksThatComeByTheHundred: the routes are computed at once for a link, and together with others when links take too
// much of the node's time.
func TestLinksThatComeByTheHundred(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testNode(t, "n")
		defer n.Close()
		known := func(id wire.NodeID) bool {
			synctest.Wait()
			return n.table.Load().byName(id) != nil
		}
		come := func(id wire.NodeID) {
			peer := rawPeer(t, n, LinkOptions{Cost: 1})
			_ = listen(peer, wire.TypeRoute)
			say(t, peer, hello(id))
		}
		come("a")
		if !known("a") {
			t.Error("the routes are not computed with the first link")
		}
		n.mu.Lock()
		n.linkSpending.spend(time.Hour)
		n.mu.Unlock()
		come("b")
		if known("b") {
			t.Error("the routes are computed at once though links have taken an hour")
		}
		time.Sleep(100 * time.Millisecond)
		if !known("b") {
			t.Error("the routes are not computed for the second link")
		}
	})
}

// TestHellosStayShort: however many neighbours a node has, it can introduce itself to the next one.
func TestHellosStayShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testNode(t, "n")
		defer n.Close()
		for have := range helloLinks + 2 {
			peer := rawPeer(t, n, LinkOptions{Cost: 1})
			u, err := wire.ParseRouteUpdate(next(t, peer, wire.TypeRoute))
			named := have
			if have > helloLinks {
				named = 0
			}
			if err != nil || u.Connections == nil || len(u.Connections) != named {
				t.Errorf("with %d neighbours the first message is %+v, %v; want %d of them named", have, u, err, named)
			}
			_ = listen(peer, wire.TypeRoute)
			say(t, peer, hello(wire.NodeID(fmt.Sprint("p", have))))
			synctest.Wait()
		}
	})
}

// TestFloodsKeepTheirDistance: it grows with what they cost.
func TestFloodsKeepTheirDistance(t *testing.T) {
	n := testNode(t, "n")
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range []struct {
		links, bytes int
		least, most  time.Duration
	}{{10, 400, floodSpacing, floodSpacing}, {1000, 25_000, 400 * time.Millisecond, 600 * time.Millisecond}} {
		n.links, n.told = make(map[wire.NodeID]*neighbour), make([]byte, c.bytes)
		for i := range c.links {
			n.links[wire.NodeID(rune(i))] = nil
		}
		if got := n.spacingLocked(); got < c.least || got > c.most {
			t.Errorf("%d links are told %d bytes every %v, want %v to %v", c.links, c.bytes, got, c.least, c.most)
		}
	}
	n.links = map[wire.NodeID]*neighbour{}
}
