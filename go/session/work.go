package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// errPayloadCut is why a unit fails whose program vanished before the payload's end.
var errPayloadCut = errors.New("the submitting program closed the payload without ending it")

const noWorkType = `key "worktype": a name is expected`

func opWorkSubmit(ctx context.Context, s *session, req *request) (reply, error) {
	node, err := needNode(req)
	if err != nil {
		return failed(err)
	}
	if req.WorkType == "" {
		return failed(badRequest(noWorkType))
	}
	engine := s.host.built().Work
	if own := s.host.built().Node.ID(); node.At(own) == own { // Who asks for these is not to believe that they were heeded.
		key := ""
		switch {
		case req.TTL != nil:
			key = "ttl"
		case req.TLS != nil:
			key = "tls"
		case req.Sign:
			key = "sign"
		}
		if key != "" {
			return failed(badRequest(fmt.Sprintf("key %q: it is for work on another node, and %q is this one", key, node)))
		}
	}
	submit := workceptor.SubmitRequest{
		Node: node, WorkType: req.WorkType, Params: req.Params, TTL: ttlText(req.TTL), SignWork: req.Sign,
	}
	if req.TLS != nil {
		if req.TLS.files != nil {
			return failed(badRequest(`key "tls": a unit outlives this session: name a profile of the node's configuration`))
		}
		submit.TLSClient = req.TLS.name
	}
	// A program that takes a work type back does not expect to find it still there.
	if held := s.host.holder(name{workType: req.WorkType}); held.isGone() {
		if err := held.awaitFree(ctx); err != nil {
			return failed(err)
		}
	}
	near, far, err := socketPair(unix.SOCK_STREAM) // Before there is a unit that nobody would know.
	if err != nil {
		return failed(err)
	}
	sub, err := engine.Submit(submit)
	if err != nil {
		_, _ = near.Close(), unix.Close(far)
		code := WorkType
		if _, ok := errors.AsType[unix.Errno](err); ok {
			code = Work // No place for the unit: nothing is wrong with what was asked.
		}
		return failed(toError(err, code))
	}
	start := &unitStart{done: make(chan struct{})}
	h := s.host
	h.mu.Lock()
	h.starts[sub.ID()] = start
	h.mu.Unlock()
	h.spawn("payload", func() {
		defer close(start.done)
		defer near.Close() //nolint:errcheck // Only read from.
		defer context.AfterFunc(h.ctx, func() { _ = near.Close() })()
		if start.err = sub.ReadPayload(payloadReader{near}); start.err == nil {
			start.result, start.err = sub.Start(h.ctx)
		}
	})
	undo := func() { // The payload is cut off by the descriptor's end; nobody will ask what became of it.
		_, _ = engine.Release(context.WithoutCancel(h.ctx), sub.ID(), true)
	}
	return reply{ok: map[string]any{"unit": sub.ID()}, fd: far, undo: undo}, nil
}

// payloadReader reads a payload to its end. A program ends it by shutting down its sending direction while it keeps the
// socket; one that closes the socket has vanished, and its payload must not be taken for complete.
type payloadReader struct{ conn *net.UnixConn }

func (p payloadReader) Read(b []byte) (int, error) {
	n, err := p.conn.Read(b)
	if err != nil && isHungUp(p.conn) {
		return n, errPayloadCut
	}
	return n, err
}

// ofUnit is an operation on the unit that a request names.
func ofUnit(run func(context.Context, *session, *request, workceptor.UnitID) (reply, error)) func(context.Context, *session, *request) (reply, error) {
	return func(ctx context.Context, s *session, req *request) (reply, error) {
		if req.Unit == "" {
			return failed(badRequest(`key "unit": the ID of a unit is expected`))
		}
		return run(ctx, s, req, workceptor.UnitID(req.Unit))
	}
}

