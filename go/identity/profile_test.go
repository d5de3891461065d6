package identity

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// pin is the SHA-256 fingerprint of a certificate as openssl prints it.
func pin(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return strings.Join(strings.Split(strings.ToUpper(fmt.Sprintf("% x", sum[:])), " "), ":")
}

func longPin(cert *x509.Certificate) string {
	sum := sha512.Sum512(cert.Raw)
	return hex.EncodeToString(sum[:])
}

func server(t testing.TB, node wire.NodeID, opt ServerOptions) *ServerProfile {
	t.Helper()
	opt.Name = "srv"
	p, err := NewServer(opt, Owner{Node: node, Peer: peerNode})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func client(t testing.TB, node wire.NodeID, opt ClientOptions) *ClientProfile {
	t.Helper()
	opt.Name = "cli"
	p, err := NewClient(opt, Owner{Node: node})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestF106F113ProfilesThatCannotBe(t *testing.T) {
	dir := t.TempDir()
	ca := testCA(t, "ca")
	n1, foo := issue(t, dir, ca, Validity{}, nodes("n1")), issue(t, dir, ca, Validity{}, nodes("foo", "bar"))
	cas, junk, empty := caFile(t, dir, ca), filepath.Join(dir, "junk"), filepath.Join(dir, "empty")
	put(t, junk, []byte("no certificates here\n"))
	put(t, empty, nil)
	encrypted := filepath.Join(dir, "encrypted")
	put(t, encrypted, pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte{1}}))
	for _, tc := range []struct {
		name string
		opt  ServerOptions
		want string
	}{
		{"good", ServerOptions{Name: "s", Cert: n1.crt, Key: n1.key}, ""},
		{"no name", ServerOptions{Cert: n1.crt, Key: n1.key}, "must provide a name"},
		{"missing file", ServerOptions{Name: "s", Cert: dir + "/x", Key: n1.key}, "error preparing tls server config: open " + dir + "/x: no such file or directory"},
		{"other key", ServerOptions{Name: "s", Cert: n1.crt, Key: foo.key}, "tls: private key does not match public key"},
		{"swapped", ServerOptions{Name: "s", Cert: n1.key, Key: n1.crt}, "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched"},
		{"encrypted key", ServerOptions{Name: "s", Cert: n1.crt, Key: encrypted}, "the key is encrypted"},
		{"other node", ServerOptions{Name: "s", Cert: foo.crt, Key: foo.key}, "nodeID=n1 not found in certificate name(s); names found=[foo bar]; cfg section=s; server cert=" + foo.crt},
		{"F107 other node, no check", ServerOptions{Name: "s", Cert: foo.crt, Key: foo.key, SkipReceptorNamesCheck: true}, ""},
		{"missing CAs", ServerOptions{Name: "s", Cert: n1.crt, Key: n1.key, ClientCAs: dir + "/x"}, "error reading client CAs file: open "},
		{"junk CAs", ServerOptions{Name: "s", Cert: n1.crt, Key: n1.key, ClientCAs: junk}, "error reading client CAs file: " + junk + ": no certificates found"},
		{"empty CAs", ServerOptions{Name: "s", Cert: n1.crt, Key: n1.key, ClientCAs: empty}, "the file is empty"},
		{"pin not hexadecimal", ServerOptions{Name: "s", Cert: n1.crt, Key: n1.key, ClientCAs: cas, PinnedClientCert: []string{"zz"}}, "error decoding fingerprints: error decoding fingerprint"},
		{"F104 short pin", ServerOptions{Name: "s", Cert: n1.crt, Key: n1.key, ClientCAs: cas, PinnedClientCert: []string{"aa:bb"}}, "error decoding fingerprints: fingerprints must be 32 or 64 bytes for sha256 or sha512"},
		{"all of it", ServerOptions{Name: "s", Cert: dir + "/x", Key: dir + "/y", ClientCAs: dir + "/z", PinnedClientCert: []string{"zz"}},
			strings.Join([]string{
				"error preparing tls server config: open " + dir + "/x: no such file or directory",
				"error preparing tls server config: open " + dir + "/y: no such file or directory",
				"error preparing tls server config: error reading client CAs file: open " + dir + "/z: no such file or directory",
				"error preparing tls server config: error decoding fingerprints: ",
			}, "\n")},
		{"pin without effect", ServerOptions{Name: "s", Cert: n1.crt, Key: n1.key, PinnedClientCert: []string{pin(n1.cert)}}, "pinnedclientcert has no effect"},
	} {
		_, err := NewServer(tc.opt, Owner{Node: "n1"})
		wantText(t, tc.name, err, tc.want)
	}
	for _, tc := range []struct {
		name string
		opt  ClientOptions
		want string
	}{
		{"F112 no certificate", ClientOptions{Name: "c"}, ""},
		{"good", ClientOptions{Name: "c", Cert: n1.crt, Key: n1.key, RootCAs: cas, PinnedServerCert: []string{pin(n1.cert), longPin(foo.cert)}}, ""},
		{"no key", ClientOptions{Name: "c", Cert: n1.crt}, "error preparing tls client config: cert and key must both be supplied or neither"},
		{"junk CAs", ClientOptions{Name: "c", RootCAs: junk}, "error reading root CAs file: "},
		{"two things", ClientOptions{Name: "c", RootCAs: junk, PinnedServerCert: []string{"zz"}}, "\nerror preparing tls client config: error decoding fingerprints: "},
		{"other node", ClientOptions{Name: "c", Cert: foo.crt, Key: foo.key}, "cfg section=c; server cert=" + foo.crt},
	} {
		_, err := NewClient(tc.opt, Owner{Node: "n1"})
		wantText(t, tc.name, err, tc.want)
	}
}

