package session

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/daemon"
	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/socket"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// finishedStreams is how many streams that are over can still be asked for their status.
const finishedStreams = 4096

// host is what the sessions of one node share.
type host struct {
	version, mode string
	environ       []string // The host program's environment as it was when the session was made.
	trust         string   // File of the CAs that are trusted where none are named; "" is what the system trusts.
	runner        string   // The program that runs commands of units, if the client names none.
	attached      bool     // The node is a daemon's: it goes on when this host ends.

	ctx   context.Context
	stop  context.CancelFunc
	wg    sync.WaitGroup // Bridges, listeners, watchers.
	log   *slog.Logger
	level slog.LevelVar

	mu        sync.Mutex
	opening   bool // The operation open runs or has succeeded.
	opened    bool
	closing   bool
	d         *daemon.Daemon
	scratch   string // A data directory of our own, removed at the end.
	sessions  map[*session]struct{}
	nextID    uint64
	made      map[uint64]io.Closer // Links and proxies that were added while the node runs.
	streams   map[uint64]*stream
	datagrams map[uint64]*datagrams
	names     map[name]*holding
	over      map[uint64]*outcome // Of streams that are over.
	finished  []uint64            // Their IDs, oldest first.
	starts    map[workceptor.UnitID]*unitStart

	ends programEnds
}

// inProcess is the mode in which the program is this process.
const inProcess = "in-process"

// unitStart is the outcome of starting a unit whose payload comes through a descriptor.
type unitStart struct {
	done   chan struct{}
	result string
	err    error
}

func newHost(version, mode string, environ []string) *host {
	h := &host{
		version: version, mode: mode, environ: environ,
		sessions: map[*session]struct{}{}, made: map[uint64]io.Closer{},
		streams: map[uint64]*stream{}, over: map[uint64]*outcome{}, datagrams: map[uint64]*datagrams{}, names: map[name]*holding{}, starts: map[workceptor.UnitID]*unitStart{},
	}
	h.ctx, h.stop = context.WithCancel(context.Background())
	h.log = slog.New(&logHandler{host: h})
	return h
}

func (h *host) join(s *session) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closing {
		return false
	}
	h.sessions[s] = struct{}{}
	return true
}

func (h *host) leave(s *session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.sessions, s)
}

// guard runs f as a goroutine and keeps a panic of ours from ending the host program. What f belongs to ends with it.
func (h *host) guard(name string, f func()) {
	go func() {
		defer fault.Catch(h.faulted(name, nil))
		f()
	}()
}

// faulted is for a deferred [fault.Catch]: it logs the fault and calls end, if there is one, to close what it broke.
func (h *host) faulted(name string, end func()) func(*fault.Error) {
	return func(e *fault.Error) {
		fault.Log(h.log, e, name)
		if end != nil {
			end()
		}
	}
}

// spawn runs f as a goroutine that close waits for.
func (h *host) spawn(name string, f func()) {
	h.wg.Add(1)
	h.guard(name, func() {
		defer h.wg.Done()
		f()
	})
}

// built returns the open node, nil if there is none.
func (h *host) built() *daemon.Daemon {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.d
}

// isClosing reports whether the node is being closed, or is.
func (h *host) isClosing() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.closing
}

func (h *host) newIDLocked() uint64 {
	h.nextID++
	return h.nextID
}

// close ends the node and everything that belongs to it, sessions included.
func (h *host) close() {
	h.mu.Lock()
	h.closing = true
	h.mu.Unlock()
	h.closeNode()
	h.stop()
	h.wg.Wait()
}

func (h *host) closeNode() {
	h.mu.Lock()
	d, scratch := h.d, h.scratch
	h.scratch = ""
	if h.opening && !h.opened {
		h.d = nil // It never was open: its end is nobody's news.
	}
	made := slices.Collect(maps.Values(h.made))
	clear(h.made)
	streams := slices.Collect(maps.Values(h.streams))
	h.mu.Unlock()
	aborted := h.finish(streams)
	if slices.ContainsFunc(made, isLink) {
		deliverResets(aborted)
	}
	for _, c := range made { // The links of a node of our own end with it, after what is to be sent on them.
		if !isLink(c) || h.attached {
			_ = c.Close()
		}
	}
	if d != nil && !h.attached {
		_ = d.Close()
	}
	if scratch != "" {
		_ = os.RemoveAll(scratch)
	}
}

