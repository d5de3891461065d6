package signing

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// keys writes a new pair of keys.
func keys(t *testing.T, dir string) (private, public string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	private, public = filepath.Join(dir, "sign.key"), filepath.Join(dir, "sign.pub")
	writePEM(t, private, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, public, "PUBLIC KEY", der)
	return private, public
}

func wantText(t *testing.T, what string, err error, want string) {
	t.Helper()
	got := ""
	if err != nil {
		got = err.Error()
	}
	if got != want && (want == "" || !strings.HasPrefix(got, want)) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

// TestF180RecordedTokens holds the verifier against tokens and answers of an existing node.
func TestF180RecordedTokens(t *testing.T) {
	text, err := os.ReadFile("testdata/tokens.txt")
	if err != nil {
		t.Fatal(err)
	}
	v := Verifier{KeyFile: "testdata/sign-pub.pem", Node: "alpha", Now: at(time.UnixMicro(1795295874548655))}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")[1:]
	if len(lines) != 3*9 {
		t.Fatalf("got %d lines, want 27", len(lines))
	}
	for ; len(lines) > 0; lines = lines[3:] {
		want := lines[2]
		if strings.Contains(want, "expired by") { // To the microsecond of somebody else's clock.
			want = "could not verify signature: token is expired by 10.548655s (it ended at 2026-11-21T21:17:44Z"
		}
		wantText(t, lines[0], v.Verify(lines[1]), want)
	}
}

func TestF179TokenOnTheWire(t *testing.T) {
	private, public := keys(t, t.TempDir())
	now := time.Unix(1795295869, 5e8)
	token, err := Signer{KeyFile: private, Expiration: 10 * time.Minute, Now: at(now)}.Sign("tap")
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(token, ".")
	for i, want := range []string{`{"alg":"RS512","typ":"JWT"}`, `{"aud":["tap"],"exp":1795296469}`} {
		if got, err := base64.RawURLEncoding.DecodeString(parts[i]); err != nil || string(got) != want {
			t.Errorf("part %d: got %s, %v, want %s", i, got, err, want)
		}
	}
	wantText(t, "fresh token", Verifier{KeyFile: public, Node: "tap", Now: at(now)}.Verify(token), "")
	wantText(t, "token of another node", Verifier{KeyFile: public, Node: "tab", Now: at(now)}.Verify(token), "token audience did not match node ID")
}

func TestF182Expiration(t *testing.T) {
	private, public := keys(t, t.TempDir())
	now := time.Unix(1795295869, 0)
	token, err := Signer{KeyFile: private, Now: at(now)}.Sign("tap")
	if err != nil {
		t.Fatal(err)
	}
	verify := func(now time.Time) error { return Verifier{KeyFile: public, Node: "tap", Now: at(now)}.Verify(token) }
	end := now.Add(5 * time.Minute)
	wantText(t, "one moment before the end", verify(end.Add(-1)), "")
	wantText(t, "at the end", verify(end), "could not verify signature: token is expired by 0s (it ended at 2026-11-21T21:")
	err = verify(end.Add(90 * time.Second))
	wantText(t, "after the end", err, "could not verify signature: token is expired by 1m30s (it ended at ")
	for _, want := range []string{end.UTC().Format(time.RFC3339), end.Add(90 * time.Second).UTC().Format(time.RFC3339), "set one of the two clocks"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, want %q in it", err, want)
		}
	}
}

// sign makes a token with any method and claims.
func sign(t *testing.T, keyFile string, method jwt.SigningMethod, claims jwt.MapClaims) string {
	t.Helper()
	text, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	key, err := jwt.ParseRSAPrivateKeyFromPEM(text)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.NewWithClaims(method, claims).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestF180MethodsAndClaims(t *testing.T) {
	private, public := keys(t, t.TempDir())
	v := Verifier{KeyFile: public, Node: "tap", Now: at(time.Unix(1000, 5e8))}
	for _, test := range []struct {
		what   string
		method jwt.SigningMethod
		claims jwt.MapClaims
		want   string
	}{
		{"RS256", jwt.SigningMethodRS256, jwt.MapClaims{"aud": "tap", "exp": 1001}, ""},
		{"RS384", jwt.SigningMethodRS384, jwt.MapClaims{"aud": "tap", "exp": 1001}, ""},
		{"PS256", jwt.SigningMethodPS256, jwt.MapClaims{"aud": "tap", "exp": 1001}, ""},
		{"PS384", jwt.SigningMethodPS384, jwt.MapClaims{"aud": "tap", "exp": 1001}, ""},
		{"PS512", jwt.SigningMethodPS512, jwt.MapClaims{"aud": "tap", "exp": 1001}, ""},
		{"no exp", jwt.SigningMethodRS512, jwt.MapClaims{"aud": "tap"}, ""},
		{"exp with a fraction", jwt.SigningMethodRS512, jwt.MapClaims{"aud": []string{"x", "tap"}, "exp": json.Number("1001.5")}, ""},
		{"exp as text", jwt.SigningMethodRS512, jwt.MapClaims{"aud": []string{"tap"}, "exp": "1001"}, ""},
		{"exp as nonsense", jwt.SigningMethodRS512, jwt.MapClaims{"aud": []string{"tap"}, "exp": "soon"}, "could not verify signature: "},
		{"iat in the future", jwt.SigningMethodRS512, jwt.MapClaims{"aud": "tap", "iat": 1001}, "could not verify signature: token used before issued (at 1970-01-01T00:16:41Z, "},
		{"nbf in the future", jwt.SigningMethodRS512, jwt.MapClaims{"aud": "tap", "nbf": 1001}, "could not verify signature: token is not valid yet (not before 1970-01-01T00:16:41Z, "},
		{"no aud", jwt.SigningMethodRS512, jwt.MapClaims{"exp": 1001}, "token audience did not match node ID"},
		{"empty aud", jwt.SigningMethodRS512, jwt.MapClaims{"aud": []string{}, "exp": 1001}, "token audience did not match node ID"},
		{"part of the node's name", jwt.SigningMethodRS512, jwt.MapClaims{"aud": "ta", "exp": 1001}, "token audience did not match node ID"},
	} {
		wantText(t, test.what, v.Verify(sign(t, private, test.method, test.claims)), test.want)
	}
	der, err := os.ReadFile(public)
	if err != nil {
		t.Fatal(err)
	}
	// The classic attack: the public key as the secret of a symmetric method.
	forged, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"aud": "tap"}).SignedString(der)
	if err != nil {
		t.Fatal(err)
	}
	wantText(t, "HS256", v.Verify(forged), "could not verify signature: signing method HS256 is not allowed")
}

