package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
	"github.com/pyreceptor/pyreceptor/go/workceptor/remote"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

var _ Mesh = (*netceptor.Node)(nil)

// line is a mesh alpha - beta - gamma, seen from one of its nodes.
type fakeNode struct {
	id   wire.NodeID
	ping func(ctx context.Context) netceptor.Pong // For the target "silent".
}

var meshLine = []wire.NodeID{"alpha", "beta", "gamma"}

func (n *fakeNode) ID() wire.NodeID { return n.id }

func (n *fakeNode) Status() netceptor.Status {
	types := []wire.WorkCommand{{WorkType: "cat"}, {WorkType: "upper"}, {WorkType: "sh"}, {WorkType: "shraw"}, {WorkType: "secure", Secure: true}}
	alphaTypes := append(types[:5:5], wire.WorkCommand{WorkType: "nosuch"}, wire.WorkCommand{WorkType: "count"})
	types = append(types[:5:5], wire.WorkCommand{WorkType: "count"})
	ad := func(node wire.NodeID, service string, types []wire.WorkCommand) wire.Advertisement {
		return wire.Advertisement{
			NodeID: node, Service: service, Time: time.Date(2026, 11, 21, 20, 56, 6, 700308857, time.UTC), ConnType: wire.ConnStream,
			Tags: map[string]string{"type": "Control Service"}, WorkCommands: types,
		}
	}
	return netceptor.Status{
		NodeID:      n.id,
		Connections: []netceptor.Connection{{NodeID: "beta", Cost: 1}},
		KnownConnectionCosts: map[wire.NodeID]map[wire.NodeID]float64{
			"alpha": {"beta": 1}, "beta": {"alpha": 1, "gamma": 1}, "gamma": {"beta": 1},
		},
		RoutingTable: map[wire.NodeID]wire.NodeID{"beta": "beta", "gamma": "beta"},
		Advertisements: []wire.Advertisement{
			ad("gamma", "control", types), ad("alpha", "control", alphaTypes), ad("alpha", "ctl2", alphaTypes), ad("alpha", "ctl3", alphaTypes),
			ad("beta", "control", types),
		},
	}
}

// distance returns how many links away a node is, or -1.
func (n *fakeNode) distance(target wire.NodeID) int {
	if strings.EqualFold(string(target), "localhost") {
		target = n.id
	}
	from, to := -1, -1
	for i, id := range meshLine {
		if id == n.id {
			from = i
		}
		if id == target {
			to = i
		}
	}
	if from < 0 || to < 0 {
		return -1
	}
	return max(from-to, to-from)
}

func (n *fakeNode) Ping(ctx context.Context, target wire.NodeID, hops uint8) netceptor.Pong {
	if target == "silent" {
		return n.ping(ctx)
	}
	d := n.distance(target)
	switch {
	case int(hops) < d, hops == 0 && d < 0:
		return netceptor.Pong{From: meshLine[hops], RTT: 114200, Err: fmt.Errorf("%w on the way", netceptor.ErrExpired)}
	case d < 0:
		return netceptor.Pong{From: n.id, RTT: 650, Err: fmt.Errorf("%w: %q", netceptor.ErrNoRoute, target)}
	case strings.EqualFold(string(target), "localhost"):
		target = n.id
	}
	return netceptor.Pong{From: target, RTT: 394579}
}

func (n *fakeNode) Traceroute(ctx context.Context, target wire.NodeID, each func(int, netceptor.Pong)) {
	for hop := 0; ; hop++ {
		p := n.Ping(ctx, target, uint8(hop))
		each(hop, p)
		if !errors.Is(p.Err, netceptor.ErrExpired) {
			return
		}
	}
}

// meshStream is a Unix socket that looks like a stream of the mesh: no file descriptor to be seen.
type meshStream struct {
	conn    *net.UnixConn
	aborted chan struct{}
	once    sync.Once
}

func (s *meshStream) Read(p []byte) (int, error) {
	n, err := s.conn.Read(p)
	if err != nil && err != io.EOF && !errors.Is(err, net.ErrClosed) {
		err = fmt.Errorf("reset: %w", err)
	}
	return n, err
}
func (s *meshStream) Write(p []byte) (int, error)        { return s.conn.Write(p) }
func (s *meshStream) CloseWrite() error                  { return s.conn.CloseWrite() }
func (s *meshStream) Close() error                       { return s.conn.Close() }
func (s *meshStream) LocalAddr() net.Addr                { return s.conn.LocalAddr() }
func (s *meshStream) RemoteAddr() net.Addr               { return s.conn.RemoteAddr() }
func (s *meshStream) SetDeadline(t time.Time) error      { return s.conn.SetDeadline(t) }
func (s *meshStream) SetReadDeadline(t time.Time) error  { return s.conn.SetReadDeadline(t) }
func (s *meshStream) SetWriteDeadline(t time.Time) error { return s.conn.SetWriteDeadline(t) }
func (s *meshStream) Abort(uint64) error {
	s.once.Do(func() { close(s.aborted) })
	return s.conn.Close()
}

