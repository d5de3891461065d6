// Package link carries whole messages between two neighbouring nodes: one file per transport behind [Conn].
//
// A transport moves bytes and decides nothing: it knows neither message types nor node IDs. Queues, priorities and
// back-off belong to package netceptor. Messages travel in batches ([wire.Batch]) so that one system call moves as many
// as are ready, in both directions. Empty messages, which crash existing nodes, are never sent by UDP and WebSocket and
// ignored when they come.
//
//   - TCP ([DialTCP], [ListenTCP]): every message behind its length, 16 bits, little-endian. At most 65535 bytes.
//   - TLS ([DialTLS], [ListenTLS]): the same inside TLS, no ALPN. Closing drops the connection without a word in TLS, so
//     that a peer that does not read cannot delay it.
//   - UDP ([DialUDP], [ListenUDP]): one datagram per message, at most [MaxUDPMessage] bytes. Larger messages are left
//     out and reported ([TooLargeError]); existing nodes end the link. Neither order nor arrival is promised.
//   - WebSocket ([DialWebSocket], [ListenWebSocket]): one binary message per message, never fragmented; text and
//     fragments are accepted, messages over 65535 bytes end the link, since no TCP link could pass them on. No extension
//     and no sub-protocol. Closing drops the connection.
//   - memory ([Memory], [Pipe]), for tests.
//
// # Strangers
//
// Until a connection is a link it costs little and not for long: a TLS handshake has 15 s and an HTTP request 10 s (its
// header 5 s and 64 KiB); of each a listener has 512 at a time and gives up the oldest for one more. [ListenUDP] says
// what holds for datagrams. Failed handshakes come out of Accept as passing errors, one at a time, and never before a
// connection that is ready.
//
// A bug that a peer's bytes find ends that connection with an error (package fault), and no other.
package link

import (
	"context"
	"errors"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// ErrClosed is what reads and writes return after Close on this end.
var ErrClosed = errors.New("link closed")

// Conn is one backend connection between two neighbours. One goroutine may read while another writes; Close may be
// called from any goroutine, any number of times, and unblocks both.
type Conn interface {
	// ReadBatch waits for at least one whole message and returns all that have arrived. The memory is the Conn's and is
	// valid until the next call; the caller may change it. Zero-length messages are passed on as they came. io.EOF means
	// that the peer closed.
	ReadBatch() (wire.Batch, error)
	// WriteBatch sends whole frames, the parts in order, and returns when the memory may be used again. It blocks while
	// the peer does not read. A *[TooLargeError] is no end of the link, every other error is.
	WriteBatch(parts ...wire.Batch) error
	Close() error
	// String names the connection in logs, for example "tcp 127.0.0.1:40312->127.0.0.1:2222".
	String() string
}

// Dialer makes connections to one peer, again and again.
type Dialer interface {
	// Dial makes one connection; ctx bounds it.
	Dial(ctx context.Context) (Conn, error)
	String() string
}

// Listener accepts connections from peers.
type Listener interface {
	// Accept waits for a connection. After Close it returns an error that wraps ErrClosed; any other error is passing
	// (out of file descriptors, say) and the caller tries again after a pause.
	Accept() (Conn, error)
	Close() error
	// Addr is the bound address in the transport's own form, for example "127.0.0.1:2222".
	Addr() string
}
