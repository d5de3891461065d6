package session

import (
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/service"
	"github.com/pyreceptor/pyreceptor/go/socket"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// opForwardAdd opens a local port or socket whose connections go to a service in the mesh.
func opForwardAdd(_ context.Context, s *session, req *request) (reply, error) {
	node, err := needNode(req)
	if err != nil {
		return failed(err)
	}
	if req.Service == "" {
		return failed(badRequest(noService))
	}
	if _, err := wire.Service(req.Service); err != nil {
		return failed(err)
	}
	h := s.host
	conf, err := h.dialTLS(req.TLS, node)
	if err != nil {
		return failed(err)
	}
	network, address, err := localAddress(req.Address)
	if err != nil {
		return failed(err)
	}
	l, err := socket.Listen(network, address)
	if err != nil {
		return failed(toError(err, BadConfig))
	}
	mesh := service.OnNodeTLS(h.built().Node, conf, nil)
	dial := func(ctx context.Context) (service.Stream, error) { return mesh.DialStream(ctx, node, req.Service) }
	p := service.Start(localListener{l}, dial, "Error connecting on Receptor network", h.log.With("node", node, "service", req.Service))
	return h.proxied(p, map[string]any{"address": network + "://" + l.Addr().String()})
}

// opExposeAdd offers a service in the mesh whose streams go to a local address.
func opExposeAdd(ctx context.Context, s *session, req *request) (reply, error) {
	h := s.host
	conf, err := h.acceptTLS(req.TLS)
	if err != nil {
		return failed(err)
	}
	network, address, err := localAddress(req.Address)
	if err != nil {
		return failed(err)
	}
	l, err := take(ctx, h, name{service: req.Service}, func() (*netceptor.StreamListener, error) {
		return h.built().Node.ListenStream(req.Service, advert(req, true), conf)
	})
	if err != nil {
		return failed(err)
	}
	dial := func(ctx context.Context) (service.Stream, error) {
		c, err := socket.Dialer().DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return c.(service.Stream), nil
	}
	p := service.Start(meshListener{l}, dial, "Error connecting to the service's address", h.log.With("service", l.Service()))
	return h.proxied(p, map[string]any{"service": l.Service()})
}

// proxied is the reply for a proxy that runs: it lives until it is dropped.
func (h *host) proxied(p *service.Proxy, ok map[string]any) (reply, error) {
	id := h.keep(p)
	ok["proxy"] = id
	return reply{ok: ok, fd: -1, undo: func() { h.drop(id) }}, nil
}

func opProxyRemove(_ context.Context, s *session, req *request) (reply, error) {
	if !s.host.drop(req.Proxy) {
		return failed(badRequest(fmt.Sprintf("key \"proxy\": %d is not a proxy of this session", req.Proxy)))
	}
	return plain(empty)
}

// localAddress splits an address outside the mesh into what package net wants.
func localAddress(address string) (network, rest string, err error) {
	network, rest, ok := strings.Cut(address, "://")
	if !ok {
		network, rest = "tcp", address
	}
	switch {
	case network == "unix" && strings.HasPrefix(rest, "/"), network == "tcp" && strings.Contains(rest, ":"):
		return network, rest, nil
	}
	return "", "", badRequest(fmt.Sprintf("key \"address\": %q is not host:port, tcp://host:port or unix:///path", address))
}

// localListener accepts TCP and Unix connections, all of which have a CloseWrite.
type localListener struct{ net.Listener }

func (l localListener) Accept() (service.Stream, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return c.(service.Stream), nil
}

// meshListener accepts streams of the mesh.
type meshListener struct{ *netceptor.StreamListener }

func (l meshListener) Accept() (service.Stream, error) {
	s, err := l.StreamListener.Accept()
	if err != nil {
		return nil, err
	}
	return s, nil
}

// routeReply is one line of the routing table.
type routeReply struct {
	NextHop wire.NodeID `json:"next_hop"`
	Cost    float64     `json:"cost"`
}

func opRoutes(_ context.Context, s *session, _ *request) (reply, error) {
	routes := map[wire.NodeID]routeReply{}
	for r := range s.host.built().Node.Routes().All() {
		routes[r.Node] = routeReply{r.NextHop, r.Cost}
	}
	return plain(routes)
}
