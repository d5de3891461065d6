package service

import (
	"context"
	"crypto/tls"
	"net"
	"time"
)

// handshakeTimeout is how long a TCP client has for its TLS handshake.
const handshakeTimeout = 10 * time.Second

// tlsListener is a TCP listener whose connections speak TLS. The handshake is left to the proxy: Accept must not wait
// for a client.
type tlsListener struct {
	tcp  socketListener
	conf *tls.Config
}

func (l tlsListener) Accept() (Stream, error) {
	c, err := l.tcp.Accept()
	if err != nil {
		return nil, err
	}
	return tlsStream{tls.Server(c, l.conf)}, nil
}

func (l tlsListener) Close() error { return l.tcp.Close() }

// tlsStream is a TLS connection over TCP. Its CloseWrite says in TLS that there is no more data; a peer may say so by
// ending the TCP direction between two records.
type tlsStream struct{ *tls.Conn }

// Abort cuts the connection under TLS: closing it in TLS would look like an end of data.
func (s tlsStream) Abort(uint64) error {
	if tcp, ok := s.NetConn().(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	return s.NetConn().Close()
}

// shake completes the handshake of an accepted connection, if it is a TLS one.
func shake(ctx context.Context, s Stream) error {
	t, ok := s.(tlsStream)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	return t.HandshakeContext(ctx)
}

// dialTLS makes a TLS connection of a TCP connection to a server.
func dialTLS(ctx context.Context, c *net.TCPConn, conf *tls.Config) (Stream, error) {
	s := tlsStream{tls.Client(c, conf)}
	if err := s.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		return nil, err
	}
	return s, nil
}
