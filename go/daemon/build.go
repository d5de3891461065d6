package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/control"
	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/policy"
	"github.com/pyreceptor/pyreceptor/go/service"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// Options are what a node needs beside its configuration. The zero value is usable.
type Options struct {
	Program string    // Name of the program in its own messages; "" is "receptor".
	Stdin   io.Reader // For answers to questions; nil is empty.
	Stdout  io.Writer // For the log and what was asked for; nil discards.
	Stderr  io.Writer // For hints; nil discards.
	Version string    // Shown to clients; "" is [Version].
	// Logger replaces the log on Stdout; its level is then the caller's business.
	Logger *slog.Logger
	// Runner is the path of the receptor binary, which runs the commands of units; "" is this program's own.
	Runner string
	// Environ is the environment of commands, and says which HTTP proxies to use; nil is that of this process.
	Environ []string
	// Session serves the session protocol to a local program that asked for it on the control socket, until the program
	// has enough or ctx ends; it owns conn. nil: it is not offered.
	Session func(ctx context.Context, d *Daemon, conn *net.UnixConn)
	// OnPanic is told what a goroutine of the node or of its work engine has panicked with, in that goroutine; whoever is
	// told has to give the daemon up. nil lets the program end, as a panic does.
	OnPanic func(*fault.Error)
	// Hangup has the configuration read again, each time something comes; nil never does.
	Hangup <-chan os.Signal

	setLog         func(config.LogLevel) // Of the log on Stdout; nil: the log is not ours.
	sockets        *sockets              // That the service manager has opened.
	managerEnviron []string              // With the variables of the service manager, which Environ does not have.
}

func (o Options) withDefaults(cfg *config.Config) (Options, error) {
	if o.Program == "" {
		o.Program = "receptor"
	}
	if o.Stdin == nil {
		o.Stdin = strings.NewReader("")
	}
	if o.Stdout == nil {
		o.Stdout = io.Discard
	}
	if o.Stderr == nil {
		o.Stderr = io.Discard
	}
	if o.Version == "" {
		o.Version = Version
	}
	if o.Logger == nil {
		level := new(slog.LevelVar)
		handler := NewLogHandler(o.Stdout, level).(*logHandler)
		o.setLog = func(l config.LogLevel) {
			level.Set(slogLevels[l.Level])
			handler.configure(l)
		}
		o.setLog(cfg.Log())
		o.Logger = slog.New(&tappedHandler{Handler: handler, taps: new(taps)})
	}
	if o.Environ == nil {
		o.managerEnviron = os.Environ()
		o.Environ = slices.DeleteFunc(os.Environ(), func(v string) bool {
			name, _, _ := strings.Cut(v, "=")
			return slices.Contains(managerVariables, name)
		})
	}
	if o.sockets == nil {
		o.sockets = new(sockets)
	}
	if o.Runner == "" {
		path, err := os.Executable()
		if err != nil {
			return o, fmt.Errorf("own executable, which runs the commands of work units: %w", err)
		}
		o.Runner = path
	}
	return o, nil
}

var slogLevels = map[config.Level]slog.Level{
	config.LevelError:   slog.LevelError,
	config.LevelWarning: slog.LevelWarn,
	config.LevelInfo:    slog.LevelInfo,
	config.LevelDebug:   slog.LevelDebug,
}

// Daemon is a running node with its services.
type Daemon struct {
	Node    *netceptor.Node
	Work    *workceptor.Engine
	Control *control.Server

	cfg      atomic.Pointer[config.Config] // In effect.
	profiles atomic.Pointer[tlsProfiles]
	signing  atomic.Pointer[signer]
	setLog   func(config.LogLevel) // nil: the log is not ours.
	sockets  *sockets
	target   *config.Config // What is being opened, and which piece of it; of who starts or reloads, like sockets.
	opening  *piece
	environ  []string // Names the proxies of links.
	version  string
	started  time.Time
	log      *slog.Logger
	ctx      context.Context // Ends with Close.
	stop     context.CancelFunc
	wg       sync.WaitGroup // Servers of listeners.

	mu        sync.Mutex
	streamTLS map[string]*tls.Config // Of services in the mesh, by profile.

	reloading sync.Mutex // Held while pieces change.
	pieces    []*piece   // What the directives started, in their order.

	once    sync.Once
	closers []io.Closer // In the order they were opened.
	err     error
}

// piece is what one directive started.
type piece struct {
	directive config.Directive
	closer    io.Closer // nil: nothing of its own.
}

// close ends the piece; a backend's end waits for its links.
func (p *piece) close() error {
	if p.closer == nil {
		return nil
	}
	return p.closer.Close()
}

// area is the log of one part of the node.
func (d *Daemon) area(name string) *slog.Logger { return d.log.With(areaKey, name) }

