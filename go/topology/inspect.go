package topology

import (
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// Known is what the database holds about one destination, unjudged: for people who look for what is wrong.
type Known struct {
	Node  wire.NodeID
	Heard time.Time               // Last update of the node; zero for ourselves, and if none came.
	Says  map[wire.NodeID]float64 // Its links as it announces them, whether the other ends agree or not.
}

// Inspect returns all destinations in the order in which they were learnt, ourselves first.
func (db *DB) Inspect() []Known {
	all := make([]Known, 0, len(db.order))
	for _, n := range db.order {
		if !n.listed {
			continue
		}
		k := Known{Node: n.name, Says: n.edges.asMap()}
		if n.updated && n != db.self {
			k.Heard = n.heard
		}
		all = append(all, k)
	}
	return all
}