// socketPair returns two connected Unix sockets.
func socketPair(t testing.TB) (*net.UnixConn, *net.UnixConn) {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a.(*net.UnixConn), b.(*net.UnixConn)
}

func newMeshStream(c *net.UnixConn) *meshStream {
	return &meshStream{conn: c, aborted: make(chan struct{})}
}

// fakeWork is a work engine in memory, with the types cat and upper (which need no signature) and secure (which does).
type fakeWork struct {
	mu       sync.Mutex
	units    map[workceptor.UnitID]*fakeUnit
	started  chan *fakeUnit // Each unit whose payload is read, if not nil.
	nextID   workceptor.UnitID
	readers  chan error // How each results stream ended, if not nil.
	startErr error      // Of Start.
	watchers []chan workceptor.Change
	begun    map[string]workceptor.UnitID // By the names of their submissions.
}

func (w *fakeWork) Exec(workceptor.ExecRequest) (interactive, error) {
	return nil, errors.New("work type cat does not allow exec")
}

func (w *fakeWork) Sign(wire.NodeID) (string, error) {
	return "", errors.New("cannot sign work: signing key is empty")
}

func (w *fakeWork) Subscribe(size int) changes {
	c := make(chan workceptor.Change, size)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watchers = append(w.watchers, c)
	return changes{C: c, Lost: func() uint64 { return 0 }, Close: func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.watchers = slices.DeleteFunc(w.watchers, func(x chan workceptor.Change) bool { return x == c })
	}}
}

func (w *fakeWork) publishLocked(c workceptor.Change) {
	for _, watcher := range w.watchers {
		watcher <- c
	}
}

type fakeUnit struct {
	work    *fakeWork
	id      workceptor.UnitID
	status  workceptor.Status
	payload []byte
	output  []byte
	changed chan struct{} // Closed and replaced at every change.
}

func newFakeWork() *fakeWork {
	return &fakeWork{units: map[workceptor.UnitID]*fakeUnit{}}
}

func (w *fakeWork) add(id workceptor.UnitID, workType string, state workceptor.State, output string) *fakeUnit {
	u := &fakeUnit{work: w, id: id, changed: make(chan struct{}), output: []byte(output)}
	u.status = workceptor.Status{WorkType: workType, State: state, Detail: "exit status 0", StdoutSize: int64(len(output)), Configured: true}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.units[id] = u
	return u
}

// change edits the unit and wakes who waits for it.
func (u *fakeUnit) change(f func()) {
	u.work.mu.Lock()
	defer u.work.mu.Unlock()
	f()
	u.work.publishLocked(workceptor.Change{Unit: u.id, Status: u.status})
	close(u.changed)
	u.changed = make(chan struct{})
}

func (u *fakeUnit) write(text string) {
	u.change(func() { u.output = append(u.output, text...); u.status.StdoutSize = int64(len(u.output)) })
}

func (u *fakeUnit) end() { u.change(func() { u.status.State = workceptor.Succeeded }) }

func (w *fakeWork) unit(id workceptor.UnitID) (*fakeUnit, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if u := w.units[id]; u != nil {
		return u, nil
	}
	return nil, &workceptor.UnknownUnitError{ID: id}
}

func verify(secure bool, signature string, trusted bool) error {
	switch {
	case !secure && signature != "":
		return errors.New("work type did not expect a signature")
	case secure && !trusted && signature == "":
		return errors.New("could not verify signature: signature is empty")
	}
	return nil
}

func (w *fakeWork) VerifySubmit(workType, signature string, trusted bool) error {
	return verify(workType == "secure", signature, trusted)
}

func (w *fakeWork) VerifyUnit(id workceptor.UnitID, signature string, trusted bool) error {
	u, err := w.unit(id)
	if err != nil {
		return err
	}
	return verify(u.status.WorkType == "secure", signature, trusted)
}

