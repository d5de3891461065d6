package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// joined returns two linked nodes that know each other.
func joined(t testing.TB, a, b wire.NodeID) (near, far *netceptor.Node) {
	t.Helper()
	network := link.NewMemory()
	for _, id := range []wire.NodeID{a, b} {
		n, err := netceptor.New(netceptor.Config{ID: id})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = n.Close() })
		near, far = far, n
	}
	l, err := network.Listen("far")
	if err != nil {
		t.Fatal(err)
	}
	_, err1 := far.Listen(l, netceptor.LinkOptions{Cost: 1})
	_, err2 := near.Dial(network.Dialer("far"), netceptor.LinkOptions{Cost: 1})
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	for n, to := range map[*netceptor.Node]wire.NodeID{near: b, far: a} {
		if _, _, err := n.WaitRoute(t.Context(), to); err != nil {
			t.Fatal(err)
		}
	}
	return near, far
}

func peerNode(a net.Addr) (wire.NodeID, bool) {
	addr, ok := netceptor.PeerOf(a)
	return addr.Node, ok
}

// serveEcho offers a service that echoes streams; accepted counts them.
func serveEcho(t testing.TB, n *netceptor.Node, service string, conf *tls.Config) {
	t.Helper()
	l, err := n.ListenStream(service, nil, conf)
	if err != nil {
		t.Fatal(err)
	}
	go func() { // Ends with the listener, which ends with the node.
		for {
			s, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(s, s)
				_ = s.Close()
			}()
		}
	}()
}

// ask dials and exchanges some bytes.
func ask(t testing.TB, n *netceptor.Node, node wire.NodeID, service string, conf *tls.Config) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := n.DialStream(ctx, node, service, conf)
	if d, ok := errors.AsType[*netceptor.DialError](err); ok {
		return errors.New("dial: " + d.Text)
	} else if err != nil {
		return err
	}
	defer s.Close()
	return echo(s)
}

func echo(s net.Conn) error {
	_ = s.SetDeadline(time.Now().Add(time.Minute))
	if _, err := s.Write([]byte("hello")); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if _, err := io.ReadFull(s, make([]byte, 5)); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	return nil
}

