package topology

import "github.com/pyreceptor/pyreceptor/go/wire"

// ByName is the whole table as a map.
func (t *Table) ByName() map[wire.NodeID]Route {
	m := map[wire.NodeID]Route{}
	for r := range t.All() {
		m[r.Node] = r
	}
	return m
}
