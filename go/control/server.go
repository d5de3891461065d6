package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/policy/access"
	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// Mesh is what the service needs of the node that it speaks for. *[netceptor.Node] is one.
type Mesh interface {
	ID() wire.NodeID
	Status() netceptor.Status
	Ping(ctx context.Context, target wire.NodeID, hops uint8) netceptor.Pong
	Traceroute(ctx context.Context, target wire.NodeID, each func(hop int, p netceptor.Pong))
}

// Config is what a server needs. It is not changed after [New].
type Config struct {
	Node Mesh // Required.
	// Dial opens the streams of the command connect; tlsClient names a TLS client profile, "" for none. The text of its
	// error goes to the client (of a [netceptor.DialError], its Text). nil: streams of Node, if that is a
	// *[netceptor.Node], and no TLS client profiles.
	Dial func(ctx context.Context, node wire.NodeID, service, tlsClient string) (workceptor.Stream, error)
	// Work runs the units of the work commands. nil: "work" is an unknown command.
	Work    *workceptor.Engine
	Version string // Of the daemon, for status.
	// Reload reads the configuration again and returns what changed, or with dryRun what would. A [ReloadError] chooses the
	// error code of the reply. nil: there is no configuration file.
	Reload func(ctx context.Context, dryRun bool) (changes []string, err error)
	// Config is the reply of the command config: anything that marshals to a JSON object, without secrets. nil: the
	// command is unknown.
	Config func() any
	// Metrics is the text of the command metrics, in the Prometheus format. nil: the command is unknown.
	Metrics func() string
	// TLS describes the TLS profiles for the command links; nil: there are none.
	TLS func() []TLSProfile
	// Session serves the session protocol to a program on the Unix socket that sent the command session, until the
	// program has enough or ctx ends; it owns conn. nil: the command is unknown.
	Session func(ctx context.Context, conn *net.UnixConn)
	Logger  *slog.Logger // nil discards.
}

// Kind says what sort of listener a client came through.
type Kind uint8

// The kinds of listeners. Who can open the Unix socket may give work without a signature.
const (
	Unix     Kind = iota + 1
	TCP           // With or without TLS.
	OverMesh      // A service of the node.
)

