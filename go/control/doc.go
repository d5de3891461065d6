// Package control serves the control protocol: lines of commands from people and programs, on Unix sockets, TCP, TLS and
// as a service of the mesh. The protocol itself is described in README.md in this folder.
//
//	srv := control.New(control.Config{Node: node, Work: engine, Version: "1.0"})
//	l, err := control.ListenUnix("/run/receptor.sock", 0o600)
//	...
//	go srv.Serve(ctx, l, control.Unix)
//	...
//	srv.Close() // Ends all sessions and waits for them.
//
// A [Server] serves any number of listeners of any kind with the same commands; the [Kind] only decides whether a client
// may give work that needs a signature without one. A *tls.Conn that a listener accepts gets ten seconds for its
// handshake before anything is sent.
//
// One goroutine serves a client, and a second one watches the connection while a command waits for something else
// (ping, traceroute, connect, results), so that a client that leaves takes its command with it. An idle client holds about a kilobyte
// besides. Clients may be as slow as they like: they hold up nobody else.
//
// A program adds commands of its own with [Server.Handle], asks the service without a connection with [Server.Ask], and
// restricts a listener to what [Allow] says. The commands events, topology and links look into the node; they exist if it
// is a *netceptor.Node.
//
// # Decisions
//
// New commands are additions: what existing clients send is answered as before, to the byte, but for the defects below.
// Events are told as changes against a snapshot. Each client has a queue of its own in the node; one that does not read is told
// how much it has missed and then everything anew, so what it knows is always right in the end. Routes are compared with what
// the client knows, and never lost. A stream that has nothing to tell says so every 30 s, which finds out clients that
// are gone without a word.
//
// Rules add up and deny the rest; a refused command is logged once for each client. A certificate counts if the listener
// asks for it, since the profiles of package identity verify what they ask for. Unknown commands are unknown whatever the rules say.
// The metrics count commands by the names that exist, so a client cannot make them grow.
//
// Where existing services misbehave, this one does not: a line that is not a command gets one error line, not two; a
// requested_fields that is no list is an error; startpos may be a string with a number in it; a failing accept rests between tries;
// socket and lock files are removed at the end. A command line is at most 16 MiB long. A longer one is refused and
// skipped up to its newline, and the session goes on. Line breaks inside an error text become blanks.
//
// When a command takes the connection over (work submit, work results, connect), the end of the session closes the sending
// direction first and waits up to two seconds for the client to close, so that nothing already sent is lost. In connect,
// the end of one direction closes just that direction; existing services close a local client completely.
//
// A client that cannot be told the ID of the unit it has just submitted has its unit fail, since it will try again. A
// client that leaves during cancel, release or reload, or after its payload is complete, changes nothing: those go on.
//
// A client that has closed only its sending direction is told from one that is gone by the operating system, on Linux. A
// TCP client that closes completely looks half-closed until something is sent to it or its keep-alive fails.
package control
