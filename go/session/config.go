package session

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/daemon"
)

// openConfig is the config of the operation open.
type openConfig struct {
	Node         string              `json:"node"`
	File         string              `json:"file"`
	DataDir      string              `json:"data_dir"`
	Peers        []backendConfig     `json:"peers"`
	Listeners    []backendConfig     `json:"listeners"`
	Profiles     map[string]tlsFiles `json:"tls_profiles"`
	WorkCommands []workCommand       `json:"work_commands"`
	Daemon       string              `json:"daemon"`
	Environ      map[string]string   `json:"environ"`
	MaxIdle      float64             `json:"max_idle"` // Seconds.
	LogLevel     string              `json:"log_level"`
}

type workCommand struct {
	WorkType           string `json:"worktype"`
	Command            string `json:"command"`
	Params             string `json:"params"`
	AllowRuntimeParams bool   `json:"allowruntimeparams"`
	VerifySignature    bool   `json:"verifysignature"`
}

// arguments writes the configuration as a daemon's command line, so that one parser judges all of it.
func (c *openConfig) arguments(dataDir, trust string) ([]string, error) {
	var args []string
	switch {
	case c.File != "" && c.Node != "":
		return nil, badRequest(`keys "node" and "file" exclude each other: the file names the node`)
	case c.File != "" && c.DataDir != "":
		return nil, badRequest(`keys "data_dir" and "file" exclude each other: the file names the directory, as datadir of node`)
	case c.File != "" && c.MaxIdle != 0:
		return nil, badRequest(`keys "max_idle" and "file" exclude each other: the file gives the time, as maxidleconnectiontimeout of node`)
	case c.File != "" && !filepath.IsAbs(c.File):
		return nil, badRequest(notAbsolute("file", c.File))
	case c.Daemon != "" && !filepath.IsAbs(c.Daemon):
		return nil, badRequest(notAbsolute("daemon", c.Daemon))
	case c.MaxIdle != 0 && seconds(c.MaxIdle) < config.MinIdle:
		return nil, badRequest(fmt.Sprintf("key \"max_idle\": %v seconds: want %v or more", c.MaxIdle, config.MinIdle.Seconds()))
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
	for _, name := range slices.Sorted(maps.Keys(c.Profiles)) {
		p := c.Profiles[name]
		switch {
		case name == "":
			return nil, badRequest(`key "tls_profiles": a profile needs a name`)
		case (p.Cert == "") != (p.Key == ""):
			return nil, badRequest(fmt.Sprintf("key \"tls_profiles\": profile %q: \"cert\" and \"key\" go together", name))
		}
		args = append(args, p.directives(name, trust)...)
	}
	for _, w := range c.WorkCommands {
		args = append(args, "--work-command", "worktype="+w.WorkType, "command="+w.Command, "params="+w.Params,
			"allowruntimeparams="+strconv.FormatBool(w.AllowRuntimeParams), "verifysignature="+strconv.FormatBool(w.VerifySignature))
	}
	if len(c.WorkCommands) > 0 && c.File == "" {
		args = append(args, "--control-service", "service=control")
	}
	return args, nil
}

// seconds are so many; more than a Duration has are the most that it has.
func seconds(s float64) time.Duration {
	if s >= time.Duration(math.MaxInt64).Seconds() {
		return math.MaxInt64
	}
	return time.Duration(s * float64(time.Second))
}

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
	args, err := c.arguments(dataDir, h.trust)
	if err != nil {
		return err
	}
	cfg, err := config.ParseArgs(args)
	if err != nil {
		return &Error{Code: BadConfig, Msg: configText(err)}
	}
	if err := readable(c.Profiles); err != nil {
		return err
	}
	if err := writable(c.DataDir, c.Node); err != nil {
		return err
	}
	if c.LogLevel != "" {
		level, err := logLevel(c.LogLevel)
		if err != nil {
			return err
		}
		h.level.Set(level)
	}
	environ := h.environ
	for k, v := range c.Environ {
		if k == "" || strings.ContainsAny(k, "=\x00") || strings.Contains(v, "\x00") {
			return badRequest(fmt.Sprintf("key \"environ\": no environment has a variable %q with the value %q", k, v))
		}
		environ = append(environ[:len(environ):len(environ)], k+"="+v)
	}
	d, err := daemon.Build(ctx, cfg, daemon.Options{
		Version: h.version, Runner: cmp.Or(c.Daemon, h.runner, "receptor"), Environ: environ, Logger: h.log, OnPanic: h.broken,
	})
	if err != nil {
		return toError(err, BadConfig)
	}
	h.adopt(d)
	leave := daemon.ShareCores(d.Node, h.log)
	h.spawn("cores", func() {
		<-d.Node.Done()
		leave()
	})
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

// adopt takes a running node: from here on all operations are possible, and its events are passed on.
func (h *host) adopt(d *daemon.Daemon) {
	h.mu.Lock()
	h.d = d
	h.mu.Unlock()
	h.spawn("node events", func() { h.relayNode(d.Node) })
	h.spawn("work events", func() { h.relayWork(d.Work) })
}

func notAbsolute(key, path string) string {
	return fmt.Sprintf("key %q: %q is not an absolute path", key, path)
}

// dataDir is where the units of this node live: where the program says, or in a directory that goes with the node. That is
// made with the first unit: a node without any needs no place to write, and leaves none behind if its process is killed.
func (h *host) dataDir(c *openConfig) (string, error) {
	if c.DataDir != "" || c.File != "" {
		if c.DataDir != "" && !filepath.IsAbs(c.DataDir) {
			return "", badRequest(notAbsolute("data_dir", c.DataDir))
		}
		return c.DataDir, nil
	}
	temporary, err := filepath.Abs(cmp.Or(daemon.LookupEnv(h.environ, "TMPDIR"), os.TempDir()))
	if err == nil {
		_, err = os.Stat(temporary + "/.")
	}
	if err != nil {
		return "", &Error{Code: BadConfig, Msg: "no directory for work units: " + err.Error()}
	}
	dir := filepath.Join(temporary, "receptor-"+rand.Text())
	h.mu.Lock()
	h.scratch = dir
	h.mu.Unlock()
	return dir, nil
}

// writable refuses a directory that the program has named and that can keep no units of the node: it would be told only with
// the first unit. What a file names is the daemon's to judge, which runs without units as well.
func writable(dataDir, node string) error {
	if dataDir == "" {
		return nil
	}
	if err := daemon.Storable(filepath.Join(dataDir, node)); err != nil {
		return &Error{Code: BadConfig, Msg: fmt.Sprintf(
			"data_dir %s cannot be made or written: %v; name a directory that this program may write, or none for a private one", dataDir, err)}
	}
	return nil
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