// String returns the kind's name.
func (k Kind) String() string {
	switch k {
	case Unix:
		return "unix"
	case TCP:
		return "tcp"
	case OverMesh:
		return "mesh"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

const (
	// handshakeTimeout is how long a client of a TLS listener has for the handshake.
	handshakeTimeout = 10 * time.Second
	// acceptPause is how long a failing listener rests at first and at most, before it accepts again.
	acceptPause, maxAcceptPause = 5 * time.Millisecond, time.Second
)

// Server serves the control protocol on any number of listeners. All methods are safe for concurrent use.
type Server struct {
	node    Mesh
	dial    func(ctx context.Context, node wire.NodeID, service, tlsClient string) (workceptor.Stream, error)
	work    work // nil: none.
	version string
	started time.Time
	reload  func(ctx context.Context, dryRun bool) ([]string, error)
	config  func() any
	metrics func() string
	tls     func() []TLSProfile
	session func(ctx context.Context, conn *net.UnixConn)
	log     *slog.Logger
	stats   stats
	lines   lineRoom

	ctx  context.Context
	stop context.CancelFunc

	mu      sync.Mutex
	custom  map[string]Handler
	checked *access.Rules // Last rules that checkRules looked at.
	closed  bool
	busy    int            // Commands that are being executed.
	idle    chan struct{}  // Closed when busy becomes 0; nil: nobody waits for it.
	wg      sync.WaitGroup // Accept loops and sessions; added to with mu held.
}

// New returns a server. [Server.Close] stops it.
func New(cfg Config) *Server {
	var w work
	if cfg.Work != nil {
		w = engine{cfg.Work}
	}
	return newServer(cfg, w)
}

func newServer(cfg Config, w work) *Server {
	s := &Server{
		node: cfg.Node, dial: cfg.Dial, work: w, version: cfg.Version, started: time.Now(), reload: cfg.Reload,
		config: cfg.Config, metrics: cfg.Metrics, tls: cfg.TLS, session: cfg.Session, log: cfg.Logger,
		lines: lineRoom{most: allLines},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.dial == nil {
		s.dial = dialNode(cfg.Node)
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// dialNode dials without TLS profiles.
func dialNode(node Mesh) func(context.Context, wire.NodeID, string, string) (workceptor.Stream, error) {
	return func(ctx context.Context, target wire.NodeID, service, tlsClient string) (workceptor.Stream, error) {
		if tlsClient != "" {
			return nil, fmt.Errorf("unknown TLS config %s", tlsClient)
		}
		n, ok := node.(*netceptor.Node)
		if !ok {
			return nil, errors.New("this node opens no streams")
		}
		stream, err := n.DialStream(ctx, target, service, nil)
		if err != nil {
			return nil, err // Not a nil *Stream in an interface.
		}
		return stream, nil
	}
}

// Serve accepts clients until ctx ends, the listener is closed or the server is. It closes the listener. When ctx or the
// server ended it returns nil, and the sessions of this listener end as well; when the listener was closed by somebody
// else it returns the error of Accept, and its sessions go on.
func (s *Server) Serve(ctx context.Context, l net.Listener, kind Kind, opts ...Option) error {
	return s.serve(ctx, l.Accept, l.Close, s.listening(kind, opts))
}

// ServeMesh is [Server.Serve] for streams to a service of the node. Their clients are not exempt from signatures.
func (s *Server) ServeMesh(ctx context.Context, l *netceptor.StreamListener, opts ...Option) error {
	accept := func() (net.Conn, error) {
		stream, err := l.Accept()
		if err != nil {
			return nil, err
		}
		return stream, nil
	}
	return s.serve(ctx, accept, l.Close, s.listening(OverMesh, opts))
}

func (s *Server) listening(kind Kind, opts []Option) listening {
	l := listening{kind: kind}
	for _, o := range opts {
		o(&l)
	}
	s.checkRules(l.allow)
	return l
}

func (s *Server) serve(ctx context.Context, accept func() (net.Conn, error), closeListener func() error, of listening) error {
	closeListener = sync.OnceValue(closeListener)
	defer closeListener()
	if !s.begin() {
		return net.ErrClosed
	}
	defer s.wg.Done()
	serving, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	defer context.AfterFunc(serving, func() { _ = closeListener() })()
	pause := time.Duration(0)
	for {
		conn, err := accept()
		switch {
		case err == nil:
			pause = 0
			s.start(ctx, conn, of)
			continue
		case serving.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		}
		if pause == 0 {
			pause = acceptPause
			s.log.Warn("cannot accept control clients", "err", err)
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, maxAcceptPause)
		case <-serving.Done():
		}
	}
}

// begin counts one more goroutine that Close waits for. It reports false if the server is closed.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.wg.Add(1)
	return true
}

// start runs a session in a goroutine of its own, until it ends or ctx or the server does.
func (s *Server) start(ctx context.Context, conn net.Conn, of listening) {
	if !s.begin() {
		_ = conn.Close()
		return
	}
	go func() {
		defer s.wg.Done()
		s.stats.session(true)
		defer s.stats.session(false)
		defer fault.Catch(func(e *fault.Error) { // Ends this connection alone.
			fault.Log(s.log, e, "control session", "client", conn.RemoteAddr().String())
		})
		newSession(s, conn, of).run(ctx)
	}()
}

// Drain returns when no command is being executed (but for events, which have no end), or when ctx ends. It stops nothing: that is for who closes the listeners
// before it and the server after it.
func (s *Server) Drain(ctx context.Context) {
	s.mu.Lock()
	if s.busy == 0 {
		s.mu.Unlock()
		return
	}
	if s.idle == nil {
		s.idle = make(chan struct{})
	}
	idle := s.idle
	s.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}

// working counts a command while it is executed.
func (s *Server) working(change int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy += change
	if s.busy == 0 && s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
}

// Close stops accepting, ends all sessions and waits for them. It can be called more than once.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.wg.Wait()
	return nil
}
