package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

const testBits = 1024 // The smallest RSA keys there are: these tests make many.

// certDir is a folder with an authority and a request.
type certDir struct{ dir, caCert, caKey, req, key, cert string }

func newCertDir(t *testing.T, names Names) certDir {
	t.Helper()
	dir := t.TempDir()
	d := certDir{dir, dir + "/ca.crt", dir + "/ca.key", dir + "/n.csr", dir + "/n.key", dir + "/n.crt"}
	if err := InitFiles("my ca", testBits, Validity{}, d.caCert, d.caKey); err != nil {
		t.Fatal(err)
	}
	if err := RequestFiles("foo cert", names, "", testBits, d.key, d.req); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d certDir) sign(confirm func(*x509.CertificateRequest) error) error {
	return SignFiles(d.req, d.caCert, d.caKey, d.cert, Validity{}, confirm)
}

func load[T any](t *testing.T, path string) T {
	t.Helper()
	item, err := one[T](path, "test", "test")
	if err != nil {
		t.Fatal(err)
	}
	return item
}

func TestF184F188F237Certificates(t *testing.T) {
	long := wire.NodeID(strings.Repeat("n", 200))
	names := Names{DNS: []string{"localhost", "b.example"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, Nodes: []wire.NodeID{"foo", long, "tsrv-ü"}}
	d := newCertDir(t, names)
	if err := d.sign(nil); err != nil {
		t.Fatal(err)
	}
	ca, cert := load[*x509.Certificate](t, d.caCert), load[*x509.Certificate](t, d.cert)
	switch {
	case ca.Subject.String() != "CN=my ca" || !bytes.Equal(ca.RawSubject, ca.RawIssuer):
		t.Errorf("got a CA of %s, issued by %s", ca.Subject, ca.Issuer)
	case !ca.IsCA || !ca.BasicConstraintsValid || ca.KeyUsage != x509.KeyUsageDigitalSignature|x509.KeyUsageCertSign || len(ca.SubjectKeyId) == 0:
		t.Errorf("the CA is no CA: %+v", ca)
	case ca.NotAfter.Sub(ca.NotBefore) < 3650*24*time.Hour || ca.SignatureAlgorithm != x509.SHA256WithRSA:
		t.Errorf("the CA lasts from %v to %v, signed by %v", ca.NotBefore, ca.NotAfter, ca.SignatureAlgorithm)
	case cert.Subject.String() != "CN=foo cert" || cert.IsCA || cert.KeyUsage != x509.KeyUsageDigitalSignature || !bytes.Equal(cert.AuthorityKeyId, ca.SubjectKeyId):
		t.Errorf("got the certificate %+v", cert)
	case !slices.Equal(cert.ExtKeyUsage, bothUsages) || !slices.Equal(ca.ExtKeyUsage, bothUsages):
		t.Errorf("got the uses %v and %v", cert.ExtKeyUsage, ca.ExtKeyUsage)
	}
	if days := cert.NotAfter.Sub(cert.NotBefore).Hours() / 24; days < 365 || days > 366 {
		t.Errorf("the certificate lasts %v days", days)
	}
	if got, err := namesIn(cert.Extensions); err != nil || !slices.Equal(got.Nodes, names.Nodes) || !slices.Equal(got.DNS, names.DNS) || len(got.IPs) != 2 {
		t.Errorf("got the names %v, %v, want %v", got, err, names)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, DNSName: "b.example"}); err != nil {
		t.Error(err)
	}
	if block, rest := pem.Decode(content(t, d.key)); block.Type != "RSA PRIVATE KEY" || len(rest) > 0 {
		t.Errorf("got a key of type %s", block.Type)
	}
	if block, rest := pem.Decode(content(t, d.req)); block.Type != "CERTIFICATE REQUEST" || len(rest) > 0 {
		t.Errorf("got a request of type %s", block.Type)
	}
}

func TestSerialsDiffer(t *testing.T) {
	d := newCertDir(t, nodes("n1"))
	seen := map[string]bool{}
	for range 5 {
		if err := d.sign(nil); err != nil {
			t.Fatal(err)
		}
		serial := load[*x509.Certificate](t, d.cert).SerialNumber
		if seen[serial.String()] || serial.BitLen() != 127 {
			t.Errorf("got the serial number %v again, or one of %d bits", serial, serial.BitLen())
		}
		seen[serial.String()] = true
	}
}

