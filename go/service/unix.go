package service

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// UnixServer is a Unix socket whose connections go to a service in the mesh.
type UnixServer struct {
	Listener net.Listener // A listener on a Unix socket; the proxy's from the start on.
	Node     wire.NodeID
	Service  string
}

// StartUnixServer serves the socket.
func StartUnixServer(m Mesh, cfg UnixServer, log *slog.Logger) *Proxy {
	dial := func(ctx context.Context) (Stream, error) { return m.DialStream(ctx, cfg.Node, cfg.Service) }
	p := Start(socketListener{cfg.Listener}, dial, "Error connecting on Receptor network", log.With("node", cfg.Node, "service", cfg.Service))
	p.addr = cfg.Listener.Addr()
	return p
}

// UnixClient is a service in the mesh whose streams go to a Unix socket.
type UnixClient struct {
	Service  string
	Filename string // Looked up at every dial.
}

// StartUnixClient offers the service.
func StartUnixClient(m Mesh, cfg UnixClient, log *slog.Logger) (*Proxy, error) {
	l, err := m.ListenStream(cfg.Service, map[string]string{"type": "Unix Proxy", "filename": cfg.Filename})
	if err != nil {
		return nil, fmt.Errorf("error listening on Receptor network: %w", err)
	}
	var d net.Dialer
	dial := func(ctx context.Context) (Stream, error) {
		c, err := d.DialContext(ctx, "unix", cfg.Filename)
		if err != nil {
			return nil, err
		}
		return c.(*net.UnixConn), nil
	}
	return Start(l, dial, "Error connecting via Unix socket", log.With("service", cfg.Service)), nil
}
