package topology

import "github.com/pyreceptor/pyreceptor/go/wire"

// edges are the links of one node in the order of the other ends' names: a third of the memory of a map for the few that
// most nodes have.
type edges []edge

type edge struct {
	to   wire.NodeID
	cost float64
}

// find returns where the edge to a node is, or belongs.
func (l edges) find(to wire.NodeID) (int, bool) {
	low, high := 0, len(l)
	for low < high {
		if mid := (low + high) / 2; l[mid].to < to {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low, low < len(l) && l[low].to == to
}

func (l edges) equal(m map[wire.NodeID]float64) bool {
	if len(l) != len(m) {
		return false
	}
	for _, e := range l {
		if cost, ok := m[e.to]; !ok || cost != e.cost {
			return false
		}
	}
	return true
}

func (l edges) asMap() map[wire.NodeID]float64 {
	m := make(map[wire.NodeID]float64, len(l))
	for _, e := range l {
		m[e.to] = e.cost
	}
	return m
}
