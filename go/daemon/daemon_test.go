package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
)

// output collects what a daemon prints and tells when a text has come.
type output struct {
	mu      sync.Mutex
	b       bytes.Buffer
	changed chan struct{}
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.b.Write(p)
}

func (o *output) String() string { o.mu.Lock(); defer o.mu.Unlock(); return o.b.String() }

// await returns once text was printed.
func (o *output) await(t *testing.T, text string) {
	t.Helper()
	hang := time.After(time.Minute)
	for {
		o.mu.Lock()
		found, changed := strings.Contains(o.b.String(), text), o.changed
		o.mu.Unlock()
		if found {
			return
		}
		select {
		case <-changed:
		case <-hang:
			t.Fatalf("%q was not printed:\n%s", text, o)
		}
	}
}

func parse(t *testing.T, args ...string) *config.Config {
	t.Helper()
	cfg, err := config.ParseArgs(args)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestF009F012F013PrintAndStop(t *testing.T) {
	for _, tc := range []struct{ arg, version, want string }{
		{"--help", "", "Usage: rec "},
		{"--bash-completion", "", "complete -F _rec_completion 'rec'"},
		{"--version", "1.2.3", "1.2.3\n"},
		{"--version", "", "Version unknown\n"},
	} {
		out := newOutput()
		err := Run(t.Context(), parse(t, tc.arg), Options{Program: "rec", Stdout: out, Version: tc.version})
		if err != nil || !strings.Contains(out.String(), tc.want) {
			t.Errorf("%s: got %q, %v; want %q in it", tc.arg, out, err, tc.want)
		}
	}
}

func TestF021NothingToDo(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	out, hint := newOutput(), newOutput()
	err := Run(t.Context(), parse(t, "--node", "a", "--control-service", "filename="+socket), Options{Program: "rec", Stdout: out, Stderr: hint})
	if !errors.Is(err, ErrNothingToDo) {
		t.Errorf("got %v, want ErrNothingToDo", err)
	}
	if !strings.HasPrefix(out.String(), "WARNING ") || !strings.HasSuffix(out.String(), "Nothing to do - no backends are running.\n") {
		t.Errorf("got log %q", out)
	}
	if !strings.HasPrefix(hint.String(), "Run rec --help for command line instructions.\n") {
		t.Errorf("got hint %q", hint)
	}
	if _, err := os.Stat(socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket exists: %v", err)
	}
}

func TestF062LocalOnlyUntilCancelled(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	ctx, cancel := context.WithCancel(t.Context())
	out := newOutput()
	done := make(chan error, 1)
	cfg := parse(t, "--node", "id=a", "datadir="+dir, "--local-only", "--control-service", "filename="+socket, "permissions=0640", "tcplisten=0")
	go func() { done <- Run(ctx, cfg, Options{Stdout: out}) }()
	out.await(t, " Initialization complete\n")
	if info, err := os.Stat(socket); err != nil || info.Mode() != fs.ModeSocket|0o640 {
		t.Errorf("socket: got %v, %v; want mode 0640", info.Mode(), err)
	}
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	banner := make([]byte, len("Receptor Control, node a\n"))
	if _, err := c.Read(banner); err != nil || string(banner) != "Receptor Control, node a\n" {
		t.Errorf("got banner %q, %v", banner, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("got %v after the end of the context, want nil", err)
	}
	for _, path := range []string{socket, socket + ".lock"} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left behind: %v", path, err)
		}
	}
}

