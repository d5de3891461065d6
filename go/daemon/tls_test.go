package daemon

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/identity"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// papers is a folder with a CA and certificates of nodes, each good for this machine as well.
type papers struct {
	dir string
	ca  *identity.Authority
}

func newPapers(t *testing.T) papers {
	t.Helper()
	p := papers{dir: t.TempDir()}
	if err := identity.InitFiles("test ca", 1024, identity.Validity{}, p.file("ca.crt"), p.file("ca.key")); err != nil {
		t.Fatal(err)
	}
	var err error
	if p.ca, err = identity.LoadAuthority(p.file("ca.crt"), p.file("ca.key")); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p papers) file(name string) string { return filepath.Join(p.dir, name) }

// issue writes id.crt and id.key.
func (p papers) issue(t *testing.T, id wire.NodeID) {
	t.Helper()
	key, err := identity.NewKey(1024)
	if err != nil {
		t.Fatal(err)
	}
	req, err := identity.Request(string(id), identity.Names{DNS: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Nodes: []wire.NodeID{id}}, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := p.ca.Sign(req, identity.Validity{})
	if err != nil {
		t.Fatal(err)
	}
	if err := identity.SaveCertificate(p.file(string(id)+".crt"), cert); err != nil {
		t.Fatal(err)
	}
	if err := identity.SaveKey(p.file(string(id)+".key"), key); err != nil {
		t.Fatal(err)
	}
}

// profiles are the directives of mutual TLS: a tls-server "srv" and a tls-client "cli".
func (p papers) profiles(id wire.NodeID) []string {
	pair := []string{"cert=" + p.file(string(id)+".crt"), "key=" + p.file(string(id)+".key")}
	server := append([]string{"--tls-server", "name=srv", "requireclientcert=true", "clientcas=" + p.file("ca.crt")}, pair...)
	return append(append(server, "--tls-client", "name=cli", "rootcas="+p.file("ca.crt")), pair...)
}

// config is the client side as a program beside the mesh has it.
func (p papers) config(t *testing.T, id wire.NodeID) *tls.Config {
	t.Helper()
	c, err := identity.NewClient(identity.ClientOptions{
		Name: "test", Cert: p.file(string(id) + ".crt"), Key: p.file(string(id) + ".key"), RootCAs: p.file("ca.crt"),
	}, identity.Owner{Node: id})
	if err != nil {
		t.Fatal(err)
	}
	return c.LinkConfig("127.0.0.1")
}

// pairOf starts two linked daemons that trust each other and returns them.
func pairOf(t *testing.T, p papers, a, b []string) (*Daemon, *Daemon) {
	t.Helper()
	addr := freePort(t)
	_, port, _ := net.SplitHostPort(addr)
	var daemons []*Daemon
	for i, args := range [][]string{
		append([]string{"--node", "id=a", "datadir=" + t.TempDir(), "--tcp-listener", "bindaddr=127.0.0.1", "port=" + port}, a...),
		append([]string{"--node", "id=b", "datadir=" + t.TempDir(), "--tcp-peer", addr}, b...),
	} {
		id := wire.NodeID("ab"[i : i+1])
		p.issue(t, id)
		// Profiles come last: they may be used before they are defined.
		d, err := Build(t.Context(), parse(t, append(args, p.profiles(id)...)...), Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = d.Close() })
		daemons = append(daemons, d)
	}
	for i, d := range daemons {
		if _, _, err := d.Node.WaitRoute(t.Context(), wire.NodeID("ba"[i:i+1])); err != nil {
			t.Fatal(err)
		}
	}
	return daemons[0], daemons[1]
}

// session is a control session.
type session struct {
	net.Conn
	r *bufio.Reader
	t *testing.T
}

func newSession(t *testing.T, c net.Conn) *session {
	t.Helper()
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return &session{c, bufio.NewReader(c), t}
}

func controlAt(t *testing.T, socket, greeting string) *session {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := newSession(t, c)
	s.want(greeting)
	return s
}

func (s *session) say(text string) {
	s.t.Helper()
	if _, err := io.WriteString(s, text); err != nil {
		s.t.Fatal(err)
	}
}

