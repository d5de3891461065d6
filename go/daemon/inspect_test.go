package daemon

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/identity"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// controlled starts a daemon with a control socket and returns a function that gives it a command.
func controlled(t *testing.T, args ...string) func(command string) string {
	t.Helper()
	sock := t.TempDir() + "/sock"
	cfg, err := config.ParseArgs(append([]string{"--node", "id=alpha", "datadir=" + t.TempDir(), "--local-only",
		"--control-service", "filename=" + sock}, args...))
	if err != nil {
		t.Fatal(err)
	}
	d, err := Build(t.Context(), cfg, Options{Version: "1.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	c, err := net.Dial("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	in := bufio.NewReader(c)
	line := func() string {
		s, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSuffix(s, "\n")
	}
	line()
	return func(command string) string {
		if _, err := c.Write([]byte(command + "\n")); err != nil {
			t.Fatal(err)
		}
		return line()
	}
}

func TestControlConfig(t *testing.T) {
	ask := controlled(t, "--ws-peer", "address=ws://localhost:1/", "extraheader=Authorization: Bearer verysecret")
	reply := ask("config")
	if strings.Contains(reply, "verysecret") {
		t.Errorf("a secret in %s", reply)
	}
	var got struct {
		Node       string
		Directives []struct {
			Directive, Position string
			Parameters          map[string]any
		}
	}
	if err := json.Unmarshal([]byte(reply), &got); err != nil {
		t.Fatal(err)
	}
	if got.Node != "alpha" || len(got.Directives) != 4 {
		t.Fatalf("%s", reply)
	}
	peer := got.Directives[3]
	if peer.Directive != "ws-peer" || peer.Position != "argument 7" || peer.Parameters["cost"] != 1.0 || peer.Parameters["extraheader"] != "(hidden)" {
		t.Errorf("%+v", peer)
	}
}

// A line of the text format: a comment, or a name with labels and a number.
var metricLine = regexp.MustCompile(`^(# (HELP|TYPE) receptor_[a-z_]+ .+|receptor_[a-z_]+(\{[a-z]+="([^"\\]|\\.)*"(,[a-z]+="([^"\\]|\\.)*")*\})? [-+0-9.e]+)$`)

func TestControlMetrics(t *testing.T) {
	ask := controlled(t, "--work-command", "worktype=cat", "command=cat", "--tcp-listener", "bindaddr=127.0.0.1", "port=0")
	ask("status")
	ask("nosuch")
	ask("work status x")
	var reply struct {
		ContentType string `json:"content_type"`
		Text        string
	}
	if err := json.Unmarshal([]byte(ask("metrics")), &reply); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(reply.ContentType, "text/plain; version=0.0.4") {
		t.Errorf("content type %q", reply.ContentType)
	}
	lines := strings.Split(strings.TrimSuffix(reply.Text, "\n"), "\n")
	have := map[string]bool{}
	for _, line := range lines {
		if !metricLine.MatchString(line) {
			t.Errorf("no line of the format: %q", line)
		}
		have[line] = true
	}
	for _, want := range []string{
		`receptor_links 0`, `receptor_backends{state="listening"} 1`, `receptor_known_nodes 1`, `receptor_routes 0`, `receptor_services 1`,
		`receptor_packets_dropped_total{cause="no_route"} 0`, `receptor_control_clients 1`, `receptor_control_commands_total{command="status"} 1`,
		`receptor_control_command_errors_total{command="work status"} 1`,
	} {
		if !have[want] {
			t.Errorf("%s is missing in\n%s", want, reply.Text)
		}
	}
	if !strings.Contains(reply.Text, `node="alpha",version="1.2.3"} 1`) {
		t.Errorf("no build info in\n%s", reply.Text)
	}
}

func TestControlAllow(t *testing.T) {
	ask := controlled(t, `allow=[{"commands":"status,work list","listener":"unix"},{"commands":"*","listener":"mesh"}]`)
	for command, want := range map[string]string{
		"work list":     "{}",
		"reload":        "ERROR: not allowed: user ",
		"work status x": "ERROR: not allowed: user ",
	} {
		if got := ask(command); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", command, got, want)
		}
	}
}

// TestControlAllowCertificates tells clients apart by the node IDs in their certificates, over TCP and the mesh.
func TestControlAllowCertificates(t *testing.T) {
	p := newPapers(t)
	for _, id := range []wire.NodeID{"alpha", "boss", "guest"} {
		p.issue(t, id)
	}
	cfg, err := config.ParseArgs([]string{"--node", "id=alpha", "datadir=" + t.TempDir(), "--local-only",
		"--tls-server", "name=mutual", "cert=" + p.file("alpha.crt"), "key=" + p.file("alpha.key"), "requireclientcert=true", "clientcas=" + p.file("ca.crt"),
		"--control-service", "service=control", "tls=mutual", "tcplisten=127.0.0.1:0", "tcptls=mutual",
		`allow=[{"commands":"*","certnode":"boss"},{"commands":"version","listener":"tcp"}]`,
		"--tls-client", "name=own", "cert=" + p.file("alpha.crt"), "key=" + p.file("alpha.key"), "rootcas=" + p.file("ca.crt"),
		"--control-service", "service=", "filename=" + p.file("sock"),
	})
	if err != nil {
		t.Fatal(err)
	}
	d, err := Build(t.Context(), cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var address string
	for _, piece := range d.pieces {
		if open, ok := piece.closer.(listeners); ok {
			for _, l := range open {
				if l, ok := l.(net.Listener); ok && l.Addr().Network() == "tcp" {
					address = l.Addr().String()
				}
			}
		}
	}
	ask := func(c net.Conn, command string) string {
		t.Helper()
		if _, err := c.Write([]byte(command + "\n")); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewScanner(c)
		for range 2 {
			if !in.Scan() {
				t.Fatal(in.Err())
			}
		}
		return in.Text()
	}
	for id, want := range map[wire.NodeID]string{
		"boss":  `{"NodeID":"alpha"}`,
		"guest": "ERROR: not allowed: a client over tcp with a certificate of guest may not use status here",
	} {
		client, err := identity.NewClient(identity.ClientOptions{
			Name: "c", Cert: p.file(string(id) + ".crt"), Key: p.file(string(id) + ".key"), RootCAs: p.file("ca.crt"),
		}, identity.Owner{Node: id, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		c, err := tls.Dial("tcp", address, client.LinkConfig("127.0.0.1"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got := ask(c, `{"command":"status","requested_fields":["NodeID"]}`); got != want {
			t.Errorf("%s over TCP: %s, want %s", id, got, want)
		}
	}
	own, err := d.openStream(t.Context(), "alpha", "control", "own")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if got, want := ask(own, "status"), "ERROR: not allowed: node alpha over the mesh with a certificate of alpha may not use status here"; got != want {
		t.Errorf("over the mesh: %s, want %s", got, want)
	}
}
