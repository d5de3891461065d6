package workceptor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// testMesh connects nodes through socket pairs. A node is a handler for the streams to its control service; links can
// be cut, which breaks every stream over them with an error.
type testMesh struct {
	mu       sync.Mutex
	handlers map[wire.NodeID]func(Stream)
	down     map[wire.NodeID]bool
	open     map[wire.NodeID]map[*testStream]bool
	changed  chan struct{}
	dials    int
	budget   map[wire.NodeID]int // Bytes until the link breaks, both ways together; absent: never.
	dialErr  map[wire.NodeID]error
	tls      []string // Client profiles asked for.
	waiting  func()   // Called when somebody waits for a node that is down.
}

func newTestMesh() *testMesh {
	return &testMesh{
		handlers: map[wire.NodeID]func(Stream){}, down: map[wire.NodeID]bool{}, open: map[wire.NodeID]map[*testStream]bool{},
		changed: make(chan struct{}), budget: map[wire.NodeID]int{}, dialErr: map[wire.NodeID]error{},
	}
}

// node is the mesh as one of its nodes sees it.
func (m *testMesh) node(id wire.NodeID) Mesh { return meshNode{m, id} }

type meshNode struct {
	m  *testMesh
	id wire.NodeID
}

func (n meshNode) ID() wire.NodeID { return n.id }

func (n meshNode) DialStream(ctx context.Context, to wire.NodeID, service, tls string) (Stream, error) {
	m := n.m
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dials++
	m.tls = append(m.tls, tls)
	handler := m.handlers[to]
	switch {
	case m.dialErr[to] != nil:
		return nil, m.dialErr[to]
	case handler == nil || m.down[to]:
		return nil, errors.New("INTERNAL_ERROR (local): no route to node")
	case service != "control":
		return nil, errors.New("context canceled")
	}
	near, far, err := streamPair()
	if err != nil {
		return nil, err
	}
	near.m, near.to = m, to
	if m.open[to] == nil {
		m.open[to] = map[*testStream]bool{}
	}
	m.open[to][near] = true
	go handler(far) // Ends with the stream.
	return near, nil
}

func (n meshNode) WaitRoute(ctx context.Context, to wire.NodeID) error {
	for {
		n.m.mu.Lock()
		up, changed := n.m.handlers[to] != nil && !n.m.down[to], n.m.changed
		n.m.mu.Unlock()
		if up {
			return nil
		}
		if n.m.waiting != nil {
			n.m.waiting()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (m *testMesh) handle(id wire.NodeID, h func(Stream)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.handlers[id] = h
	close(m.changed)
	m.changed = make(chan struct{})
}

// serve answers for node id with a control service in front of e.
func (m *testMesh) serve(id wire.NodeID, e *Engine) {
	m.handle(id, func(s Stream) { (&controlServer{id: id, e: e}).serve(s) })
}

// serveBase is serve for a node that knows only the base protocol.
func (m *testMesh) serveBase(id wire.NodeID, e *Engine) {
	m.handle(id, func(s Stream) { (&controlServer{id: id, e: e, base: true}).serve(s) })
}

// cut breaks all streams to a node and lets none be opened until mend.
func (m *testMesh) cut(id wire.NodeID) {
	m.mu.Lock()
	m.down[id] = true
	streams := m.open[id]
	m.open[id] = nil
	m.mu.Unlock()
	for s := range streams {
		s.breakOff()
	}
}

func (m *testMesh) mend(id wire.NodeID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down[id] = false
	delete(m.budget, id)
	close(m.changed)
	m.changed = make(chan struct{})
}

// breakAfter cuts the link when n more bytes have passed.
func (m *testMesh) breakAfter(id wire.NodeID, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.budget[id] = n
}

// spend takes n bytes off a link's budget and returns how many of them still pass.
func (m *testMesh) spend(id wire.NodeID, n int) int {
	m.mu.Lock()
	left, limited := m.budget[id]
	if !limited || n < left {
		if limited {
			m.budget[id] = left - n
		}
		m.mu.Unlock()
		return n
	}
	m.budget[id] = 0
	m.mu.Unlock()
	m.cut(id)
	return left
}

// testStream is one end of a stream; an end that was broken off gives its error to both.
type testStream struct {
	*net.UnixConn
	m      *testMesh
	to     wire.NodeID
	peer   *testStream
	mu     sync.Mutex
	broken bool
}

var errBroken = errors.New("timeout: no recent network activity")

func streamPair() (near, far *testStream, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	var ends [2]*testStream
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "stream")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			return nil, nil, err
		}
		ends[i] = &testStream{UnixConn: c.(*net.UnixConn)}
	}
	ends[0].peer, ends[1].peer = ends[1], ends[0]
	return ends[0], ends[1], nil
}

func (s *testStream) Abort(uint64) error { s.breakOff(); return nil }

func (s *testStream) breakOff() {
	for _, end := range []*testStream{s, s.peer} {
		end.mu.Lock()
		end.broken = true
		end.mu.Unlock()
	}
	s.Close()
	s.peer.Close()
}

