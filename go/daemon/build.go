package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/control"
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
}

func (o Options) withDefaults(level config.Level) (Options, error) {
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
		o.Logger = slog.New(NewLogHandler(o.Stdout, slogLevels[level]))
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

	cfg      *config.Config
	profiles tlsProfiles
	environ  []string // Names the proxies of links.
	log      *slog.Logger
	ctx      context.Context // Ends with Close.
	stop     context.CancelFunc
	wg       sync.WaitGroup // Servers of listeners.

	once    sync.Once
	closers []io.Closer // In the order they were opened.
	err     error
}

// Build starts the node that cfg describes; ctx bounds the start only. The caller closes the Daemon.
func Build(ctx context.Context, cfg *config.Config, opts Options) (*Daemon, error) {
	if cfg.Action != config.Run {
		return nil, errors.New("the configuration describes no node")
	}
	opts, err := opts.withDefaults(cfg.LogLevel())
	if err != nil {
		return nil, err
	}
	d := &Daemon{cfg: cfg, log: opts.Logger, environ: opts.Environ}
	if d.environ == nil {
		d.environ = os.Environ()
	}
	d.ctx, d.stop = context.WithCancel(context.Background())
	if err := d.start(ctx, opts); err != nil {
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Daemon) start(ctx context.Context, opts Options) error {
	node := d.cfg.Node()
	if err := d.loadProfiles(); err != nil {
		return err
	}
	firewall, err := compileFirewall(node.FirewallRules)
	if err != nil {
		return err
	}
	n, err := netceptor.New(netceptor.Config{ID: node.ID, Logger: d.log, MaxIdle: node.MaxIdle, Policy: firewall})
	if err != nil {
		return err
	}
	d.Node = n
	d.opened(n)
	if err := d.startWork(node, opts); err != nil {
		return err
	}
	d.Control = control.New(control.Config{
		Node: n, Dial: d.dialStream, Work: d.Work, Version: opts.Version, Reload: d.reload(), Logger: d.log, Session: d.session(opts),
	})
	d.opened(d.Control)
	for _, directive := range d.cfg.Directives {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := d.open(directive.Section); err != nil {
			return located(directive.Pos, err)
		}
	}
	d.log.Info("Initialization complete")
	return nil
}

// compileFirewall makes the policy of a node; without rules there is none, which costs nothing per packet.
func compileFirewall(rules []policy.Rule) (*policy.Policy, error) {
	if len(rules) == 0 {
		return nil, nil
	}
	return policy.Compile(rules)
}

// located adds where the directive stands that led to err.
func located(pos config.Position, err error) error {
	if pos.File == "" {
		return err
	}
	return fmt.Errorf("%w (%s)", err, pos)
}

func (d *Daemon) opened(c io.Closer) { d.closers = append(d.closers, c) }

// startWork registers all work types and loads the units that are there, before anybody can ask for them.
func (d *Daemon) startWork(node config.Node, opts Options) error {
	sign, err := d.signer()
	if err != nil {
		return err
	}
	verify, err := d.verifier()
	if err != nil {
		return err
	}
	e, err := workceptor.New(workceptor.Config{
		Sign:         sign,
		Verify:       verify,
		Mesh:         workMesh{d.Node, d},
		HasTLSClient: d.hasTLSClient,
		DataDir:      node.DataDir,
		Runner:       opts.Runner,
		LogLevel:     string(d.cfg.LogLevel()),
		Environ:      opts.Environ,
		Logger:       d.log,
	})
	if err != nil {
		return err
	}
	d.Work = e
	d.opened(e)
	for pos, w := range config.All[config.WorkCommand](d.cfg) {
		err := e.RegisterCommand(workceptor.CommandType{
			WorkType: w.WorkType, Command: w.Command, Params: w.Params,
			AllowRuntimeParams: w.AllowRuntimeParams, VerifySignature: w.VerifySignature,
		})
		if err != nil {
			return located(pos, err)
		}
	}
	d.Node.SetWorkCommands(e.WorkTypes())
	return e.Start()
}

// open starts what one directive asks for; those without something of their own to start are done already.
func (d *Daemon) open(section any) error {
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
		return d.keep(service.StartUDPClient(d.Node, service.UDPClient{Service: s.Service, Address: s.Address}, d.log))
	case config.UnixServer:
		return d.unixServer(s)
	case config.UnixClient:
		return d.unixClient(s)
	case config.CommandService:
		return d.commandService(s)
	case config.IPRouter:
		return d.ipRouter(s)
	case config.WorkPython, config.WorkKubernetes:
		return fmt.Errorf("%T: this build does not offer it", s)
	}
	return nil
}

// Close stops everything in the reverse order of its start and waits for it: sockets and links are closed, units of
// work go on. Safe to call twice and from any goroutine.
func (d *Daemon) Close() error {
	d.once.Do(func() {
		d.stop()
		for i := len(d.closers) - 1; i >= 0; i-- {
			d.err = errors.Join(d.err, d.closers[i].Close())
		}
		d.wg.Wait()
	})
	return d.err
}
