// Package simulation is a mesh of real nodes in one process, on a simulated clock: what takes a mesh ten minutes takes a
// test a second, and delay, loss and partitions come from a seed.
//
//	simulation.Main(func(t *testing.T) { // Or synctest.Test, in a test.
//		m := simulation.New(simulation.Config{Seed: 7, Conditions: simulation.Conditions{Delay: 20 * time.Millisecond, Loss: 0.01}})
//		defer m.Close()
//		err := m.Build(simulation.Random(100, 3, 7))
//		took, err := m.Settle(time.Minute) // Until every node has the best route to every other.
//	})
//
// Nodes are netceptor's own, unchanged; only links are simulated. Everything but [Main] must happen inside a
// testing/synctest bubble, and by one goroutine, except [Mesh.Traffic] and what nodes offer.
//
// A seed repeats the mesh, its costs and every link's draws of delay and loss. The order in which goroutines run at the
// same simulated instant is not part of it, nor are the nodes' own random names and redial delays, so that two runs with
// one seed are alike, not identical.
//
// # What is simulated
//
// Messages on a link keep their order, as on TCP, and each is lost with probability [Conditions].Loss, as on UDP. A link
// that is cut closes on both sides at once; the dialling node then tries again by itself, after up to 20 s, and succeeds
// once the link is mended. Between the groups of a partition, messages vanish and dials fail, and nodes learn of it by
// silence only. Streams work as ever, of packets of [netceptor.SimulatedPacket] bytes.
//
// # Size
//
// Of 1,000 nodes each keeps what it knows of the 999 others: about a kilobyte per pair. A process that shall stay within
// 2 GiB sets debug.SetMemoryLimit, so that garbage is collected earlier than the runtime would by itself.
package simulation
