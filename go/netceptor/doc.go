// Package netceptor is a node of the mesh: it keeps links to its neighbours, learns the topology, forwards packets, and
// offers datagram sockets, streams, ping, traceroute and service advertisements to the program around it.
//
//	n, err := netceptor.New(netceptor.Config{ID: "laptop"})
//	...
//	_, err = n.Dial(link.DialTCP("hub.example:2222"), netceptor.LinkOptions{Cost: 1})
//	_, _, err = n.WaitRoute(ctx, "edge")
//	s, err := n.DialStream(ctx, "edge", "echo", nil) // *Stream is a net.Conn
//
// All methods are safe for concurrent use. A node makes no I/O of its own but through package link, and takes the time
// from package time, so that whole meshes run in a testing/synctest bubble.
//
// # What a program can do with a node
//
//   - Be in a mesh without a daemon: [New], and links by [Node.Listen], [Node.Dial] or, over a connection of one's own,
//     [Node.AddLink]. [LinkOptions] set the cost, costs by peer, and who may connect.
//   - Open and accept streams, which are net.Conn with deadlines and half close: [Node.DialStream], [Node.ListenStream],
//     [StreamListener.NetListener]. TLS
//     profiles are plain *tls.Config; a node has no register of them by name (F233): the daemon keeps its own, a program
//     passes what it has.
//   - Send and receive datagrams by a net.PacketConn with a hop limit, and hear of those that did not arrive:
//     [Node.ListenPacket], [PacketConn.Notices].
//   - Measure: [Node.Ping], [Node.Traceroute], [Node.Counters].
//   - Watch the mesh change: [Node.Subscribe], [Node.WaitRoute].
//   - Ask what is known: [Node.Status] (links, costs, routes, advertised services) and [Node.Routes] (the way to one node and
//     its cost).
//   - Say what may pass: [Config].Policy and [Node.SetPolicy], by rules or by a function of the program's.
//   - Tell the mesh about services: the [ServiceAd] of a listener.
//   - Send the log where it belongs: [Config].Logger, a *slog.Logger; without one a node is silent.
//   - Stop cleanly: [Node.Close], [Backend.Close] and [Backend.Done] wait for, or report, the end of what was started.
//
// Work units, the control service, proxies and certificates are packages of their own (workceptor, control, service,
// identity) that are used in the same way. Package simulation runs whole meshes in one process on a simulated clock.
//
// # How packets move
//
// Each link has a reader and a writer goroutine. The reader parses headers in place, looks both nodes up in an immutable
// table (one atomic load per packet, no lock, no allocation), and appends the packet to the next link's queue; the
// writer takes all that is queued and writes it in one call. Queues are bounded in bytes: a packet in transit that finds
// one full is dropped and counted ([Counters]), a local sender waits. Control messages have a queue of their own.
//
// # Firewall
//
// With a [Config].Policy the node judges every packet once, before anything else happens to it: its own (answers to
// pings and notices included), those in transit and those for itself. Route messages and advertisements are never
// judged. A dropped packet is gone, and its sender on this node sees no error. About a rejected one the sender is told:
// a local one by [ErrFirewall] and a [Notice] on its socket, another node by an unreachable notice, which is judged in
// turn. Nobody is told about a rejected notice. A stream ends with [ErrFirewall] when its packets are rejected, also one
// that was open before the rule: on this node as soon as the rule is set, which its peer is told, elsewhere with the first
// packet that is rejected. Streams whose packets are dropped time out.
//
// # Streams
//
// Streams are QUIC over a datagram socket of the mesh; what the two ends negotiate (ALPN) decides the rest.
//
// With an existing node, "netceptor": every stream is a connection of its own, whose dialer opens the first bidirectional
// stream and sends one zero byte; the rest is the application's. When both directions are done and the peer has everything,
// this end lets go of the connection. It says so, with application error 0, "normal close", only to a peer that was sent
// nothing: a QUIC library that is told of the end discards what its program has not read yet. Any other peer finds out by
// its idle timeout of half a minute; behind 64 KiB and more, this end is kept for up to ten minutes, 128 such at a time.
//
// Between two nodes of this implementation, "receptor-mux/1": one connection to a service, for one TLS profile, carries
// many streams to it (mux.go has the bytes). Firewalls see the service of each. Opening one takes a round trip and no handshake; its end
// ends nothing else; resets carry the application's code exactly; a slow reader holds back only its own stream; a path
// on which nothing arrives for six seconds ends its streams with a [ResetError], never with a clean end. What has arrived
// by then can be read before that for as long as the QUIC connection lives, half a minute after its last packet; that is so too
// when the peer's node ends or is started again.
//
// The end of a service is told to those who dial it at that moment by [ErrServiceClosing], to an existing node by application
// error 500, "Listener Closed". Streams that the program has not accepted yet are reset with code 500.
//
// Each end of a shared connection judges the other again when a stream is opened, by the tls.Config's VerifyConnection as
// it is then; the server asks GetConfigForClient first, with a ClientHelloInfo that has nothing but Conn, of which it has
// nothing but RemoteAddr. A connection that does not pass gets no more streams and the dialer makes a new one; streams
// that are open go on.
//
// A service without a TLS profile shows a throw-away certificate with a fixed common name: such streams are encrypted but
// not authenticated.
//
// # Decisions where the protocol leaves room
//
//   - Own updates go out 5 ms after a new link and 10 ms after other changes (existing nodes: 100 ms), at most one in
//     100 ms (of a node with hundreds of neighbours, each of whom has all of them to hear, in more); a link that comes or
//     goes changes the routes at once, or within 100 ms when they do so by the hundred. Between two of ours an update that
//     only repeats the last one waits for the next beat of the link, up to a second, so that an idle mesh costs little.
//   - A new neighbour is sent the last update of every reachable node and all advertisements at once, as ordinary
//     floods, instead of hearing them at the next period. Behind neighbours that do so a newcomer needs no flood of every
//     node that learns of it: existing nodes do that, and an update that came through one is answered in that way.
//   - Between two of ours each side of a link speaks once a second, at the full second, so that a node wakes once for all
//     its neighbours; one that says nothing for 2.9 s is dead.
//   - A second link to a peer is refused, unless the peer was restarted (its epoch is greater) or has fallen silent: then
//     the standing link is asked for a sign of life, and gives way without one in half a second. This holds for peers of
//     ours; one of the base protocol that dies without closing its link is waited for, as it is there.
//   - The first message of a link must be about its sender, and not list this node unless it announces keep-alives: over
//     UDP a late message of a dead link would else be taken for a new peer. Existing nodes begin that way.
//   - A peer of ours is told why its link is rejected, in the part of the message that existing nodes do not read. The
//     connection stays open for it to be read, 2 s at most, 64 such at a time.
//   - With a new link to a restarted peer, what its former life listed is forgotten.
//   - A packet that has nowhere to go has the routes computed first, if news of them are waiting.
//   - A service that closes, or whose node does in order, is gone at once as far as nodes of ours alone lead: they withdraw
//     it by a message of their own, repeat that once within 65 s for links that lose messages, and tell neighbours that
//     come back of it. Existing nodes would pass a withdrawal round for ever in a cycle, so none of ours is sent to them;
//     one of theirs is passed on once. They and nodes behind them see that the service is not repeated: it is forgotten
//     after three periods.
//   - Packets from a neighbour that claim to come from this node are dropped, and pings from a reserved service are not
//     answered: both could loop.
//   - Costs must be positive, finite and at most 1e9. Empty node IDs are refused.
//   - Redialling starts at a quarter of a second and grows to 20 s, with jitter. A try that reaches the peer but fails
//     the handshake counts as a failure.
//   - The epoch carries the fraction of the second in its low bits, so a restarted node is never older than before. One
//     whose clock was set back meanwhile is told of its former life by neighbours of ours, and makes the mesh heed it.
//   - Advertisements go on from the latest date that the mesh has of this node's, also if it was forged.
//   - What says that this node is a duplicate ends it only if the other node is heard of besides: it tells of its links
//     within 30 s, and the other end of one of them confirms it.
//   - When a node announces itself with a new epoch, streams to its former life end at once with an error.
//   - An update that would not fit in a message is neither sent nor passed on.
//
// PEERS.md lists what peers can do wrong or by malice, and the test that shows what becomes of it.
package netceptor