func TestF185FileModes(t *testing.T) {
	dir := t.TempDir()
	d := certDir{dir, dir + "/ca.crt", dir + "/ca.key", "", "", ""}
	for _, path := range []string{d.caCert, d.caKey} {
		if err := os.WriteFile(path, []byte("older and longer"+strings.Repeat(".", 9000)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	real := dir + "/real.key"
	if err := os.Rename(d.caKey, real); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real.key", d.caKey); err != nil {
		t.Fatal(err)
	}
	if err := InitFiles("ca", testBits, Validity{}, d.caCert, d.caKey); err != nil {
		t.Fatal(err)
	}
	if err := InitFiles("ca", testBits, Validity{}, dir+"/new.crt", dir+"/new.key"); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fs.FileMode{d.caCert: 0o644, d.caKey: fs.ModeSymlink, real: 0o600, dir + "/new.crt": 0o600, dir + "/new.key": 0o600} {
		info, err := os.Lstat(path)
		if err != nil || info.Mode().Type() != want.Type() || want.IsRegular() && info.Mode() != want {
			t.Errorf("%s: got mode %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
	load[*x509.Certificate](t, d.caCert)
	load[*rsa.PrivateKey](t, d.caKey)
	if left, err := filepath.Glob(dir + "/.*"); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
	if err := InitFiles("ca", testBits, Validity{}, dir+"/x/c", dir+"/k"); err == nil {
		t.Error("a certificate was written into a folder that is not there")
	}
	if _, err := os.Stat(dir + "/k"); err == nil {
		t.Error("the key of a certificate that could not be written was left, which keeps the next attempt from writing its own")
	}
	wantText(t, "folder that is not there", InitFiles("ca", testBits, Validity{}, dir+"/x/c", dir+"/x/k"), "no such file or directory")
}

func TestF189Confirm(t *testing.T) {
	d := newCertDir(t, Names{DNS: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Nodes: []wire.NodeID{"foo"}})
	for _, tc := range []struct{ answer, want string }{
		{"y\n", ""}, {"yes\n", ""}, {"YES", ""}, {" Y more\n", ""},
		{"no\n", "user declined"}, {"yess\n", "user declined"}, {"\n", "unexpected newline"}, {"  \n", "unexpected newline"}, {"", "EOF"},
		{strings.Repeat("y", 5000), "user declined"},
	} {
		_ = os.Remove(d.cert)
		var out strings.Builder
		wantText(t, "answer "+tc.answer, d.sign(Confirm(&out, strings.NewReader(tc.answer))), tc.want)
		want := `Requested certificate:
  Subject: CN=foo cert
  Encryption Algorithm: RSA (1024 bits)
  Signature Algorithm: SHA256-RSA
  Names:
    DNS Name: localhost
    IP Address: 127.0.0.1
    Receptor Node ID: foo
Sign certificate (yes/no)? `
		if out.String() != want {
			t.Errorf("asked\n%s\nwant\n%s", &out, want)
		}
		if _, err := os.Stat(d.cert); (err == nil) != (tc.want == "") {
			t.Errorf("answer %q: certificate written: %v", tc.answer, err == nil)
		}
	}
}

func TestF186Keys(t *testing.T) {
	d := newCertDir(t, nodes("n1"))
	dir := d.dir
	key := load[*rsa.PrivateKey](t, d.key)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(curve)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	rsaKey := content(t, d.key)
	for _, tc := range []struct {
		name    string
		content []byte
		want    string
	}{
		{"PKCS#1", rsaKey, ""},
		{"PKCS#8", block("PRIVATE KEY", pkcs8), ""},
		{"elliptic", slices.Concat(block("EC PARAMETERS", []byte{5, 0}), block("EC PRIVATE KEY", sec1)), ""},
		{"text around it", slices.Concat([]byte("my key\n"), rsaKey, []byte("\n\n\n")), ""},
		{"with a certificate", slices.Concat(content(t, d.caCert), rsaKey), ""},
		{"two", slices.Concat(rsaKey, rsaKey), "multiple private keys in file " + dir + "/in.key"},
		{"none", content(t, d.caCert), "no private keys in file " + dir + "/in.key"},
		{"no PEM", []byte("hello\n"), "failed to decode PEM block"},
		{"something else", block("DH PARAMETERS", nil), "unknown block type DH PARAMETERS"},
		{"encrypted", block("ENCRYPTED PRIVATE KEY", nil), "the private key is encrypted"},
		{"broken", block("PRIVATE KEY", []byte{1}), dir + "/in.key: "},
	} {
		put(t, dir+"/in.key", tc.content)
		err := RequestFiles("cn", Names{}, dir+"/in.key", 0, "", dir+"/out.csr")
		wantText(t, tc.name, err, tc.want)
		if err == nil {
			if err := load[*x509.CertificateRequest](t, dir+"/out.csr").CheckSignature(); err != nil {
				t.Errorf("%s: %v", tc.name, err)
			}
		}
	}
	for bits, want := range map[int]string{-1: "rsa: key too small", 512: "rsa: key too small", 1 << 20: "rsa: key too large"} {
		_, err := NewKey(bits)
		wantText(t, "bits", err, want)
	}
	if key, err := NewKey(0); err != nil || key.N.BitLen() != DefaultKeyBits {
		t.Errorf("0 bits: %v", err)
	}
}

func TestF190F191SignErrors(t *testing.T) {
	d := newCertDir(t, nodes("n1"))
	other := newCertDir(t, Names{})
	if err := d.sign(nil); err != nil {
		t.Fatal(err)
	}
	two := d.dir + "/two"
	put(t, two, slices.Concat(content(t, d.req), content(t, d.req)))
	for _, tc := range []struct{ name, req, cert, key, want string }{
		{"no names", other.req, d.caCert, d.caKey, "cannot sign: no names found in certificate"},
		{"no request", d.caCert, d.caCert, d.caKey, "certificate request file does not contain certificate request data"},
		{"no certificate", d.req, d.caKey, d.caKey, "certificate file does not contain certificate data"},
		{"no key", d.req, d.caCert, d.caCert, "private key file does not contain private key data"},
		{"two requests", two, d.caCert, d.caKey, "certificate request file should contain exactly one item"},
		{"other key", d.req, d.caCert, other.caKey, "x509: provided PrivateKey doesn't match parent's PublicKey"},
		{"missing", d.dir + "/x", d.caCert, d.caKey, "open " + d.dir + "/x: no such file or directory"},
	} {
		wantText(t, tc.name, SignFiles(tc.req, tc.cert, tc.key, d.cert, Validity{}, nil), tc.want)
	}
	wantText(t, "F190 dates", SignFiles(d.req, d.caCert, d.caKey, d.cert, Validity{time.Now(), time.Now().Add(-time.Hour)}, nil), "would never be valid")
	from := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	if err := SignFiles(d.req, d.caCert, d.caKey, d.cert, Validity{NotBefore: from}, nil); err != nil {
		t.Fatal(err)
	}
	if cert := load[*x509.Certificate](t, d.cert); !cert.NotBefore.Equal(from) || !cert.NotAfter.Equal(from.AddDate(1, 0, 0)) {
		t.Errorf("got %v to %v", cert.NotBefore, cert.NotAfter)
	}
}

// A request cannot ask for more than names: not to be a CA, and not in the name of a key that is not its own.
func TestGreedyRequests(t *testing.T) {
	ca := testCA(t, "ca")
	san, err := nodes("n1").Extension()
	if err != nil {
		t.Fatal(err)
	}
	key := testKey(t)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "x"}, ExtraExtensions: []pkix.Extension{san, {Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	req, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Sign(req, Validity{})
	if err != nil || cert.IsCA {
		t.Errorf("got a CA: %v, %v", cert.IsCA, err)
	}
	req.Signature[len(req.Signature)-1] ^= 1
	_, err = ca.Sign(req, Validity{})
	wantText(t, "forged", err, "cannot sign: the request is not signed with its own key")
	leaf := &Authority{Cert: &x509.Certificate{BasicConstraintsValid: true}, Key: key}
	req.Signature[len(req.Signature)-1] ^= 1
	_, err = leaf.Sign(req, Validity{})
	wantText(t, "not a CA", err, "is not a CA")
	_, err = (&Authority{Cert: cert, Key: key}).Sign(req, Validity{})
	wantText(t, "the certificate of a node", err, "is not a CA")
}

func TestOpenSSLReadsAll(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl program")
	}
	long := wire.NodeID(strings.Repeat("n", 200))
	d := newCertDir(t, Names{DNS: []string{"localhost"}, Nodes: []wire.NodeID{"foo", long}})
	if err := d.sign(nil); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"verify", "-auth_level", "0", "-x509_strict", "-CAfile", d.caCert, d.cert}, "OK"},
		{[]string{"x509", "-in", d.cert, "-noout", "-text"}, "othername: 1.3.6.1.4.1.2312.19.1::foo, othername: 1.3.6.1.4.1.2312.19.1::" + string(long)},
		{[]string{"req", "-in", d.req, "-noout", "-verify"}, "OK"},
		{[]string{"rsa", "-in", d.key, "-check", "-noout"}, "RSA key ok"},
	} {
		out, err := exec.Command(openssl, tc.args...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), tc.want) {
			t.Errorf("openssl %s: %v, got\n%s\nwant %q", tc.args[0], err, out, tc.want)
		}
	}
	sum, err := exec.Command(openssl, "x509", "-in", d.cert, "-noout", "-fingerprint", "-sha256").Output()
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(sum), "=")
	p, err := parsePins([]string{text})
	if err != nil || !p.match(load[*x509.Certificate](t, d.cert).Raw) {
		t.Errorf("the fingerprint %s does not match: %v", text, err)
	}
}

