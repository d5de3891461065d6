package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/control"
	"github.com/pyreceptor/pyreceptor/go/files"
	"github.com/pyreceptor/pyreceptor/go/identity"
	"github.com/pyreceptor/pyreceptor/go/policy/access"
	"github.com/pyreceptor/pyreceptor/go/workceptor/pods"
	"github.com/pyreceptor/pyreceptor/go/workceptor/proc"
	"github.com/pyreceptor/pyreceptor/go/workceptor/runner"
)

// check says everything that would keep the node from running as configured, and starts nothing: certificates, keys, ports,
// sockets, commands, firewall rules. Ports and sockets that are in use are no problem if one of the control sockets of
// this configuration is served: then a node runs on it, and they are its own.
func check(cfg *config.Config, opts Options) error {
	d := &Daemon{log: slog.New(slog.DiscardHandler), environ: opts.Environ}
	d.cfg.Store(cfg)
	c := &checkup{running: served(cfg), runner: opts.Runner, managed: LookupEnv(opts.managerEnviron, "SYSTEMD_EXEC_PID") == strconv.Itoa(os.Getpid())}
	if cfg.Wrong != nil {
		c.problems = append(c.problems, cfg.Wrong)
	}
	c.add(config.Position{}, safe(cfg))
	_, err := d.loadProfiles(cfg)
	c.add(config.Position{}, err)
	_, err = d.loadSigner(cfg)
	c.add(config.Position{}, err)
	_, err = compileFirewall(cfg.Node().FirewallRules)
	c.add(config.Position{}, err)
	for _, directive := range cfg.Directives {
		c.directive(directive)
	}
	if err := errors.Join(c.problems...); err != nil {
		return err
	}
	for _, warning := range c.warnings {
		fmt.Fprintf(opts.Stderr, "Warning: %v\n", warning)
	}
	if !hasBackend(cfg) {
		fmt.Fprintln(opts.Stderr, "Warning: no backends: add tcp-listener or tcp-peer (or udp-, ws-) to connect to other nodes, or local-only to run without links.")
	}
	count := "1 directive"
	if n := len(cfg.Directives); n != 1 {
		count = fmt.Sprintf("%d directives", n)
	}
	_, err = fmt.Fprintf(opts.Stdout, "The configuration is good: %s\n", count)
	return err
}

// checkup collects problems.
type checkup struct {
	running  bool   // A node does, so what is in use may be its own.
	runner   string // The program of this node.
	managed  bool   // By a service manager, which may hold what is in use for the node.
	problems []error
	warnings []error
}

func (c *checkup) add(pos config.Position, err error) {
	if err != nil {
		c.problems = append(c.problems, located(pos, err))
	}
}

func (c *checkup) warn(pos config.Position, err error) {
	c.warnings = append(c.warnings, located(pos, err))
}

func (c *checkup) directive(d config.Directive) {
	c.add(d.Pos, openable(d.Section))
	for _, e := range endpoints(d.Section) {
		c.listens(d.Pos, e)
	}
	switch s := d.Section.(type) {
	case config.ControlService:
		if rules, err := access.Compile(s.Allow); err == nil {
			for _, name := range control.NoCommands(rules) {
				c.warn(d.Pos, fmt.Errorf("a rule allows the command %s, which does not exist; * is all of them", name))
			}
		}
	case config.WorkCommand:
		c.program(d.Pos, s.Command, s.Params)
	case config.CommandService:
		if words, _ := commandLine(s); len(words) > 0 {
			c.program(d.Pos, words[0], "")
		}
	case config.WorkKubernetes:
		c.program(d.Pos, proc.Beside(c.runner, pods.Program), s.Params)
		if s.Pod != "" {
			_, err := os.Stat(s.Pod)
			c.add(d.Pos, err)
		}
	case config.WorkSigning:
		_, err := identity.LoadRSAKey(s.PrivateKey)
		if !errors.Is(err, fs.ErrNotExist) { // That was said.
			c.add(d.Pos, err)
		}
	case config.WorkVerification:
		_, err := identity.LoadRSAPublicKey(s.PublicKey)
		if !errors.Is(err, fs.ErrNotExist) {
			c.add(d.Pos, err)
		}
	}
}

// openable reports what would keep a directive from being opened, whatever else is running.
func openable(section any) error {
	switch s := section.(type) {
	case config.MetricsListener:
		_, password := secretFile(s.PasswordFile)
		_, token := secretFile(s.TokenFile)
		return errors.Join(password, token)
	case config.ControlService:
		_, err := access.Compile(s.Allow)
		return err
	case config.CommandService:
		_, err := commandLine(s)
		return err
	case config.WorkKubernetes:
		return kubeConfigFile(s)
	}
	return nil
}