func isLink(c io.Closer) bool {
	_, link := c.(*netceptor.Backend)
	return link
}

// lastWords is how long a program that leaves a node waits for streams that it has closed with output still on its way.
const lastWords = 3 * time.Second

// finish waits for the streams that the program has closed: what it has sent on them arrives, as far as that takes no longer than
// lastWords. The others are reset: those of a node of our own by its end, and those of a daemon's, which are returned, here.
func (h *host) finish(streams []*stream) (aborted []*stream) {
	ctx, cancel := context.WithTimeout(context.Background(), lastWords)
	defer cancel()
	var closed []*stream
	for _, s := range streams {
		if isHungUp(s.local.UnixConn) {
			closed = append(closed, s)
		} else if h.attached {
			s.abort(0)
			aborted = append(aborted, s)
		}
	}
	for _, s := range closed {
		select {
		case <-s.done:
		case <-ctx.Done():
			return aborted
		}
	}
	return aborted
}

// resetsLimit is how long the links that a program has added to a daemon's node outlive it, so that its streams end at the
// other side as well, which would else hold them to be open until it finds the path lost.
const resetsLimit = time.Second

func deliverResets(aborted []*stream) {
	ctx, cancel := context.WithTimeout(context.Background(), resetsLimit)
	defer cancel()
	var wg sync.WaitGroup
	for _, s := range aborted {
		if remote, ok := s.remote.(*netceptor.Stream); ok { // Output of units is none.
			wg.Go(func() { remote.Delivered(ctx) })
		}
	}
	wg.Wait()
}

// keep numbers what was added to the running node, so that it can be taken away by its number.
func (h *host) keep(c io.Closer) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	id := h.newIDLocked()
	h.made[id] = c
	return id
}

// drop takes away what keep has numbered; false if there is no such thing.
func (h *host) drop(id uint64) bool {
	h.mu.Lock()
	c := h.made[id]
	delete(h.made, id)
	h.mu.Unlock()
	if c == nil {
		return false
	}
	_ = c.Close()
	return true
}

// bridge connects a new local socket to a mesh stream and returns the program's end. For one that the program is still to
// accept, expect is called with the stream's number; else it is nil.
func (h *host) bridge(remote meshStream, expect func(id uint64) *waiting) (s *stream, fd int, err error) {
	near, far, err := socketPair(unix.SOCK_STREAM)
	if err != nil {
		_ = remoteEnd{Stream: remote}.Abort(0) // Its end would pass for one in good order.
		return nil, -1, err
	}
	_ = near.SetWriteBuffer(streamBuffer)
	_ = unix.SetsockoptInt(far, unix.SOL_SOCKET, unix.SO_SNDBUF, streamBuffer)
	s = &stream{outcome: &outcome{state: "open"}, host: h, remote: remote, done: make(chan struct{})}
	s.local = &localEnd{UnixConn: near, direct: socket.Direct(near), s: s}
	if h.mode == inProcess {
		s.local.far = programEnd{inode: inodeOf(far), made: time.Now()}
	}
	h.mu.Lock()
	s.id = h.newIDLocked()
	h.streams[s.id] = s
	h.mu.Unlock()
	if expect != nil {
		s.local.offer = expect(s.id)
	}
	h.spawn("stream", func() {
		s.run(h.ctx)
		h.retire(s)
	})
	return s, far, nil
}

// retire keeps for a while how a stream has ended.
func (h *host) retire(s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.streams, s.id)
	h.over[s.id] = s.outcome
	h.finished = append(h.finished, s.id)
	if len(h.finished) > finishedStreams {
		delete(h.over, h.finished[0])
		h.finished = h.finished[1:]
	}
}

// stream finds a stream and how it stands. Of one that is over there is only the latter.
func (h *host) stream(id uint64) (s *stream, how *outcome, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s = h.streams[id]; s != nil {
		return s, s.outcome, nil
	}
	if how = h.over[id]; how == nil {
		err = badRequest(fmt.Sprintf("key \"stream\": %d is not a stream, or one that ended long ago", id))
	}
	return nil, how, err
}