// TestOpenSSLMadeCertificates: daemons with certificates that openssl has made and those with our own take each other, on links
// and for streams, in both directions; what openssl has made for another node is refused like our own.
func TestOpenSSLMadeCertificates(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl program")
	}
	b := newBelow(t)
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command(openssl, args...)
		cmd.Dir = b.dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	kinds := map[string][]string{"rsa": {"rsa:2048"}, "ec": {"ec", "-pkeyopt", "ec_paramgen_curve:P-256"}}
	for kind, newKey := range kinds {
		t.Run(kind, func(t *testing.T) {
			path := func(name string) string { return filepath.Join(b.dir, kind+"-"+name) }
			newKey := append([]string{"-nodes", "-days", "2", "-newkey"}, newKey...)
			run(append([]string{"req", "-x509", "-subj", "/CN=openssl", "-addext", "keyUsage=critical,keyCertSign", "-keyout", path("ca.key"), "-out", path("ca.crt")}, newKey...)...)
			both := path("both.crt")
			put(t, both, append(content(t, path("ca.crt")), content(t, b.cas)...))
			issued := func(node string) pair {
				name := path(node)
				san := "subjectAltName=DNS:localhost,otherName:1.3.6.1.4.1.2312.19.1;UTF8:" + node
				run(append([]string{"req", "-x509", "-subj", "/CN=" + node, "-addext", san, "-addext", "basicConstraints=critical,CA:FALSE",
					"-CA", path("ca.crt"), "-CAkey", path("ca.key"), "-keyout", name + ".key", "-out", name + ".crt"}, newKey...)...)
				return pair{crt: name + ".crt", key: name + ".key"}
			}
			theirs := map[wire.NodeID]pair{"hub": issued("hub"), "edge": issued("edge"), "other": issued("other")}
			ours := map[wire.NodeID]pair{"hub": b.server, "edge": b.client}
			edge, hub := joined(t, "edge", "hub")
			for i, c := range []struct {
				name           string
				server, client pair
				want           string // In the error of a stream; "" for none.
			}{
				{"openssl serves ours", theirs["hub"], ours["edge"], ""},
				{"we serve openssl's", ours["hub"], theirs["edge"], ""},
				{"openssl serves openssl's", theirs["hub"], theirs["edge"], ""},
				{"openssl's server of another node", theirs["other"], ours["edge"], "certificate is valid for Receptor node ID other, not hub"},
				{"openssl's client of another node", ours["hub"], theirs["other"], "CRYPTO_ERROR 0x12a (remote)"},
			} {
				srv := server(t, "hub", ServerOptions{Cert: c.server.crt, Key: c.server.key, RequireClientCert: true, ClientCAs: both, SkipReceptorNamesCheck: true})
				cli := client(t, "edge", ClientOptions{Cert: c.client.crt, Key: c.client.key, RootCAs: both, SkipReceptorNamesCheck: true})
				if o := meet(t, cli.LinkConfig("localhost"), srv.LinkConfig()); o.client != nil || o.server != nil { // A link asks for no node ID.
					t.Errorf("%s, link: %v, %v", c.name, o.client, o.server)
				}
				service := fmt.Sprint("s", i)
				serveEcho(t, hub, service, srv.StreamConfig())
				wantText(t, c.name+", stream", ask(t, edge, "hub", service, cli.StreamConfig("hub")), c.want)
			}
		})
	}
}

