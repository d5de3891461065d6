package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/identity"
	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor/signing"
)

// signer is how work is signed and verified.
type signer struct {
	sign   func(wire.NodeID) (string, error) // nil: the configuration names no key.
	verify func(signature string) error      // nil: likewise.
}

// loadSigner makes the signer that cfg describes.
func (d *Daemon) loadSigner(cfg *config.Config) (*signer, error) {
	keys := new(signer)
	for pos, s := range config.All[config.WorkSigning](cfg) {
		if err := keyFile(s.PrivateKey, "privatekey"); err != nil {
			return nil, located(pos, err)
		}
		if _, err := identity.LoadRSAKey(s.PrivateKey); err != nil {
			d.log.Warn("Work cannot be signed before the signing key is mended", "err", err)
		}
		keys.sign = signing.Signer{KeyFile: s.PrivateKey, Expiration: s.TokenExpiration}.Sign
	}
	for pos, s := range config.All[config.WorkVerification](cfg) {
		if err := keyFile(s.PublicKey, "publickey"); err != nil {
			return nil, located(pos, err)
		}
		if _, err := identity.LoadRSAPublicKey(s.PublicKey); err != nil {
			d.log.Warn("Signed work is refused before the verification key is mended", "err", err)
		}
		keys.verify = signing.Verifier{KeyFile: s.PublicKey, Node: cfg.Node().ID}.Verify
	}
	return keys, nil
}

// What clients are told where the configuration names no key.
var (
	errNoSigningKey   = errors.New("signing key is empty")
	errNoVerifyingKey = errors.New("could not verify signature: verifying key not specified")
)

// sign makes the signature for a request to node.
func (d *Daemon) sign(node wire.NodeID) (string, error) {
	if f := d.signing.Load().sign; f != nil {
		return f(node)
	}
	return "", errNoSigningKey
}

// verify checks a signature.
func (d *Daemon) verify(signature string) error {
	if f := d.signing.Load().verify; f != nil {
		return f(signature)
	}
	return errNoVerifyingKey
}

// keyFile refuses a key that is not there when the node starts. Its content may change at any time.
func keyFile(path, parameter string) error {
	switch _, err := os.Stat(path); {
	case path == "":
		return fmt.Errorf(" does not exist: name a file, as in %s=FILE", parameter)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s does not exist", path)
	default:
		return err
	}
}
