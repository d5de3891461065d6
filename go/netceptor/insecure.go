package netceptor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"time"

	"github.com/pyreceptor/pyreceptor/go/fault"
)

// insecureName is the common name that a service without a TLS profile presents and its clients look for. Such a stream
// is encrypted, but nobody is authenticated.
const insecureName = "netceptor-insecure-common-name"

// streamALPN is the protocol that streams to and from existing nodes negotiate: a connection for each stream.
const streamALPN = "netceptor"

// streamProtocols is what this node offers and accepts, best first.
var streamProtocols = []string{muxALPN, streamALPN}

var errNotInsecure = errors.New("insecure connection to secure service")

// serviceCurves are the key exchanges of a service without a profile, clientCurves what its clients offer: P-256, the
// quicker one in Go, which every TLS 1.3 of Go takes without asking back. Both leave out the post-quantum exchange, which
// would make every first packet two.
var (
	serviceCurves = []tls.CurveID{tls.CurveP256, tls.X25519, tls.CurveP384, tls.CurveP521}
	clientCurves  = []tls.CurveID{tls.CurveP256, tls.CurveP384, tls.CurveP521}
)

type insecureCertificate struct {
	tls.Certificate
	err error
}

// insecureCert makes the node's throw-away certificate at first need. Existing nodes make a 2048-bit RSA key per
// listener; an elliptic one is accepted as well and takes no time.
func (n *Node) insecureCert() (tls.Certificate, error) {
	n.certOnce.Do(func() { n.cert.Certificate, n.cert.err = newInsecureCert(time.Now()) })
	return n.cert.Certificate, n.cert.err
}

func newInsecureCert(now time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: insecureName},
		NotBefore:    now.Add(-time.Minute),
		NotAfter:     now.Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// guardTLS makes what a profile asks while a handshake goes on give an error where it finds a bug: it is asked in goroutines
// of the QUIC library, about what a peer has sent.
func (n *Node) guardTLS(c *tls.Config) *tls.Config {
	c.GetCertificate = guardAsking(n, c.GetCertificate)
	c.GetClientCertificate = guardAsking(n, c.GetClientCertificate)
	c.GetConfigForClient = guardAsking(n, c.GetConfigForClient)
	if verify := c.VerifyConnection; verify != nil {
		c.VerifyConnection = func(state tls.ConnectionState) error {
			return n.asked(func() error { return verify(state) })
		}
	}
	if verify := c.VerifyPeerCertificate; verify != nil {
		c.VerifyPeerCertificate = func(certs [][]byte, chains [][]*x509.Certificate) error {
			return n.asked(func() error { return verify(certs, chains) })
		}
	}
	return c
}

// guardAsking is guardTLS for what is asked for something of the kind T; nil stays nil.
func guardAsking[About, T any](n *Node, ask func(About) (T, error)) func(About) (T, error) {
	if ask == nil {
		return nil
	}
	return func(about About) (got T, err error) {
		err = n.asked(func() error {
			got, err = ask(about)
			return err
		})
		return got, err
	}
}

// asked asks what a handshake has to know, and tells of a fault in that.
func (n *Node) asked(ask func() error) error {
	err := fault.Try(ask)
	fault.Log(n.log, err, "handshake of a stream")
	return err
}

// serverTLS is the server side of a profile as streams need it, or of the insecure one for nil.
func (n *Node) serverTLS(profile *tls.Config) (*tls.Config, error) {
	if profile != nil {
		profile = profile.Clone()
		profile.NextProtos, profile.MinVersion = n.protocols, tls.VersionTLS13
		if choose := profile.GetConfigForClient; choose != nil {
			profile.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				chosen, err := choose(hello)
				if chosen != nil {
					chosen = n.guardTLS(chosen.Clone())
					chosen.NextProtos, chosen.MinVersion = n.protocols, tls.VersionTLS13
				}
				return chosen, err
			}
		}
		return n.guardTLS(profile), nil
	}
	cert, err := n.insecureCert()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates:           []tls.Certificate{cert},
		NextProtos:             n.protocols,
		MinVersion:             tls.VersionTLS13,
		CurvePreferences:       serviceCurves,
		SessionTicketsDisabled: true,
	}, nil
}

// clientTLS is the client side of a profile as streams need it. Without one it accepts exactly the services that have
// none either; the server name is then this node's own ID, as existing nodes send it, and listeners ignore it.
func (n *Node) clientTLS(profile *tls.Config) *tls.Config {
	if profile != nil {
		profile = profile.Clone()
		profile.ServerName = ""
		profile.NextProtos, profile.MinVersion = n.protocols, tls.VersionTLS13
		return n.guardTLS(profile)
	}
	return n.guardTLS(&tls.Config{
		ServerName:            string(n.id),
		InsecureSkipVerify:    true, //nolint:gosec // The common name below is all there is to check without a profile.
		VerifyPeerCertificate: verifyInsecure,
		NextProtos:            n.protocols,
		MinVersion:            tls.VersionTLS13,
		CurvePreferences:      clientCurves,
	})
}

func verifyInsecure(certs [][]byte, _ [][]*x509.Certificate) error {
	for _, der := range certs {
		if cert, err := x509.ParseCertificate(der); err == nil && cert.Subject.CommonName == insecureName {
			return nil
		}
	}
	return errNotInsecure
}
