package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"sync"
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// ClientOptions define a client profile. Name is required; Cert and Key go together.
type ClientOptions struct {
	Name    string
	Cert    string // File, as in [ServerOptions]; "" for none.
	Key     string
	RootCAs string // File of the CAs that may have signed a server's certificate; "" is the trust of the operating system.
	// InsecureSkipVerify accepts certificates of any CA, name and date. Pins are compared nevertheless.
	InsecureSkipVerify     bool
	PinnedServerCert       []string // SHA-256 or SHA-512 fingerprints in hexadecimal; a server has one of them.
	SkipReceptorNamesCheck bool     // The own certificate need not carry the own node ID.
	MinTLS13               bool
}

// ClientProfile is how a node reaches servers under TLS. Methods are safe for concurrent use; the configurations they
// return read changed files at the next handshake.
type ClientProfile struct {
	opt     ClientOptions
	owner   Owner
	own     *keyPair // nil: none.
	cas     *authorities
	pins    pins
	refused *refusals

	mu      sync.Mutex
	streams map[wire.NodeID]*tls.Config // Made with the files of made.
	made    material
}

// material is what a configuration was made of.
type material struct {
	own *tls.Certificate
	cas *x509.CertPool
}

// maxStreamConfigs bounds how many configurations for streams are kept.
const maxStreamConfigs = 1024

// NewClient checks the options, loads the files and warns of what will surprise.
func NewClient(opt ClientOptions, owner Owner) (*ClientProfile, error) {
	p := &ClientProfile{opt: opt, owner: owner.withDefaults()}
	if err := p.load(); err != nil {
		return nil, prefixed("error preparing tls client config", err)
	}
	return p, nil
}

func (p *ClientProfile) load() error {
	opt, log := p.opt, p.owner.Logger.With("profile", p.opt.Name)
	p.refused = &refusals{} // Whoever dialled is told why.
	if opt.Name == "" {
		return errors.New("must provide a name")
	}
	if (opt.Cert == "") != (opt.Key == "") {
		return errors.New("cert and key must both be supplied or neither")
	}
	var own, cas, pins error
	if opt.Cert != "" {
		p.own, own = newKeyPair(p.owner, opt.Name, opt.Cert, opt.Key, opt.SkipReceptorNamesCheck)
	}
	p.cas, cas = newAuthorities(p.owner, opt.Name, opt.RootCAs, "root")
	p.pins, pins = parsePins(opt.PinnedServerCert)
	if err := errors.Join(own, cas, pins); err != nil {
		return err
	}
	if opt.InsecureSkipVerify && len(p.pins) == 0 {
		log.Warn("insecureskipverify: servers are not verified at all, whoever is in between can read and change everything")
	}
	return nil
}

// Name returns the profile's name.
func (p *ClientProfile) Name() string { return p.opt.Name }

// Expiry returns the end of the current certificate's validity; the zero time if the profile has no certificate.
func (p *ClientProfile) Expiry() time.Time {
	if p.own == nil {
		return time.Time{}
	}
	return p.own.current().Leaf.NotAfter
}

// Status describes the profile as it is now.
func (p *ClientProfile) Status() Status { return status(p.opt.Name, false, p.own, p.cas, p.refused) }

// LinkConfig is for links and other connections to a host, given as a DNS name or an IP address. The server's certificate
// must be for it.
func (p *ClientProfile) LinkConfig(host string) *tls.Config {
	c := p.config(false, &verifier{check: hostName, host: host})
	c.ServerName = host // crypto/tls sends names only, not addresses.
	return c
}

// StreamConfig is for streams to a service of a node. The certificate of the service must carry the node's ID. For one
// node it is the same one until the profile's files change: streams with one configuration may share a connection, and
// those that begin after a change are judged by the new files.
func (p *ClientProfile) StreamConfig(node wire.NodeID) *tls.Config {
	now := material{cas: p.cas.pool()}
	if p.own != nil {
		now.own = p.own.current()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.streams == nil || p.made != now || len(p.streams) >= maxStreamConfigs {
		p.streams, p.made = make(map[wire.NodeID]*tls.Config), now
	}
	c := p.streams[node]
	if c == nil {
		c = p.config(true, &verifier{check: nodeName, node: node})
		p.streams[node] = c
	}
	return c
}

// config is the common part; v has what the server must be called.
func (p *ClientProfile) config(stream bool, v *verifier) *tls.Config {
	c := baseConfig(p.opt.MinTLS13, stream)
	if p.own != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return p.own.current(), nil }
	}
	v.usage, v.chain, v.cas, v.pins, v.now = x509.ExtKeyUsageServerAuth, true, p.cas, p.pins, p.owner.Now
	v.trust = "rootcas " + p.opt.RootCAs
	if p.opt.RootCAs == "" {
		v.trust = "the operating system's CAs, as there is no rootcas"
	}
	if p.opt.InsecureSkipVerify {
		v.chain, v.check = false, anyName
	}
	c.InsecureSkipVerify = true //nolint:gosec // The verifier does more, with the files as they are now.
	c.VerifyConnection = func(state tls.ConnectionState) error { return p.refused.note(v.verify(state)) }
	return c
}
