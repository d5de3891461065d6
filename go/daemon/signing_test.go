package daemon

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/identity"
	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor/signing"
)

// signingKeys writes a pair of keys for the signatures of work.
func signingKeys(t *testing.T) (private, public string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	private, public = filepath.Join(dir, "sign.key"), filepath.Join(dir, "sign.pub")
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if err := identity.SaveKey(private, key); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(public, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return private, public
}

// workAt starts node a, whose clients are on a Unix socket, and node b, which offers the work type secure to those who sign and
// plain to all, over TLS and to TCP clients.
func workAt(t *testing.T, a, b []string) (socket, tcp string, da, db *Daemon) {
	t.Helper()
	p := newPapers(t)
	socket = filepath.Join(t.TempDir(), "a.sock")
	tcp = freePort(t)
	da, db = pairOf(t, p,
		append([]string{"--control-service", "filename=" + socket}, a...),
		append([]string{"--control-service", "tls=srv", "tcplisten=" + tcp,
			"--work-command", "worktype=secure", "command=cat", "verifysignature=true",
			"--work-command", "worktype=plain", "command=cat"}, b...))
	// Before the daemons close: units whose node has been closed cannot be released.
	t.Cleanup(func() { releaseUnits(da); releaseUnits(db) })
	return socket, tcp, da, db
}

func releaseUnits(d *Daemon) {
	for id := range d.Work.List() {
		_, _ = d.Work.Release(d.ctx, id, true)
	}
}

// submitLine gives one line to a new session and returns the answer to it, and the final one if a payload was wanted.
func submitLine(t *testing.T, network, addr, line string) string {
	t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, line+"\ndata"); err != nil {
		t.Fatal(err)
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) > 2 && strings.HasPrefix(lines[1], "ERROR") { // What followed is the payload, taken for a command.
		return lines[1]
	}
	return lines[len(lines)-1]
}

func wantAnswer(t *testing.T, what, got, want string) {
	t.Helper()
	if !strings.Contains(got, want) {
		t.Errorf("%s: got %q, want %q in it", what, got, want)
	}
}

const started = `{"result":"Job Started"`

func TestF179F181SignedWorkOverTheMesh(t *testing.T) {
	private, public := signingKeys(t)
	socket, tcp, a, b := workAt(t,
		[]string{"--work-signing", private, "tokenexpiration=10m"},
		[]string{"--work-verification", public})
	submit := func(work, more string) string {
		return submitLine(t, "unix", socket, `{"command":"work","subcommand":"submit","node":"b","tlsclient":"cli","worktype":"`+work+`"`+more+`}`)
	}
	wantAnswer(t, "signed", submit("secure", `,"signwork":"true"`), started)
	for id := range a.Work.List() {
		if s, err := a.Work.Wait(t.Context(), id); err != nil || s.Detail != "exit status 0" || s.StdoutSize != 4 {
			t.Errorf("got %v %q %d, %v, want exit status 0", s.State, s.Detail, s.StdoutSize, err)
		}
		if pending, err := a.Work.Release(t.Context(), id, false); pending || err != nil {
			t.Errorf("signed release: got %v, %v", pending, err)
		}
	}
	if left := len(a.Work.List()) + len(b.Work.List()); left != 0 {
		t.Errorf("%d units are left after the release", left)
	}
	const no = "ERROR: could not parse response: ERROR: "
	wantAnswer(t, "unsigned", submit("secure", ""), no+"could not verify signature: signature is empty")
	wantAnswer(t, "signwork that is not true", submit("secure", `,"signwork":"True"`), no+"could not verify signature: signature is empty")
	wantAnswer(t, "signature to a type without", submit("plain", `,"signwork":"true"`), no+"work type did not expect a signature")
	wantAnswer(t, "plain", submit("plain", ""), started)

	// The same for clients of b itself on TCP, whose tokens must name b.
	local := func(signature string) string {
		if signature != "" {
			signature = `,"signature":"` + signature + `"`
		}
		return submitLine(t, "tcp", tcp, `{"command":"work","subcommand":"submit","node":"localhost","worktype":"secure"`+signature+`}`)
	}
	token := func(s signing.Signer, node wire.NodeID) string {
		text, err := s.Sign(node)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	other, _ := signingKeys(t)
	wantAnswer(t, "TCP, unsigned", local(""), "ERROR: could not verify signature: signature is empty")
	wantAnswer(t, "TCP, wrong key", local(token(signing.Signer{KeyFile: other}, "b")), "ERROR: could not verify signature: crypto/rsa: verification error")
	wantAnswer(t, "TCP, wrong node", local(token(signing.Signer{KeyFile: private}, "a")), "ERROR: token audience did not match node ID")
	wantAnswer(t, "TCP, expired", local(token(signing.Signer{KeyFile: private, Expiration: -time.Second}, "b")), "ERROR: could not verify signature: token is expired by ")
	wantAnswer(t, "TCP, signed", local(token(signing.Signer{KeyFile: private}, "b")), started)
}

func TestF180WithoutKeys(t *testing.T) {
	_, public := signingKeys(t)
	socket, _, a, _ := workAt(t, nil, []string{"--work-verification", public})
	got := submitLine(t, "unix", socket, `{"command":"work","subcommand":"submit","node":"b","tlsclient":"cli","worktype":"secure","signwork":"true"}`)
	wantAnswer(t, "no signing key", got, "ERROR: cannot sign work: signing key is empty")
	for _, s := range a.Work.List() {
		wantAnswer(t, "no signing key", s.Detail, "Error starting worker: cannot sign work: signing key is empty")
	}
}

func TestF180UnixSocketIsExempt(t *testing.T) {
	_, public := signingKeys(t)
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	d, err := Build(t.Context(), parse(t, "--node", "id=a", "datadir="+dir, "--work-verification", public, "--control-service", "filename="+socket,
		"--work-command", "worktype=secure", "command=cat", "verifysignature=true"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { releaseUnits(d); _ = d.Close() })
	wantAnswer(t, "unix", submitLine(t, "unix", socket, "work submit localhost secure"), started)
	wantAnswer(t, "unix with signwork", submitLine(t, "unix", socket, `{"command":"work","subcommand":"submit","node":"a","worktype":"secure","signwork":"true"}`), started)
}

func TestF183AdvertisedAsSecure(t *testing.T) {
	_, public := signingKeys(t)
	_, _, a, _ := workAt(t, nil, []string{"--work-verification", public})
	changes := a.Node.Subscribe(64)
	defer changes.Close()
	hang := time.After(time.Minute)
	for {
		var found []string
		for _, ad := range a.Node.Status().Advertisements {
			for _, w := range ad.WorkCommands {
				if ad.NodeID == "b" && w.Secure {
					found = append(found, w.WorkType)
				}
			}
		}
		if len(found) > 0 && found[0] == "secure" {
			return
		}
		select {
		case <-changes.C:
		case <-hang:
			t.Fatalf("got %v as secure work of b, want secure", found)
		}
	}
}

func TestSigningKeyFilesAtStart(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ directive, file, want string }{
		{"--work-signing", filepath.Join(dir, "nofile"), filepath.Join(dir, "nofile") + " does not exist"},
		{"--work-verification", filepath.Join(dir, "nofile"), filepath.Join(dir, "nofile") + " does not exist"},
		{"--work-signing", "", " does not exist"},
		{"--work-signing", garbage, ""},
		{"--work-verification", garbage, ""},
	} {
		out := newOutput()
		args := []string{"--node", "id=a", "datadir=" + dir, test.directive}
		if test.file != "" {
			args = append(args, test.file)
		}
		d, err := Build(t.Context(), parse(t, args...), Options{Stdout: out})
		if err == nil {
			_ = d.Close()
			wantAnswer(t, test.directive, out.String(), "before the ")
		}
		if (err == nil) != (test.want == "") || err != nil && !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s %s: got %v, want %q", test.directive, test.file, err, test.want)
		}
	}
}

