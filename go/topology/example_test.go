package topology_test

import (
	"fmt"
	"time"

	"github.com/pyreceptor/pyreceptor/go/topology"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

func Example() {
	db := topology.New("alpha", 1)
	db.SetLink("bravo", 1)
	e := db.Apply(wire.RouteUpdate{
		NodeID: "charlie", UpdateID: "7NgKZgOp", UpdateEpoch: 5, UpdateSequence: 1,
		Connections: map[wire.NodeID]float64{"bravo": 2}, ForwardingNode: "bravo",
	}, time.Unix(0, 0))
	fmt.Println("forward:", e.Forward, "new:", e.NewNode)
	db.Apply(wire.RouteUpdate{
		NodeID: "bravo", UpdateID: "MFblfIyT", UpdateEpoch: 4, UpdateSequence: 1,
		Connections: map[wire.NodeID]float64{"alpha": 1, "charlie": 2}, ForwardingNode: "bravo",
	}, time.Unix(0, 0))
	route, _ := db.Routes().Next(wire.Hash("charlie"))
	fmt.Println(route.Node, "via", route.NextHop, "at", route.Cost)
	// Output:
	// forward: true new: charlie
	// charlie via bravo at 3
}