func TestFailedStartClosesWhatWasOpened(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	file := filepath.Join(dir, "f.yml")
	text := "- node: {id: a, datadir: " + dir + "}\n- control-service: {filename: " + socket + "}\n- tcp-listener: {port: " + port + ", bindaddr: 127.0.0.1}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	err = Run(t.Context(), parse(t, "-c", file), Options{})
	want := "listen tcp 127.0.0.1:" + port + ": bind: address already in use (" + file + ":3:3)"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if _, err := os.Stat(socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

func TestF063F064TwoDaemonsLink(t *testing.T) {
	addr := freePort(t)
	_, port, _ := net.SplitHostPort(addr)
	logs := [2]*output{newOutput(), newOutput()}
	for i, args := range [][]string{
		{"--node", "id=a", "--tcp-listener", "bindaddr=127.0.0.1", "port=" + port},
		{"--node", "id=b", "--tcp-peer", addr},
	} {
		d, err := Build(t.Context(), parse(t, append(args, "--trace")...), Options{Logger: slog.New(NewLogHandler(logs[i], slog.LevelInfo))})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	logs[0].await(t, "Connection established with b")
	logs[1].await(t, "Connection established with a")
}

func TestF050DuplicateNodeEndsWithoutError(t *testing.T) {
	addr := freePort(t)
	_, port, _ := net.SplitHostPort(addr)
	hub, err := Build(t.Context(), parse(t, "--node", "hub", "--tcp-listener", "bindaddr=127.0.0.1", "port="+port), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer hub.Close()
	first, err := Build(t.Context(), parse(t, "--node", "twin", "--tcp-peer", addr), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, _, err := hub.Node.WaitRoute(t.Context(), "twin"); err != nil {
		t.Fatal(err)
	}
	_, port2, _ := net.SplitHostPort(freePort(t))
	out := newOutput()
	second := make(chan error, 1)
	go func() {
		second <- Run(t.Context(), parse(t, "--node", "twin", "--tcp-listener", "bindaddr=127.0.0.1", "port="+port2, "--log-level", "debug"), Options{Stdout: out})
	}()
	out.await(t, "Initialization complete")
	relay, err := Build(t.Context(), parse(t, "--node", "relay", "--tcp-peer", addr, "--tcp-peer", "127.0.0.1:"+port2), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	if err := <-second; !errors.Is(err, netceptor.ErrDuplicateNode) {
		t.Errorf("got %v, want ErrDuplicateNode", err)
	}
	if !strings.Contains(out.String(), "We are a duplicate node with ID twin and epoch ") {
		t.Errorf("got log\n%s", out)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	return fmt.Sprint("127.0.0.1:", idlePort(t))
}

// idlePort is a port that nobody has and nobody gets until the test ends: it lies below those that the system gives out, and an
// abstract socket keeps it for this test among all tests on this host that choose a port in this way (tests/daemons.py too).
func idlePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		port := 20000 + rand.IntN(12000)
		kept, err := net.Listen("unix", fmt.Sprint("@receptor-test-port-", port))
		if err != nil {
			continue // Another test has it.
		}
		if l, err := net.Listen("tcp", fmt.Sprint(":", port)); err == nil {
			_ = l.Close()
			t.Cleanup(func() { _ = kept.Close() })
			return port
		}
		_ = kept.Close()
	}
	t.Fatal("no idle port from 20000 to 31999")
	return 0
}

// TestDataDirThatCannotBeMade says so when the node starts, not when the first unit is lost.
func TestDataDirThatCannotBeMade(t *testing.T) {
	folder := t.TempDir()
	for path, warned := range map[string]bool{"/proc/receptor/data": true, filepath.Join(folder, "a", "b"): false, folder: false} {
		log := newOutput()
		d, err := Build(t.Context(), parse(t, "--node", "id=a", "datadir="+path, "--local-only"), Options{Logger: slog.New(NewLogHandler(log, slog.LevelInfo))})
		if err != nil {
			t.Fatal(err)
		}
		d.Close()
		if got := strings.Contains(log.String(), "no unit of work can be stored: datadir "+path); got != warned {
			t.Errorf("datadir %s: warned is %v, want %v: %s", path, got, warned, log)
		}
	}
	if left, err := os.ReadDir(folder); len(left) != 0 || err != nil {
		t.Errorf("in %s is %v, %v", folder, left, err)
	}
}
