package daemon

import (
	"crypto/x509"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/identity"
)

// makeCertificate does what the only directive of cfg says.
func makeCertificate(cfg *config.Config, opts Options) error {
	for _, d := range cfg.Directives {
		switch s := d.Section.(type) {
		case config.CertInit:
			return identity.InitFiles(s.CommonName, s.Bits, identity.Validity{NotBefore: s.NotBefore, NotAfter: s.NotAfter}, s.OutCert, s.OutKey)
		case config.CertMakeReq:
			names := identity.Names{DNS: s.DNSNames, IPs: s.IPAddresses, Nodes: s.NodeIDs}
			return identity.RequestFiles(s.CommonName, names, s.InKey, s.Bits, s.OutKey, s.OutReq)
		case config.CertSignReq:
			var confirm func(*x509.CertificateRequest) error
			if !s.Verified {
				confirm = identity.Confirm(opts.Stdout, opts.Stdin)
			}
			return identity.SignFiles(s.Req, s.CACert, s.CAKey, s.OutCert, identity.Validity{NotBefore: s.NotBefore, NotAfter: s.NotAfter}, confirm)
		}
	}
	return nil
}
