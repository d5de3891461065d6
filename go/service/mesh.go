package service

import (
	"context"
	"crypto/tls"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// OnNode makes a node the mesh of proxies.
func OnNode(n *netceptor.Node) Mesh { return OnNodeTLS(n, nil, nil) }

// OnNodeTLS is [OnNode] with TLS profiles: client for the streams that are dialled, server for the services that are
// offered. nil is for streams without a profile.
func OnNodeTLS(n *netceptor.Node, client, server *tls.Config) Mesh {
	return nodeMesh{n, client, server}
}

type nodeMesh struct {
	node           *netceptor.Node
	client, server *tls.Config
}

func (m nodeMesh) DialStream(ctx context.Context, node wire.NodeID, service string) (Stream, error) {
	s, err := m.node.DialStream(ctx, node, service, m.client)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (m nodeMesh) ListenStream(service string, tags map[string]string) (Listener, error) {
	l, err := m.node.ListenStream(service, &netceptor.ServiceAd{Tags: tags}, m.server)
	if err != nil {
		return nil, err
	}
	return streamListener{l}, nil
}

type streamListener struct{ *netceptor.StreamListener }

func (l streamListener) Accept() (Stream, error) {
	s, err := l.StreamListener.Accept()
	if err != nil {
		return nil, err
	}
	return s, nil
}
