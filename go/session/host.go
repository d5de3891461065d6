package session

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/daemon"
	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// finishedStreams is how many streams that are over can still be asked for their status.
const finishedStreams = 4096

// host is what the sessions of one node share.
type host struct {
	version, mode string
	environ       []string // The host program's environment as it was when the session was made.

	ctx   context.Context
	stop  context.CancelFunc
	wg    sync.WaitGroup // Bridges, listeners, watchers.
	log   *slog.Logger
	level slog.LevelVar

	mu       sync.Mutex
	opening  bool // The operation open runs or has succeeded.
	opened   bool
	closing  bool
	d        *daemon.Daemon
	scratch  string // A data directory of our own, removed at the end.
	sessions map[*session]struct{}
	nextID   uint64
	backends map[uint64]*netceptor.Backend
	streams  map[uint64]*stream
	finished []uint64 // IDs of streams that are over, oldest first.
	starts   map[workceptor.UnitID]*unitStart
}

// unitStart is the outcome of starting a unit whose payload comes through a descriptor.
type unitStart struct {
	done   chan struct{}
	result string
	err    error
}

func newHost(version, mode string, environ []string) *host {
	h := &host{
		version: version, mode: mode, environ: environ,
		sessions: map[*session]struct{}{}, backends: map[uint64]*netceptor.Backend{},
		streams: map[uint64]*stream{}, starts: map[workceptor.UnitID]*unitStart{},
	}
	h.ctx, h.stop = context.WithCancel(context.Background())
	h.log = slog.New(&logHandler{host: h})
	return h
}

// Open makes a session for the program around this library and returns the program's end of its socket, a blocking
// descriptor that the caller owns. cfg is a JSON object: "abi" (1) and "environ", the program's environment as an object
// of strings, since a library does not see what the program changed in it. Open does nothing that could wait.
func Open(cfg []byte, version string) (int, error) {
	var c struct {
		ABI     int               `json:"abi"`
		Environ map[string]string `json:"environ"`
	}
	if err := json.Unmarshal(cfg, &c); err != nil {
		return -1, badRequest("configuration of the session: " + err.Error())
	}
	if c.ABI != 1 {
		return -1, badRequest(fmt.Sprintf("the program speaks ABI %d, this library ABI 1: reinstall the package", c.ABI))
	}
	environ := make([]string, 0, len(c.Environ))
	for k, v := range c.Environ {
		environ = append(environ, k+"="+v)
	}
	near, far, err := socketPair(unix.SOCK_STREAM)
	if err != nil {
		return -1, err
	}
	h := newHost(version, "in-process", environ)
	h.guard("session", func() { serve(h, near, true) })
	return far, nil
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
		defer func() {
			if p := recover(); p != nil {
				h.fault(name, p)
			}
		}()
		f()
	}()
}