func TestF180Garbage(t *testing.T) {
	_, public := keys(t, t.TempDir())
	v := Verifier{KeyFile: public, Node: "tap"}
	for token, want := range map[string]string{
		"garbage":                      "could not verify signature: token contains an invalid number of segments",
		"a.b.c":                        "could not verify signature: illegal base64 data at input byte 0",
		"e30.e30.e30":                  "could not verify signature: signing method (alg) is unspecified",
		"bnVsbA.bnVsbA.":               "could not verify signature: signing method (alg) is unspecified",
		strings.Repeat("a", 17<<10):    "could not verify signature: token has 17408 bytes, at most 16384 are read",
		strings.Repeat("a.", 1000):     "could not verify signature: token contains an invalid number of segments",
		"eyJhbGciOiJYWCJ9.e30.AAAA":    "could not verify signature: signing method (alg) is unavailable",
		"eyJhbGciOiJSUzUxMiJ9.e30.###": "could not verify signature: illegal base64 data at input byte 0",
	} {
		wantText(t, token, v.Verify(token), want)
	}
}

// TestKeysAreReadAtEveryUse changes, breaks and removes the files of both keys.
func TestKeysAreReadAtEveryUse(t *testing.T) {
	dir := t.TempDir()
	private, public := keys(t, dir)
	s, v := Signer{KeyFile: private}, Verifier{KeyFile: public, Node: "tap"}
	old, err := s.Sign("tap")
	if err != nil {
		t.Fatal(err)
	}
	wantText(t, "first key", v.Verify(old), "")
	keys(t, dir)
	wantText(t, "token of the first key after a change", v.Verify(old), "could not verify signature: crypto/rsa: verification error")
	fresh, err := s.Sign("tap")
	if err != nil {
		t.Fatal(err)
	}
	wantText(t, "token of the second key", v.Verify(fresh), "")

	for _, path := range []string{private, public} {
		if err := os.WriteFile(path, []byte("nothing"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err = s.Sign("tap")
	wantText(t, "broken private key", err, "could not load signing key file: "+private+": failed to decode PEM block")
	wantText(t, "broken public key", v.Verify(fresh), "could not load verifying key file: "+public+": failed to decode PEM block")
	private, _ = keys(t, dir)
	if err := os.Remove(public); err != nil {
		t.Fatal(err)
	}
	wantText(t, "no public key", v.Verify(fresh), "could not load verifying key file: open "+public+": no such file or directory")
	_, err = Signer{KeyFile: private + "x"}.Sign("tap")
	wantText(t, "no private key", err, "could not load signing key file: open ")
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, "/dev/zero"} { // Nobody waits for the first, nor reads the second.
		_, err = Signer{KeyFile: path}.Sign("tap")
		wantText(t, "private key that is no file", err, "could not load signing key file: open "+path+": a ")
		wantText(t, "public key that is no file", Verifier{KeyFile: path, Node: "tap"}.Verify(fresh), "could not load verifying key file: open "+path+": a ")
	}
	wantText(t, "private key for public", Verifier{KeyFile: private, Node: "tap"}.Verify(fresh), "could not load verifying key file: public key file does not contain RSA public key data: ")
	_, err = Signer{KeyFile: public}.Sign("tap")
	wantText(t, "public key for private", err, "could not load signing key file: ")
}

func TestPKCS8Key(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key")
	writePEM(t, path, "PRIVATE KEY", der)
	if _, err := (Signer{KeyFile: path}).Sign("tap"); err != nil {
		t.Error(err)
	}
}

func FuzzVerify(f *testing.F) {
	f.Add("a.b.c")
	f.Add("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJhdWQiOlsiYWxwaGEiXSwiZXhwIjoxNzk1Mjk1OTM0fQ.")
	v := Verifier{KeyFile: "testdata/sign-pub.pem", Node: "alpha"}
	f.Fuzz(func(t *testing.T, token string) {
		if v.Verify(token) == nil {
			t.Errorf("%q was accepted", token)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "key")
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := (Signer{KeyFile: path}).Sign("tap"); err != nil {
			b.Fatal(err)
		}
	}
}
