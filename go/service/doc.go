// Package service carries streams between the mesh and the world outside it.
//
// [Bridge] joins two streams byte for byte; everything that has to connect two streams uses it. A [Proxy] accepts
// connections on one side and gives each a connection of its own on the other:
//
//	p, err := service.StartTCPServer(mesh, service.TCPServer{Address: "127.0.0.1:8080", Node: "edge", Service: "web"}, log)
//	defer p.Close()
//
// [StartTCPServer] is a TCP port whose connections go to a service in the mesh, [StartTCPClient] a service in the mesh
// whose streams go to a TCP address. The package needs little of a node, see [Mesh]; [OnNode] adapts a real one.
//
// # What proxies promise
//
//   - The two directions end independently. The end of data on one side arrives as the end of data on the other, and
//     what still flows back is delivered.
//   - A reset is passed on as a reset, never as the end of data. If the connection to the far side cannot be made, the
//     near side is reset at once. A reset behind data that the other side does not take is noticed once that has gone.
//   - Connections do not wait for each other: dials run side by side, up to a bound of 512 at a time; beyond that new
//     connections wait in the listener's queue.
//   - With a TLS configuration on the TCP side of a server, a client has ten seconds for the handshake and nothing is
//     dialled for it before. Under TLS, too, each direction ends on its own; the end of the TCP direction between two
//     records is an end of data, and a reset cuts the connection without a word in TLS.
//   - An idle connection holds two goroutines and two small buffers.
//   - Failures to accept (out of file descriptors) and to dial are logged when they begin, when they change and when
//     they end, not each time.
//
// All methods are safe for concurrent use. Closing a proxy resets its connections and waits for them.
package service
