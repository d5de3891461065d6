package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// ServerOptions define a server profile. Name, Cert and Key are required.
type ServerOptions struct {
	Name string
	Cert string // File: the certificate, then those that lead to its CA, in PEM.
	Key  string // File: the private key in PEM, without a passphrase.
	// RequireClientCert demands a certificate that a CA of ClientCAs signed; on streams it must carry the dialling
	// node's ID.
	RequireClientCert bool
	// ClientCAs is a file; "" is the trust of the operating system. Given without RequireClientCert, a certificate is
	// demanded all the same, but node IDs are not looked for.
	ClientCAs              string
	PinnedClientCert       []string // SHA-256 or SHA-512 fingerprints in hexadecimal; a client has one of them.
	SkipReceptorNamesCheck bool     // The own certificate need not carry the own node ID.
	MinTLS13               bool
}

// ServerProfile is how a node receives clients under TLS. Methods are safe for concurrent use; the configurations they
// return read changed files at the next handshake.
type ServerProfile struct {
	opt     ServerOptions
	owner   Owner
	own     *keyPair
	cas     *authorities
	pins    pins
	refused *refusals
	stream  *tls.Config
}

// NewServer checks the options, loads the files and warns of what will surprise.
func NewServer(opt ServerOptions, owner Owner) (*ServerProfile, error) {
	p := &ServerProfile{opt: opt, owner: owner.withDefaults()}
	if err := p.load(); err != nil {
		return nil, prefixed("error preparing tls server config", err)
	}
	return p, nil
}

func (p *ServerProfile) load() error {
	opt, log := p.opt, p.owner.Logger.With("profile", p.opt.Name)
	p.refused = &refusals{log: log}
	if opt.Name == "" {
		return errors.New("must provide a name")
	}
	var own, cas, pins error
	p.own, own = newKeyPair(p.owner, opt.Name, opt.Cert, opt.Key, opt.SkipReceptorNamesCheck)
	p.cas, cas = newAuthorities(p.owner, opt.Name, opt.ClientCAs, "client")
	p.pins, pins = parsePins(opt.PinnedClientCert)
	if err := errors.Join(own, cas, pins); err != nil {
		return err
	}
	switch {
	case len(p.pins) > 0 && !p.AsksClients():
		return errors.New("pinnedclientcert has no effect on clients that are not asked for a certificate: " +
			"set requireclientcert and clientcas as well, or remove it")
	case opt.RequireClientCert && opt.ClientCAs == "":
		log.Warn("requireclientcert without clientcas: clients need a certificate from a CA that the operating system trusts")
	case !opt.RequireClientCert && opt.ClientCAs != "":
		log.Warn("clientcas without requireclientcert: clients need a certificate all the same, but their node IDs are not checked")
	}
	p.stream = p.streamConfig()
	return nil
}

// AsksClients reports whether clients must prove who they are.
func (p *ServerProfile) AsksClients() bool { return p.opt.RequireClientCert || p.opt.ClientCAs != "" }

// Name returns the profile's name.
func (p *ServerProfile) Name() string { return p.opt.Name }

// Expiry returns the end of the current certificate's validity.
func (p *ServerProfile) Expiry() time.Time { return p.own.current().Leaf.NotAfter }

// Status describes the profile as it is now.
func (p *ServerProfile) Status() Status { return status(p.opt.Name, true, p.own, p.cas, p.refused) }

// LinkConfig is for listeners of links between nodes. A client's name is not compared with anything.
func (p *ServerProfile) LinkConfig() *tls.Config { return p.config(false, anyName, "") }

// SocketConfig is for listeners whose clients are programs: the control service on TCP and proxies.
func (p *ServerProfile) SocketConfig() *tls.Config { return p.config(false, anyName, "") }

// StreamConfig is for services in the mesh; with RequireClientCert a client's certificate must carry the ID of the node
// that its packets come from (see [Owner]). It is the same one every time: services with one profile may share
// connections.
func (p *ServerProfile) StreamConfig() *tls.Config { return p.stream }

func (p *ServerProfile) streamConfig() *tls.Config {
	c := p.config(true, anyName, "")
	if !p.opt.RequireClientCert {
		return c
	}
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		node, ok := p.owner.Peer(hello.Conn.RemoteAddr())
		if !ok {
			return nil, p.refused.note(fmt.Errorf("%s is not the address of a node", hello.Conn.RemoteAddr()))
		}
		return p.config(true, nodeName, node), nil
	}
	c.VerifyConnection = func(tls.ConnectionState) error { // Never reached: GetConfigForClient has another one.
		return errors.New("client was not told apart from other nodes")
	}
	return c
}

// config is the common part; node is the ID that the client's certificate must carry if check says so.
func (p *ServerProfile) config(stream bool, check nameCheck, node wire.NodeID) *tls.Config {
	c := baseConfig(p.opt.MinTLS13, stream)
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return p.own.current(), nil }
	if !p.AsksClients() {
		return c
	}
	// crypto/tls is not told the CAs: it would send all their names to the client, and the names of a large bundle do
	// not fit in the first packets of a stream. RequestClientCert with a missing certificate gets to the verifier.
	c.ClientAuth = tls.RequestClientCert
	if p.opt.RequireClientCert {
		c.ClientAuth = tls.RequireAnyClientCert
	}
	trust := "clientcas " + p.opt.ClientCAs
	if p.opt.ClientCAs == "" {
		trust = "the operating system's CAs, as there is no clientcas"
	}
	v := &verifier{
		usage: x509.ExtKeyUsageClientAuth, chain: true, cas: p.cas, trust: trust,
		check: check, node: node, pins: p.pins, now: p.owner.Now,
	}
	c.VerifyConnection = func(state tls.ConnectionState) error { return p.refused.note(v.verify(state)) }
	return c
}