// Config is the configuration in effect. A reload replaces it.
func (d *Daemon) Config() *config.Config { return d.cfg.Load() }

// Build starts the node that cfg describes; ctx bounds the start only. The caller closes the Daemon.
func Build(ctx context.Context, cfg *config.Config, opts Options) (*Daemon, error) {
	if cfg.Action != config.Run {
		return nil, errors.New("the configuration describes no node")
	}
	opts, err := opts.withDefaults(cfg)
	if err != nil {
		return nil, err
	}
	d := &Daemon{log: opts.Logger, setLog: opts.setLog, sockets: opts.sockets, environ: opts.Environ, version: opts.Version, started: time.Now(), streamTLS: make(map[string]*tls.Config)}
	d.cfg.Store(cfg)
	d.ctx, d.stop = context.WithCancel(context.Background())
	if err := d.start(ctx, opts); err != nil {
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Daemon) start(ctx context.Context, opts Options) error {
	cfg := d.Config()
	d.target = cfg
	node := cfg.Node()
	if err := safe(cfg); err != nil {
		return err
	}
	profiles, err := d.loadProfiles(cfg)
	if err != nil {
		return err
	}
	d.profiles.Store(profiles)
	if keys := readableKeys(cfg); keys != nil {
		d.log.Warn(keyWarning(keys))
	}
	if err := Storable(node.DataDir); err != nil {
		d.log.Warn("no unit of work can be stored: datadir "+node.DataDir+" cannot be made or written", "err", err)
	}
	firewall, err := compileFirewall(node.FirewallRules)
	if err != nil {
		return err
	}
	n, err := netceptor.New(netceptor.Config{
		ID: node.ID, Logger: d.area("mesh"), MaxIdle: node.MaxIdle, Policy: firewall, QLogDir: LookupEnv(d.environ, "QLOGDIR"), Trace: d.Config().Trace(),
		OnPanic: opts.OnPanic,
	})
	if err != nil {
		return err
	}
	d.Node = n
	d.opened(n)
	if err := d.startWork(node, opts); err != nil {
		return err
	}
	d.Control = control.New(control.Config{
		Node: n, Dial: d.dialStream, Work: d.Work, Version: opts.Version, Reload: d.controlReload, Logger: d.area("control"), Session: d.session(opts),
		Config: d.effective, TLS: d.tlsReplies, Metrics: d.Metrics,
	})
	d.opened(d.Control)
	for _, directive := range cfg.Directives {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if isWork(directive.Section) {
			continue
		}
		if err := d.begin(directive); err != nil {
			return err
		}
	}
	d.sockets.tellUnused(d.log)
	d.log.Info("Initialization complete")
	return nil
}

// begin opens a directive and keeps it as a piece.
func (d *Daemon) begin(directive config.Directive) error {
	p, err := d.openPiece(directive)
	if err == nil {
		d.pieces = append(d.pieces, p)
	}
	return err
}

func (d *Daemon) openPiece(directive config.Directive) (*piece, error) {
	p := &piece{directive: directive}
	if err := d.startPiece(p); err != nil {
		return nil, located(directive.Pos, err)
	}
	return p, nil
}

func (d *Daemon) startPiece(p *piece) (err error) {
	d.opening = p
	if p.closer, err = d.open(p.directive.Section); err != nil {
		d.sockets.leave(p)
	}
	return err
}

// endPiece closes a piece and gives up what it listened on.
func (d *Daemon) endPiece(p *piece) {
	if err := p.close(); err != nil {
		d.log.Debug("end of "+p.directive.Name, "err", err)
	}
	d.sockets.leave(p)
}

// compileFirewall makes the policy of a node; without rules there is none, which costs nothing per packet.
func compileFirewall(rules []policy.Rule) (*policy.Policy, error) {
	if len(rules) == 0 {
		return nil, nil
	}
	return policy.Compile(rules)
}

// located adds where the directive stands that led to err, or to each of the problems that err joins.
func located(pos config.Position, err error) error {
	if err == nil || pos.File == "" {
		return err
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all error
		for _, problem := range joined.Unwrap() {
			all = errors.Join(all, located(pos, problem))
		}
		return all
	}
	return fmt.Errorf("%w (%s)", err, pos)
}

func (d *Daemon) opened(c io.Closer) { d.closers = append(d.closers, c) }

// startWork registers all work types and loads the units that are there, before anybody can ask for them.
func (d *Daemon) startWork(node config.Node, opts Options) error {
	keys, err := d.loadSigner(d.Config())
	if err != nil {
		return err
	}
	d.signing.Store(keys)
	e, err := workceptor.New(workceptor.Config{
		Sign:         d.sign,
		Verify:       d.verify,
		Mesh:         workMesh{d.Node, d},
		HasTLSClient: d.hasTLSClient,
		DataDir:      node.DataDir,
		Runner:       opts.Runner,
		LogLevel:     string(d.Config().LogLevel()),
		Environ:      opts.Environ,
		Logger:       d.area("work"),
		Limits:       workLimits(d.Config()),
		OnPanic:      opts.OnPanic,
	})
	if err != nil {
		return err
	}
	d.Work = e
	d.opened(e)
	for _, directive := range d.Config().Directives {
		if !isWork(directive.Section) {
			continue
		}
		if err := d.begin(directive); err != nil {
			return err
		}
	}
	d.Node.SetWorkCommands(e.WorkTypes())
	return e.Start()
}

// isWork tells types of work, which are registered before anything is opened.
func isWork(section any) bool {
	switch section.(type) {
	case config.WorkCommand, config.WorkPython, config.WorkKubernetes:
		return true
	}
	return false
}

// open starts what one directive asks for; those without something of their own to start are done already.
func (d *Daemon) open(section any) (io.Closer, error) {
	switch s := section.(type) {
	case config.TCPListener:
		return d.tcpListener(s)
	case config.TCPPeer:
		return d.tcpPeer(s)
	case config.UDPListener:
		return d.udpListener(s)
	case config.UDPPeer:
		return d.dial(link.DialUDP(s.Address), netceptor.LinkOptions{Cost: s.Cost, AllowedPeers: s.AllowedPeers, NoRedial: !s.Redial})
	case config.WSListener:
		return d.wsListener(s)
	case config.WSPeer:
		return d.wsPeer(s)
	case config.TCPServer:
		return d.tcpServer(s)
	case config.TCPClient:
		return d.tcpClient(s)
	case config.ControlService:
		return d.controlService(s)
	case config.UDPServer:
		return d.udpServer(s)
	case config.UDPClient:
		return keep(service.StartUDPClient(d.Node, service.UDPClient{Service: s.Service, Address: s.Address}, d.area("services")))
	case config.UnixServer:
		return d.unixServer(s)
	case config.UnixClient:
		return d.unixClient(s)
	case config.CommandService:
		return d.commandService(s)
	case config.MetricsListener:
		return d.metricsListener(s)
	case config.IPRouter:
		return d.ipRouter(s)
	case config.WorkPython:
		return d.workPython(s)
	case config.WorkKubernetes:
		return d.workKubernetes(s)
	case config.WorkCommand:
		return d.workCommand(s)
	}
	return nil, nil
}

// workCommand offers a type of work.
func (d *Daemon) workCommand(w config.WorkCommand) (io.Closer, error) {
	return d.workType(w.WorkType, d.Work.RegisterCommand(workceptor.CommandType{
		WorkType: w.WorkType, Command: w.Command, Params: w.Params,
		AllowRuntimeParams: w.AllowRuntimeParams, VerifySignature: w.VerifySignature,
		AllowExec: w.AllowPTY, MaxRunning: w.MaxRunning,
	}))
}

// workPython offers a type of work that a Python plugin does.
func (d *Daemon) workPython(w config.WorkPython) (io.Closer, error) {
	return d.workType(w.WorkType, d.Work.RegisterPython(workceptor.PythonType{
		WorkType: w.WorkType, Plugin: w.Plugin, Function: w.Function, Config: w.Config, Interpreter: w.Interpreter,
		VerifySignature: w.VerifySignature, MaxRunning: w.MaxRunning,
	}))
}

// workLimits are those of a configuration.
func workLimits(cfg *config.Config) workceptor.Limits {
	for _, l := range config.All[config.WorkLimits](cfg) {
		return workceptor.Limits{MaxRunning: l.MaxRunning, KeepUnits: l.KeepUnits, KeepFor: l.KeepFor}
	}
	return workceptor.Limits{}
}

// workType is a type of work that was just registered; closing it takes it back.
func (d *Daemon) workType(name string, err error) (io.Closer, error) {
	if err != nil {
		return nil, err
	}
	return closeFunc(func() error {
		d.Work.Unregister(name)
		return nil
	}), nil
}

type closeFunc func() error

func (f closeFunc) Close() error { return f() }

// Close stops everything in the reverse order of its start and waits for it: sockets and links are closed, units of
// work go on. Safe to call twice and from any goroutine.
func (d *Daemon) Close() error {
	d.once.Do(func() {
		d.stop()
		d.reloading.Lock()
		defer d.reloading.Unlock()
		for _, p := range slices.Backward(d.pieces) {
			if _, link := p.closer.(*netceptor.Backend); !link { // Links end with the node, after the last bytes of its streams.
				d.err = errors.Join(d.err, p.close())
			}
		}
		for i := len(d.closers) - 1; i >= 0; i-- {
			d.err = errors.Join(d.err, d.closers[i].Close())
		}
		d.wg.Wait()
	})
	return d.err
}