// want reads a line and looks for a text in it.
func (s *session) want(text string) {
	s.t.Helper()
	if line, err := s.r.ReadString('\n'); err != nil || !strings.Contains(line, text) {
		s.t.Fatalf("got %q, %v, want %q", line, err, text)
	}
}

func TestF109F110ControlOverTheMesh(t *testing.T) {
	p := newPapers(t)
	socket := filepath.Join(t.TempDir(), "s")
	a, b := pairOf(t, p,
		[]string{"--control-service", "service=control", "tls=srv"},
		[]string{"--control-service", "service=control", "tls=srv", "filename=" + socket,
			"--tls-client", "name=nobody", "cert=", "key=", "rootcas=" + p.file("ca.crt"), "--tls-client", "name=system", "cert=", "key="})
	s := controlAt(t, socket, "Receptor Control, node b")
	s.say("connect a control\n")
	s.want("ERROR: CRYPTO_ERROR 0x12a (local): insecure connection to secure service")
	s.say("connect a control nosuch\n")
	s.want("ERROR: unknown TLS config nosuch")
	s.say("connect a control system\n")
	s.want("ERROR: CRYPTO_ERROR 0x12a (local): x509: certificate signed by unknown authority")
	s.say(`{"command":"connect","node":"a","service":"control","tls":"cli"}` + "\n")
	s.want("Connecting")
	s.want("Receptor Control, node a")
	s.say("connect b control cli\n")
	s.want("Connecting")
	s.want("Receptor Control, node b")
	s.say("status\n")
	s.want(`"NodeID":"b"`)
	local := controlAt(t, socket, "Receptor Control, node b")
	local.say("connect localhost control cli\n")
	local.want("Connecting")
	local.want("Receptor Control, node b")
	if got := len(b.TLSStatus()); got != 4 {
		t.Errorf("got %d profiles of b, want 4", got)
	}
	for _, st := range a.TLSStatus() {
		if st.Err != nil || st.Expiry.IsZero() || st.Serial == "" {
			t.Errorf("got the profile %+v", st)
		}
	}
}

func TestF134ControlOverTCPAndTLS(t *testing.T) {
	p := newPapers(t)
	addr := freePort(t)
	pairOf(t, p, []string{"--control-service", "service=c", "tls=srv", "tcplisten=" + addr, "tcptls=srv"}, nil)
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := newSession(t, tls.Client(raw, p.config(t, "b")))
	s.want("Receptor Control, node a")
	s.say("status") // No newline: the end of the TCP direction, without a word in TLS, ends the line.
	if err := raw.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	s.want(`"NodeID":"a"`)
	if rest, err := io.ReadAll(s.r); err != nil || len(rest) > 0 { // Ends with a close in TLS.
		t.Errorf("got %q, %v after the reply", rest, err)
	}
	anonymous := p.config(t, "b")
	anonymous.GetClientCertificate = nil
	c, err := tls.Dial("tcp", addr, anonymous)
	if err == nil {
		refused := newSession(t, c)
		if text, err := io.ReadAll(refused.r); err == nil || len(text) > 0 {
			t.Errorf("a client without certificate read %q, %v", text, err)
		}
	}
}