func TestWarnings(t *testing.T) {
	dir := t.TempDir()
	ca := testCA(t, "ca")
	good, ends := issue(t, dir, ca, Validity{}, nodes("n1")), issue(t, dir, ca, Validity{NotAfter: time.Now().Add(time.Hour)}, nodes("n1"))
	over := issue(t, dir, ca, Validity{NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}, nodes("n1"))
	cas := caFile(t, dir, ca)
	for _, tc := range []struct {
		opt  any
		want string
	}{
		{ServerOptions{Name: "s", Cert: good.crt, Key: good.key}, ""},
		{ServerOptions{Name: "s", Cert: good.crt, Key: good.key, RequireClientCert: true, ClientCAs: cas}, ""},
		{ServerOptions{Name: "s", Cert: good.crt, Key: good.key, RequireClientCert: true}, "requireclientcert without clientcas"},
		{ServerOptions{Name: "s", Cert: good.crt, Key: good.key, ClientCAs: cas}, "clientcas without requireclientcert"},
		{ServerOptions{Name: "s", Cert: ends.crt, Key: ends.key}, "expires soon"},
		{ServerOptions{Name: "s", Cert: over.crt, Key: over.key}, "has expired"},
		{ClientOptions{Name: "c"}, ""},
		{ClientOptions{Name: "c", InsecureSkipVerify: true}, "not verified at all"},
		{ClientOptions{Name: "c", InsecureSkipVerify: true, PinnedServerCert: []string{pin(good.cert)}}, ""},
	} {
		var log logged
		var err error
		owner := Owner{Node: "n1", Logger: log.logger()}
		switch opt := tc.opt.(type) {
		case ServerOptions:
			var p *ServerProfile
			if p, err = NewServer(opt, owner); err == nil && p.Expiry() != p.Status().Expiry {
				t.Errorf("%+v: got expiry %v and %v", opt, p.Expiry(), p.Status().Expiry)
			}
		case ClientOptions:
			_, err = NewClient(opt, owner)
		}
		if got := log.String(); err != nil || (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) || strings.Count(got, "\n") > 1 {
			t.Errorf("%+v: logged %q, %v; want %q", tc.opt, got, err, tc.want)
		}
	}
}

// outcome is how a handshake over TCP ended at both ends; an echo has gone through if there was no error.
type outcome struct {
	client, server error
	state          tls.ConnectionState
}

// meet lets a client and a server shake hands over TCP and exchange a byte.
func meet(t testing.TB, clientConf, serverConf *tls.Config) outcome {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			s := tls.Server(c, serverConf)
			if err = s.Handshake(); err == nil {
				_, err = io.CopyN(s, s, 1)
			}
			_ = s.Close()
		}
		done <- err
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), clientConf)
	var o outcome
	if err == nil {
		o.state = c.ConnectionState()
		if _, err = c.Write([]byte{1}); err == nil {
			_, err = io.ReadFull(c, make([]byte, 1))
		}
		_ = c.Close()
	}
	o.client = err
	_ = l.Close()
	o.server = <-done
	return o
}