// TestKeysAreNotOverwritten: nothing that is made takes the place of a private key, and nothing else is touched then.
func TestKeysAreNotOverwritten(t *testing.T) {
	d := newCertDir(t, Names{Nodes: []wire.NodeID{"foo"}})
	if err := d.sign(nil); err != nil {
		t.Fatal(err)
	}
	before := map[string]string{}
	for _, path := range []string{d.caCert, d.caKey, d.key, d.req, d.cert} {
		before[path] = string(content(t, path))
	}
	for name, err := range map[string]error{
		"authority":              InitFiles("new", testBits, Validity{}, d.caCert, d.caKey),
		"authority, certificate": InitFiles("new", testBits, Validity{}, d.caKey, d.dir+"/new.key"),
		"request":                RequestFiles("new", Names{}, "", testBits, d.key, d.req),
		"request for a key":      RequestFiles("new", Names{}, d.key, 0, "", d.caKey),
		"certificate":            SignFiles(d.req, d.caCert, d.caKey, d.key, Validity{}, nil),
	} {
		if !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), ".key exists already and holds a private key") {
			t.Errorf("%s: got %v, want ErrExists and the file", name, err)
		}
	}
	for path, want := range before {
		if got := string(content(t, path)); got != want {
			t.Errorf("%s was changed", path)
		}
	}
	if err := d.sign(nil); err != nil {
		t.Errorf("a certificate cannot be renewed: %v", err)
	}
}
