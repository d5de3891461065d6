package control

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"sort"
	"time"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/topology"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

var (
	errTopologyParameters = errors.New("topology command does not take parameters")
	errLinksParameters    = errors.New("links command does not take parameters")
)

// topologyNode is an element of nodes. The order of fields is that of the reply, here and below.
type topologyNode struct {
	Node      wire.NodeID  `json:"node"`
	Reachable bool         `json:"reachable"`
	Cost      *float64     `json:"cost,omitempty"`
	Hops      *int         `json:"hops,omitempty"`
	Via       *wire.NodeID `json:"via,omitempty"`
	Parent    *wire.NodeID `json:"parent,omitempty"`
	HeardS    *float64     `json:"heard_s,omitempty"`
}

type topologyEdge struct {
	A      wire.NodeID `json:"a"`
	B      wire.NodeID `json:"b"`
	CostAB *float64    `json:"cost_ab,omitempty"`
	CostBA *float64    `json:"cost_ba,omitempty"`
	State  string      `json:"state"`
}

type topologyService struct {
	Node       wire.NodeID       `json:"node"`
	Service    string            `json:"service"`
	Connection string            `json:"connection"`
	Tags       map[string]string `json:"tags"`
	Work       []workType        `json:"work"`
	Time       time.Time         `json:"time"`
	HeardS     *float64          `json:"heard_s,omitempty"`
	SkewS      *float64          `json:"skew_s,omitempty"`
}

// topology tells the mesh as this node knows it.
func (s *session) topology(req request) (any, error) {
	if req.params != "" {
		return nil, errTopologyParameters
	}
	node := s.observed()
	known, routes := node.Inspect()
	at := now()
	return map[string]any{
		"node": s.srv.node.ID(), "time": at,
		"nodes":    topologyNodes(known, routes, at),
		"edges":    topologyEdges(known),
		"services": topologyServices(node.Services(), at),
	}, nil
}

// topologyNodes lists all nodes by name with the ways there. known begins with this node.
func topologyNodes(known []topology.Known, routes *topology.Table, at time.Time) []topologyNode {
	self := known[0].Node
	tree := pathTree(known, routes)
	list := make([]topologyNode, 0, len(known))
	for _, k := range known {
		n := topologyNode{Node: k.Node}
		if !k.Heard.IsZero() {
			n.HeardS = new(seconds(at.Sub(k.Heard)))
		}
		hop, ok := tree[k.Node]
		if k.Node == self {
			n.Reachable, n.Cost, n.Hops = true, new(0.0), new(0)
		} else if r, found := routes.Route(k.Node); found {
			n.Reachable, n.Cost, n.Via = true, &r.Cost, &r.NextHop
			if ok {
				n.Hops, n.Parent = &hop.hops, &hop.parent
			}
		}
		list = append(list, n)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Node < list[j].Node })
	return list
}

// lastHop is the end of the path of the path to a node.
type lastHop struct {
	parent wire.NodeID
	hops   int
}

// pathTree finds the last hop to every node that can be reached. The routes tell cost and next hop of each; the hop
// before a node is the one whose cost and edge add up to it on the same way, with the fewest hops.
func pathTree(known []topology.Known, routes *topology.Table) map[wire.NodeID]lastHop {
	self := known[0].Node
	says := make(map[wire.NodeID]map[wire.NodeID]float64, len(known))
	var reached []topology.Route
	for _, k := range known {
		says[k.Node] = k.Says
		if r, ok := routes.Route(k.Node); ok && k.Node != self {
			reached = append(reached, r)
		}
	}
	slices.SortFunc(reached, func(a, b topology.Route) int { return cmp.Or(cmp.Compare(a.Cost, b.Cost), cmp.Compare(a.Node, b.Node)) })
	tree := make(map[wire.NodeID]lastHop, len(reached))
	for _, r := range reached {
		if cost, direct := says[self][r.Node]; direct && r.NextHop == r.Node && cost == r.Cost {
			tree[r.Node] = lastHop{self, 1}
			continue
		}
		for _, parent := range slices.Sorted(maps.Keys(says[r.Node])) {
			before, ok := tree[parent]
			via, _ := routes.Route(parent)
			cost, there := says[parent][r.Node]
			if !ok || !there || via.NextHop != r.NextHop || via.Cost+cost != r.Cost {
				continue
			}
			if best, some := tree[r.Node]; !some || before.hops+1 < best.hops {
				tree[r.Node] = lastHop{parent, before.hops + 1}
			}
		}
		if _, found := tree[r.Node]; found {
			continue
		}
		// A neighbour on the way that has not been heard yet lists nobody: whoever lists the node will do.
		for _, other := range known {
			via, _ := routes.Route(other.Node)
			if cost, there := other.Says[r.Node]; there && via.NextHop == r.NextHop && via.Cost+cost == r.Cost {
				if before, ok := tree[other.Node]; ok {
					tree[r.Node] = lastHop{other.Node, before.hops + 1}
					break
				}
			}
		}
	}
	return tree
}

// topologyEdges pairs what the two ends of every edge say of it.
func topologyEdges(known []topology.Known) []topologyEdge {
	type pair struct{ a, b wire.NodeID }
	heard := map[wire.NodeID]bool{known[0].Node: true}
	edges := map[pair]*topologyEdge{}
	for _, k := range known {
		heard[k.Node] = heard[k.Node] || !k.Heard.IsZero()
		for other, cost := range k.Says {
			p := pair{min(k.Node, other), max(k.Node, other)}
			e := edges[p]
			if e == nil {
				e = &topologyEdge{A: p.a, B: p.b}
				edges[p] = e
			}
			if k.Node == p.a {
				e.CostAB = &cost
			} else {
				e.CostBA = &cost
			}
		}
	}
	list := make([]topologyEdge, 0, len(edges))
	for _, e := range edges {
		e.State = e.state(heard)
		list = append(list, *e)
	}
	sort.Slice(list, func(i, j int) bool {
		x, y := list[i], list[j]
		return cmp.Or(cmp.Compare(x.A, y.A), cmp.Compare(x.B, y.B)) < 0
	})
	return list
}

func (e *topologyEdge) state(heard map[wire.NodeID]bool) string {
	switch {
	case e.CostAB != nil && e.CostBA != nil && *e.CostAB == *e.CostBA:
		return "ok"
	case e.CostAB != nil && e.CostBA != nil:
		return "costs differ"
	case e.CostAB == nil && heard[e.A], e.CostBA == nil && heard[e.B]:
		return "one-sided"
	}
	return "unconfirmed"
}

func topologyServices(services []netceptor.Service, at time.Time) []topologyService {
	list := make([]topologyService, 0, len(services))
	for _, s := range services {
		t := topologyService{
			Node: s.NodeID, Service: s.Service, Connection: connectionName(s.ConnType),
			Tags: orEmpty(s.Tags), Work: workTypes(s.WorkCommands), Time: s.Time.UTC(),
		}
		if !s.Seen.IsZero() {
			t.HeardS, t.SkewS = new(seconds(at.Sub(s.Seen))), new(seconds(s.Seen.Sub(s.Time)))
		}
		list = append(list, t)
	}
	return list
}