// listens tries to open an endpoint.
func (c *checkup) listens(pos config.Position, e endpoint) {
	if e.network == "unix" {
		if c.running && control.Served(e.address) {
			return
		}
		if c.managed {
			if conn, err := net.Dial("unix", e.address); err == nil {
				_ = conn.Close()
				c.warn(pos, fmt.Errorf("another program listens on %s (a socket of the service manager?)", e.address))
				return
			}
		}
	}
	l, _, err := e.open(false)
	switch {
	case err == nil:
		_ = l.Close()
	case c.managed && inUse(err):
		c.warn(pos, fmt.Errorf("%w (a socket of the service manager?)", err))
	case !c.running || !inUse(err):
		c.add(pos, err)
	}
}

// inUse reports whether something that runs may be in the way.
func inUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }

func (c *checkup) program(pos config.Position, name, params string) {
	if _, err := exec.LookPath(name); err != nil {
		c.add(pos, fmt.Errorf("the command cannot be run: %w", err))
	}
	if _, err := runner.Split(params); err != nil {
		c.add(pos, fmt.Errorf("params %q: %w", params, err))
	}
}

// served reports whether a node runs on the control sockets of cfg.
func served(cfg *config.Config) bool {
	for _, s := range config.All[config.ControlService](cfg) {
		if s.Filename != "" && control.Served(s.Filename) {
			return true
		}
	}
	return false
}

// loose refuses configuration files that everybody may write: they say what this user runs.
func loose(files []string) (problems error) {
	for _, file := range files {
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o002 != 0 {
			problems = errors.Join(problems, fmt.Errorf("%s may be written by everybody (mode %04o), who could run commands here: chmod o-w %s", file, info.Mode().Perm(), file))
		}
	}
	return problems
}

// trustedDir refuses a data directory in which somebody else could have laid units for this node.
func trustedDir(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("datadir: %w", err)
	case !info.IsDir():
		return fmt.Errorf("datadir %s is not a directory", path)
	case info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0:
		return fmt.Errorf("datadir %s may be written by everybody (mode %04o), who could make this node run units: chmod o-w %s", path, info.Mode().Perm(), path)
	case !ours(info):
		return fmt.Errorf("datadir %s belongs to another user%s, who could make this node run units: run it as that user, or name a directory of your own, for example %s",
			path, owner(info), filepath.Join(os.TempDir(), "receptor-"+strconv.Itoa(os.Getuid())))
	}
	return nil
}

// Storable reports why no unit of work could be stored below a data directory, which is made with the first one.
func Storable(path string) error {
	dir := path
	for {
		if _, err := os.Lstat(dir); err == nil || filepath.Dir(dir) == dir {
			break
		}
		dir = filepath.Dir(dir)
	}
	probe, err := os.MkdirTemp(dir, ".receptor-")
	if err != nil {
		return files.Denied(err, dir, path)
	}
	return os.Remove(probe)
}

// safe checks what files say about who may change what this node does.
func safe(cfg *config.Config) error {
	var keys error
	for pos, s := range config.All[config.TLSServer](cfg) {
		keys = errors.Join(keys, located(pos, writableKey(s.Key)))
	}
	for pos, s := range config.All[config.TLSClient](cfg) {
		keys = errors.Join(keys, located(pos, writableKey(s.Key)))
	}
	for pos, s := range config.All[config.WorkSigning](cfg) {
		keys = errors.Join(keys, located(pos, writableKey(s.PrivateKey)))
	}
	return errors.Join(loose(cfg.Files), keys, trustedDir(cfg.Node().DataDir))
}

// writableKey refuses a key that everybody may write. One that everybody may read is common where a container mounts it.
func writableKey(path string) error {
	if info, err := os.Stat(path); path != "" && err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("private key %s may be written by everybody (mode %04o): chmod 600 %s", path, info.Mode().Perm(), path)
	}
	return nil
}

// readableKeys are the private keys of cfg that everybody may read.
func readableKeys(cfg *config.Config) (paths []string) {
	add := func(path string) {
		if info, err := os.Stat(path); path != "" && err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o004 != 0 {
			paths = append(paths, path)
		}
	}
	for _, s := range config.All[config.TLSServer](cfg) {
		add(s.Key)
	}
	for _, s := range config.All[config.TLSClient](cfg) {
		add(s.Key)
	}
	for _, s := range config.All[config.WorkSigning](cfg) {
		add(s.PrivateKey)
	}
	return paths
}

// keyWarning is what the log says about them.
func keyWarning(paths []string) string {
	return "private keys that every user of this machine may read: " + strings.Join(paths, ", ") + ": chmod 600 would change that"
}
