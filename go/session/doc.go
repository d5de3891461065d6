// Package session serves the session protocol (README.md in this folder): one socket carries requests, replies and
// events as length-prefixed JSON, and mesh streams, listeners and datagram sockets arrive beside the replies as file
// descriptors. The C library, a sidecar process and attached programs all drive a node through it.
//
// [Open] makes a session inside this process and returns the program's end. Nothing in the package writes to standard
// output or error, handles signals, or reads the process's environment: the host program owns those. A panic in a
// handler ends the request with code "internal", not the process.
package session
