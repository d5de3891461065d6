package daemon

import (
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// Profiles are defined after their users, and the log level, the last directive, holds from the start.
func TestF036OrderOfDirectivesDoesNotMatter(t *testing.T) {
	p := newPapers(t)
	p.issue(t, "a")
	out := newOutput()
	cfg := parse(t, "--tcp-listener", "bindaddr=127.0.0.1", "port=0", "tls=srv", "--control-service", "service=ctl", "--tls-server", "name=srv",
		"cert="+p.file("a.crt"), "key="+p.file("a.key"), "--node", "id=a", "datadir="+t.TempDir(), "--log-level", "debug")
	d, err := Build(t.Context(), cfg, Options{Stdout: out})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if !strings.Contains(out.String(), "DEBUG ") || !strings.Contains(out.String(), "Listening on TCP 127.0.0.1:") {
		t.Errorf("got\n%s", out)
	}
}

// The first error of what cannot be known before ends the start; what was found before it is all reported at once.
func TestF037FirstErrorAborts(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	d, err := Build(t.Context(), parse(t, "--node", "id=a", "datadir="+t.TempDir(), "--tcp-listener", "bindaddr=127.0.0.1", "port="+port, "--udp-listener", "0"), Options{})
	if d != nil || err == nil || strings.Contains(err.Error(), "\n") || !strings.HasPrefix(err.Error(), "listen tcp 127.0.0.1:"+port) {
		t.Errorf("got %v, %v", d, err)
	}
}

func TestF042F043LevelsAndTheirDefault(t *testing.T) {
	for args, want := range map[string]string{"": "ERROR WARNING INFO", "--log-level": "ERROR WARNING INFO", "--log-level error": "ERROR", "--log-level Warning": "ERROR WARNING", "--log-level debug": "ERROR WARNING INFO DEBUG"} {
		out := newOutput()
		opts, err := Options{Stdout: out, Runner: "r"}.withDefaults(parse(t, append([]string{"--node", "a"}, strings.Fields(args)...)...))
		if err != nil {
			t.Fatal(err)
		}
		for _, level := range []slog.Level{slog.LevelError, slog.LevelWarn, slog.LevelInfo, slog.LevelDebug} {
			opts.Logger.Log(t.Context(), level, "x")
		}
		var got []string
		for _, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
			got = append(got, strings.Fields(line)[0])
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: got %q, want %q", args, got, want)
		}
	}
}

func TestF044RoutingTableInTheLog(t *testing.T) {
	_, out := relay(t, nil, "hub", "--tcp-listener", "bindaddr=127.0.0.1", "port=0", "cost=1.5")
	_, log := relay(t, nil, "leaf", "--tcp-peer", "address=127.0.0.1:"+listening(t, out, "Listening on TCP "), "cost=1.5")
	log.await(t, "Known Connections:\n   hub: leaf(1.50)\n   leaf: hub(1.50)\nRouting Table:\n   hub via hub\n")
}

func TestF045TraceIsAccepted(t *testing.T) {
	d, _ := relay(t, nil, "a", "--local-only", "--trace")
	if d.Node == nil {
		t.Error("no node")
	}
}

// QLOGDIR is a directory, with or without a slash at its end.
func TestF047TracesOfStreams(t *testing.T) {
	dir := t.TempDir()
	d, err := Build(t.Context(), parse(t, "--node", "id=a", "datadir="+t.TempDir(), "--local-only", "--control-service", "service=ctl"),
		Options{Environ: []string{"QLOGDIR=" + dir}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := d.dialStream(withinAMinute(t), "a", "ctl", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(s, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for _, side := range []string{"client", "server"} {
		found, err := filepath.Glob(filepath.Join(dir, "log_*_"+side+".qlog"))
		if err != nil || len(found) != 1 {
			t.Fatalf("%s: got %v, %v, want one file", side, found, err)
		}
		if text, err := os.ReadFile(found[0]); err != nil || !strings.Contains(string(text), "transport:") {
			t.Errorf("%s: got %.100q, %v", side, text, err)
		}
	}
}

func TestF053DataDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "units")
	cfg := parse(t, "--node", "id=a", "datadir="+dir, "--local-only", "--work-command", "worktype=cat", "command=cat")
	d, err := Build(t.Context(), cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	s, err := d.Work.Submit(workceptor.SubmitRequest{Node: "a", WorkType: "cat"})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fs.FileMode{
		"a": fs.ModeDir | 0o700, filepath.Join("a", string(s.ID())): fs.ModeDir | 0o700, filepath.Join("a", string(s.ID()), "status"): 0o600, filepath.Join("a", string(s.ID()), "stdin"): 0o600,
	} {
		if info, err := os.Stat(filepath.Join(dir, path)); err != nil || info.Mode() != want {
			t.Errorf("%s: got %v, %v, want %v", path, info, err, want)
		}
	}
}

// The proxy of a ws-peer is that of the environment.
func TestF054ProxyOfTheEnvironment(t *testing.T) {
	proxy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	d, err := Build(t.Context(), parse(t, "--node", "id=a", "datadir="+t.TempDir(), "--ws-peer", "ws://mesh.example:80/x"),
		Options{Environ: []string{"HTTP_PROXY=http://" + proxy.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	c, err := proxy.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	line := make([]byte, 28)
	if _, err := io.ReadFull(c, line); err != nil || string(line) != "CONNECT mesh.example:80 HTTP" {
		t.Errorf("the proxy was asked %q, %v", line, err)
	}
}

// A build has all there is: there are no tags that leave parts out, and what a system lacks is refused when it is asked for.
func TestF242F243OneBuildForAll(t *testing.T) {
	for _, name := range []string{"control-service", "work-command", "ip-router", "cert-init"} {
		if strings.Contains(helpText(t), "--"+name+":") != true {
			t.Errorf("%s is missing on %s", name, runtime.GOOS)
		}
	}
}

func helpText(t *testing.T) string {
	t.Helper()
	out := newOutput()
	if err := Run(t.Context(), parse(t, "--help"), Options{Stdout: out}); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// Two nodes in one process speak over a link.
func TestF244TwoNodesInOneProcess(t *testing.T) {
	_, out := relay(t, nil, "one", "--tcp-listener", "bindaddr=127.0.0.1", "port=0", "--control-service", "service=echo")
	two, _ := relay(t, nil, "two", "--tcp-peer", "127.0.0.1:"+listening(t, out, "Listening on TCP "))
	ctx := withinAMinute(t)
	if _, _, err := two.Node.WaitRoute(ctx, "one"); err != nil {
		t.Fatal(err)
	}
	var s *netceptor.Stream
	s, err := two.Node.DialStream(ctx, "one", "echo", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	banner := make([]byte, 16)
	if _, err := io.ReadFull(s, banner); err != nil || string(banner) != "Receptor Control" {
		t.Errorf("got %q, %v", banner, err)
	}
}
