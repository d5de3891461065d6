// Package daemon makes a running node of a configuration. The receptor command and every program that runs a node from
// a configuration file start here.
//
//	cfg, err := config.LoadFile("/etc/receptor/receptor.conf")
//	d, err := daemon.Build(ctx, cfg, daemon.Options{Logger: log})
//	defer d.Close()
//
// [Build] starts everything and returns; the node runs until [Daemon.Close] or until it stops by itself. [Run] does
// what a command line asks for and, if that is a node, waits for its end.
//
// # Order of starting
//
// The node and its work types come first and the units of an earlier run are loaded, so whoever reaches a control
// socket finds all of them. Then control services, proxies, listeners and peers open in the order they were written. On
// an error, what was opened is closed again, sockets on disk included.
//
// # TLS
//
// The files of all TLS profiles are loaded and checked before anything is started, and everything wrong with them is
// reported at once. Afterwards they are read again when they change, with no reload: see package identity, which also
// says who is checked for what. The directives cert-init, cert-makereq and cert-signreq run instead of a node; files
// they overwrite are replaced as a whole, and private keys always have mode 0600.
//
// # Reload
//
// [Daemon.Reload] reads the files of the command line again and applies the difference ([config.Diff]): links, services,
// types of work, TLS profiles, signing keys, firewall rules and the log. What did not change is not touched: links stay,
// streams go on, clients of a control socket stay connected even if their listener goes. It is all or nothing. First all
// that can fail is done while everything old still runs: files are read and checked, ports and sockets are opened, and of what one
// directive leaves to another the reload takes a handle. Then what is new is opened, what is gone is closed, services
// before links, and what needed its place is opened there: whoever dials it meanwhile is not refused. A port that is in use, even
// one address of several, is found before anything is touched. A TLS profile is changed
// in place: handshakes from then on go by it, links that are up stay. The node's ID, its data directory and its idle time
// need a restart: the reload is refused with code 3.
//
// It is asked for by the control command reload (reload dry-run says what would change, or why it cannot), by SIGHUP, and, where `process`
// has watchconfig or the file is of version 2, by a change of a file.
//
// # Cores
//
// While much passes through a node and the machine has no idle core, the process uses no more cores than it gets while it
// is at work; see cores.go. That holds for a program with nodes in it too. GOMAXPROCS in the environment switches it off.
//
// # Checking
//
// --check reports at once all that is wrong with the configuration and, of the directives that are right, what would keep the
// node from starting: files, keys, ports, sockets, commands, firewall rules.
// What a running node on the same control socket holds is not a problem. Refused are configuration files, private keys and
// data directories that every user may write, and data directories of other users. Keys that every user may read are
// warned of only: containers mount them so.
//
// # Service managers
//
// With NOTIFY_SOCKET the manager is told of readiness, reloads, the end, the watchdog (as long as the node answers) and a
// line of status. Sockets in LISTEN_FDS serve the directives that listen on TCP, UDP or a Unix socket: the one that wants
// a socket's address, or the only one of its kind if the socket has the name of the kind (FileDescriptorName=ws-listener),
// whose address then counts for nothing. What nothing uses is told. A --check that the manager runs before the start
// (ExecStartPre) warns of addresses in use, which the manager may hold for the node. Commands of units do not inherit
// these variables.
//
// # Ending
//
// When the context of [Run] ends (SIGINT, SIGTERM), sockets, links and streams are closed and Run returns nil; it does
// not wait longer than [CloseTimeout]. With a draintimeout it first stops accepting and waits that long at most for
// clients; a second signal ends the program at once. Waited for are connections through TCP and Unix proxies, terminals of
// command services, commands of control clients here and on other nodes (results that are being sent among them), and
// programs that are attached to the node, with their streams. Not waited for: who listens to events, who has no command
// under way, UDP proxies and the IP router (datagrams may be lost), what passes through on its way elsewhere (a relay does
// not know of streams; they go on by another path or when the node is back), and units on other nodes whose output is copied
// here (the copy goes on at the exact byte). Units of work go on in processes of their own. A node that finds that another one with its ID was in the mesh before stops by itself, and Run
// returns netceptor.ErrDuplicateNode: the program ends with status 3.
//
// # Output
//
// The log goes to standard output, one line per record: `LEVEL YYYY/MM/DD HH:MM:SS message key=value ...` ([NewLogHandler]),
// or JSON. Parts of the node have levels of their own, and what is said more than ten times in ten seconds is counted
// instead. An output that cannot be written does not stop the node. Errors that end the program are returned, for standard
// error.
//
// # Decisions
//
//   - RECEPTOR_PAYLOAD_TRACE_LEVEL has no effect: payloads and their secrets never go to a log.
//   - QLOGDIR is a directory, not a prefix.
//   - There is one build with everything in it and no tags that leave parts out. It runs on Linux.
//   - Units of work-kubernetes are run by the program receptor-kubernetes, which is installed on its own, beside this one or in PATH.
//     Without it the work type is offered, and what is submitted is refused. What a unit must say is checked by the node, before there
//     is a unit; the namespace of the kubeconfig's context is found, and written to the unit, when it starts.
package daemon
