package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/control"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

type operation struct {
	run       func(context.Context, *session, *request) (reply, error)
	needsNode bool
	atOnce    bool // It waits for nothing: it is done before the next request is read.

	afterwards bool // It can be asked of a node that is closed.
}

func onNode(run func(context.Context, *session, *request) (reply, error)) operation {
	return operation{run: run, needsNode: true}
}

// atOnce is for what is told from memory: to wake a goroutine for it takes longer than to do it. That a program which does not
// read its answers is not answered further bounds what they take.
func atOnce(run func(context.Context, *session, *request) (reply, error)) operation {
	return operation{run: run, needsNode: true, atOnce: true}
}

var empty = struct{}{}

// operations is the table of the README. It is filled at start since its entries refer to it.
var operations map[string]operation

func init() {
	operations = map[string]operation{
		"open":            {run: opOpen},
		"session.new":     {run: opNewSession},
		"close":           {run: opClose},
		"events":          {run: opEvents},
		"status":          atOnce(opStatus),
		"ping":            onNode(opPing),
		"traceroute":      onNode(opTraceroute),
		"route.wait":      onNode(opRouteWait),
		"routes":          atOnce(opRoutes),
		"peer.add":        onNode(opPeerAdd),
		"listen.add":      onNode(opListenAdd),
		"backend.remove":  onNode(opBackendRemove),
		"forward.add":     onNode(opForwardAdd),
		"expose.add":      onNode(opExposeAdd),
		"proxy.remove":    onNode(opProxyRemove),
		"stream.connect":  onNode(opStreamConnect),
		"stream.listen":   onNode(opStreamListen),
		"stream.status":   {run: opStreamStatus, needsNode: true, atOnce: true, afterwards: true},
		"stream.abort":    {run: opStreamAbort, needsNode: true, afterwards: true},
		"datagram.open":   onNode(opDatagramOpen),
		"datagram.status": atOnce(opDatagramStatus),
		"work.offer":      onNode(opWorkOffer),
		"work.submit":     onNode(opWorkSubmit),
		"work.started":    onNode(ofUnit(opWorkStarted)),
		"work.status":     atOnce(ofUnit(opWorkStatus)),
		"work.list":       atOnce(opWorkList),
		"work.results":    onNode(ofUnit(opWorkResults)),
		"work.wait":       onNode(ofUnit(opWorkWait)),
		"work.cancel":     onNode(ofUnit(opWorkCancel)),
		"work.release":    onNode(ofUnit(opWorkRelease)),
	}
}

// limit bounds ctx by the request's timeout, or by def seconds if it has none; 0 means no bound.
func limit(ctx context.Context, req *request, def float64) (context.Context, context.CancelFunc) {
	t := def
	if req.Timeout != nil {
		t = max(*req.Timeout, 1e-9)
	}
	if t == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, seconds(t))
}

// needNode checks the key "node".
func needNode(req *request) (wire.NodeID, error) {
	if req.Node == "" {
		return "", badRequest(`key "node": a node ID is expected`)
	}
	return wire.NodeID(req.Node), nil
}

const noService = `key "service": a name is expected`

func opOpen(ctx context.Context, s *session, req *request) (reply, error) {
	switch {
	case s.host.attached:
		return failed(badRequest("the node runs already: an attached session does not open one"))
	case !s.owner:
		return failed(badRequest("only the first session of a node opens it"))
	case req.Config == nil:
		return failed(badRequest(`key "config": an object is expected`))
	}
	if err := s.host.open(ctx, req.Config); err != nil {
		return failed(err)
	}
	n := s.host.built().Node
	return plain(map[string]any{"node": n.ID(), "version": s.host.version, "epoch": n.Epoch()})
}

func opNewSession(_ context.Context, s *session, _ *request) (reply, error) {
	if s.host.isClosing() {
		return failed(s.host.closedError())
	}
	near, far, err := socketPair(unix.SOCK_STREAM)
	if err != nil {
		return failed(err)
	}
	s.host.guard("session", func() { serve(s.host, near, false) })
	return reply{ok: empty, fd: far}, nil
}

func opClose(ctx context.Context, s *session, req *request) (reply, error) {
	ctx, cancel := limit(ctx, req, 5)
	defer cancel()
	s.host.mu.Lock()
	s.host.closing = !s.host.attached // The node of a daemon is still there.
	s.host.mu.Unlock()
	done := make(chan struct{})
	s.host.guard("close", func() {
		defer close(done)
		s.host.closeNode()
	})
	select {
	case <-done:
		return plain(empty)
	case <-ctx.Done():
		return failed(ctx.Err())
	}
}

var eventKinds = []string{"peer", "route", "service", "work", "log"}