func TestStreamHandshakes(t *testing.T) {
	b := newBelow(t)
	now := time.Now()
	expired := issue(t, b.dir, b.ca, Validity{now.Add(-2 * time.Hour), now.Add(-time.Hour)}, nodes("hub", "edge"))
	many := issue(t, b.dir, b.ca, Validity{}, nodes("a", "edge", "hub"))
	named := issue(t, b.dir, b.ca, Validity{}, Names{DNS: []string{"hub", "edge"}})
	edge, hub := joined(t, "edge", "hub")
	skip := func(p pair) ServerOptions {
		return ServerOptions{Cert: p.crt, Key: p.key, SkipReceptorNamesCheck: true}
	}
	mutual := func(p pair, pins ...string) ServerOptions {
		return ServerOptions{Cert: p.crt, Key: p.key, RequireClientCert: true, ClientCAs: b.cas, PinnedClientCert: pins}
	}
	with := func(p pair, pins ...string) *ClientOptions {
		return &ClientOptions{Cert: p.crt, Key: p.key, RootCAs: b.cas, SkipReceptorNamesCheck: true, PinnedServerCert: pins}
	}
	for i, tc := range []struct {
		name   string
		server *ServerOptions // nil: no profile.
		client *ClientOptions
		want   string // In the client's error; "" for none.
		logged string // What the server says of it.
	}{
		{"no profiles", nil, nil, "", ""},
		{"server only", new(skip(b.server)), &ClientOptions{RootCAs: b.cas}, "", ""},
		{"F110 mutual", new(mutual(b.server)), with(b.client), "", ""},
		{"several IDs", new(mutual(many)), with(many), "", ""},
		{"mintls13", &ServerOptions{Cert: b.server.crt, Key: b.server.key, MinTLS13: true}, &ClientOptions{RootCAs: b.cas, MinTLS13: true}, "", ""},
		{"mintls13 at the client", new(skip(b.server)), &ClientOptions{RootCAs: b.cas, MinTLS13: true}, "", ""},
		{"mintls13 at the server", &ServerOptions{Cert: b.server.crt, Key: b.server.key, MinTLS13: true}, &ClientOptions{RootCAs: b.cas}, "", ""},

		{"F111 plain client", new(skip(b.server)), nil, "dial: CRYPTO_ERROR 0x12a (local): insecure connection to secure service", ""},
		{"F111 plain service", nil, &ClientOptions{RootCAs: b.cas}, "dial: CRYPTO_ERROR 0x12a (local): x509: certificate signed by unknown authority", ""},
		{"F109 other node", new(skip(b.client)), &ClientOptions{RootCAs: b.cas}, "dial: CRYPTO_ERROR 0x12a (local): x509: certificate is valid for Receptor node ID edge, not hub", ""},
		{"F109 no node", new(skip(named)), &ClientOptions{RootCAs: b.cas}, "x509: certificate is not valid for any Receptor node IDs, but wanted to match hub", ""},
		{"foreign server", new(skip(b.stranger)), &ClientOptions{RootCAs: b.cas}, "CRYPTO_ERROR 0x12a (local): x509: certificate signed by unknown authority", ""},
		{"system trust", new(skip(b.server)), &ClientOptions{}, "CRYPTO_ERROR 0x12a (local): x509: ", ""},
		{"expired server", new(skip(expired)), &ClientOptions{RootCAs: b.cas}, "CRYPTO_ERROR 0x12a (local): x509: certificate has expired", ""},
		{"skip verification", new(skip(b.stranger)), &ClientOptions{InsecureSkipVerify: true}, "", ""},
		{"skip verification, wrong pin", new(skip(b.server)), &ClientOptions{InsecureSkipVerify: true, PinnedServerCert: []string{pin(b.client.cert)}}, "CRYPTO_ERROR 0x12a (local): RVF failed: presented certificate does not match any pinned fingerprint", ""},
		{"right pin", new(skip(b.server)), &ClientOptions{RootCAs: b.cas, PinnedServerCert: []string{pin(b.server.cert)}}, "", ""},
		{"wrong pin", new(skip(b.server)), &ClientOptions{RootCAs: b.cas, PinnedServerCert: []string{pin(b.client.cert)}}, "does not match any pinned fingerprint", ""},

		{"no client certificate", new(mutual(b.server)), &ClientOptions{RootCAs: b.cas}, "CRYPTO_ERROR 0x174 (remote)", ""},
		{"foreign client", new(mutual(b.server)), with(b.stranger), "CRYPTO_ERROR 0x12a (remote)", "x509: certificate signed by unknown authority"},
		{"expired client", new(mutual(b.server)), with(expired), "CRYPTO_ERROR 0x12a (remote)", "x509: certificate has expired"},
		{"F110 client of another node", new(mutual(b.server)), with(b.server), "CRYPTO_ERROR 0x12a (remote)", "x509: certificate is valid for Receptor node ID hub, not edge"},
		{"F110 client of no node", new(mutual(b.server)), with(named), "CRYPTO_ERROR 0x12a (remote)", "not valid for any Receptor node IDs, but wanted to match edge"},
		{"right client pin", new(mutual(b.server, pin(b.client.cert))), with(b.client), "", ""},
		{"wrong client pin", new(mutual(b.server, pin(b.server.cert))), with(b.client), "CRYPTO_ERROR 0x12a (remote)", "does not match any pinned fingerprint"},
		{"clientcas only", &ServerOptions{Cert: b.server.crt, Key: b.server.key, ClientCAs: b.cas}, with(b.server), "", ""},
		{"clientcas only, no certificate", &ServerOptions{Cert: b.server.crt, Key: b.server.key, ClientCAs: b.cas}, &ClientOptions{RootCAs: b.cas}, "dial: CRYPTO_ERROR 0x12a (remote)", "RVF failed: peer certificate missing"},
		{"clientcas only, foreign", &ServerOptions{Cert: b.server.crt, Key: b.server.key, ClientCAs: b.cas}, with(b.stranger), "dial: CRYPTO_ERROR 0x12a (remote)", "unknown authority"},
		{"requireclientcert without clientcas", &ServerOptions{Cert: b.server.crt, Key: b.server.key, RequireClientCert: true}, with(b.client), "CRYPTO_ERROR 0x12a (remote)", "x509: "},
		{"profile client with certificate, service that does not ask", new(skip(b.server)), with(b.client), "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var log logged
			var serverConf, clientConf *tls.Config
			if tc.server != nil {
				tc.server.Name = "srv"
				p, err := NewServer(*tc.server, Owner{Node: "hub", Logger: log.logger(), Peer: peerNode})
				if err != nil {
					t.Fatal(err)
				}
				serverConf = p.StreamConfig()
			}
			if tc.client != nil {
				clientConf = client(t, "edge", *tc.client).StreamConfig("hub")
			}
			service := fmt.Sprint("s", i)
			serveEcho(t, hub, service, serverConf)
			wantText(t, "client", ask(t, edge, "hub", service, clientConf), tc.want)
			if tc.logged != "" && (log.count("TLS peer refused") != 1 || !strings.Contains(log.String(), tc.logged)) {
				t.Errorf("the server logged %q, want %q", &log, tc.logged)
			}
		})
	}
}

