package service

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"

	"github.com/pyreceptor/pyreceptor/go/socket"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// Mesh is what proxies need of a node.
type Mesh interface {
	// DialStream opens a stream to a service of a node.
	DialStream(ctx context.Context, node wire.NodeID, service string) (Stream, error)
	// ListenStream accepts streams to a service of this node and advertises it with tags; an empty name is replaced by
	// one that is free.
	ListenStream(service string, tags map[string]string) (Listener, error)
}

// TCPServer is a TCP port whose connections go to a service in the mesh.
type TCPServer struct {
	Address  string       // host:port to listen on.
	Listener net.Listener // What listens already, in place of Address; the proxy's from the start on.
	Node     wire.NodeID
	Service  string
	TLS      *tls.Config // Server side, for the TCP connections; nil: they are plain.
}

// StartTCPServer opens the port and serves it.
func StartTCPServer(m Mesh, cfg TCPServer, log *slog.Logger) (*Proxy, error) {
	l := cfg.Listener
	if l == nil {
		var err error
		if l, err = socket.Listen("tcp", cfg.Address); err != nil {
			return nil, fmt.Errorf("error listening on TCP: %w", err)
		}
	}
	dial := func(ctx context.Context) (Stream, error) { return m.DialStream(ctx, cfg.Node, cfg.Service) }
	log = log.With("node", cfg.Node, "service", cfg.Service)
	var accept Listener = socketListener{l}
	if cfg.TLS != nil {
		accept = tlsListener{socketListener{l}, cfg.TLS}
	}
	p := Start(accept, dial, "Error connecting on Receptor network", log)
	p.addr = l.Addr()
	return p, nil
}

// TCPClient is a service in the mesh whose streams go to a TCP address.
type TCPClient struct {
	Service string
	Address string      // host:port; a name is resolved at every dial.
	TLS     *tls.Config // Client side, for the TCP connections; nil: they are plain.
}

// StartTCPClient offers the service.
func StartTCPClient(m Mesh, cfg TCPClient, log *slog.Logger) (*Proxy, error) {
	l, err := m.ListenStream(cfg.Service, map[string]string{"type": "TCP Proxy", "address": cfg.Address})
	if err != nil {
		return nil, fmt.Errorf("error listening on Receptor network: %w", err)
	}
	dial := func(ctx context.Context) (Stream, error) {
		c, err := socket.Dialer().DialContext(ctx, "tcp", cfg.Address)
		if err != nil {
			return nil, err
		}
		if cfg.TLS != nil {
			return dialTLS(ctx, c.(*net.TCPConn), cfg.TLS)
		}
		return c.(*net.TCPConn), nil
	}
	return Start(l, dial, "Error connecting via TCP", log.With("service", cfg.Service)), nil
}

// socketListener accepts TCP or Unix connections.
type socketListener struct{ net.Listener }

func (l socketListener) Accept() (Stream, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return c.(Stream), nil
}