func opEvents(_ context.Context, s *session, req *request) (reply, error) {
	if req.Kinds == nil {
		return failed(badRequest(fmt.Sprintf("key \"kinds\": a list of some of %v is expected, or an empty one", eventKinds)))
	}
	for _, k := range req.Kinds {
		if !slices.Contains(eventKinds, k) {
			return failed(badRequest(fmt.Sprintf("key \"kinds\": %q is not one of %v", k, eventKinds)))
		}
	}
	if req.LogLevel != "" {
		level, err := logLevel(req.LogLevel)
		if err != nil {
			return failed(err)
		}
		s.host.level.Set(level)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kinds = slices.Clone(req.Kinds)
	return plain(empty)
}

func opStatus(_ context.Context, s *session, _ *request) (reply, error) {
	return plain(control.StatusReply(s.host.built().Node.Status(), s.host.version))
}

func opPing(ctx context.Context, s *session, req *request) (reply, error) {
	node, err := needNode(req)
	if err != nil {
		return failed(err)
	}
	ctx, cancel := limit(ctx, req, 10)
	defer cancel()
	hops := uint8(wire.MaxHops)
	if req.Hops != nil {
		hops = *req.Hops
	}
	p := s.host.built().Node.Ping(ctx, node, hops)
	if p.Err != nil {
		e := toError(p.Err, Internal)
		e.Node, e.Msg = string(node), fmt.Sprintf("ping %s: %s", node, e.Msg)
		return failed(e)
	}
	return plain(map[string]any{"from": p.From, "rtt_ns": p.RTT.Nanoseconds()})
}

type hopReply struct {
	Hop  int         `json:"hop"`
	From wire.NodeID `json:"from"`
	RTT  int64       `json:"rtt_ns"`
	Err  *Error      `json:"err,omitempty"`
}

func opTraceroute(ctx context.Context, s *session, req *request) (reply, error) {
	node, err := needNode(req)
	if err != nil {
		return failed(err)
	}
	hops := []hopReply{}
	for hop := 0; hop <= wire.MaxHops; hop++ {
		probe, cancel := limit(ctx, req, 10)
		p := s.host.built().Node.Ping(probe, node, uint8(hop))
		cancel()
		h := hopReply{Hop: hop, From: p.From, RTT: p.RTT.Nanoseconds()}
		if p.Err != nil && !errors.Is(p.Err, netceptor.ErrExpired) {
			h.Err = toError(p.Err, Internal)
		}
		hops = append(hops, h)
		if !errors.Is(p.Err, netceptor.ErrExpired) {
			break
		}
	}
	return plain(map[string]any{"hops": hops})
}

func opRouteWait(ctx context.Context, s *session, req *request) (reply, error) {
	node, err := needNode(req)
	if err != nil {
		return failed(err)
	}
	ctx, cancel := limit(ctx, req, 0)
	defer cancel()
	next, cost, err := s.host.built().Node.WaitRoute(ctx, node)
	if err != nil {
		e := toError(err, Internal)
		e.Node = string(node)
		if e.Code == Timeout {
			e.Msg = fmt.Sprintf("no route to node %q within the time given%s", node, s.host.troubles())
		}
		return failed(e)
	}
	return plain(map[string]any{"next_hop": next, "cost": cost})
}

// troubles says what keeps this node from being linked, for those who wait for that.
func (h *host) troubles() string {
	var all strings.Builder
	backends := h.built().Node.Backends()
	for _, b := range backends {
		if b.State != netceptor.BackendUp && b.Failure != nil {
			fmt.Fprintf(&all, "; %s: %v", b.Name, b.Failure.Err)
		}
	}
	if len(backends) == 0 {
		return "; this node has neither peers nor listeners"
	}
	return all.String()
}

func opPeerAdd(_ context.Context, s *session, req *request) (reply, error) {
	id, err := s.host.dial(&req.backendConfig)
	if err != nil {
		return failed(err)
	}
	return reply{ok: map[string]any{"backend": id}, fd: -1, undo: func() { s.host.drop(id) }}, nil
}

func opListenAdd(_ context.Context, s *session, req *request) (reply, error) {
	id, address, err := s.host.listen(&req.backendConfig)
	if err != nil {
		return failed(err)
	}
	undo := func() { s.host.drop(id) }
	return reply{ok: map[string]any{"backend": id, "address": address}, fd: -1, undo: undo}, nil
}

func opBackendRemove(_ context.Context, s *session, req *request) (reply, error) {
	if !s.host.drop(req.Backend) {
		return failed(badRequest(fmt.Sprintf("key \"backend\": %d is not a backend of this node", req.Backend)))
	}
	return plain(empty)
}

func opStreamConnect(ctx context.Context, s *session, req *request) (reply, error) {
	node, err := needNode(req)
	if err != nil {
		return failed(err)
	}
	if req.Service == "" {
		return failed(badRequest(noService))
	}
	conf, err := s.host.dialTLS(req.TLS, node)
	if err != nil {
		return failed(err)
	}
	ctx, cancel := limit(ctx, req, 30)
	defer cancel()
	remote, err := s.host.built().Node.DialStream(ctx, node, req.Service, conf)
	if err != nil {
		return failed(err)
	}
	st, fd, err := s.host.bridge(remote, nil)
	if err != nil {
		return failed(err)
	}
	return reply{ok: map[string]any{"stream": st.id, "local": addrReply(remote.LocalAddr().(netceptor.Addr))}, fd: fd}, nil
}

type address struct {
	Node    wire.NodeID `json:"node"`
	Service string      `json:"service"`
}

func addrReply(a netceptor.Addr) address { return address{a.Node, a.Service} }

func opStreamStatus(_ context.Context, s *session, req *request) (reply, error) {
	_, how, err := s.host.stream(req.Stream)
	if err != nil {
		return failed(err)
	}
	return plain(how.status())
}

func opStreamAbort(_ context.Context, s *session, req *request) (reply, error) {
	st, _, err := s.host.stream(req.Stream)
	if err != nil {
		return failed(err)
	}
	if req.ErrorCode > netceptor.MaxErrorCode {
		return failed(badRequest(fmt.Sprintf("key \"error_code\": %d: want at most %d", req.ErrorCode, uint64(netceptor.MaxErrorCode))))
	}
	if st != nil {
		st.abort(req.ErrorCode)
	}
	return plain(empty)
}

// advert is what the mesh is told of a service: nothing, or its tags.
func advert(req *request, def bool) *netceptor.ServiceAd {
	if req.Advertise != nil {
		def = *req.Advertise
	}
	if !def {
		return nil
	}
	return &netceptor.ServiceAd{Tags: req.Tags}
}

func ttlText(ttl *float64) string {
	if ttl == nil {
		return ""
	}
	return seconds(*ttl).String()
}