// A node of its own: peers in between carry packets but are not the peer.
func TestF110ThroughAnotherNode(t *testing.T) {
	b := newBelow(t)
	edge, middle := joined(t, "edge", "middle")
	network := link.NewMemory()
	l, err := network.Listen("middle")
	if err != nil {
		t.Fatal(err)
	}
	hub, err := netceptor.New(netceptor.Config{ID: "hub"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hub.Close() })
	_, err1 := middle.Listen(l, netceptor.LinkOptions{Cost: 1})
	_, err2 := hub.Dial(network.Dialer("middle"), netceptor.LinkOptions{Cost: 1})
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	for _, pair := range [][2]*netceptor.Node{{edge, hub}, {hub, edge}} {
		if _, _, err := pair[0].WaitRoute(t.Context(), pair[1].ID()); err != nil {
			t.Fatal(err)
		}
	}
	srv := server(t, "hub", ServerOptions{Cert: b.server.crt, Key: b.server.key, RequireClientCert: true, ClientCAs: b.cas})
	serveEcho(t, hub, "echo", srv.StreamConfig())
	cli := client(t, "edge", ClientOptions{Cert: b.client.crt, Key: b.client.key, RootCAs: b.cas})
	if err := ask(t, edge, "hub", "echo", cli.StreamConfig("hub")); err != nil {
		t.Errorf("edge with its own certificate: %v", err)
	}
	wantText(t, "middle with edge's certificate", ask(t, middle, "hub", "echo", cli.StreamConfig("hub")), "CRYPTO_ERROR 0x12a (remote)")
	if n := srv.Status().Refused; n != 1 {
		t.Errorf("refused %d, want 1", n)
	}
}

// Streams live on when files change; new ones are judged by the new files, and nobody resumes an old session.
func TestStreamRotation(t *testing.T) {
	b := newBelow(t)
	edge, hub := joined(t, "edge", "hub")
	srv := server(t, "hub", ServerOptions{Cert: b.server.crt, Key: b.server.key, RequireClientCert: true, ClientCAs: b.cas})
	serveEcho(t, hub, "echo", srv.StreamConfig())
	cli := client(t, "edge", ClientOptions{Cert: b.client.crt, Key: b.client.key, RootCAs: b.cas})
	sessions := tls.NewLRUClientSessionCache(8)
	fresh := func(p *ClientProfile) *tls.Config { // Shares connections with no other.
		c := p.StreamConfig("hub").Clone()
		c.ClientSessionCache = sessions
		return c
	}
	first := cli.StreamConfig("hub")
	if first != cli.StreamConfig("hub") || first == cli.StreamConfig("edge") {
		t.Error("streams to one node cannot share a connection, or those to two can")
	}
	live, err := edge.DialStream(t.Context(), "hub", "echo", first)
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	if err := echo(live); err != nil {
		t.Fatal(err)
	}

	// The authority is replaced: first it is added on both sides, then certificates change, then the old one goes.
	shared := caFile(t, t.TempDir(), b.ca, b.other)
	put(t, b.cas, content(t, shared))
	newServer, newClient := issue(t, b.dir, b.other, Validity{}, nodes("hub")), issue(t, b.dir, b.other, Validity{}, nodes("edge"))
	for from, to := range map[string]string{newServer.crt: b.server.crt, newServer.key: b.server.key, newClient.crt: b.client.crt, newClient.key: b.client.key} {
		put(t, to, content(t, from))
	}
	if err := ask(t, edge, "hub", "echo", fresh(cli)); err != nil {
		t.Errorf("both CAs, new certificates: %v", err)
	}
	put(t, b.cas, content(t, b.otherCAs))
	if err := ask(t, edge, "hub", "echo", fresh(cli)); err != nil {
		t.Errorf("new CA, new certificates: %v", err)
	}
	old := issue(t, b.dir, b.ca, Validity{}, nodes("edge"))
	late := fresh(client(t, "edge", ClientOptions{Cert: old.crt, Key: old.key, RootCAs: b.otherCAs}))
	wantText(t, "certificate of the old CA", ask(t, edge, "hub", "echo", late), "CRYPTO_ERROR 0x12a (remote)")
	if first == cli.StreamConfig("hub") {
		t.Error("streams after the change can share a connection with those before")
	}
	if err := echo(live); err != nil {
		t.Errorf("the stream that was open all the time: %v", err)
	}
}

// Streams with a bundle of many CAs: their names would not fit in the server's first packets.
func TestStreamManyCAs(t *testing.T) {
	b := newBelow(t)
	cas := []*Authority{}
	for i := range 200 {
		cas = append(cas, testCA(t, fmt.Sprint(i, strings.Repeat("x", 60))))
	}
	all := caFile(t, b.dir, append(cas, b.ca)...)
	edge, hub := joined(t, "edge", "hub")
	srv := server(t, "hub", ServerOptions{Cert: b.server.crt, Key: b.server.key, RequireClientCert: true, ClientCAs: all})
	serveEcho(t, hub, "echo", srv.StreamConfig())
	cli := client(t, "edge", ClientOptions{Cert: b.client.crt, Key: b.client.key, RootCAs: all})
	if err := ask(t, edge, "hub", "echo", cli.StreamConfig("hub")); err != nil {
		t.Error(err)
	}
}