// below is a set of certificates for tests below the mesh.
type below struct {
	dir                             string
	ca, other                       *Authority
	cas, otherCAs                   string
	server, client, stranger, plain pair
}

func newBelow(t testing.TB) below {
	b := below{dir: t.TempDir(), ca: testCA(t, "ca"), other: testCA(t, "other ca")}
	b.cas, b.otherCAs = caFile(t, b.dir, b.ca), caFile(t, b.dir, b.other)
	b.server = issue(t, b.dir, b.ca, Validity{}, local("hub"))
	b.client = issue(t, b.dir, b.ca, Validity{}, nodes("edge"))
	b.stranger = issue(t, b.dir, b.other, Validity{}, local("edge"))
	b.plain = issue(t, b.dir, b.ca, Validity{}, Names{DNS: []string{"elsewhere.example"}})
	return b
}

func TestLinkHandshakes(t *testing.T) {
	b := newBelow(t)
	now := time.Now()
	expired := issue(t, b.dir, b.ca, Validity{now.Add(-2 * time.Hour), now.Add(-time.Hour)}, local("hub"))
	mutual := ServerOptions{Cert: b.server.crt, Key: b.server.key, RequireClientCert: true, ClientCAs: b.cas}
	oneSided := ServerOptions{Cert: b.server.crt, Key: b.server.key}
	withCert := ClientOptions{Cert: b.client.crt, Key: b.client.key, RootCAs: b.cas}
	pinned := func(o ServerOptions, pins ...string) ServerOptions { o.PinnedClientCert = pins; return o }
	trusting := func(o ClientOptions, pins ...string) ClientOptions { o.PinnedServerCert = pins; return o }
	for _, tc := range []struct {
		name           string
		server         ServerOptions
		client         ClientOptions
		host           string
		client1, srvr1 string // In the errors of both; "" for none, "*" for any.
	}{
		{"server only", oneSided, ClientOptions{RootCAs: b.cas}, "127.0.0.1", "", ""},
		{"by name", oneSided, ClientOptions{RootCAs: b.cas}, "localhost", "", ""},
		{"F098 mutual", mutual, withCert, "127.0.0.1", "", ""},
		{"F098 no client certificate", mutual, ClientOptions{RootCAs: b.cas}, "127.0.0.1", "*", "didn't provide a certificate"},
		{"F098 foreign client certificate", mutual, ClientOptions{Cert: b.stranger.crt, Key: b.stranger.key, RootCAs: b.cas}, "127.0.0.1", "*", "x509: certificate signed by unknown authority"},
		{"client without node ID in its certificate", mutual, ClientOptions{Cert: b.plain.crt, Key: b.plain.key, SkipReceptorNamesCheck: true, RootCAs: b.cas}, "127.0.0.1", "", ""},
		{"F099 foreign server", ServerOptions{Cert: b.stranger.crt, Key: b.stranger.key, SkipReceptorNamesCheck: true}, ClientOptions{RootCAs: b.cas}, "127.0.0.1", "x509: certificate signed by unknown authority", "*"},
		{"F100 system trust", oneSided, ClientOptions{}, "127.0.0.1", "x509: ", "*"},
		{"F108 other host", oneSided, ClientOptions{RootCAs: b.cas}, "elsewhere.example", "x509: certificate is valid for localhost, not elsewhere.example", "*"},
		{"F108 other address", oneSided, ClientOptions{RootCAs: b.cas}, "127.0.0.2", "x509: certificate is valid for 127.0.0.1, not 127.0.0.2", "*"},
		{"no host", oneSided, ClientOptions{RootCAs: b.cas}, "", "no host name", "*"},
		{"expired server", ServerOptions{Cert: expired.crt, Key: expired.key}, ClientOptions{RootCAs: b.cas}, "127.0.0.1", "x509: certificate has expired", "*"},
		{"F101 skip verification", ServerOptions{Cert: b.stranger.crt, Key: b.stranger.key, SkipReceptorNamesCheck: true}, ClientOptions{InsecureSkipVerify: true}, "elsewhere.example", "", ""},
		{"F101 pins still count", oneSided, trusting(ClientOptions{InsecureSkipVerify: true}, pin(b.client.cert)), "127.0.0.1", "RVF failed: presented certificate does not match any pinned fingerprint", "*"},
		{"pins instead of CAs", oneSided, trusting(ClientOptions{InsecureSkipVerify: true}, pin(b.server.cert)), "elsewhere.example", "", ""},
		{"F102 right pin", oneSided, trusting(ClientOptions{RootCAs: b.cas}, pin(b.client.cert), longPin(b.server.cert)), "127.0.0.1", "", ""},
		{"F102 wrong pin", oneSided, trusting(ClientOptions{RootCAs: b.cas}, pin(b.client.cert)), "127.0.0.1", "does not match any pinned fingerprint", "*"},
		{"F102 right pin, foreign server", ServerOptions{Cert: b.stranger.crt, Key: b.stranger.key, SkipReceptorNamesCheck: true}, trusting(ClientOptions{RootCAs: b.cas}, pin(b.stranger.cert)), "127.0.0.1", "unknown authority", "*"},
		{"F103 right pin", pinned(mutual, longPin(b.client.cert)), withCert, "127.0.0.1", "", ""},
		{"F103 wrong pin", pinned(mutual, pin(b.server.cert)), withCert, "127.0.0.1", "*", "RVF failed: presented certificate does not match any pinned fingerprint"},
		{"clientcas only", ServerOptions{Cert: b.server.crt, Key: b.server.key, ClientCAs: b.cas}, withCert, "127.0.0.1", "", ""},
		{"clientcas only, no client certificate", ServerOptions{Cert: b.server.crt, Key: b.server.key, ClientCAs: b.cas}, ClientOptions{RootCAs: b.cas}, "127.0.0.1", "*", "RVF failed: peer certificate missing"},
		{"clientcas only, foreign", ServerOptions{Cert: b.server.crt, Key: b.server.key, ClientCAs: b.cas}, ClientOptions{Cert: b.stranger.crt, Key: b.stranger.key, RootCAs: b.cas}, "127.0.0.1", "*", "unknown authority"},
		{"requireclientcert only", ServerOptions{Cert: b.server.crt, Key: b.server.key, RequireClientCert: true}, withCert, "127.0.0.1", "*", "x509: "},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			s := server(t, "hub", tc.server).LinkConfig()
			s.MaxVersion = version
			o := meet(t, client(t, "edge", tc.client).LinkConfig(tc.host), s)
			name := fmt.Sprintf("%s, TLS 1.%d", tc.name, version-tls.VersionTLS10)
			if (tc.client1 == "") != (o.client == nil) || (tc.srvr1 == "") != (o.server == nil) {
				t.Errorf("%s: got errors %v and %v, want %q and %q", name, o.client, o.server, tc.client1, tc.srvr1)
				continue
			}
			if tc.client1 != "*" {
				wantText(t, name+", client", o.client, tc.client1)
			}
			if tc.srvr1 != "*" {
				wantText(t, name+", server", o.server, tc.srvr1)
			}
		}
	}
}

