// Package identity is who a node is to others: TLS profiles, node IDs inside certificates, pinned fingerprints, and a
// small certificate authority.
//
// A profile is made of files and rules once, and then gives a *tls.Config for each use:
//
//	server, err := identity.NewServer(identity.ServerOptions{Name: "mesh", Cert: "node.crt", Key: "node.key",
//		RequireClientCert: true, ClientCAs: "ca.crt"}, identity.Owner{Node: "hub", Logger: log, Peer: peer})
//	l, err := node.ListenStream("backup", nil, server.StreamConfig())
//
//	client, err := identity.NewClient(identity.ClientOptions{Name: "mesh", Cert: "node.crt", Key: "node.key",
//		RootCAs: "ca.crt"}, identity.Owner{Node: "edge", Logger: log})
//	s, err := node.DialStream(ctx, "hub", "backup", client.StreamConfig("hub"))
//
// # Who is checked for what
//
// Below the mesh (links, and sockets of programs) a server's certificate must be for the host that was dialled; a
// client's must come from one of the CAs, whatever its names. Above the mesh (streams) names of hosts mean nothing: a
// service's certificate must carry the ID of the node that was dialled, and with RequireClientCert the client's must
// carry the ID of the node that the packets come from. Either way the chain, the dates and the extended key usage (if
// the certificate has one) must be right, and one of the pins must match if there are any.
//
// # Changed files
//
// Certificates, keys and CA bundles are looked at again (one stat each) at every handshake and read again when they
// have changed; established connections are left alone. A changed file that cannot be used (broken, without the node's
// ID, a key that does not fit) is logged once, and what was read before stays in use. No session is resumed, so
// every connection is judged by the files and dates of its own time.
//
// # Node IDs in certificates
//
// A node ID is an otherName of the subjectAltName extension, with the type 1.3.6.1.4.1.2312.19.1 and a UTF8String; IA5String and
// PrintableString are read as well. There may be several. [Names] reads and writes the extension's value:
//
//	30 29                              SEQUENCE
//	   82 09 6c6f63616c686f7374        [2] dNSName "localhost"
//	   87 04 7f000001                  [7] iPAddress 127.0.0.1
//	   a0 16                           [0] otherName
//	      06 09 2b060104019208 1301    OID 1.3.6.1.4.1.2312.19.1
//	      a0 09 0c 07 747372762dc3bc   [0] UTF8String "tsrv-ü"
//
// # Decisions
//
//   - Pins are compared on every use of a profile, mutual TLS on streams included, and also with InsecureSkipVerify:
//     together they mean "this very certificate, whoever signed it".
//   - InsecureSkipVerify without pins switches every check off, and a warning says so.
//   - A server profile with pins that asks clients for no certificate is refused: it would admit everybody.
//   - ClientCAs without RequireClientCert demands a certificate, as existing nodes do whatever the name of the option
//     suggests; a warning says so.
//   - A CA bundle without a usable certificate is refused. A bundle with some that cannot be read is used without those.
//   - The names of the CAs are not sent to clients: a large bundle would not fit in the first packets of a stream.
//   - TLS 1.2 and 1.3 with P-521, P-384 and P-256 unless MinTLS13; streams are always TLS 1.3.
//   - Existing nodes that are dialled with a certificate judge it after the dial has succeeded (that is TLS 1.3); so does
//     a profile here. The refusal is the error of the first read, and the server's log has the reason.
package identity