// TestF124ProxiesUnderTLS has TLS on the TCP side of the entry, in the mesh, and on the TCP side of the exit, in turn.
func TestF124ProxiesUnderTLS(t *testing.T) {
	p := newPapers(t)
	p.issue(t, "web")
	web, err := identity.NewServer(identity.ServerOptions{
		Name: "web", Cert: p.file("web.crt"), Key: p.file("web.key"), RequireClientCert: true, ClientCAs: p.file("ca.crt"),
	}, identity.Owner{Node: "web"})
	if err != nil {
		t.Fatal(err)
	}
	shout := func(c *net.TCPConn) {
		request, err := io.ReadAll(c)
		if err == nil {
			_, _ = c.Write(append([]byte("got "), request...))
		}
	}
	plain := serveOne(t, shout)
	secure := serveOne(t, func(c *net.TCPConn) {
		s := tls.Server(c, web.SocketConfig())
		request, err := io.ReadAll(s)
		if err == nil {
			_, _ = s.Write(append([]byte("got "), request...))
		}
		_ = s.Close()
	})
	var exits, entries []string
	addrs := map[string]string{}
	for i := range 8 {
		entry, mesh, exit := i&1 > 0, i&2 > 0, i&4 > 0
		service, target, addr := fmt.Sprint("s", i), plain, freePort(t)
		in := []string{"--tcp-client", "service=" + service}
		_, port, _ := net.SplitHostPort(addr)
		out := []string{"--tcp-server", "bindaddr=127.0.0.1", "port=" + port, "remotenode=a", "remoteservice=" + service}
		if entry {
			out = append(out, "tlsserver=srv")
		}
		if mesh {
			out, in = append(out, "tlsclient=cli"), append(in, "tlsserver=srv")
		}
		if exit {
			target, in = secure, append(in, "tlsclient=cli")
		}
		exits, entries = append(append(exits, in...), "address="+target), append(entries, out...)
		addrs[service] = addr
	}
	pairOf(t, p, exits, entries)
	for i := range 8 {
		name := fmt.Sprint("s", i)
		c := net.Conn(connect(t, addrs[name]))
		if i&1 > 0 {
			c = tls.Client(c, p.config(t, "web"))
		}
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if answer, err := io.ReadAll(c); err != nil || string(answer) != "got hello" {
			t.Errorf("%s: got %q, %v", name, answer, err)
		}
	}
}

// Under TLS as well, a stream that breaks does not look as if it had ended.
func TestTLSProxyPassesOnResets(t *testing.T) {
	p := newPapers(t)
	target := serveOne(t, func(c *net.TCPConn) {
		_, _ = c.Write([]byte("half an ans"))
		_, _ = io.ReadFull(c, make([]byte, 2))
		_ = c.SetLinger(0)
	})
	addr := freePort(t)
	_, port, _ := net.SplitHostPort(addr)
	pairOf(t, p, []string{"--tcp-client", "service=t", "address=" + target, "tlsserver=srv"},
		[]string{"--tcp-server", "bindaddr=127.0.0.1", "port=" + port, "remotenode=a", "remoteservice=t", "tlsserver=srv", "tlsclient=cli"})
	c := tls.Client(connect(t, addr), p.config(t, "a"))
	if _, err := c.Write([]byte("1")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, len("half an ans"))); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("2")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 10)); err == nil || err == io.EOF {
		t.Errorf("got %d bytes, %v, want a reset", n, err)
	}
}

func TestF113AllTLSProblemsAtOnce(t *testing.T) {
	p := newPapers(t)
	p.issue(t, "other")
	pair := []string{"cert=" + p.file("other.crt"), "key=" + p.file("other.key")}
	cfg := parse(t, append(append(append(append([]string{"--node", "n1", "--local-only", "--tls-server", "name=one"}, pair...), "--tls-server", "name=two"), pair...),
		"skipreceptornamescheck=true", "--tls-client", "name=three", "cert=/nonexistent/c", "key=/nonexistent/k")...)
	_, err := Build(t.Context(), cfg, Options{Logger: slog.New(slog.DiscardHandler)})
	for _, want := range []string{
		"error preparing tls server config: nodeID=n1 not found in certificate name(s); names found=[other]; cfg section=one; server cert=" + p.file("other.crt"),
		"error preparing tls client config: open /nonexistent/c: no such file or directory",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	if err != nil && strings.Contains(err.Error(), "section=two") {
		t.Errorf("got %v", err)
	}
}

func TestTLSWarningOfControlService(t *testing.T) {
	p := newPapers(t)
	p.issue(t, "n1")
	out := newOutput()
	d, err := Build(t.Context(), parse(t, append(p.profiles("n1"), "--node", "n1", "--local-only", "--control-service", "service=ctl", "tls=srv", "tcplisten=0")...), Options{Stdout: out})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if want := "WARNING"; !strings.Contains(out.String(), want) || !strings.Contains(out.String(), "Control service ctl has TLS configured on the Receptor listener but not the TCP listener.") {
		t.Errorf("got log\n%s", out)
	}
}
