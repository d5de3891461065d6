package topology

import (
	"math"
	"slices"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// pathScratch holds the working memory of the path computation, kept from one to the next. Nodes are positions in
// DB.order.
type pathScratch struct {
	peers []wire.NodeID // Our neighbours by name; label.first is a position here.
	best  []label
	done  []bool
	heap  []entry

	dir  *Directory // nil: stale.
	arcs uint64     // Arcs made under another number than this are stale.
}

// arcs are the edges of one node that lead to destinations. They are made when a computation comes by and kept until the
// node's edges or the destinations change, so a single change in the mesh costs little.
type arcs struct {
	list  []arc
	valid uint64 // Under which pathScratch.arcs; 0: stale.
}

type arc struct {
	cost float64
	to   int32
}

func (a *arcs) stale() { a.valid = 0 }

// renumber notes that there are other destinations now, or other positions.
func (p *pathScratch) renumber() { p.dir = nil }

// forgetArcs makes the arcs of all nodes stale.
func (p *pathScratch) forgetArcs() { p.arcs++ }

// entry is a path that ends at node and has not been judged yet.
type entry struct {
	label
	node int32
}

// compute fills best by Dijkstra's algorithm. All costs are positive and finite, and every edge makes the label
// strictly greater (one more hop), so the result does not depend on the order of maps.
func (p *pathScratch) compute(db *DB) {
	p.reset(db)
	for rank, peer := range p.peers {
		p.offer(p.dir.byName[peer], label{cost: db.self.edges[rank].cost, hops: 1, first: int32(rank)})
	}
	for len(p.heap) > 0 {
		e := p.pop()
		if p.done[e.node] {
			continue
		}
		p.done[e.node] = true
		for _, a := range p.arcsOf(db, db.order[e.node]) {
			if !p.done[a.to] {
				p.offer(a.to, label{cost: e.cost + a.cost, hops: e.hops + 1, first: e.first})
			}
		}
	}
}

func (p *pathScratch) arcsOf(db *DB, n *node) []arc {
	if n.arcs.valid == p.arcs {
		return n.arcs.list
	}
	n.arcs.list, n.arcs.valid = slices.Grow(n.arcs.list[:0], len(n.edges)), p.arcs
	for _, e := range n.edges {
		if i, ok := p.dir.byName[e.to]; ok && db.order[i].confirms(n.name) {
			n.arcs.list = append(n.arcs.list, arc{e.cost, i})
		}
	}
	return n.arcs.list
}

func (p *pathScratch) reset(db *DB) {
	n := len(db.order)
	p.peers = p.peers[:0]
	for _, e := range db.self.edges { // Sorted by name.
		p.peers = append(p.peers, e.to)
	}
	p.best = slices.Grow(p.best[:0], n)[:n]
	p.done = slices.Grow(p.done[:0], n)[:n]
	p.heap = p.heap[:0]
	for i := range n {
		p.best[i] = label{cost: math.Inf(1)}
		p.done[i] = false
	}
	p.best[0], p.done[0] = label{}, true // Ourselves.
	if p.dir == nil {
		p.dir = newDirectory(db)
	}
}

// offer considers a path to node i.
func (p *pathScratch) offer(i int32, l label) {
	if l.compare(p.best[i]) >= 0 {
		return
	}
	p.best[i] = l
	p.push(entry{l, i})
}

func (p *pathScratch) push(e entry) {
	p.heap = append(p.heap, e)
	i := len(p.heap) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if p.heap[parent].compare(e.label) <= 0 {
			break
		}
		p.heap[i] = p.heap[parent]
		i = parent
	}
	p.heap[i] = e
}

func (p *pathScratch) pop() entry {
	top := p.heap[0]
	last := p.heap[len(p.heap)-1]
	p.heap = p.heap[:len(p.heap)-1]
	if len(p.heap) == 0 {
		return top
	}
	i := 0
	for {
		child := 2*i + 1
		if child >= len(p.heap) {
			break
		}
		if right := child + 1; right < len(p.heap) && p.heap[right].compare(p.heap[child].label) < 0 {
			child = right
		}
		if p.heap[child].compare(last.label) >= 0 {
			break
		}
		p.heap[i] = p.heap[child]
		i = child
	}
	p.heap[i] = last
	return top
}
