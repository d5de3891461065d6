package identity

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// Owner is the node that profiles belong to.
type Owner struct {
	Node   wire.NodeID
	Logger *slog.Logger     // nil discards.
	Now    func() time.Time // For validity periods; nil is time.Now.
	// Peer returns the node behind the address that a stream's handshake comes from, as its packets claim. nil knows
	// none, so services that require certificates refuse everybody.
	Peer func(net.Addr) (wire.NodeID, bool)
}

func (o Owner) withDefaults() Owner {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Peer == nil {
		o.Peer = func(net.Addr) (wire.NodeID, bool) { return "", false }
	}
	return o
}

// streamALPN is the protocol that streams between nodes negotiate.
const streamALPN = "netceptor"

// expiryWarning is how long before its end a certificate is worth a warning.
const expiryWarning = 14 * 24 * time.Hour

// What peers negotiate unless only TLS 1.3 is wanted.
var (
	curves = []tls.CurveID{tls.CurveP521, tls.CurveP384, tls.CurveP256}
	suites = []uint16{
		tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_RSA_WITH_AES_256_GCM_SHA384, //nolint:gosec // Existing peers may offer nothing else.
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	}
	// streamCurves are the default ones without the post-quantum exchange, with which every first packet would be two.
	streamCurves = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}
)

// baseConfig has what all uses of a profile share. Session tickets are off: a resumed session would be judged by the
// rules, files and dates of its first handshake.
func baseConfig(min13, stream bool) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12, CurvePreferences: curves, CipherSuites: suites, SessionTicketsDisabled: true}
	if min13 {
		c.MinVersion, c.CurvePreferences, c.CipherSuites = tls.VersionTLS13, nil, nil
	}
	if stream {
		c.MinVersion, c.NextProtos = tls.VersionTLS13, []string{streamALPN}
		if min13 {
			c.CurvePreferences = streamCurves
		}
	}
	return c
}

// keyPair watches a certificate chain and its key.
type keyPair struct {
	*watched[*tls.Certificate]
	owner     Owner
	section   string // Name of the profile.
	certFile  string
	skipNames bool

	mu     sync.Mutex
	warned expiryNote // The last one.
}

func newKeyPair(owner Owner, section, certFile, keyFile string, skipNames bool) (*keyPair, error) {
	k := &keyPair{owner: owner, section: section, certFile: certFile, skipNames: skipNames}
	parse := func(contents [][]byte) (*tls.Certificate, error) {
		pair, err := tls.X509KeyPair(contents[0], contents[1])
		if err != nil {
			return nil, fmt.Errorf("%w (certificate %s, key %s%s)", err, certFile, keyFile, keyHint(contents[1]))
		}
		if !skipNames {
			err = k.checkNames(pair.Leaf)
		}
		return &pair, err
	}
	var err error
	if k.watched, err = watch(owner.Logger.With("profile", section), parse, certFile, keyFile); err != nil {
		return nil, err
	}
	k.current()
	return k, nil
}

// prefixed begins each of the problems that err joins with a text; it flattens what is joined in them.
func prefixed(text string, err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return fmt.Errorf("%s: %w", text, err)
	}
	var all error
	for _, problem := range joined.Unwrap() {
		all = errors.Join(all, prefixed(text, problem))
	}
	return all
}

// keyHint explains keys that look right to people.
func keyHint(content []byte) string {
	if block, _ := pem.Decode(content); block != nil && (block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "") {
		return "; the key is encrypted: store it without a passphrase, with mode 0600"
	}
	return ""
}

// checkNames makes sure that the node can show its certificate to peers that look for its ID in it.
func (k *keyPair) checkNames(leaf *x509.Certificate) error {
	ids, err := NodeIDs(leaf)
	if err != nil {
		return fmt.Errorf("%s: %w", k.certFile, err)
	}
	if !slices.Contains(ids, k.owner.Node) {
		return fmt.Errorf("nodeID=%s not found in certificate name(s); names found=%s; cfg section=%s; server cert=%s "+
			"(ask for a certificate with nodeid=%s, or set skipreceptornamescheck if no peer looks for the ID)",
			k.owner.Node, ids, k.section, k.certFile, k.owner.Node)
	}
	return nil
}

// expiryNote is what was logged about the time in which a certificate is valid.
type expiryNote struct {
	pair           *tls.Certificate
	expired, early bool
}

