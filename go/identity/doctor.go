package identity

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// soon is how long before its end a certificate is worth a word.
const soon = 30 * 24 * time.Hour

// Examination is what to look at, and what to compare it with; empty fields are not compared.
type Examination struct {
	File string      // A certificate, a chain or bundle of them, a request or a key, PEM.
	Key  string      // File of the key that should belong to it.
	CA   string      // File of the CAs, one of which should have signed it.
	Node wire.NodeID // A node it should be for.
	Host string      // A host name or address it should be for.
	Now  time.Time   // Zero: now.
}

// Finding is one thing that Examine saw.
type Finding struct {
	File        string        `json:"file"`
	What        string        `json:"what"` // certificate, request, private key or public key
	Subject     string        `json:"subject,omitempty"`
	Issuer      string        `json:"issuer,omitempty"`
	CA          bool          `json:"ca,omitempty"`
	Nodes       []wire.NodeID `json:"nodes,omitempty"`
	Hosts       []string      `json:"hosts,omitempty"`
	NotBefore   *time.Time    `json:"not_before,omitempty"`
	NotAfter    *time.Time    `json:"not_after,omitempty"`
	Key         string        `json:"key,omitempty"`
	Fingerprint string        `json:"fingerprint,omitempty"` // SHA-256, as pinnedservercert and pinnedclientcert take it.
}

// Diagnosis is all that Examine saw. It is well if there are no problems.
type Diagnosis struct {
	Found    []Finding `json:"found"`
	Good     []string  `json:"good"`
	Warnings []string  `json:"warnings"`
	Problems []string  `json:"problems"`
}

// Examine says what is in a file, for whom and until when, and whether it matches what it should. The error is about the
// file itself; everything else is in the diagnosis.
func Examine(x Examination) (*Diagnosis, error) {
	all, err := items(x.File)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: no PEM data in it", x.File)
	}
	if x.Now.IsZero() {
		x.Now = time.Now()
	}
	d := &Diagnosis{Found: []Finding{}, Good: []string{}, Warnings: []string{}, Problems: []string{}}
	for _, item := range all {
		f, err := describeItem(item)
		if err != nil {
			d.problem("%v", err)
		}
		f.File = x.File
		d.Found = append(d.Found, f)
	}
	d.dates(all, x.Now)
	d.mode(x.File, all)
	d.key(all, x.Key)
	d.authority(all, x)
	d.names(all[0], x)
	return d, nil
}

func (d *Diagnosis) good(format string, args ...any) {
	d.Good = append(d.Good, fmt.Sprintf(format, args...))
}
func (d *Diagnosis) warn(format string, args ...any) {
	d.Warnings = append(d.Warnings, fmt.Sprintf(format, args...))
}
func (d *Diagnosis) problem(format string, args ...any) {
	d.Problems = append(d.Problems, fmt.Sprintf(format, args...))
}

func describeItem(item any) (Finding, error) {
	switch v := item.(type) {
	case *x509.Certificate:
		names, err := namesIn(v.Extensions)
		sum := sha256.Sum256(v.Raw)
		return Finding{
			What: "certificate", Subject: printableText(v.Subject.String()), Issuer: printableText(v.Issuer.String()), CA: v.IsCA,
			Nodes: names.Nodes, Hosts: hosts(names), NotBefore: &v.NotBefore, NotAfter: &v.NotAfter, Key: keyName(v.PublicKey), Fingerprint: hex.EncodeToString(sum[:]),
		}, err
	case *x509.CertificateRequest:
		names, err := RequestNames(v)
		return Finding{What: "request", Subject: printableText(v.Subject.String()), Nodes: names.Nodes, Hosts: hosts(names), Key: keyName(v.PublicKey)}, err
	case crypto.Signer:
		return Finding{What: "private key", Key: keyName(v.Public())}, nil
	default:
		return Finding{What: "public key", Key: keyName(v)}, nil
	}
}

func hosts(n Names) []string {
	list := slices.Clone(n.DNS)
	for _, ip := range n.IPs {
		list = append(list, ip.String())
	}
	return list
}

func (d *Diagnosis) dates(all []any, now time.Time) {
	for _, item := range all {
		c, ok := item.(*x509.Certificate)
		if !ok {
			continue
		}
		name := printableText(c.Subject.String())
		switch left := c.NotAfter.Sub(now); {
		case now.Before(c.NotBefore):
			d.problem("%s is not valid before %s: is the clock right?", name, date(c.NotBefore))
		case left <= 0:
			d.problem("%s expired on %s: sign it again", name, date(c.NotAfter))
		case left < soon:
			d.warn("%s expires in %d days, on %s", name, int(left/(24*time.Hour)), date(c.NotAfter))
		default:
			d.good("%s is valid for %d days more, until %s", name, int(left/(24*time.Hour)), date(c.NotAfter))
		}
	}
}