func opWorkStarted(ctx context.Context, s *session, _ *request, id workceptor.UnitID) (reply, error) {
	h := s.host
	h.mu.Lock()
	start := h.starts[id]
	h.mu.Unlock()
	if start == nil {
		if _, err := h.built().Work.Status(id); err != nil {
			return failed(toError(err, Work))
		}
		return failed(badRequest(fmt.Sprintf("key \"unit\": the start of unit %s is told once, to the program that has submitted it", id)))
	}
	select {
	case <-start.done:
	case <-ctx.Done():
		return failed(ctx.Err())
	}
	h.forgetStart(id)
	if start.err != nil {
		return failed(toError(start.err, Work))
	}
	return plain(map[string]any{"result": start.result})
}

func (h *host) forgetStart(id workceptor.UnitID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.starts, id)
}

func opWorkStatus(_ context.Context, s *session, _ *request, id workceptor.UnitID) (reply, error) {
	status, err := s.host.built().Work.Status(id)
	if err != nil {
		return failed(toError(err, Work))
	}
	return plain(status)
}

func opWorkList(_ context.Context, s *session, _ *request) (reply, error) {
	return plain(s.host.built().Work.List())
}

func opWorkWait(ctx context.Context, s *session, req *request, id workceptor.UnitID) (reply, error) {
	ctx, cancel := limit(ctx, req, 0)
	defer cancel()
	status, err := s.host.built().Work.Wait(ctx, id)
	if err != nil {
		e := toError(err, Work)
		if now, err := s.host.built().Work.Status(id); e.Code == Timeout && err == nil {
			e.Msg = fmt.Sprintf("unit %s is not complete within the time given: %s, %s", req.Unit, now.StateName(), now.Detail)
		}
		return failed(e)
	}
	return plain(status)
}

func opWorkCancel(ctx context.Context, s *session, _ *request, id workceptor.UnitID) (reply, error) {
	pending, err := s.host.built().Work.Cancel(ctx, id)
	if err != nil {
		return failed(toError(err, Work))
	}
	return plain(map[string]any{"pending": pending})
}

func opWorkRelease(ctx context.Context, s *session, req *request, id workceptor.UnitID) (reply, error) {
	pending, err := s.host.built().Work.Release(ctx, id, req.Force)
	if err != nil {
		return failed(toError(err, Work))
	}
	s.host.forgetStart(id)
	return plain(map[string]any{"pending": pending})
}

func opWorkResults(_ context.Context, s *session, req *request, id workceptor.UnitID) (reply, error) {
	if req.Offset < 0 {
		return failed(badRequest(`key "offset": a number from 0 is expected`))
	}
	ctx, cancel := context.WithCancel(s.host.ctx) // The output outlives the request.
	r, err := s.host.built().Work.Results(ctx, id, req.Offset)
	if err != nil {
		cancel()
		return failed(toError(err, Work))
	}
	st, fd, err := s.host.bridge(&outputStream{ReadCloser: r, cancel: cancel, unit: req.Unit}, nil)
	if err != nil {
		return failed(err)
	}
	return reply{ok: map[string]any{"stream": st.id}, fd: fd}, nil
}

// outputStream presents the output of a unit as a stream that only sends.
type outputStream struct {
	io.ReadCloser
	cancel context.CancelFunc
	unit   string
}

func (o *outputStream) Write([]byte) (int, error) {
	return 0, badRequest("the output of a unit cannot be written to")
}

func (o *outputStream) CloseWrite() error { return nil }

// CloseRead ends the stream: the program does not want more.
func (o *outputStream) CloseRead() error { return o.Close() }

func (o *outputStream) Close() error {
	o.cancel()
	return o.ReadCloser.Close()
}

type unitAddr string

func (unitAddr) Network() string  { return "receptor-unit" }
func (a unitAddr) String() string { return string(a) }

func (o *outputStream) LocalAddr() net.Addr              { return unitAddr(o.unit) }
func (o *outputStream) RemoteAddr() net.Addr             { return unitAddr(o.unit) }
func (o *outputStream) SetDeadline(time.Time) error      { return nil }
func (o *outputStream) SetReadDeadline(time.Time) error  { return nil }
func (o *outputStream) SetWriteDeadline(time.Time) error { return nil }
