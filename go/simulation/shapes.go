package simulation

import (
	"fmt"
	"math/rand/v2"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// Shape is a mesh to build: so many nodes, and links between them by number.
type Shape struct {
	Nodes int
	Edges []Edge
}

// Edge is a link between two nodes of a [Shape].
type Edge struct {
	A, B int
	Cost float64
}

// Name is the ID that [Mesh.Build] gives a node of a shape: "node-0000" and on.
func Name(i int) wire.NodeID { return wire.NodeID(fmt.Sprintf("node-%04d", i)) }

// Line links every node to the next.
func Line(n int) Shape {
	s := Shape{Nodes: n}
	for i := 1; i < n; i++ {
		s.Edges = append(s.Edges, Edge{i - 1, i, 1})
	}
	return s
}

// Ring is a line whose ends are linked.
func Ring(n int) Shape {
	s := Line(n)
	if n > 2 {
		s.Edges = append(s.Edges, Edge{0, n - 1, 1})
	}
	return s
}

// Star links every node to the first.
func Star(n int) Shape { return Tree(n, max(1, n-1)) }

// Tree gives every node up to fanout children, level by level.
func Tree(n, fanout int) Shape {
	s := Shape{Nodes: n}
	for i := 1; i < n; i++ {
		s.Edges = append(s.Edges, Edge{(i - 1) / fanout, i, 1})
	}
	return s
}

// Random is connected and otherwise random: a tree, and more links until nodes have the given number on average (at least
// that of the tree). Costs are 1 to 4 in quarters, so that sums are exact.
func Random(n int, degree float64, seed uint64) Shape {
	rng := rand.New(rand.NewPCG(seed, 0x7368617065))
	s := Shape{Nodes: n}
	taken := map[[2]int]bool{}
	add := func(a, b int) {
		a, b = min(a, b), max(a, b)
		if a != b && !taken[[2]int{a, b}] {
			taken[[2]int{a, b}] = true
			s.Edges = append(s.Edges, Edge{a, b, 1 + float64(rng.IntN(13))/4})
		}
	}
	for i := 1; i < n; i++ {
		add(rng.IntN(i), i)
	}
	want := min(int(degree*float64(n)/2), n*(n-1)/2)
	for len(s.Edges) < want {
		add(rng.IntN(n), rng.IntN(n))
	}
	return s
}
