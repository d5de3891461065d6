package identity

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// Reasons to refuse a peer.
var (
	ErrNoCertificate = errors.New("peer certificate missing")
	ErrNotPinned     = errors.New("presented certificate does not match any pinned fingerprint")
)

// NodeError means that a peer's certificate, good as it may be, is not that of the node it should be.
type NodeError struct {
	Want wire.NodeID
	Have []wire.NodeID
}

// shownIDs is how many of a peer's names an error repeats.
const shownIDs = 5

func (e *NodeError) Error() string {
	want := printable(e.Want)
	if len(e.Have) == 0 {
		return "x509: certificate is not valid for any Receptor node IDs, but wanted to match " + want
	}
	names := make([]string, 0, shownIDs+1)
	for _, id := range e.Have[:min(len(e.Have), shownIDs)] {
		names = append(names, printable(id))
	}
	if more := len(e.Have) - shownIDs; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	plural := ""
	if len(e.Have) > 1 {
		plural = "s"
	}
	return "x509: certificate is valid for Receptor node ID" + plural + " " + strings.Join(names, ", ") + ", not " + want
}

// printable is a name that a peer chose, as it can stand in a log.
func printable(id wire.NodeID) string {
	const shown = 255
	s := string(id)
	if len(s) > shown {
		s = s[:shown] + "..."
	}
	return printableText(s)
}

// printableText quotes what would disturb a terminal or a log.
func printableText(s string) string {
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

// nameCheck says which of a peer's names must be the right one.
type nameCheck uint8

const (
	anyName  nameCheck = iota
	hostName           // DNS name or IP address.
	nodeName
)

// verifier judges the certificates of peers in one handshake.
type verifier struct {
	usage x509.ExtKeyUsage
	cas   *authorities // nil: the trust of the operating system.
	trust string       // Where cas come from, for people.
	chain bool         // Whether the certificate must come from one of cas, be of its time and for usage.
	check nameCheck
	host  string      // To be found in it for hostName.
	node  wire.NodeID // To be found in it for nodeName.
	pins  pins        // One of which it has; none: any certificate.
	now   func() time.Time
}

// verify returns why the peer is refused. The text can go to a log, whatever the peer's certificate says.
func (v *verifier) verify(state tls.ConnectionState) error {
	if err := v.judge(state); err != nil {
		return &refusal{err}
	}
	return nil
}

// refusal is an error with the text cut to size and made printable.
type refusal struct{ err error }

// maxRefusal is the longest text, in bytes.
const maxRefusal = 2048

func (r *refusal) Unwrap() error { return r.err }

func (r *refusal) Error() string {
	s := r.err.Error()
	if len(s) > maxRefusal {
		s = s[:maxRefusal] + "..."
	}
	return printableText(s)
}

func (v *verifier) judge(state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return fmt.Errorf("RVF failed: %w", ErrNoCertificate)
	}
	leaf := state.PeerCertificates[0]
	if v.chain {
		if err := v.verifyChain(leaf, state.PeerCertificates[1:]); err != nil {
			return err
		}
	}
	if len(v.pins) > 0 && !v.pins.match(leaf.Raw) {
		return fmt.Errorf("RVF failed: %w (%s)", ErrNotPinned, describe(leaf))
	}
	if v.check != nodeName {
		return nil
	}
	ids, err := NodeIDs(leaf)
	if err != nil {
		return fmt.Errorf("x509: %w", err)
	}
	if !slices.Contains(ids, v.node) {
		return &NodeError{Want: v.node, Have: ids}
	}
	return nil
}

func (v *verifier) verifyChain(leaf *x509.Certificate, others []*x509.Certificate) error {
	opt := x509.VerifyOptions{
		Roots: v.cas.pool(), Intermediates: x509.NewCertPool(), CurrentTime: v.now(),
		KeyUsages: []x509.ExtKeyUsage{v.usage},
	}
	if v.check == hostName {
		if v.host == "" { // Would mean any to crypto/x509.
			return errors.New("x509: no host name to compare the certificate with")
		}
		opt.DNSName = v.host
	}
	for _, cert := range others {
		opt.Intermediates.AddCert(cert)
	}
	if _, err := withReadNames(leaf).Verify(opt); err != nil {
		return fmt.Errorf("%w (%s; trusted: %s)", withoutNow(err), describe(leaf), v.trust)
	}
	return nil
}

// withoutNow says of a certificate that is not valid now when it is, instead of what time it is: that differs with each
// try, so every try would look like a change. It may be one above the leaf.
func withoutNow(err error) error {
	invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
	if !ok || invalid.Reason != x509.Expired || invalid.Cert == nil {
		return err
	}
	invalid.Detail = fmt.Sprintf("that of %s is valid from %s until %s", printable(wire.NodeID(invalid.Cert.Subject.String())),
		invalid.Cert.NotBefore.UTC().Format(time.RFC3339), invalid.Cert.NotAfter.UTC().Format(time.RFC3339))
	return invalid
}

// withReadNames returns the certificate with its alternative names taken as understood, critical or not: crypto/x509
// does not know the names of nodes.
func withReadNames(cert *x509.Certificate) *x509.Certificate {
	isNames := func(oid asn1.ObjectIdentifier) bool { return oid.Equal(oidSubjectAltName) }
	if !slices.ContainsFunc(cert.UnhandledCriticalExtensions, isNames) {
		return cert
	}
	if ids, err := NodeIDs(cert); err != nil || len(ids) == 0 {
		return cert
	}
	known := *cert
	known.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(cert.UnhandledCriticalExtensions), isNames)
	return &known
}

// describe tells people which certificate is meant.
func describe(cert *x509.Certificate) string {
	return fmt.Sprintf("certificate of %s, issued by %s, valid until %s",
		printable(wire.NodeID(cert.Subject.String())), printable(wire.NodeID(cert.Issuer.String())), cert.NotAfter.UTC().Format(time.RFC3339))
}
