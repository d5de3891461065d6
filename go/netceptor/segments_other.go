//go:build !linux

package netceptor

// newQUICSocket makes the socket under a QUIC transport.
func newQUICSocket(pc *PacketConn) meshSocket { return newPlainSocket(pc) }
