package topology_test

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/topology"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// TestRandomGraphs builds random meshes, delivers their updates reordered, repeated and mixed with stale ones, and
// compares every route with brute force.
func TestRandomGraphs(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		g := randomGraph(rng, 2+rng.IntN(12))
		db := topology.New("n0", ownEpoch)
		deliver(rng, db, g)
		if msg := compare(db, g); msg != "" {
			t.Fatalf("seed %d: %s\ngraph %v", seed, msg, g)
		}
		// Cut and mend: every changed node tells again.
		for range 3 {
			from, to := randomPair(rng, g)
			if _, ok := g[from][to]; ok {
				delete(g[from], to)
				delete(g[to], from)
			} else {
				link(g, from, to, quarter(rng))
			}
			deliver(rng, db, g)
			if msg := compare(db, g); msg != "" {
				t.Fatalf("seed %d after %s-%s changed: %s\ngraph %v", seed, from, to, msg, g)
			}
		}
	}
}

type graph = map[wire.NodeID]edges

// quarter returns costs whose sums are exact, with many ties.
func quarter(rng *rand.Rand) float64 { return float64(1+rng.IntN(12)) / 4 }

func nodeName(i int) wire.NodeID { return wire.NodeID(fmt.Sprint("n", i)) }

func link(g graph, a, b wire.NodeID, cost float64) { g[a][b], g[b][a] = cost, cost }

func randomPair(rng *rand.Rand, g graph) (wire.NodeID, wire.NodeID) {
	i := rng.IntN(len(g))
	j := (i + 1 + rng.IntN(len(g)-1)) % len(g)
	return nodeName(i), nodeName(j)
}

func randomGraph(rng *rand.Rand, n int) graph {
	g := graph{}
	for i := range n {
		g[nodeName(i)] = edges{}
	}
	for range rng.IntN(3 * n) {
		a, b := randomPair(rng, g)
		link(g, a, b, quarter(rng))
	}
	return g
}

var sequence uint64

// deliver brings the database to the state of g: own links, then two rounds of updates in random order (the second
// restores edges that the first removed while their other end was behind), with copies and stale ones between.
func deliver(rng *rand.Rand, db *topology.DB, g graph) {
	for peer := range db.Links() {
		if _, ok := g["n0"][peer]; !ok {
			db.RemoveLink(peer)
		}
	}
	for peer, cost := range g["n0"] {
		db.SetLink(peer, cost)
	}
	for range 2 {
		for _, i := range rng.Perm(len(g)) {
			name := nodeName(i)
			if name == "n0" {
				continue
			}
			sequence++
			u := update(name, 7, sequence, maps.Clone(g[name]))
			db.Apply(u, start)
			for range rng.IntN(3) {
				db.Apply(u, start)
			}
			if rng.IntN(2) == 0 {
				db.Apply(update(name, 7, sequence-1, edges{"n0": 0.25, "nobody": 1}), start)
				db.Apply(update(name, 6, sequence+1, edges{}), start)
				db.Apply(update(name, 7, sequence+1, edges{"n0": -1}), start)
			}
		}
	}
}

type path struct {
	cost  float64
	hops  int
	first wire.NodeID
}

func better(a, b path) bool {
	if a.cost != b.cost {
		return a.cost < b.cost
	}
	if a.hops != b.hops {
		return a.hops < b.hops
	}
	return a.first < b.first
}

// oracle relaxes every edge until nothing changes (Bellman and Ford).
func oracle(g graph) map[wire.NodeID]path {
	best := map[wire.NodeID]path{"n0": {}}
	for changed := true; changed; {
		changed = false
		for from, list := range g {
			p, ok := best[from]
			if !ok {
				continue
			}
			for to, cost := range list {
				q := path{p.cost + cost, p.hops + 1, p.first}
				if from == "n0" {
					q.first = to
				}
				if old, ok := best[to]; !ok || better(q, old) {
					best[to], changed = q, true
				}
			}
		}
	}
	delete(best, "n0")
	return best
}

func compare(db *topology.DB, g graph) string {
	want := oracle(g)
	got := db.Routes().ByName()
	for name, p := range want {
		r, ok := got[name]
		if !ok {
			return fmt.Sprintf("no route to %s, want via %s at %v", name, p.first, p.cost)
		}
		if r.NextHop != p.first || math.Abs(r.Cost-p.cost) != 0 {
			return fmt.Sprintf("got route to %s via %s at %v, want via %s at %v", name, r.NextHop, r.Cost, p.first, p.cost)
		}
	}
	if len(got) != len(want) {
		return fmt.Sprintf("%d routes, want %d", len(got), len(want))
	}
	return ""
}

// mesh is a database that knows 1,000 nodes and 4,000 links.
func mesh() (*topology.DB, graph) {
	rng := rand.New(rand.NewPCG(1, 2))
	g := graph{}
	for i := range 1000 {
		g[nodeName(i)] = edges{}
		if i > 0 {
			link(g, nodeName(i), nodeName(rng.IntN(i)), quarter(rng))
		}
	}
	for range 3001 {
		a, b := randomPair(rng, g)
		link(g, a, b, quarter(rng))
	}
	db := topology.New("n0", ownEpoch)
	deliver(rng, db, g)
	return db, g
}

func TestThousandNodes(t *testing.T) {
	db, g := mesh()
	if msg := compare(db, g); msg != "" {
		t.Error(msg)
	}
}

func BenchmarkRoutes1000(b *testing.B) {
	db, g := mesh()
	cost := 0.5
	b.ReportAllocs()
	for b.Loop() {
		// A changed cost far away, then the shortest paths.
		cost = 3.5 - cost
		sequence++
		list := g["n999"]
		for to := range list {
			list[to] = cost
		}
		if e := db.Apply(update("n999", 7, sequence, list), start); !e.Recompute {
			b.Fatalf("%+v", e)
		}
		if len(db.Routes().ByName()) != 999 {
			b.Fatal("lost a route")
		}
	}
}

func BenchmarkUnchangedUpdate(b *testing.B) {
	db, g := mesh()
	u := update("n999", 7, sequence, g["n999"])
	ids := make([]string, 4096)
	for i := range ids {
		ids[i] = fmt.Sprint("id", i)
	}
	i := 0
	now := start
	b.ReportAllocs()
	for b.Loop() {
		if i%len(ids) == 0 {
			now = now.Add(topology.Retention)
			db.Sweep(now)
		}
		sequence++
		u.UpdateID, u.UpdateSequence = ids[i%len(ids)], sequence
		i++
		if e := db.Apply(u, now); !e.Forward || e.Recompute {
			b.Fatalf("%+v", e)
		}
	}
}

func BenchmarkRepeatedUpdate(b *testing.B) {
	db, g := mesh()
	u := update("n999", 7, sequence+1, g["n999"])
	db.Apply(u, start)
	for b.Loop() {
		if db.Apply(u, time.Time{}).Ignored == "" {
			b.Fatal("applied twice")
		}
	}
}

func BenchmarkNext(b *testing.B) {
	db, _ := mesh()
	table, hash := db.Routes(), wire.Hash("n500")
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := table.Next(hash); !ok {
			b.Fatal("no route")
		}
	}
}
