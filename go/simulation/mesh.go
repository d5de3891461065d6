package simulation

import (
	"cmp"
	"container/heap"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// settleStep is how often Settle looks, in simulated time.
const settleStep = 20 * time.Millisecond

// Config is what a mesh is made with.
type Config struct {
	Seed       uint64           // Decides every draw of delay and loss.
	Conditions Conditions       // Of links for which [Mesh.LinkWith] does not say otherwise.
	Node       netceptor.Config // Of every node; the ID is filled in.
}

// Mesh is a set of nodes and the links between them. It must be made and used inside a testing/synctest bubble.
type Mesh struct {
	cfg   Config
	ids   []wire.NodeID // In the order in which they were added.
	nodes map[wire.NodeID]*member
	links []*wiring
	sum   traffic

	truth [][]float64 // Rows made when needed; nil: stale.
	wrong int         // The node that disagreed last: the next look starts there.
}

type member struct {
	*netceptor.Node
	index int
	group int // In a partition.
}

type wiring struct {
	*cable
	a, b *member
	cost float64
}

// New makes an empty mesh.
func New(cfg Config) *Mesh { return &Mesh{cfg: cfg, nodes: map[wire.NodeID]*member{}} }

// Add starts nodes.
func (m *Mesh) Add(ids ...wire.NodeID) error {
	for _, id := range ids {
		if m.nodes[id] != nil {
			return fmt.Errorf("node %s is in the mesh already", id)
		}
		cfg := m.cfg.Node
		cfg.ID = id
		cfg.StreamPacket = cmp.Or(cfg.StreamPacket, netceptor.SimulatedPacket)
		n, err := netceptor.New(cfg)
		if err != nil {
			return fmt.Errorf("node %s: %w", id, err)
		}
		m.nodes[id] = &member{Node: n, index: len(m.ids)}
		m.ids = append(m.ids, id)
	}
	m.truth = nil
	return nil
}

// Build adds the nodes and links of a shape; see [Name].
func (m *Mesh) Build(s Shape) error {
	for i := range s.Nodes {
		if err := m.Add(Name(i)); err != nil {
			return err
		}
	}
	for _, e := range s.Edges {
		if err := m.Link(Name(e.A), Name(e.B), e.Cost); err != nil {
			return err
		}
	}
	return nil
}

// Node returns a node, nil if there is none with this ID.
func (m *Mesh) Node(id wire.NodeID) *netceptor.Node {
	if n := m.nodes[id]; n != nil {
		return n.Node
	}
	return nil
}

// Nodes returns the IDs of all nodes in the order in which they were added.
func (m *Mesh) Nodes() []wire.NodeID { return slices.Clone(m.ids) }

// Links returns the two ends of every link, cut ones included, in the order in which they were made.
func (m *Mesh) Links() [][2]wire.NodeID {
	ends := make([][2]wire.NodeID, len(m.links))
	for i, l := range m.links {
		ends[i] = [2]wire.NodeID{l.a.ID(), l.b.ID()}
	}
	return ends
}

// Link connects two nodes under the mesh's conditions; a listens and b dials.
func (m *Mesh) Link(a, b wire.NodeID, cost float64) error {
	return m.LinkWith(a, b, cost, m.cfg.Conditions)
}

// LinkWith is Link under conditions of its own.
func (m *Mesh) LinkWith(a, b wire.NodeID, cost float64, cond Conditions) error {
	x, y := m.nodes[a], m.nodes[b]
	switch {
	case x == nil || y == nil || x == y:
		return fmt.Errorf("link %s-%s: two nodes of the mesh are needed", a, b)
	case m.find(a, b) != nil:
		return fmt.Errorf("link %s-%s is there already", a, b)
	}
	if err := cond.validate(); err != nil {
		return fmt.Errorf("link %s-%s: %w", a, b, err)
	}
	c := newCable(fmt.Sprintf("%s-%s", a, b), cond, [2]uint64{m.cfg.Seed, uint64(len(m.links))}, &m.sum)
	c.split = x.group != y.group
	if _, err := x.Listen(c, netceptor.LinkOptions{Cost: cost}); err != nil {
		return err
	}
	if _, err := y.Dial(c, netceptor.LinkOptions{Cost: cost}); err != nil {
		return err
	}
	m.links = append(m.links, &wiring{c, x, y, cost})
	m.truth = nil
	return nil
}

func (m *Mesh) find(a, b wire.NodeID) *wiring {
	for _, l := range m.links {
		if l.a.ID() == a && l.b.ID() == b || l.a.ID() == b && l.b.ID() == a {
			return l
		}
	}
	return nil
}

// Cut breaks a link, so that both ends notice at once, until [Mesh.Mend].
func (m *Mesh) Cut(a, b wire.NodeID) error { return m.setCut(a, b, true) }

// Mend lets a link that was cut come up again, once the dialling node tries.
func (m *Mesh) Mend(a, b wire.NodeID) error { return m.setCut(a, b, false) }

func (m *Mesh) setCut(a, b wire.NodeID, cut bool) error {
	l := m.find(a, b)
	if l == nil {
		return fmt.Errorf("there is no link %s-%s", a, b)
	}
	l.setCut(cut)
	m.truth = nil
	return nil
}

// Partition lets messages pass only within each group; nodes that are in none form another. Links stay open, and what
// crosses a border is lost without a sign.
func (m *Mesh) Partition(groups ...[]wire.NodeID) error {
	where := map[wire.NodeID]int{}
	for i, group := range groups {
		for _, id := range group {
			if m.nodes[id] == nil || where[id] != 0 {
				return fmt.Errorf("node %s is not in the mesh, or in two groups", id)
			}
			where[id] = i + 1
		}
	}
	for id, n := range m.nodes {
		n.group = where[id]
	}
	for _, l := range m.links {
		l.setSplit(l.a.group != l.b.group)
	}
	m.truth = nil
	return nil
}

// Heal ends a partition. Links that were cut stay so.
func (m *Mesh) Heal() { _ = m.Partition() } // Without groups there is nothing to go wrong.

// Traffic returns what has been sent on all links so far.
func (m *Mesh) Traffic() Traffic {
	return Traffic{Messages: m.sum.messages.Load(), Bytes: m.sum.bytes.Load(), Lost: m.sum.lost.Load()}
}

// Close stops all nodes, all at once.
func (m *Mesh) Close() error {
	errs := make([]error, len(m.ids))
	var wg sync.WaitGroup
	for i, id := range m.ids {
		wg.Go(func() { errs[i] = m.nodes[id].Close() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Settle waits, at most for limit of simulated time, until every node has the best route to every other node that can be
// reached and none to the others, and returns how long that took.
func (m *Mesh) Settle(limit time.Duration) (time.Duration, error) {
	start := time.Now()
	for {
		synctest.Wait()
		wrong := m.Disagreements(1)
		took := time.Since(start)
		if len(wrong) == 0 {
			return took, nil
		}
		if took >= limit {
			return took, fmt.Errorf("routes are still wrong after %v (seed %d): %s", took, m.cfg.Seed, wrong[0])
		}
		time.Sleep(settleStep) // On the simulated clock.
	}
}

// Disagreements compares the routes of all nodes with the shortest paths over the links that are up, and returns up to
// most differences in words.
func (m *Mesh) Disagreements(most int) []string {
	if m.truth == nil {
		m.truth = make([][]float64, len(m.ids))
	}
	var wrong []string
	first := m.wrong
	for i := range m.ids {
		from := (first + i) % len(m.ids)
		routes := m.nodes[m.ids[from]].Routes()
		for to, want := range m.distances(from) {
			if from == to {
				continue
			}
			r, ok := routes.Route(m.ids[to])
			if ok != !math.IsInf(want, 1) || ok && r.Cost != want {
				m.wrong = from
				if wrong = append(wrong, disagreement(m.ids[from], m.ids[to], want, r.Cost, ok)); len(wrong) >= most {
					return wrong
				}
			}
		}
	}
	return wrong
}

func disagreement(from, to wire.NodeID, want, got float64, has bool) string {
	switch {
	case !has:
		return fmt.Sprintf("%s has no route to %s, want one at cost %v", from, to, want)
	case math.IsInf(want, 1):
		return fmt.Sprintf("%s has a route to %s at cost %v, want none", from, to, got)
	}
	return fmt.Sprintf("%s has a route to %s at cost %v, want %v", from, to, got, want)
}

// distances is the length of the shortest path from one node to all, infinite where there is none.
func (m *Mesh) distances(from int) []float64 {
	if m.truth[from] != nil {
		return m.truth[from]
	}
	type hop struct {
		to   int
		cost float64
	}
	next := make([][]hop, len(m.ids))
	for _, l := range m.links {
		if l.up() {
			next[l.a.index] = append(next[l.a.index], hop{l.b.index, l.cost})
			next[l.b.index] = append(next[l.b.index], hop{l.a.index, l.cost})
		}
	}
	d := make([]float64, len(m.ids))
	for i := range d {
		d[i] = math.Inf(1)
	}
	d[from] = 0
	open := &frontier{{node: from}}
	for open.Len() > 0 {
		at := heap.Pop(open).(reached)
		if at.cost > d[at.node] {
			continue
		}
		for _, h := range next[at.node] {
			if cost := at.cost + h.cost; cost < d[h.to] {
				d[h.to] = cost
				heap.Push(open, reached{h.to, cost})
			}
		}
	}
	m.truth[from] = d
	return d
}

type reached struct {
	node int
	cost float64
}

// frontier is a heap of what distances has reached, the nearest first.
type frontier []reached

func (f frontier) Len() int           { return len(f) }
func (f frontier) Less(i, j int) bool { return f[i].cost < f[j].cost }
func (f frontier) Swap(i, j int)      { f[i], f[j] = f[j], f[i] }
func (f *frontier) Push(x any)        { *f = append(*f, x.(reached)) }
func (f *frontier) Pop() any {
	old := *f
	x := old[len(old)-1]
	*f = old[:len(old)-1]
	return x
}