func date(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// mode says if others may read a private key.
func (d *Diagnosis) mode(path string, all []any) {
	private := slices.ContainsFunc(all, func(item any) bool { _, ok := item.(crypto.Signer); return ok })
	if info, err := os.Stat(path); private && err == nil && info.Mode().Perm()&0o077 != 0 {
		d.warn("%s has a private key and mode %04o: chmod 600 %s", path, info.Mode().Perm(), path)
	}
}

// publicKey is the key that an item is about.
func publicKey(item any) any {
	switch v := item.(type) {
	case *x509.Certificate:
		return v.PublicKey
	case *x509.CertificateRequest:
		return v.PublicKey
	case crypto.Signer:
		return v.Public()
	}
	return item
}

func (d *Diagnosis) key(all []any, path string) {
	if path == "" {
		return
	}
	key, err := LoadKey(path)
	if err != nil {
		d.problem("key %s: %v", path, err)
		return
	}
	mine, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if ok && mine.Equal(publicKey(all[0])) {
		d.good("the key %s belongs to it", path)
		return
	}
	if slices.ContainsFunc(all[1:], func(item any) bool { return ok && mine.Equal(publicKey(item)) }) {
		d.problem("the key %s belongs to another one in the file: the node's own certificate comes first", path)
		return
	}
	d.problem("the key %s does not belong to it: tls: private key does not match public key", path)
}

func (d *Diagnosis) authority(all []any, x Examination) {
	if x.CA == "" {
		return
	}
	leaf, ok := all[0].(*x509.Certificate)
	if !ok {
		d.problem("only a certificate is signed by a CA, this is a %s", d.Found[0].What)
		return
	}
	found, err := items(x.CA)
	if err != nil {
		d.problem("CA %s: %v", x.CA, err)
		return
	}
	roots, between, itself := x509.NewCertPool(), x509.NewCertPool(), false
	for _, item := range found {
		switch c, ok := item.(*x509.Certificate); {
		case ok && !leaf.IsCA && c.Equal(leaf): // It would vouch for itself.
			itself = true
		case ok:
			roots.AddCert(c)
		}
	}
	for _, item := range all[1:] {
		if c, ok := item.(*x509.Certificate); ok {
			between.AddCert(c)
		}
	}
	_, err = withReadNames(leaf).Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: x.Now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	switch {
	case err == nil:
		d.good("a CA of %s signed it", x.CA)
	case itself:
		d.warn("no CA of %s signed it: it is trusted only because the file holds itself", x.CA)
	default:
		d.problem("no CA of %s signed it: %v", x.CA, err)
	}
}

func (d *Diagnosis) names(item any, x Examination) {
	f := d.Found[0]
	if x.Node != "" {
		switch {
		case slices.Contains(f.Nodes, x.Node):
			d.good("it is for the node %s", x.Node)
		case len(f.Nodes) == 0:
			d.problem("it carries no node ID, and so not %s: make the request with nodeid=%s", x.Node, x.Node)
		default:
			d.problem("it is for the nodes %v, not for %s", f.Nodes, x.Node)
		}
	}
	if x.Host != "" {
		good := slices.Contains(f.Hosts, x.Host)
		if c, ok := item.(*x509.Certificate); ok {
			good = withReadNames(c).VerifyHostname(x.Host) == nil
		}
		if good {
			d.good("it is for the host %s", x.Host)
		} else {
			d.problem("it is for the hosts %v, not for %s", f.Hosts, x.Host)
		}
	}
	c, ok := item.(*x509.Certificate)
	if !ok || c.IsCA {
		return
	}
	for _, use := range []struct {
		usage x509.ExtKeyUsage
		what  string
	}{{x509.ExtKeyUsageServerAuth, "a server"}, {x509.ExtKeyUsageClientAuth, "a client"}} {
		if len(c.ExtKeyUsage) > 0 && !slices.Contains(c.ExtKeyUsage, use.usage) && !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny) {
			d.warn("its extended key usage does not allow it to be %s", use.what)
		}
	}
}

// Write writes the diagnosis for people.
func (d *Diagnosis) Write(w io.Writer) error {
	var b strings.Builder
	for _, f := range d.Found {
		what := f.What
		if f.CA {
			what = "certificate of a CA"
		}
		fmt.Fprintf(&b, "%s: %s, %s\n", f.File, what, f.Key)
		for _, line := range []struct{ name, text string }{
			{"subject", f.Subject}, {"issuer", f.Issuer}, {"nodes", joinNodes(f.Nodes)}, {"hosts", strings.Join(f.Hosts, ", ")}, {"sha-256", f.Fingerprint},
		} {
			if line.text != "" {
				fmt.Fprintf(&b, "  %-8s %s\n", line.name, line.text)
			}
		}
		if f.NotAfter != nil {
			fmt.Fprintf(&b, "  %-8s %s to %s\n", "valid", date(*f.NotBefore), date(*f.NotAfter))
		}
	}
	for _, list := range []struct {
		mark  string
		texts []string
	}{{"good", d.Good}, {"warning", d.Warnings}, {"PROBLEM", d.Problems}} {
		for _, text := range list.texts {
			fmt.Fprintf(&b, "%s: %s\n", list.mark, text)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func joinNodes(ids []wire.NodeID) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = printable(id)
	}
	return strings.Join(texts, ", ")
}

// Err is an error that says how many problems there are, nil if there are none.
func (d *Diagnosis) Err() error {
	if len(d.Problems) == 0 {
		return nil
	}
	return fmt.Errorf("problems found: %d", len(d.Problems))
}
