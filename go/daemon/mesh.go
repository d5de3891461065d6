package daemon

import (
	"context"
	"errors"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// workMesh is the node, with its TLS profiles, as the work engine sees it.
type workMesh struct {
	*netceptor.Node
	daemon *Daemon
}

func (m workMesh) DialStream(ctx context.Context, node wire.NodeID, service, tlsClient string) (workceptor.Stream, error) {
	s, err := m.daemon.dialStream(ctx, node, service, tlsClient)
	if err != nil {
		return nil, clientError{err}
	}
	return s, nil
}

func (m workMesh) WaitRoute(ctx context.Context, node wire.NodeID) error {
	_, _, err := m.Node.WaitRoute(ctx, node)
	return err
}

// clientError shows a failed dial in the words that clients know.
type clientError struct{ error }

func (e clientError) Unwrap() error { return e.error }

func (e clientError) Error() string {
	if d, ok := errors.AsType[*netceptor.DialError](e.error); ok && d.Text != "" {
		return d.Text
	}
	return e.error.Error()
}