// TestF176SecretsStaySecret looks for a secret parameter and for signatures in replies, logs, and the processes of a unit.
func TestF176SecretsStaySecret(t *testing.T) {
	p := newPapers(t)
	private, public := signingKeys(t)
	addr, socket := freePort(t), filepath.Join(t.TempDir(), "a.sock")
	_, port, _ := net.SplitHostPort(addr)
	out := newOutput()
	start := func(id string, args ...string) *Daemon {
		p.issue(t, wire.NodeID(id))
		args = append([]string{"--node", "id=" + id, "datadir=" + t.TempDir(), "--log-level", "debug"}, args...)
		d, err := Build(t.Context(), parse(t, append(args, p.profiles(wire.NodeID(id))...)...), Options{Stdout: out})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { releaseUnits(d); _ = d.Close() })
		return d
	}
	const look = `-c "tr '\\000' ' ' < /proc/$PPID/cmdline; env; cat"`
	start("b", "--tcp-listener", "bindaddr=127.0.0.1", "port="+port, "--control-service", "tls=srv", "--work-verification", public,
		"--work-command", "worktype=look", "command=sh", "params="+look, "verifysignature=true")
	a := start("a", "--tcp-peer", addr, "--control-service", "filename="+socket, "--work-signing", private)
	if _, _, err := a.Node.WaitRoute(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	request := func(more string) string {
		return `{"command":"work","subcommand":"submit","node":"b","worktype":"look","signwork":"true","secret_token":"hunter2"` + more + `}`
	}
	wantAnswer(t, "without TLS", submitLine(t, "unix", socket, request("")), "ERROR: cannot send secrets over a non-TLS connection")
	wantAnswer(t, "with TLS", submitLine(t, "unix", socket, request(`,"tlsclient":"cli"`)), started)
	seen := ""
	for id := range a.Work.List() {
		status, err := a.Work.Wait(t.Context(), id)
		if err != nil || status.Detail != "exit status 0" {
			t.Fatalf("got %v, %v", status, err)
		}
		text, err := status.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		results, err := a.Work.Results(t.Context(), id, 0)
		if err != nil {
			t.Fatal(err)
		}
		output, err := io.ReadAll(results)
		if err != nil {
			t.Fatal(err)
		}
		_ = results.Close()
		seen += string(text) + string(output)
	}
	wantAnswer(t, "output", seen, "command-runner")
	for where, text := range map[string]string{"replies and processes": seen, "logs": out.String()} {
		for _, secret := range []string{"hunter2", "eyJ"} {
			if strings.Contains(text, secret) {
				t.Errorf("%q is in %s:\n%s", secret, where, text)
			}
		}
	}
}