// current returns the certificate to show. One that is not valid now is shown as well: peers then say what is wrong.
func (k *keyPair) current() *tls.Certificate {
	pair, now := k.get(), k.owner.Now()
	left, early := pair.Leaf.NotAfter.Sub(now), pair.Leaf.NotBefore.After(now)
	if left > expiryWarning && !early {
		return pair
	}
	note := expiryNote{pair, left < 0, early}
	k.mu.Lock()
	first := k.warned != note
	k.warned = note
	k.mu.Unlock()
	switch log := k.owner.Logger.With("profile", k.section, "file", k.certFile, "not_after", pair.Leaf.NotAfter); {
	case !first:
	case note.early:
		log.Error("TLS certificate is not valid yet: peers refuse it until then; is the clock right?", "not_before", pair.Leaf.NotBefore)
	case note.expired:
		log.Error("TLS certificate has expired: peers refuse it until the file is replaced")
	default:
		log.Warn("TLS certificate expires soon: replace the file, the node reads it again by itself")
	}
	return pair
}

// authorities watches a bundle of CA certificates.
type authorities struct{ *watched[*x509.CertPool] }

// newAuthorities loads a bundle; "" is the trust of the operating system.
func newAuthorities(owner Owner, section, path, what string) (*authorities, error) {
	if path == "" {
		return nil, nil
	}
	log := owner.Logger.With("profile", section)
	w, err := watch(log, func(contents [][]byte) (*x509.CertPool, error) { return parseBundle(log, path, contents[0]) }, path)
	if err != nil {
		return nil, fmt.Errorf("error reading %s CAs file: %w", what, err)
	}
	return &authorities{w}, nil
}

// pool returns the roots to verify with; nil stands for those of the operating system.
func (a *authorities) pool() *x509.CertPool {
	if a == nil {
		return nil
	}
	return a.get()
}

func parseBundle(log *slog.Logger, path string, content []byte) (*x509.CertPool, error) {
	pool, good, bad := x509.NewCertPool(), 0, 0
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			bad++
			log.Warn("Certificate of a CA bundle cannot be used", "file", path, "err", err)
			continue
		}
		pool.AddCert(cert)
		good++
	}
	if good > 0 {
		return pool, nil
	}
	switch {
	case bad > 0:
		return nil, fmt.Errorf("%s: none of its %d certificates can be used", path, bad)
	case len(bytes.TrimSpace(content)) == 0:
		return nil, fmt.Errorf("%s: the file is empty", path)
	}
	return nil, fmt.Errorf("%s: no certificates found; it must hold PEM blocks of type CERTIFICATE", path)
}

// Status is what a profile has seen and done.
type Status struct {
	Name    string
	Server  bool
	Expiry  time.Time     // Of the own certificate; zero if there is none.
	Serial  string        // Of the own certificate, in hexadecimal.
	NodeIDs []wire.NodeID // In the own certificate.
	Refused uint64        // Peers that were refused since the start.
	Err     error         // Why changed files are not in use; nil if they are.
}

// status describes what both kinds of profiles have.
func status(name string, server bool, own *keyPair, cas *authorities, r *refusals) Status {
	s := Status{Name: name, Server: server, Refused: r.number()}
	if own != nil {
		leaf := own.current().Leaf
		s.Expiry, s.Serial = leaf.NotAfter, fmt.Sprintf("%x", leaf.SerialNumber)
		s.NodeIDs, _ = NodeIDs(leaf) // An own certificate with broken names is used only where names do not matter.
		s.Err = own.failure()
	}
	if cas != nil {
		cas.get()
		s.Err = errors.Join(s.Err, cas.failure())
	}
	return s
}

// refusals counts and logs peers that are refused: neither handshakes below the mesh nor those of streams have another
// place where the reason can be seen.
type refusals struct {
	log *slog.Logger // nil: do not log.

	mu    sync.Mutex
	count uint64
	last  string
	at    time.Time
}

const (
	refusalRepeat = time.Minute // The same reason is logged again after this time.
	refusalPause  = time.Second // Whatever the reason, peers cannot fill the log.
)

// note passes err on. A repeated reason is logged once a minute.
func (r *refusals) note(err error) error {
	if err == nil {
		return nil
	}
	now := time.Now()
	r.mu.Lock()
	r.count++
	since := now.Sub(r.at)
	show := r.last == "" || since >= refusalRepeat || since >= refusalPause && r.last != err.Error()
	if show {
		r.last, r.at = err.Error(), now
	}
	count := r.count
	r.mu.Unlock()
	if show && r.log != nil {
		r.log.Warn("TLS peer refused", "err", err, "refused", count)
	}
	return err
}

func (r *refusals) number() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}
