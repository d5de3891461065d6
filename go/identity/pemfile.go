package identity

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/pyreceptor/pyreceptor/go/files"
)

// PEM block types.
const (
	pemCert       = "CERTIFICATE"
	pemRequest    = "CERTIFICATE REQUEST"
	pemNewRequest = "NEW CERTIFICATE REQUEST" // An older name for the same.
	pemRSAKey     = "RSA PRIVATE KEY"
	pemECKey      = "EC PRIVATE KEY"
	pemKey        = "PRIVATE KEY"
	pemEncrypted  = "ENCRYPTED PRIVATE KEY"
	pemPublicKey  = "PUBLIC KEY"
	pemECParams   = "EC PARAMETERS" // Says nothing that the key does not.
)

// items are what a PEM file holds: *x509.Certificate, *x509.CertificateRequest, crypto.Signer or a public key. Text
// around the blocks is passed over.
func items(path string) ([]any, error) {
	content, _, err := files.ReadOnce(path, maxFile)
	if err != nil {
		return nil, err
	}
	return parseItems(path, content)
}

func parseItems(path string, content []byte) ([]any, error) {
	var all []any
	block, rest := pem.Decode(content)
	if block == nil {
		return nil, fmt.Errorf("%s: failed to decode PEM block", path)
	}
	for ; block != nil; block, rest = pem.Decode(rest) {
		if block.Type == pemECParams {
			continue
		}
		item, err := parseBlock(block)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, item)
	}
	return all, nil
}

func parseBlock(block *pem.Block) (any, error) {
	switch block.Type {
	case pemCert:
		return x509.ParseCertificate(block.Bytes)
	case pemRequest, pemNewRequest:
		return x509.ParseCertificateRequest(block.Bytes)
	case pemRSAKey, pemECKey, pemKey, pemEncrypted:
		return parseKey(block)
	case pemPublicKey:
		return x509.ParsePKIXPublicKey(block.Bytes)
	}
	return nil, fmt.Errorf("unknown block type %s", block.Type)
}

func parseKey(block *pem.Block) (key any, err error) {
	switch {
	case block.Type == pemEncrypted || block.Headers["DEK-Info"] != "":
		return nil, errors.New("the private key is encrypted: store it without a passphrase, with mode 0600")
	case block.Type == pemRSAKey:
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case block.Type == pemECKey:
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T cannot sign", key)
	}
	return signer, nil
}

// one reads, once, a file that holds one item of type T. what is the file's kind and content the item's, for people.
func one[T any](path, what, content string) (item T, err error) {
	all, err := items(path)
	if err != nil {
		return item, err
	}
	return only[T](all, path, what, content)
}

// lasting is one for a file that is read at every use, which a pipe cannot be.
func lasting[T any](path, what, content string) (item T, err error) {
	text, _, err := files.Read(path, maxFile)
	if err != nil {
		return item, err
	}
	all, err := parseItems(path, text)
	if err != nil {
		return item, err
	}
	return only[T](all, path, what, content)
}

func only[T any](all []any, path, what, content string) (item T, err error) {
	if len(all) != 1 {
		return item, fmt.Errorf("%s file should contain exactly one item: %s has %d", what, path, len(all))
	}
	item, ok := all[0].(T)
	if !ok {
		return item, fmt.Errorf("%s file does not contain %s data: %s", what, content, path)
	}
	return item, nil
}

// LoadRequest reads a certificate request.
func LoadRequest(path string) (*x509.CertificateRequest, error) {
	return one[*x509.CertificateRequest](path, "certificate request", "certificate request")
}

// LoadAuthority reads the certificate and the key of a CA.
func LoadAuthority(certFile, keyFile string) (*Authority, error) {
	cert, err := one[*x509.Certificate](certFile, "certificate", "certificate")
	if err != nil {
		return nil, err
	}
	key, err := one[crypto.Signer](keyFile, "private key", "private key")
	if err != nil {
		return nil, err
	}
	if public, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(key.Public()) {
		return nil, fmt.Errorf("x509: provided PrivateKey doesn't match parent's PublicKey (certificate %s, key %s)", certFile, keyFile)
	}
	return &Authority{Cert: cert, Key: key}, nil
}

// LoadKey reads the private key of a file, which may hold other things beside it.
func LoadKey(path string) (crypto.Signer, error) {
	all, err := items(path)
	if err != nil {
		return nil, err
	}
	var key crypto.Signer
	for _, item := range all {
		signer, ok := item.(crypto.Signer)
		switch {
		case !ok:
		case key != nil:
			return nil, fmt.Errorf("multiple private keys in file %s", path)
		default:
			key = signer
		}
	}
	if key == nil {
		return nil, fmt.Errorf("no private keys in file %s", path)
	}
	return key, nil
}

// LoadRSAKey reads a regular file that holds one RSA private key and nothing else.
func LoadRSAKey(path string) (*rsa.PrivateKey, error) {
	return lasting[*rsa.PrivateKey](path, "private key", "RSA private key")
}

// LoadRSAPublicKey reads a regular file that holds one RSA public key and nothing else.
func LoadRSAPublicKey(path string) (*rsa.PublicKey, error) {
	return lasting[*rsa.PublicKey](path, "public key", "RSA public key")
}

// SaveCertificate writes a certificate in PEM. A new file gets mode 0600, an existing one keeps its own.
func SaveCertificate(path string, cert *x509.Certificate) error {
	return save(path, pemCert, cert.Raw, false)
}

// SaveRequest is [SaveCertificate] for a request.
func SaveRequest(path string, req *x509.CertificateRequest) error {
	return save(path, pemRequest, req.Raw, false)
}

// SaveKey writes an RSA key in PEM. The file has mode 0600, whatever it had before.
func SaveKey(path string, key *rsa.PrivateKey) error {
	return save(path, pemRSAKey, x509.MarshalPKCS1PrivateKey(key), true)
}

// save replaces a file at once: a node that uses it sees the old content or the new one. Symbolic links stay. What is not
// a regular file (a pipe, a terminal) is written to, and so is a file that cannot be replaced (a mount of its own).
func save(path, blockType string, der []byte, private bool) error {
	content := pem.EncodeToMemory(&pem.Block{Type: blockType, Bytes: der})
	mode := fs.FileMode(0o600)
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		return overwrite(path, 0, content)
	}
	exists := err == nil
	if exists && !private {
		mode = info.Mode().Perm()
	}
	err = replace(path, mode, content)
	if err != nil && exists {
		err = overwrite(path, mode, content)
	}
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	return nil
}

func replace(path string, mode fs.FileMode, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // Mode 0600.
	if err != nil {
		return err
	}
	_, err = tmp.Write(content)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
	return err
}

// overwrite writes to what is there; a mode of 0 leaves its mode alone.
func overwrite(path string, mode fs.FileMode, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	if mode != 0 {
		err = f.Chmod(mode) // Before a secret is in the file.
	}
	if err == nil {
		_, err = f.Write(content)
	}
	return errors.Join(err, f.Close())
}