func (s *testStream) check(n int, err error) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken && err != nil {
		return n, errBroken
	}
	return n, err
}

func (s *testStream) Read(p []byte) (int, error) {
	n, err := s.UnixConn.Read(p)
	if s.m != nil && n > 0 {
		if passed := s.m.spend(s.to, n); passed < n {
			return passed, errBroken
		}
	}
	return s.check(n, err)
}

func (s *testStream) Write(p []byte) (int, error) {
	if s.m != nil {
		if passed := s.m.spend(s.to, len(p)); passed < len(p) {
			return passed, errBroken
		}
	}
	return s.check(s.UnixConn.Write(p))
}

// ReadFrom and WriteTo keep io.Copy on Read and Write.
func (s *testStream) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{s}, struct{ io.Reader }{r})
}

func (s *testStream) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(struct{ io.Writer }{w}, struct{ io.Reader }{s})
}

// controlServer speaks the lines of the control protocol that remote work needs.
type controlServer struct {
	id   wire.NodeID
	e    *Engine
	base bool // Knows what existing nodes know, and no more.

	verify func(signature string) error // For all but submit and status; nil accepts everything.
}

func (c *controlServer) serve(s Stream) {
	defer s.Close()
	fmt.Fprintf(s, "Receptor Control, node %s\n", c.id)
	r := bufio.NewReader(s)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\n")
		if id, ok := strings.CutPrefix(line, "work status "); ok {
			c.reply(s)(c.e.Status(UnitID(id)))
			continue
		}
		var keys map[string]any
		if err := json.Unmarshal([]byte(line), &keys); err != nil {
			fmt.Fprintf(s, "ERROR: %v\n", err)
			continue
		}
		if c.command(s, r, keys) {
			return
		}
	}
}

func (c *controlServer) reply(w io.Writer) func(v any, err error) {
	return func(v any, err error) {
		if err != nil {
			fmt.Fprintf(w, "ERROR: %v\n", err)
			return
		}
		text, _ := json.Marshal(v)
		fmt.Fprintf(w, "%s\n", text)
	}
}

func (c *controlServer) command(s Stream, r *bufio.Reader, keys map[string]any) (end bool) {
	ctx := context.Background()
	text := func(name string) string { v, _ := keys[name].(string); return v }
	id := UnitID(text("unitid"))
	if c.verify != nil && id != "" && (!c.base || text("subcommand") != "follow") {
		if err := c.verify(text("signature")); err != nil {
			c.reply(s)(nil, err)
			return false
		}
	}
	switch text("subcommand") {
	case "submit-once":
		if c.base {
			fmt.Fprintf(s, "ERROR: bad command\n")
			return false
		}
		return c.submit(s, r, keys)
	case "submit":
		return c.submit(s, r, keys)
	case "cancel":
		pending, err := c.e.Cancel(ctx, id)
		c.reply(s)(map[string]UnitID{map[bool]string{true: "cancel pending", false: "cancelled"}[pending]: id}, err)
	case "release":
		pending, err := c.e.Release(ctx, id, false)
		c.reply(s)(map[string]UnitID{map[bool]string{true: "release pending", false: "released"}[pending]: id}, err)
	case "results":
		out, err := c.e.Results(ctx, id, int64(keys["startpos"].(float64)))
		if err != nil {
			c.reply(s)(nil, err)
			return false
		}
		fmt.Fprintf(s, "Streaming results for work unit %s\n", id)
		go func() { // A client that leaves ends the stream.
			io.Copy(io.Discard, r)
			out.Close()
		}()
		io.Copy(s, out)
		return true
	case "follow":
		if c.base {
			fmt.Fprintf(s, "ERROR: bad command\n")
			return false
		}
		if _, err := c.e.Status(id); err != nil {
			c.reply(s)(nil, err)
			return false
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			io.Copy(io.Discard, r)
			cancel()
		}()
		c.e.Follow(ctx, id, int64(keys["startpos"].(float64)), s)
		return true
	}
	return false
}

func (c *controlServer) submit(s Stream, r io.Reader, keys map[string]any) bool {
	req := SubmitRequest{Params: map[string]string{}}
	for name, value := range keys {
		text := value.(string)
		switch name {
		case "command", "subcommand", "signature", "tlsclient":
		case "node":
			req.Node = wire.NodeID(text)
		case "worktype":
			req.WorkType = text
		case "submission":
			req.Submission = text
		default:
			req.Params[name] = text
		}
	}
	sub, err := c.e.Submit(req)
	if begun, ok := errors.AsType[*BegunError](err); ok {
		c.reply(s)(map[string]string{"result": JobStarted, "unitid": string(begun.ID)}, nil)
		return true
	}
	if err != nil {
		c.reply(s)(nil, err)
		return false
	}
	fmt.Fprintf(s, "Work unit created with ID %s. Send stdin data and EOF.\n", sub.ID())
	if sub.ReadPayload(r) != nil {
		return true
	}
	result, err := sub.Start(context.Background())
	c.reply(s)(map[string]string{"result": result, "unitid": string(sub.ID())}, err)
	return true
}
