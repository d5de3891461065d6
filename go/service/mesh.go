package service

import (
	"context"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// OnNode makes a node the mesh of proxies.
func OnNode(n *netceptor.Node) Mesh { return nodeMesh{n} }

type nodeMesh struct{ node *netceptor.Node }

func (m nodeMesh) DialStream(ctx context.Context, node wire.NodeID, service string) (Stream, error) {
	s, err := m.node.DialStream(ctx, node, service, nil)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (m nodeMesh) ListenStream(service string, tags map[string]string) (Listener, error) {
	l, err := m.node.ListenStream(service, &netceptor.ServiceAd{Tags: tags}, nil)
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
