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

// signer is what signs work for other nodes: nil if the configuration names no key.
func (d *Daemon) signer() (func(wire.NodeID) (string, error), error) {
	for pos, s := range config.All[config.WorkSigning](d.cfg) {
		if err := keyFile(s.PrivateKey, "privatekey"); err != nil {
			return nil, located(pos, err)
		}
		if _, err := identity.LoadRSAKey(s.PrivateKey); err != nil {
			d.log.Warn("Work cannot be signed before the signing key is mended", "err", err)
		}
		return signing.Signer{KeyFile: s.PrivateKey, Expiration: s.TokenExpiration}.Sign, nil
	}
	return nil, nil
}

// verifier is what checks signed work: nil if the configuration names no key.
func (d *Daemon) verifier() (func(signature string) error, error) {
	for pos, s := range config.All[config.WorkVerification](d.cfg) {
		if err := keyFile(s.PublicKey, "publickey"); err != nil {
			return nil, located(pos, err)
		}
		if _, err := identity.LoadRSAPublicKey(s.PublicKey); err != nil {
			d.log.Warn("Signed work is refused before the verification key is mended", "err", err)
		}
		return signing.Verifier{KeyFile: s.PublicKey, Node: d.cfg.Node().ID}.Verify, nil
	}
	return nil, nil
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
