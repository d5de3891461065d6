package session

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/pyreceptor/pyreceptor/go/fault"
)

// How many events of one session may wait for its program, and how many bytes there may be of them before the next.
const (
	eventBacklog = 1024
	eventBytes   = 4 << 20
)

// mostRunning is how many requests of one session may wait for what they ask for, or for their answers to be read.
const mostRunning = 1 << 15

// parting is how long a program has to read what is said at the end of a session.
const parting = time.Second

// request is any request: each operation reads the keys that the README gives it.
type request struct {
	ID     uint64 `json:"id"`
	Op     string `json:"op"`
	Target uint64 `json:"target"`

	Config  *openConfig `json:"config"`
	Node    string      `json:"node"`
	Service string      `json:"service"`
	Timeout *float64    `json:"timeout"` // Seconds.
	Hops    *uint8      `json:"hops"`

	backendConfig
	Backend uint64 `json:"backend"`
	Proxy   uint64 `json:"proxy"`

	Advertise *bool             `json:"advertise"`
	Tags      map[string]string `json:"tags"`
	Backlog   int               `json:"backlog"`
	Confirm   bool              `json:"confirm"`
	Stream    uint64            `json:"stream"`
	Datagram  uint64            `json:"datagram"`
	ErrorCode uint64            `json:"error_code"`

	Kinds    []string `json:"kinds"`
	LogLevel string   `json:"log_level"`

	WorkType string            `json:"worktype"`
	Params   map[string]string `json:"params"`
	TTL      *float64          `json:"ttl"` // Seconds.
	Sign     bool              `json:"sign"`
	Unit     string            `json:"unit"`

	Concurrency     int  `json:"concurrency"`
	VerifySignature bool `json:"verifysignature"`

	Offset int64 `json:"offset"`
	Force  bool  `json:"force"`
}

// reply is what an operation gives back: an object, and perhaps a descriptor, which the session closes once sent. undo
// takes back what was made, if its maker does not want the reply any more or cannot be told.
type reply struct {
	ok   any
	fd   int // -1: none.
	undo func()
}

func plain(ok any) (reply, error) { return reply{ok: ok, fd: -1}, nil }

func failed(err error) (reply, error) { return reply{fd: -1}, err }

type okFrame struct {
	ID uint64 `json:"id"`
	FD bool   `json:"fd,omitempty"`
	OK any    `json:"ok"`
}

type errFrame struct {
	ID  uint64 `json:"id"`
	Err *Error `json:"err"`
}

// session is one connection to a program.
type session struct {
	host  *host
	conn  *net.UnixConn
	out   frameWriter
	owner bool // This session opened the node, which ends with it.

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex
	running map[uint64]context.CancelFunc
	kinds   []string

	events *eventQueue
}

// features are the additions to protocol 1 that this side knows.
var features = []string{}

// serve runs one session to its end.
func serve(h *host, conn *net.UnixConn, owner bool) {
	s := &session{host: h, conn: conn, owner: owner, running: map[uint64]context.CancelFunc{}, events: newEventQueue(eventBacklog)}
	s.out.conn = conn
	s.ctx, s.stop = context.WithCancel(h.ctx)
	defer s.end()
	hello := map[string]any{"ev": "hello", "protocol": 1, "version": h.version, "mode": h.mode, "features": features}
	if h.attached {
		hello["node"] = h.built().Node.ID()
	}
	if s.out.write(hello, -1) != nil {
		return
	}
	if !h.join(s) {
		return
	}
	s.spawn("events", s.sendEvents)
	closed := context.AfterFunc(s.ctx, func() {
		_ = conn.CloseRead()
		_ = conn.SetWriteDeadline(time.Now().Add(parting))
	})
	defer closed()
	r := bufio.NewReader(conn)
	for {
		var req request
		if err := readFrame(r, &req); err != nil {
			if msg, bad := badFrame(err); bad {
				_ = s.out.write(errFrame{ID: req.ID, Err: badRequest(msg)}, -1)
				continue
			}
			if size, bad := errors.AsType[frameSizeError](err); bad {
				_ = s.out.write(errFrame{Err: badRequest(size.Error())}, -1)
			}
			return
		}
		s.start(&req)
	}
}

// end cancels what runs, waits for it, and closes the node if it is this session's.
func (s *session) end() {
	s.stop()
	s.host.leave(s)
	if s.owner {
		s.host.close()
	}
	s.events.close()
	s.wg.Wait()
	_ = s.conn.Close()
}

func (s *session) spawn(name string, f func()) {
	s.wg.Add(1)
	s.host.guard(name, func() {
		defer s.wg.Done()
		f()
	})
}

