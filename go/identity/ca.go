package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"
)

const (
	// DefaultKeyBits is the size of an authority's RSA key.
	DefaultKeyBits = 2048

	minKeyBits, maxKeyBits = 1024, 16384
	caYears, certYears     = 10, 1
)

var bothUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}

// Validity is from when to when a certificate is good. A zero time is replaced by the usual: from now, for ten years of a
// CA and one of a node.
type Validity struct{ NotBefore, NotAfter time.Time }

func (v Validity) complete(years int) (Validity, error) {
	if v.NotBefore.IsZero() {
		v.NotBefore = time.Now()
	}
	if v.NotAfter.IsZero() {
		v.NotAfter = v.NotBefore.AddDate(years, 0, 0)
	}
	if !v.NotAfter.After(v.NotBefore) {
		return v, fmt.Errorf("the certificate would never be valid: its end, %s, is not after its start, %s",
			v.NotAfter.Format(time.RFC3339), v.NotBefore.Format(time.RFC3339))
	}
	return v, nil
}

// Authority is a CA: its certificate, and the key that signs.
type Authority struct {
	Cert *x509.Certificate
	Key  crypto.Signer
}

// NewKey makes an RSA key; 0 bits stands for [DefaultKeyBits].
func NewKey(bits int) (*rsa.PrivateKey, error) {
	switch {
	case bits == 0:
		bits = DefaultKeyBits
	case bits < minKeyBits:
		return nil, fmt.Errorf("rsa: key too small: %d bits", bits)
	case bits > maxKeyBits:
		return nil, fmt.Errorf("rsa: key too large: %d bits", bits)
	}
	return rsa.GenerateKey(rand.Reader, bits)
}

// Init makes an authority with a new RSA key. Its certificate names it by commonName only.
func Init(commonName string, bits int, v Validity) (*Authority, error) {
	if commonName == "" {
		return nil, errors.New("must provide CommonName")
	}
	v, err := v.complete(caYears)
	if err != nil {
		return nil, err
	}
	key, err := NewKey(bits)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: commonName},
		NotBefore:             v.NotBefore,
		NotAfter:              v.NotAfter,
		SignatureAlgorithm:    x509.SHA256WithRSA,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           bothUsages,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	cert, err := create(template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &Authority{Cert: cert, Key: key}, nil
}

// Request asks for a certificate with these names for the owner of key.
func Request(commonName string, names Names, key crypto.Signer) (*x509.CertificateRequest, error) {
	if commonName == "" {
		return nil, errors.New("must provide CommonName")
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: commonName}}
	if _, isRSA := key.Public().(*rsa.PublicKey); isRSA {
		template.SignatureAlgorithm = x509.SHA256WithRSA
	}
	if !names.Empty() {
		extension, err := names.Extension()
		if err != nil {
			return nil, err
		}
		template.ExtraExtensions = []pkix.Extension{extension}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificateRequest(der)
}

// Sign makes the certificate that a request asks for. The subject and the names that [RequestNames] returns are taken
// over, nothing else is: a request cannot make itself a CA.
func (a *Authority) Sign(req *x509.CertificateRequest, v Validity) (*x509.Certificate, error) {
	if err := req.CheckSignature(); err != nil {
		return nil, fmt.Errorf("cannot sign: the request is not signed with its own key: %w", err)
	}
	names, err := RequestNames(req)
	if err != nil {
		return nil, fmt.Errorf("cannot sign: %w", err)
	}
	if names.Empty() {
		return nil, errors.New("cannot sign: no names found in certificate")
	}
	if !a.Cert.IsCA && (a.Cert.BasicConstraintsValid || a.Cert.Version == 3) { // Before version 3 nothing says so.
		return nil, fmt.Errorf("cannot sign: %s is not a CA, nobody would accept its signature", a.Cert.Subject)
	}
	if v, err = v.complete(certYears); err != nil {
		return nil, err
	}
	extension, err := names.Extension()
	if err != nil {
		return nil, fmt.Errorf("cannot sign: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:    newSerial(),
		RawSubject:      req.RawSubject,
		NotBefore:       v.NotBefore,
		NotAfter:        v.NotAfter,
		KeyUsage:        x509.KeyUsageDigitalSignature,
		ExtKeyUsage:     bothUsages,
		ExtraExtensions: []pkix.Extension{extension},
	}
	return create(template, a.Cert, req.PublicKey, a.Key)
}

func create(template, parent *x509.Certificate, public any, key crypto.Signer) (*x509.Certificate, error) {
	if _, isRSA := key.Public().(*rsa.PublicKey); isRSA {
		template.SignatureAlgorithm = x509.SHA256WithRSA
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// newSerial draws 127 random bits: certificates that two authorities of one name make at one time still differ.
func newSerial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // Never fails.
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:])
}

// keyName describes a public key for people.
func keyName(public any) string {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA (%d bits)", k.N.BitLen())
	case *ecdsa.PublicKey:
		return fmt.Sprintf("ECDSA (%s)", k.Curve.Params().Name)
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return fmt.Sprintf("%T", public)
}
