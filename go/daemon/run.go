package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/fault"
)

// Version is the version of this build, set by the linker from pyproject.toml:
//
//	go build -ldflags "-X github.com/pyreceptor/pyreceptor/go/daemon.Version=1.2.3"
var Version string

// CloseTimeout bounds the end of a daemon that was told to stop.
const CloseTimeout = 10 * time.Second

// ErrNothingToDo means that the configuration has no listener, no peer and no local-only. Run has said so in the log.
var ErrNothingToDo = errors.New("no backends are running")

// Run does what cfg asks for. If that is a node, it returns when ctx ends or the node has stopped by itself.
func Run(ctx context.Context, cfg *config.Config, opts Options) error {
	opts, err := opts.withDefaults(cfg)
	if err != nil {
		return err
	}
	if cfg.Second() && cfg.Action != config.ShowEffective {
		fmt.Fprintln(opts.Stdout, "Running v2 cli/config")
		for _, file := range cfg.Files {
			fmt.Fprintln(opts.Stdout, "Using config file: "+file)
		}
	}
	for _, w := range cfg.Warnings {
		opts.Logger.Warn(w.String())
	}
	switch cfg.Action {
	case config.ShowHelp:
		return config.WriteHelp(opts.Stdout, opts.Program)
	case config.ShowCompletion:
		return config.WriteCompletion(opts.Stdout, opts.Program)
	case config.ShowZsh:
		return config.WriteZshCompletion(opts.Stdout, opts.Program)
	case config.ShowFish:
		return config.WriteFishCompletion(opts.Stdout, opts.Program)
	case config.ShowSchema:
		return config.WriteJSONSchema(opts.Stdout)
	case config.ShowReference:
		return config.WriteReference(opts.Stdout, opts.Program)
	case config.ShowEffective:
		return config.WriteEffective(opts.Stdout, cfg)
	case config.ShowVersion:
		return showVersion(opts)
	case config.MakeCertificate:
		return makeCertificate(cfg, opts)
	case config.Check:
		return check(cfg, opts)
	}
	if !hasBackend(cfg) {
		opts.Logger.Warn("Nothing to do - no backends are running.")
		fmt.Fprintf(opts.Stderr, "Run %s --help for command line instructions.\n", opts.Program)
		fmt.Fprintf(opts.Stderr, "Add tcp-listener or tcp-peer (or udp-, ws-) to connect to other nodes, or local-only to run without links.\n")
		return ErrNothingToDo
	}
	opts.sockets = inheritedSockets(opts.managerEnviron)
	defer opts.sockets.close()
	d, err := Build(ctx, cfg, opts)
	switch {
	case ctx.Err() != nil && d == nil: // Told to stop while starting.
		return nil
	case err != nil:
		return err
	}
	return d.wait(ctx, opts)
}

func showVersion(opts Options) error {
	text := opts.Version
	if text == "" {
		text = "Version unknown"
	}
	_, err := fmt.Fprintln(opts.Stdout, text)
	return err
}

// hasBackend reports whether the node would have a reason to run.
func hasBackend(cfg *config.Config) bool {
	return slices.ContainsFunc(cfg.Directives, func(d config.Directive) bool {
		_, local := d.Section.(config.LocalOnly)
		return local || isLink(d.Section)
	})
}

// isLink tells what makes links.
func isLink(section any) bool {
	switch section.(type) {
	case config.TCPListener, config.UDPListener, config.WSListener:
		return true
	}
	return isPeer(section)
}

// isPeer tells what dials.
func isPeer(section any) bool {
	switch section.(type) {
	case config.TCPPeer, config.UDPPeer, config.WSPeer:
		return true
	}
	return false
}

// wait serves signals and the service manager until ctx ends or the node stops by itself, and everything is closed.
func (d *Daemon) wait(ctx context.Context, opts Options) error {
	manager := newNotifier(opts.managerEnviron)
	defer manager.close()
	leave := ShareCores(d.Node, d.log)
	d.attend(ctx, opts, manager)
	leave()
	manager.send("STOPPING=1", "STATUS=Shutting down")
	if ctx.Err() != nil {
		d.log.Info("Shutting down")
		d.drain(d.Config().Process().DrainTimeout)
	}
	closed := make(chan error, 1)
	go func() { closed <- fault.Try(d.Close) }() // Owned by closed; given up only when the program ends.
	timer := time.NewTimer(CloseTimeout)
	defer timer.Stop()
	select {
	case err := <-closed:
		if ctx.Err() != nil {
			return nil
		}
		return errors.Join(d.Node.Err(), err)
	case <-timer.C:
		return fmt.Errorf("shutdown took more than %v and was given up", CloseTimeout)
	}
}

// attend returns when ctx ends or the node stops. Meanwhile it reloads on request and tells the service manager how
// the node is.
func (d *Daemon) attend(ctx context.Context, opts Options, manager *notifier) {
	events := d.Node.Subscribe(64)
	defer events.Close()
	ticks, stop := manager.ticks()
	defer stop()
	look := time.NewTimer(untilLook())
	defer look.Stop()
	watch := newFileWatch(d.Config().Files, d.Config().ReadAt)
	if len(d.Config().Files) == 0 {
		look.Stop() // There is never anything to look at.
	}
	manager.ready(d.statusLine())
	news := events.C
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.Node.Done():
			return
		case <-opts.Hangup:
			d.reloadNow(ctx, manager)
		case <-look.C:
			look.Reset(untilLook())
			cfg := d.Config()
			if !cfg.Process().WatchConfig {
				continue
			}
			if changed := watch.look(cfg.Files); changed != nil {
				for _, file := range changed {
					d.log.Info("Config file changed: " + file)
				}
				d.reloadNow(ctx, manager)
			}
		case _, open := <-news:
			if !open {
				news = nil
			} else if manager.conn != nil {
				manager.send("STATUS=" + d.statusLine())
			}
		case <-ticks:
			_ = d.Node.Status() // A node that cannot answer this must not say that all is well.
			manager.send("WATCHDOG=1")
		}
	}
}

// reloadNow reloads and says so to the service manager; what happened is in the log.
func (d *Daemon) reloadNow(ctx context.Context, manager *notifier) {
	manager.reloading()
	_, _ = d.Reload(ctx, false)
	manager.ready(d.statusLine())
}

// statusLine says in one line how the node is.
func (d *Daemon) statusLine() string {
	s := d.Node.Status()
	return fmt.Sprintf("Node %s, links: %d, reachable nodes: %d", strings.Map(printable, string(s.NodeID)), len(s.Connections), len(s.RoutingTable))
}
