package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// testCA is an authority with an elliptic key, which takes no time to make.
func testCA(t testing.TB, name string) *Authority {
	t.Helper()
	key := testKey(t)
	template := &x509.Certificate{
		SerialNumber: newSerial(), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	cert, err := create(template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &Authority{Cert: cert, Key: key}
}

func testKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// pair is a certificate with its key, in files.
type pair struct {
	cert      *x509.Certificate
	crt, key  string
	signedFor crypto.Signer
}

// issue makes a certificate for names and writes it to dir.
func issue(t testing.TB, dir string, ca *Authority, v Validity, names Names) pair {
	t.Helper()
	key := testKey(t)
	req, err := Request("somebody", names, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Sign(req, v)
	if err != nil {
		t.Fatal(err)
	}
	return writePair(t, dir, cert, key)
}

func writePair(t testing.TB, dir string, cert *x509.Certificate, key crypto.Signer) pair {
	t.Helper()
	serial := cert.SerialNumber.Text(16)
	p := pair{cert: cert, crt: filepath.Join(dir, serial+".crt"), key: filepath.Join(dir, serial+".key"), signedFor: key}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	put(t, p.crt, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	put(t, p.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	return p
}

// caFile writes the certificates of authorities to one file.
func caFile(t testing.TB, dir string, cas ...*Authority) string {
	t.Helper()
	var b bytes.Buffer
	for _, ca := range cas {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: ca.Cert.Raw})
	}
	path := filepath.Join(dir, "ca-"+cas[0].Cert.SerialNumber.Text(16)+".crt")
	put(t, path, b.Bytes())
	return path
}

// put replaces a file at once.
func put(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func content(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func nodes(ids ...wire.NodeID) Names { return Names{Nodes: ids} }

// local is what a server on this machine is called, beside its node IDs.
func local(ids ...wire.NodeID) Names {
	return Names{DNS: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Nodes: ids}
}

// logged is a log to look at.
type logged struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logged) Write(p []byte) (int, error) { l.mu.Lock(); defer l.mu.Unlock(); return l.b.Write(p) }
func (l *logged) String() string              { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }
func (l *logged) count(text string) int       { return strings.Count(l.String(), text) }
func (l *logged) logger() *slog.Logger        { return slog.New(slog.NewTextHandler(l, nil)) }

func wantText(t *testing.T, what string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: got error %v, want none", what, err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: got error %v, want %q in it", what, err, want)
	}
}

func bigInt(n int64) *big.Int { return big.NewInt(n) }