func (h *host) fault(where string, p any) {
	h.log.Error("internal fault", "in", where, "err", fmt.Sprint(p), "stack", string(debug.Stack()))
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

func (h *host) newIDLocked() uint64 {
	h.nextID++
	return h.nextID
}

// openConfig is the config of the operation open.
type openConfig struct {
	Node         string            `json:"node"`
	File         string            `json:"file"`
	DataDir      string            `json:"data_dir"`
	Peers        []backendConfig   `json:"peers"`
	Listeners    []backendConfig   `json:"listeners"`
	WorkCommands []workCommand     `json:"work_commands"`
	Daemon       string            `json:"daemon"`
	Environ      map[string]string `json:"environ"`
	MaxIdle      float64           `json:"max_idle"` // Seconds.
	LogLevel     string            `json:"log_level"`
}

type workCommand struct {
	WorkType           string `json:"worktype"`
	Command            string `json:"command"`
	Params             string `json:"params"`
	AllowRuntimeParams bool   `json:"allowruntimeparams"`
}

// backendConfig describes a peer to dial or an address to listen on.
type backendConfig struct {
	Address      string             `json:"address"`
	Cost         *float64           `json:"cost"`
	Redial       *bool              `json:"redial"`
	AllowedPeers *[]string          `json:"allowed_peers"`
	NodeCost     map[string]float64 `json:"node_cost"`
}

// transport splits an address into its transport and what is behind the scheme.
func transport(address string) (scheme, rest string, err error) {
	scheme, rest, ok := strings.Cut(address, "://")
	if !ok {
		scheme, rest = "tcp", address
	}
	switch scheme {
	case "ws", "wss":
		return scheme, rest, nil
	case "tcp", "udp":
		rest = strings.TrimSuffix(rest, "/")
		if !strings.Contains(rest, ":") {
			return "", "", badRequest(fmt.Sprintf("address %q: no port; %s://host:port is expected", address, scheme))
		}
		return scheme, rest, nil
	default:
		return "", "", badRequest(fmt.Sprintf("address %q: transport %q is not known; tcp, udp, ws and wss are", address, scheme))
	}
}

// dialer makes the dialer of an address.
func (h *host) dialer(address string) (link.Dialer, error) {
	scheme, rest, err := transport(address)
	if err != nil {
		return nil, err
	}
	switch scheme {
	case "udp":
		return link.DialUDP(rest), nil
	case "ws", "wss":
		d, err := link.DialWebSocket(address, link.WebSocketOptions{Environ: h.environ})
		if err != nil {
			return nil, badRequest(err.Error())
		}
		return d, nil
	default:
		return link.DialTCP(rest), nil
	}
}

// listener opens the listener of an address.
func listener(address string) (link.Listener, error) {
	scheme, rest, err := transport(address)
	if err != nil {
		return nil, err
	}
	switch scheme {
	case "udp":
		return link.ListenUDP(rest)
	case "ws":
		bind, path, _ := strings.Cut(rest, "/")
		return link.ListenWebSocket(bind, "/"+path, nil)
	case "wss":
		return nil, badRequest(fmt.Sprintf("address %q: a listener with TLS takes a certificate, which only a configuration file can name", address))
	default:
		return link.ListenTCP(rest)
	}
}

func (b *backendConfig) options() netceptor.LinkOptions {
	opt := netceptor.LinkOptions{Cost: 1, NoRedial: b.Redial != nil && !*b.Redial}
	if b.Cost != nil {
		opt.Cost = *b.Cost
	}
	if b.AllowedPeers != nil {
		opt.AllowedPeers = []wire.NodeID{}
		for _, id := range *b.AllowedPeers {
			opt.AllowedPeers = append(opt.AllowedPeers, wire.NodeID(id))
		}
	}
	for id, cost := range b.NodeCost {
		if opt.NodeCost == nil {
			opt.NodeCost = map[wire.NodeID]float64{}
		}
		opt.NodeCost[wire.NodeID(id)] = cost
	}
	return opt
}

// arguments writes the configuration as a daemon's command line, so that one parser judges all of it.
func (c *openConfig) arguments(dataDir string) ([]string, error) {
	var args []string
	switch {
	case c.File != "" && c.Node != "":
		return nil, badRequest(`keys "node" and "file" exclude each other: the file names the node`)
	case c.File != "":
		args = append(args, "--config", c.File)
	case c.Node == "":
		return nil, badRequest(`key "node": a node ID is expected`)
	default:
		args = append(args, "--node", "id="+c.Node, "datadir="+dataDir)
		if c.MaxIdle != 0 {
			args = append(args, "maxidleconnectiontimeout="+seconds(c.MaxIdle).String())
		}
	}
	for _, w := range c.WorkCommands {
		args = append(args, "--work-command", "worktype="+w.WorkType, "command="+w.Command, "params="+w.Params,
			"allowruntimeparams="+strconv.FormatBool(w.AllowRuntimeParams))
	}
	if len(c.WorkCommands) > 0 && c.File == "" {
		args = append(args, "--control-service", "service=control")
	}
	return args, nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// open builds the node. A failure leaves nothing behind.
func (h *host) open(ctx context.Context, c *openConfig) error {
	h.mu.Lock()
	busy := h.opening || h.closing
	h.opening = true
	h.mu.Unlock()
	if busy {
		return badRequest("a node is open already: one session opens one node")
	}
	if err := h.build(ctx, c); err != nil {
		h.closeNode()
		h.mu.Lock()
		h.opening = false
		h.mu.Unlock()
		return err
	}
	h.mu.Lock()
	h.opened = true
	h.mu.Unlock()
	return nil
}

func (h *host) build(ctx context.Context, c *openConfig) error {
	dataDir, err := h.dataDir(c)
	if err != nil {
		return err
	}
	args, err := c.arguments(dataDir)
	if err != nil {
		return err
	}
	cfg, err := config.ParseArgs(args)
	if err != nil {
		return &Error{Code: BadConfig, Msg: configText(err)}
	}
	if c.LogLevel != "" {
		level, ok := levels[c.LogLevel]
		if !ok {
			return badRequest(fmt.Sprintf("key \"log_level\": %q is not error, warning, info or debug", c.LogLevel))
		}
		h.level.Set(level)
	}
	environ := h.environ
	for k, v := range c.Environ {
		environ = append(environ[:len(environ):len(environ)], k+"="+v)
	}
	d, err := daemon.Build(ctx, cfg, daemon.Options{
		Version: h.version, Runner: cmp.Or(c.Daemon, "receptor"), Environ: environ, Logger: h.log,
	})
	if err != nil {
		return toError(err, BadConfig)
	}
	h.mu.Lock()
	h.d = d
	h.mu.Unlock()
	h.spawn("node events", func() { h.relayNode(d.Node) })
	h.spawn("work events", func() { h.relayWork(d.Work) })
	for i := range c.Listeners {
		if _, _, err := h.listen(&c.Listeners[i]); err != nil {
			return err
		}
	}
	for i := range c.Peers {
		if _, err := h.dial(&c.Peers[i]); err != nil {
			return err
		}
	}
	return nil
}

// dataDir is where the units of this node live: where the program says, or in a directory that goes with the node.
func (h *host) dataDir(c *openConfig) (string, error) {
	if c.DataDir != "" || c.File != "" {
		if c.DataDir != "" && !filepath.IsAbs(c.DataDir) {
			return "", badRequest(fmt.Sprintf("key \"data_dir\": %q is not an absolute path", c.DataDir))
		}
		return c.DataDir, nil
	}
	dir, err := os.MkdirTemp("", "receptor-")
	if err != nil {
		return "", &Error{Code: BadConfig, Msg: "no directory for work units: " + err.Error()}
	}
	h.mu.Lock()
	h.scratch = dir
	h.mu.Unlock()
	return dir, nil
}

// configText is the text of a configuration error without argument numbers, which mean nothing to the program.
func configText(err error) string {
	e, ok := errors.AsType[*config.Error](err)
	if !ok {
		return err.Error()
	}
	var lines []string
	for _, p := range e.Problems {
		if p.Pos.File == "" {
			p.Pos = config.Position{}
		}
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

func (h *host) dial(b *backendConfig) (uint64, error) {
	d, err := h.dialer(b.Address)
	if err != nil {
		return 0, err
	}
	backend, err := h.built().Node.Dial(d, b.options())
	if err != nil {
		return 0, toError(err, BadConfig)
	}
	return h.keepBackend(backend), nil
}

func (h *host) listen(b *backendConfig) (id uint64, bound string, err error) {
	l, err := listener(b.Address)
	if err != nil {
		return 0, "", toError(err, BadConfig)
	}
	backend, err := h.built().Node.Listen(l, b.options())
	if err != nil {
		return 0, "", toError(err, BadConfig)
	}
	return h.keepBackend(backend), backend.Addr(), nil
}

func (h *host) keepBackend(b *netceptor.Backend) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	id := h.newIDLocked()
	h.backends[id] = b
	return id
}

// dropBackend ends a backend and its links; false if there is none with this ID.
func (h *host) dropBackend(id uint64) bool {
	h.mu.Lock()
	b := h.backends[id]
	delete(h.backends, id)
	h.mu.Unlock()
	if b == nil {
		return false
	}
	_ = b.Close()
	return true
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
	h.mu.Unlock()
	if d != nil {
		_ = d.Close()
	}
	if scratch != "" {
		_ = os.RemoveAll(scratch)
	}
}

// bridge connects a new local socket to a mesh stream and returns the program's end.
func (h *host) bridge(remote meshStream) (s *stream, fd int, err error) {
	near, far, err := socketPair(unix.SOCK_STREAM)
	if err != nil {
		_ = remote.Close()
		return nil, -1, err
	}
	_ = near.SetWriteBuffer(streamBuffer)
	_ = unix.SetsockoptInt(far, unix.SOL_SOCKET, unix.SO_SNDBUF, streamBuffer)
	s = &stream{host: h, local: near, remote: remote, state: "open"}
	h.mu.Lock()
	s.id = h.newIDLocked()
	h.streams[s.id] = s
	h.mu.Unlock()
	h.spawn("stream", func() {
		s.run(h.ctx)
		h.retire(s.id)
	})
	return s, far, nil
}

// retire keeps the status of a stream that is over for a while.
func (h *host) retire(id uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.finished = append(h.finished, id)
	if len(h.finished) > finishedStreams {
		delete(h.streams, h.finished[0])
		h.finished = h.finished[1:]
	}
}

func (h *host) stream(id uint64) (*stream, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.streams[id]
	if s == nil {
		return nil, badRequest(fmt.Sprintf("key \"stream\": %d is not a stream, or one that ended long ago", id))
	}
	return s, nil
}
