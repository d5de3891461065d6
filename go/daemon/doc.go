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
// # Ending
//
// When the context of [Run] ends (SIGINT, SIGTERM), sockets, links and streams are closed and Run returns nil; it does
// not wait longer than [CloseTimeout]. Units of work go on in processes of their own. A node that finds another one with
// its ID in the mesh stops by itself, and Run returns nil as well.
//
// # Output
//
// The log goes to standard output, one line per record: `LEVEL YYYY/MM/DD HH:MM:SS message key=value ...` ([NewLogHandler]).
// An output that cannot be written does not stop the node. Errors that end the program are returned, for standard error.
package daemon
