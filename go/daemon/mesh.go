package daemon

import (
	"context"
	"errors"
	"io"
	"time"

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
	s, err := m.daemon.openStream(ctx, node, service, tlsClient)
	if err != nil {
		return nil, clientError{err}
	}
	if tlsClient == "" {
		return s, nil
	}
	secure, err := greeted(ctx, s)
	if err != nil {
		return nil, err
	}
	return secure, nil
}

// greetedStream is a stream whose first byte has been read.
type greetedStream struct {
	*netceptor.Stream
	first []byte
}

// greeted waits for the first byte of a control service. A dial may succeed before the service has looked at this node's
// certificate; if it does not like it, there is no greeting but an error, which is one of the dial.
func greeted(ctx context.Context, s *netceptor.Stream) (*greetedStream, error) {
	defer context.AfterFunc(ctx, func() { _ = s.SetReadDeadline(time.Unix(1, 0)) })()
	first := make([]byte, 1)
	if _, err := io.ReadFull(s, first); err != nil {
		_ = s.Abort(0)
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	return &greetedStream{s, first}, nil
}

func (s *greetedStream) Read(p []byte) (int, error) {
	if len(s.first) > 0 && len(p) > 0 {
		n := copy(p, s.first)
		s.first = s.first[n:]
		return n, nil
	}
	return s.Stream.Read(p)
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

// Reason is for people: the words that clients know say "context canceled" of a service that does not listen, for example.
func (e clientError) Reason() string {
	if d, ok := errors.AsType[*netceptor.DialError](e.error); ok && d.Err != nil {
		return d.Err.Error()
	}
	return e.error.Error()
}