// start runs one request, in a goroutine of its own where it may have to wait: any number wait at once.
func (s *session) start(req *request) {
	if req.Op == "cancel" {
		s.mu.Lock()
		if cancel := s.running[req.Target]; cancel != nil {
			cancel()
		}
		s.mu.Unlock()
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	if err := s.register(req.ID, cancel); err != nil {
		cancel()
		_ = s.out.write(errFrame{ID: req.ID, Err: err}, -1)
		return
	}
	answer := func() {
		defer s.unregister(req.ID)
		defer cancel()
		s.answer(ctx, req)
	}
	if operations[req.Op].atOnce {
		answer()
		return
	}
	s.spawn(req.Op, answer)
}

// register notes a request that begins.
func (s *session) register(id uint64, cancel context.CancelFunc) *Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.running[id]; taken || id == 0 {
		return badRequest(`key "id": a number from 1 that was not used before is expected`)
	}
	if len(s.running) >= mostRunning {
		return &Error{Code: TooMany, Msg: fmt.Sprintf("%d requests of this session wait for their answers: no more are taken until one has been answered and the answer read", mostRunning)}
	}
	s.running[id] = cancel
	return nil
}

func (s *session) unregister(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, id)
}

func (s *session) answer(ctx context.Context, req *request) {
	r, err := s.perform(ctx, req)
	if err == nil && ctx.Err() != nil && r.undo != nil {
		err = ctx.Err()
	}
	undo := func() {
		if r.undo != nil {
			r.undo()
		}
	}
	if err != nil {
		undo() // Before the answer: the program may ask for the same name or address next.
		if r.fd >= 0 {
			closeFD(r.fd)
		}
		e := toError(err, Internal)
		if ctx.Err() != nil && !errors.Is(err, context.DeadlineExceeded) {
			e = &Error{Code: Cancelled, Msg: "request was cancelled"}
			if s.ctx.Err() != nil {
				e = s.host.closedError()
			}
		}
		if e.closed {
			e = s.host.closedError()
		}
		_ = s.out.write(errFrame{ID: req.ID, Err: e}, -1)
	} else if err = s.out.write(okFrame{ID: req.ID, FD: r.fd >= 0, OK: r.ok}, r.fd); err != nil {
		// The program is gone, or the answer is no frame.
		undo()
		_ = s.out.write(errFrame{ID: req.ID, Err: &Error{Code: Internal, Msg: err.Error()}}, -1)
	}
}

// perform finds and runs the operation. A panic of ours is an error of the request.
func (s *session) perform(ctx context.Context, req *request) (r reply, err error) {
	defer fault.Catch(s.host.faulted(req.Op, func() {
		r, err = failed(&Error{Code: Internal, Msg: "internal fault in " + req.Op + "; the log has the details"})
	}))
	op, ok := operations[req.Op]
	switch {
	case !ok:
		return failed(badRequest(fmt.Sprintf("key \"op\": unknown operation %q", req.Op)))
	case op.needsNode && s.host.built() == nil:
		return failed(&Error{Code: Closed, Msg: "no node is open: use the operation open first"})
	case op.needsNode && !op.afterwards && s.host.isClosing():
		return failed(s.host.closedError())
	}
	return op.run(ctx, s, req)
}

// wants reports whether the session asked for events of this kind.
func (s *session) wants(kind string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.kinds, kind)
}

// sendEvents writes what waits, all of it in one go, until the session ends, which it does without its events.
func (s *session) sendEvents() {
	defer s.stop()
	for {
		frames, ok := s.events.take()
		if len(frames) > 0 {
			s.out.mu.Lock()
			err := s.out.writeLocked(frames, -1)
			s.out.mu.Unlock()
			if err != nil {
				return
			}
		}
		if !ok {
			return
		}
	}
}

// eventQueue holds encoded events. What does not fit is counted and told.
type eventQueue struct {
	mu     sync.Mutex
	limit  int
	count  int
	lost   int
	frames []byte
	closed bool
	ready  chan struct{}
}

func newEventQueue(limit int) *eventQueue {
	return &eventQueue{limit: limit, ready: make(chan struct{}, 1)}
}

func (q *eventQueue) put(event any) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	if q.count >= q.limit || len(q.frames) >= eventBytes {
		q.lost++
		return
	}
	frames, err := appendFrame(q.frames, event)
	if err != nil {
		q.lost++
		return
	}
	q.frames = frames
	q.count++
	q.wakeLocked()
}

func (q *eventQueue) wakeLocked() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// close ends the queue; what waits is still taken.
func (q *eventQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.wakeLocked()
}

// take waits for events and returns all of them as frames; ok is false once the queue is closed.
func (q *eventQueue) take() (frames []byte, ok bool) {
	for {
		q.mu.Lock()
		frames, closed, lost := q.frames, q.closed, q.lost
		q.frames, q.count, q.lost = nil, 0, 0
		q.mu.Unlock()
		if lost > 0 {
			frames, _ = appendFrame(frames, map[string]any{"ev": "lost", "n": lost})
		}
		if len(frames) > 0 || closed {
			return frames, !closed
		}
		<-q.ready
	}
}
