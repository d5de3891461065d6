// Package service carries streams between the mesh and the world outside it.
//
// [Bridge] joins two streams byte for byte; everything that has to connect two streams uses it. A [Proxy] accepts
// connections on one side and gives each a connection of its own on the other:
//
//	p, err := service.StartTCPServer(mesh, service.TCPServer{Address: "127.0.0.1:8080", Node: "edge", Service: "web"}, log)
//	defer p.Close()
//
// [StartTCPServer] is a TCP port whose connections go to a service in the mesh, [StartTCPClient] a service in the mesh
// whose streams go to a TCP address. [StartUnixServer] and [StartUnixClient] are the same for Unix sockets,
// [StartUDPServer] and [StartUDPClient] for datagrams. [StartCommand] gives each stream a command on a terminal of its
// own. The package needs little of a node, see [Mesh]; [OnNode] adapts a real one.
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
//   - The end of a Unix connection cannot be told from a reset: a program that has to know needs a protocol that says
//     where its data ends.
//   - Each source of datagrams is forgotten when it has been quiet for five minutes; one proxy keeps 1,024 at most.
//   - A command has a terminal of 24 rows and 80 columns, on which the end of input is typed as Control-D. When it has
//     ended, what it leaves behind has a second for its last output, then the stream ends. When its client goes, the
//     terminal is hung up, and what is still there after five seconds is killed. Its exit status is logged at debug
//     level: a stream has no place for it.
//
// All methods are safe for concurrent use. Closing a proxy resets its connections and waits for them.
package service