func (w *fakeWork) Submit(req workceptor.SubmitRequest) (submission, error) {
	if id := w.begun[req.Submission]; id != "" {
		return nil, &workceptor.BegunError{ID: id}
	}
	if _, ok := req.Params["submission"]; ok && req.Submission != "" {
		return nil, errors.New("the name of the submission is taken for a parameter of the work")
	}
	local := req.Node == "alpha" || strings.EqualFold(string(req.Node), "localhost")
	if local {
		switch {
		case req.TTL != "":
			return nil, errors.New("ttl option is intended for remote work only")
		case req.WorkType != "cat" && req.WorkType != "upper" && req.WorkType != "secure":
			return nil, errors.New("unknown work type " + req.WorkType)
		case req.Params["params"] != "":
			return nil, errors.New("extra params provided but not allowed")
		}
	} else {
		if req.TLSClient != "" {
			return nil, errors.New("unknown TLS config " + req.TLSClient)
		}
		for name := range req.Params {
			if strings.HasPrefix(strings.ToLower(name), "secret_") {
				return nil, errors.New("cannot send secrets over a non-TLS connection")
			}
		}
		if _, err := time.ParseDuration(req.TTL); req.TTL != "" && err != nil {
			return nil, err
		}
	}
	id := w.nextID
	if id == "" {
		id = unit.NewID()
	}
	u := w.add(id, req.WorkType, workceptor.Pending, "")
	u.status.Detail = "Waiting for Input Data"
	u.status.Extra = &unit.CommandExtra{Params: "a-z A-Z"}
	return u, nil
}

func (u *fakeUnit) ID() workceptor.UnitID { return u.id }

func (u *fakeUnit) ReadPayload(r io.Reader) error {
	data, err := io.ReadAll(r)
	u.change(func() {
		u.payload = data
		if err != nil {
			u.status.State, u.status.Detail = workceptor.Failed, "Error reading input data: "+err.Error()
		}
	})
	if u.work.started != nil {
		u.work.started <- u
	}
	return err
}