func TestF105VersionsAndCurves(t *testing.T) {
	b := newBelow(t)
	srv := ServerOptions{Cert: b.server.crt, Key: b.server.key}
	only12 := func(c *tls.Config) *tls.Config { c.MaxVersion = tls.VersionTLS12; return c }
	srv13, cli13 := srv, ClientOptions{RootCAs: b.cas, MinTLS13: true}
	srv13.MinTLS13 = true
	cli := ClientOptions{RootCAs: b.cas}
	if o := meet(t, only12(client(t, "edge", cli).LinkConfig("localhost")), server(t, "hub", srv13).LinkConfig()); o.client == nil {
		t.Error("a server with mintls13 took TLS 1.2")
	}
	if o := meet(t, client(t, "edge", cli13).LinkConfig("localhost"), only12(server(t, "hub", srv).LinkConfig())); o.client == nil {
		t.Error("a client with mintls13 took TLS 1.2")
	}
	x25519 := client(t, "edge", cli).LinkConfig("localhost")
	x25519.CurvePreferences = []tls.CurveID{tls.X25519}
	if o := meet(t, x25519, server(t, "hub", srv).LinkConfig()); o.client == nil || !strings.Contains(o.client.Error(), "handshake failure") {
		t.Errorf("X25519 alone: got %v, want a handshake failure", o.client)
	}
	if o := meet(t, x25519, server(t, "hub", srv13).LinkConfig()); o.client != nil {
		t.Errorf("X25519 alone with mintls13: %v", o.client)
	}
	for _, suite := range []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384} {
		c := only12(client(t, "edge", cli).LinkConfig("localhost"))
		c.CipherSuites = []uint16{suite}
		o := meet(t, c, server(t, "hub", srv).LinkConfig())
		if want := suite == tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256; want != (o.client == nil) {
			t.Errorf("%s: got %v", tls.CipherSuiteName(suite), o.client)
		}
	}
	base := server(t, "hub", srv).LinkConfig()
	if base.MinVersion != tls.VersionTLS12 || len(base.NextProtos) > 0 || !base.SessionTicketsDisabled {
		t.Errorf("got version %x, ALPN %v, tickets off %v", base.MinVersion, base.NextProtos, base.SessionTicketsDisabled)
	}
}

