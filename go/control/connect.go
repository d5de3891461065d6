package control

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

var (
	errNoConnectTarget    = errors.New("no connect target")
	errTooManyParameters  = errors.New("too many parameters")
	errNoConnectNode      = errors.New("no connect target node")
	errNoConnectService   = errors.New("no connect target service")
	errConnectNodeType    = errors.New("connect target node must be string")
	errConnectServiceType = errors.New("connect target service must be string")
	errConnectTLSType     = errors.New("connect tls name must be string")
)

// abortCode is what a service sees, as the code of the reset, when the client's connection broke.
const abortCode = 500

type connectTarget struct {
	node    wire.NodeID
	service string
	tls     string
}

// connect opens a stream to a service and makes the session a pipe to it.
func (s *session) connect(req request) error {
	target, err := connectTargetOf(req)
	if err != nil {
		return err
	}
	var stream workceptor.Stream
	s.whileConnected(func(ctx context.Context) {
		stream, err = s.srv.dial(ctx, target.node, target.service, target.tls)
	})
	if err != nil {
		return err
	}
	defer stream.Close()
	if err := s.send([]byte("Connecting\n")); err != nil {
		abort(stream)
		return err
	}
	defer context.AfterFunc(s.ctx, func() { abort(stream) })()
	s.bridge(stream, false)
	return errSessionOver
}

func connectTargetOf(req request) (connectTarget, error) {
	if req.isText() {
		words := req.words()
		switch len(words) {
		case 1:
			return connectTarget{}, errNoConnectTarget
		case 2:
			words = append(words, "")
		case 3:
		default:
			return connectTarget{}, errTooManyParameters
		}
		return connectTarget{wire.NodeID(words[0]), words[1], words[2]}, nil
	}
	node, found, isString := req.text("node")
	if !found {
		return connectTarget{}, errNoConnectNode
	} else if !isString {
		return connectTarget{}, errConnectNodeType
	}
	service, found, isString := req.text("service")
	if !found {
		return connectTarget{}, errNoConnectService
	} else if !isString {
		return connectTarget{}, errConnectServiceType
	}
	tls, found, isString := req.text("tls")
	if found && !isString {
		return connectTarget{}, errConnectTLSType
	}
	return connectTarget{wire.NodeID(node), service, tls}, nil
}

// bridge copies both ways until both directions have ended. The end of one side's data closes only that direction of the
// other side, where the transport can do that. A service that takes no more data may still finish its answer; a side
// that broke ends both. exec: a client that goes away hangs up, whatever it has sent before that is still on its way.
func (s *session) bridge(stream workceptor.Stream, exec bool) {
	input := io.Writer(stream)
	if exec {
		input = execInput{s, stream}
	}
	over := make(chan struct{}) // No more data for the client.
	var wg sync.WaitGroup
	wg.Go(func() {
		defer fault.Catch(func(e *fault.Error) {
			s.noteFault(e)
			abort(stream)
		})
		readErr, writeErr := relay(input, &s.in)
		s.noteFault(readErr)
		switch {
		case readErr != nil, writeErr == nil && exec && deserted(s.conn):
			abort(stream)
		case writeErr == nil:
			_ = stream.CloseWrite()
			if exec {
				s.awaitHangup(stream, over)
			}
		default:
			<-over
		}
	})
	if done := doneOf(stream); done != nil {
		wg.Go(func() {
			<-over
			select {
			case <-done: // What the client still sends has nowhere to go.
				_ = s.conn.Close()
			case <-s.ctx.Done():
			}
		})
	}
	readErr, writeErr := relay(s.conn, stream)
	s.noteFault(readErr)
	if writeErr != nil {
		abort(stream)
	}
	half, ok := s.conn.(interface{ CloseWrite() error })
	if readErr != nil || writeErr != nil || !ok || half.CloseWrite() != nil {
		_ = s.conn.Close()
	}
	close(over)
	wg.Wait()
}

// noteFault logs the fault in err, if there is one.
func (s *session) noteFault(err error) {
	fault.Log(s.srv.log, err, "control session", "client", s.conn.RemoteAddr().String())
}

// blocks are the buffers that data is relayed in.
var blocks = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// relay copies src to dst as it comes, until the end of src or an error of either.
func relay(dst io.Writer, src io.Reader) (readErr, writeErr error) {
	defer fault.Into(&readErr)
	block := blocks.Get().(*[]byte)
	defer blocks.Put(block)
	for {
		n, err := src.Read(*block)
		if n > 0 {
			if _, err := dst.Write((*block)[:n]); err != nil {
				return nil, err
			}
		}
		if err == io.EOF {
			return nil, nil
		}
		if err != nil {
			return err, nil
		}
	}
}

// abort ends a stream so that its other end cannot take what it has got for everything.
func abort(stream workceptor.Stream) {
	if a, ok := stream.(interface{ Abort(code uint64) error }); ok {
		_ = a.Abort(abortCode)
		return
	}
	_ = stream.Close()
}