func (u *fakeUnit) Start(ctx context.Context) (string, error) {
	if u.work.startErr != nil {
		return "", u.work.startErr
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	u.change(func() {
		u.output = []byte(strings.ToUpper(string(u.payload)))
		u.status = workceptor.Status{State: workceptor.Succeeded, Detail: "exit status 0", StdoutSize: int64(len(u.output)), WorkType: u.status.WorkType, Configured: true}
	})
	return workceptor.JobStarted, nil
}

func (w *fakeWork) Status(id workceptor.UnitID) (workceptor.Status, error) {
	u, err := w.unit(id)
	if err != nil {
		return workceptor.Status{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return u.status, nil
}

// Follow tells one status, the output from offset on, and the end.
func (w *fakeWork) Follow(ctx context.Context, id workceptor.UnitID, offset int64, out io.Writer) error {
	u, err := w.unit(id)
	if err != nil {
		return err
	}
	w.mu.Lock()
	status, output := u.status, u.output
	w.mu.Unlock()
	f, err := remote.NewFollowWriter(out, id)
	if err != nil {
		return err
	}
	text, err := status.MarshalJSON()
	_, outputErr := f.Output(bytes.NewReader(output), offset, math.MaxInt64)
	return errors.Join(err, outputErr, f.Status(text))
}

func (w *fakeWork) List() map[workceptor.UnitID]workceptor.Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := map[workceptor.UnitID]workceptor.Status{}
	for id, u := range maps.All(w.units) {
		list[id] = u.status
	}
	return list
}

func (w *fakeWork) Cancel(ctx context.Context, id workceptor.UnitID) (bool, error) {
	u, err := w.unit(id)
	return err == nil && u.status.WorkType == "remote", err
}

func (w *fakeWork) Release(ctx context.Context, id workceptor.UnitID, force bool) (bool, error) {
	u, err := w.unit(id)
	if err != nil {
		return false, err
	}
	if u.status.WorkType == "remote" && !force {
		return true, nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.units, id)
	w.publishLocked(workceptor.Change{Unit: id, Status: u.status, Released: true})
	return false, nil
}

func (w *fakeWork) Results(ctx context.Context, id workceptor.UnitID, offset int64) (io.ReadCloser, error) {
	u, err := w.unit(id)
	if err != nil {
		return nil, err
	}
	own, cancel := context.WithCancelCause(ctx)
	return &fakeResults{unit: u, reader: ctx, ctx: own, cancel: cancel, pos: offset}, nil
}

type fakeResults struct {
	unit   *fakeUnit
	reader context.Context // Ends before ctx does, which is of it.
	ctx    context.Context
	cancel context.CancelCauseFunc
	pos    int64
	once   sync.Once
}

func (r *fakeResults) Read(p []byte) (int, error) {
	for {
		u := r.unit
		u.work.mu.Lock()
		changed, complete, have := u.changed, u.status.State.Complete(), int64(len(u.output))
		n := 0
		if r.pos < have {
			n = copy(p, u.output[r.pos:])
			r.pos += int64(n)
		}
		u.work.mu.Unlock()
		if n > 0 {
			return n, nil
		}
		if complete {
			return 0, io.EOF
		}
		select {
		case <-changed:
		case <-r.ctx.Done():
			return 0, context.Cause(r.ctx)
		}
	}
}

func (r *fakeResults) Close() error {
	r.once.Do(func() {
		if r.unit.work.readers != nil {
			r.unit.work.readers <- context.Cause(r.reader)
		}
	})
	r.cancel(net.ErrClosed)
	return nil
}

// rig is a server of node alpha whose streams lead to servers of the other nodes of the line.
type rig struct {
	*Server
	node *fakeNode
	work *fakeWork
	path string // Of its Unix socket.
}

func newRig(t testing.TB, edit ...func(*Config)) *rig {
	t.Helper()
	r := &rig{node: &fakeNode{id: "alpha"}, work: newFakeWork()}
	cfg := Config{Node: r.node, Version: "1.4.9+git"}
	cfg.Dial = lineDial(t, "alpha")
	for _, f := range edit {
		f(&cfg)
	}
	r.Server = newServer(cfg, r.work)
	t.Cleanup(func() { r.Close() })
	r.path = t.TempDir() + "/control.sock"
	l, err := ListenUnix(r.path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	r.listen(t, l, Unix)
	return r
}

func (r *rig) listen(t testing.TB, l net.Listener, kind Kind) {
	done := make(chan error, 1)
	go func() { done <- r.Serve(t.Context(), l, kind) }()
	t.Cleanup(func() {
		r.Close()
		if err := <-done; err != nil && !errors.Is(err, net.ErrClosed) { // A test may end before serving begins.
			t.Errorf("serve %s: %v", kind, err)
		}
	})
}

func (r *rig) dialUnix(t testing.TB) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// lineDial dials the service control of the nodes of the line, each of which is a server of its own.
func lineDial(t testing.TB, from wire.NodeID) func(context.Context, wire.NodeID, string, string) (workceptor.Stream, error) {
	return func(ctx context.Context, node wire.NodeID, service, tlsClient string) (workceptor.Stream, error) {
		text := ""
		if strings.EqualFold(string(node), "localhost") {
			node = from
		}
		switch {
		case tlsClient == "cli":
			text = "CRYPTO_ERROR 0x12a (local): x509: certificate signed by unknown authority"
		case tlsClient != "":
			return nil, errors.New("unknown TLS config " + tlsClient)
		case len(service) > wire.MaxService:
			text = "INTERNAL_ERROR (local): service name too long"
		case (&fakeNode{id: from}).distance(node) < 0:
			text = "INTERNAL_ERROR (local): no route to node"
		case service != "control":
			text = "context canceled"
		}
		if text != "" {
			return nil, &netceptor.DialError{Addr: netceptor.Addr{Node: node, Service: service}, Text: text, Err: errors.New("no")}
		}
		near, far := socketPair(t)
		srv := newServer(Config{Node: &fakeNode{id: node}, Dial: lineDial(t, node)}, newFakeWork())
		t.Cleanup(func() { srv.Close() })
		srv.start(context.Background(), newMeshStream(far), listening{kind: OverMesh})
		return newMeshStream(near), nil
	}
}

// reset closes a TCP connection with a reset.
func reset(t testing.TB, c net.Conn) {
	t.Helper()
	if err := c.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	c.Close()
}

var _ syscall.Conn = (*net.UnixConn)(nil)

// relNode is a node without neighbours.
type relNode struct{}

func (relNode) ID() wire.NodeID          { return "rel" }
func (relNode) Status() netceptor.Status { return netceptor.Status{NodeID: "rel"} }
func (relNode) Ping(context.Context, wire.NodeID, uint8) netceptor.Pong {
	return netceptor.Pong{Err: netceptor.ErrNoRoute}
}
func (relNode) Traceroute(context.Context, wire.NodeID, func(int, netceptor.Pong)) {}

// reloader returns the given outcomes one after the other.
func reloader(outcomes []error) func(context.Context, bool) ([]string, error) {
	return func(context.Context, bool) ([]string, error) {
		next := outcomes[0]
		outcomes = outcomes[1:]
		return nil, next
	}
}