// A certificate that names its use must name the right one; one that names none is good for both.
func TestExtendedKeyUsage(t *testing.T) {
	b := newBelow(t)
	for _, tc := range []struct {
		name  string
		usage []x509.ExtKeyUsage
		want  string
	}{
		{"server", []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, ""},
		{"client", []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, "x509: certificate specifies an incompatible key usage"},
		{"none", nil, ""},
	} {
		names, err := local("hub").Extension()
		if err != nil {
			t.Fatal(err)
		}
		names.Critical = true // Which crypto/x509 accepts only because there is a DNS name as well.
		key := testKey(t)
		template := &x509.Certificate{SerialNumber: newSerial(), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: tc.usage}
		template.ExtraExtensions = append(template.ExtraExtensions, names)
		cert, err := create(template, b.ca.Cert, key.Public(), b.ca.Key)
		if err != nil {
			t.Fatal(err)
		}
		p := writePair(t, b.dir, cert, key)
		o := meet(t, client(t, "edge", ClientOptions{RootCAs: b.cas}).LinkConfig("localhost"), server(t, "hub", ServerOptions{Cert: p.crt, Key: p.key}).LinkConfig())
		wantText(t, tc.name, o.client, tc.want)
	}
}

func TestIntermediate(t *testing.T) {
	b := newBelow(t)
	key := testKey(t)
	template := &x509.Certificate{
		SerialNumber: newSerial(), Subject: b.server.cert.Issuer, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	template.Subject.CommonName = "intermediate"
	cert, err := create(template, b.ca.Cert, key.Public(), b.ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	p := issue(t, b.dir, &Authority{Cert: cert, Key: key}, Validity{}, local("hub"))
	cli := client(t, "edge", ClientOptions{RootCAs: b.cas})
	if o := meet(t, cli.LinkConfig("localhost"), server(t, "hub", ServerOptions{Cert: p.crt, Key: p.key}).LinkConfig()); o.client == nil {
		t.Error("accepted without the certificate in between")
	}
	put(t, p.crt, append(content(t, p.crt), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...))
	if o := meet(t, cli.LinkConfig("localhost"), server(t, "hub", ServerOptions{Cert: p.crt, Key: p.key}).LinkConfig()); o.client != nil {
		t.Errorf("chain in one file: %v", o.client)
	}
}

func TestRotation(t *testing.T) {
	b := newBelow(t)
	var log logged
	opt := ServerOptions{Name: "srv", Cert: b.server.crt, Key: b.server.key, RequireClientCert: true, ClientCAs: b.cas}
	srv, err := NewServer(opt, Owner{Node: "hub", Logger: log.logger()})
	if err != nil {
		t.Fatal(err)
	}
	cli := client(t, "edge", ClientOptions{Cert: b.client.crt, Key: b.client.key, RootCAs: b.cas})
	serverConf, clientConf := srv.LinkConfig(), cli.LinkConfig("localhost")
	serial := func(want *x509.Certificate, why string) {
		t.Helper()
		o := meet(t, clientConf, serverConf)
		if o.client != nil || o.server != nil {
			t.Fatalf("%s: %v, %v", why, o.client, o.server)
		}
		if got := o.state.PeerCertificates[0].SerialNumber; got.Cmp(want.SerialNumber) != 0 {
			t.Errorf("%s: got the certificate %x, want %x", why, got, want.SerialNumber)
		}
	}
	serial(b.server.cert, "at first")

	next := issue(t, b.dir, b.ca, Validity{}, local("hub"))
	put(t, opt.Cert, content(t, next.crt))
	serial(b.server.cert, "a certificate whose key has not come yet")
	serial(b.server.cert, "the same again")
	if n := log.count("cannot be used"); n != 1 {
		t.Errorf("logged %d times, want once:\n%s", n, &log)
	}
	if err := srv.Status().Err; err == nil || !strings.Contains(err.Error(), "private key does not match") {
		t.Errorf("got status %v", err)
	}
	put(t, opt.Key, content(t, next.key))
	serial(next.cert, "after both files were replaced")
	if err := srv.Status().Err; err != nil {
		t.Errorf("got status %v", err)
	}

	stray := issue(t, b.dir, b.ca, Validity{}, local("someone-else"))
	put(t, opt.Key, content(t, stray.key))
	put(t, opt.Cert, content(t, stray.crt))
	serial(next.cert, "a certificate of another node")
	if err := os.Remove(opt.Cert); err != nil {
		t.Fatal(err)
	}
	serial(next.cert, "a certificate that is gone")
	put(t, opt.Cert, content(t, next.crt))
	put(t, opt.Key, content(t, next.key))
	serial(next.cert, "back again")
	if err := srv.Status().Err; err != nil {
		t.Errorf("got status %v", err)
	}

	put(t, b.cas, nil)
	serial(next.cert, "an empty CA bundle")
	put(t, b.cas, content(t, b.otherCAs))
	if o := meet(t, clientConf, serverConf); o.client == nil || o.server == nil {
		t.Errorf("after the CA was replaced: got %v and %v, want both to refuse", o.client, o.server)
	}
	if s := srv.Status(); s.Expiry != next.cert.NotAfter || s.Name != "srv" || !s.Server || len(s.NodeIDs) != 1 {
		t.Errorf("got status %+v", s)
	}
}

// A file that is written in place, as fast as the clock of the file system ticks, is noticed as well.
func TestRotationInPlace(t *testing.T) {
	b := newBelow(t)
	w, err := watch(Owner{}.withDefaults().Logger, func(c [][]byte) (string, error) { return string(c[0]), nil }, b.cas)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		want := fmt.Sprintf("%03d", i)
		if err := os.WriteFile(b.cas, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := w.get(); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(b.cas, old, old); err != nil {
		t.Fatal(err)
	}
	if w.get(); !w.unchangedLocked() {
		t.Error("an old file is read again and again")
	}
}

// The names of CAs are not sent: those of many would not fit in the first packets of a stream.
func TestManyCAs(t *testing.T) {
	b := newBelow(t)
	var bundle []byte
	for i := range 300 {
		template := &x509.Certificate{SerialNumber: bigInt(int64(i + 1)), Subject: b.ca.Cert.Subject, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
		template.Subject.Organization = []string{strings.Repeat("x", 60)}
		template.Subject.CommonName = fmt.Sprint("ca ", i)
		cert, err := create(template, template, b.ca.Key.Public(), b.ca.Key)
		if err != nil {
			t.Fatal(err)
		}
		bundle = append(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	put(t, b.cas, append(bundle, content(t, b.cas)...))
	srv := server(t, "hub", ServerOptions{Cert: b.server.crt, Key: b.server.key, RequireClientCert: true, ClientCAs: b.cas})
	c := client(t, "edge", ClientOptions{Cert: b.client.crt, Key: b.client.key, RootCAs: b.cas}).LinkConfig("localhost")
	own := c.GetClientCertificate
	named := -1
	c.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		named = len(r.AcceptableCAs)
		return own(r)
	}
	if o := meet(t, c, srv.LinkConfig()); o.client != nil || o.server != nil || named != 0 {
		t.Errorf("got %v, %v, %d CA names", o.client, o.server, named)
	}
}

func TestRefusalsDoNotFillTheLog(t *testing.T) {
	var log logged
	r := &refusals{log: log.logger()}
	for i := range 1000 {
		_ = r.note(fmt.Errorf("reason %d", i))
	}
	if n := log.count("TLS peer refused"); n < 1 || n > 3 || r.number() != 1000 {
		t.Errorf("logged %d, counted %d", n, r.number())
	}
}

func TestExpiryIsLoggedOnceEach(t *testing.T) {
	dir := t.TempDir()
	ca, now := testCA(t, "ca"), time.Now()
	p := issue(t, dir, ca, Validity{NotAfter: now.Add(time.Hour)}, nodes("n1"))
	var log logged
	owner := Owner{Node: "n1", Logger: log.logger(), Now: func() time.Time { return now }}
	srv, err := NewServer(ServerOptions{Name: "s", Cert: p.crt, Key: p.key}, owner)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		srv.Expiry()
		if n := log.count("expires soon"); n != 1 {
			t.Errorf("%d warnings, want 1", n)
		}
	}
	now = now.Add(2 * time.Hour)
	for range 3 {
		srv.Expiry()
		if n := log.count("has expired"); n != 1 {
			t.Errorf("%d errors, want 1", n)
		}
	}
}

// TestDatesInErrors: an error about the dates of a certificate is the same at every try, so that it is logged once, and says
// which certificate is meant. One's own that is not valid yet is told of.
func TestDatesInErrors(t *testing.T) {
	b := newBelow(t)
	now := time.Now()
	for name, v := range map[string]Validity{
		"expired": {NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)}, "early": {NotBefore: now.Add(time.Hour), NotAfter: now.Add(3000 * time.Hour)},
	} {
		p := issue(t, b.dir, b.ca, v, Names{DNS: []string{"localhost"}, Nodes: []wire.NodeID{"hub"}})
		var log logged
		srv, err := NewServer(ServerOptions{Name: "s", Cert: p.crt, Key: p.key}, Owner{Node: "hub", Logger: log.logger(), Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		var texts []string
		for range 2 {
			at := now
			cl, err := NewClient(ClientOptions{Name: "c", RootCAs: b.cas}, Owner{Node: "edge", Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return at }})
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, fmt.Sprint(meet(t, cl.LinkConfig("localhost"), srv.LinkConfig()).client))
			now = now.Add(2 * time.Second)
		}
		want := fmt.Sprintf(" is valid from %s until ", srv.own.get().Leaf.NotBefore.UTC().Format(time.RFC3339))
		if texts[0] != texts[1] || !strings.Contains(texts[0], want) {
			t.Errorf("%s: got %q, then %q, want the same with %q", name, texts[0], texts[1], want)
		}
		if n := log.count("is not valid yet"); name == "early" && n != 1 || name == "expired" && n != 0 {
			t.Errorf("%s: logged %d times that it is not valid yet", name, n)
		}
	}
}

// What a peer's certificate says goes into errors, but not as it likes.
func TestHostileNamesInErrors(t *testing.T) {
	b := newBelow(t)
	hostile := Names{DNS: []string{"x\nERROR all is lost\x1b[2J"}, Nodes: []wire.NodeID{"evil\nline", wire.NodeID(strings.Repeat("y", 9000))}}
	for range 400 {
		hostile.DNS = append(hostile.DNS, strings.Repeat("z", 60))
	}
	p := issue(t, b.dir, b.ca, Validity{}, hostile)
	srv := server(t, "hub", ServerOptions{Cert: p.crt, Key: p.key, SkipReceptorNamesCheck: true})
	for name, conf := range map[string]*tls.Config{
		"host": client(t, "edge", ClientOptions{RootCAs: b.cas}).LinkConfig("localhost"),
		"node": client(t, "edge", ClientOptions{RootCAs: b.cas}).StreamConfig("hub"),
	} {
		conf = conf.Clone()
		conf.NextProtos = nil
		o := meet(t, conf, srv.LinkConfig())
		if o.client == nil || len(o.client.Error()) > 4096 || strings.ContainsAny(o.client.Error(), "\n\x1b") {
			t.Errorf("%s: got %q", name, o.client)
		}
	}
}

// FuzzBundle reads any file as a bundle of CAs: it has certificates, or there is an error that names the file.
func FuzzBundle(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		pool, err := parseBundle(slog.New(slog.DiscardHandler), "ca.pem", content)
		if (pool == nil) == (err == nil) || err != nil && !strings.Contains(err.Error(), "ca.pem") {
			t.Fatalf("got %v, %v", pool, err)
		}
	})
}
