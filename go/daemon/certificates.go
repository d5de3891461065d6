package daemon

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"

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
		case config.CertDoctor:
			return certDoctor(s, opts.Stdout)
		case config.CertMesh:
			return certMesh(s, opts.Stdout)
		}
	}
	return nil
}

func certDoctor(s config.CertDoctor, out io.Writer) error {
	d, err := identity.Examine(identity.Examination{File: s.File, Key: s.Key, CA: s.CA, Node: s.Node, Host: s.Host})
	if err != nil {
		return err
	}
	if !s.JSON {
		err = d.Write(out)
	} else {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		err = e.Encode(d)
	}
	return errors.Join(err, d.Err())
}

// certMesh makes the files and says how to use them.
func certMesh(s config.CertMesh, out io.Writer) error {
	var members []identity.Member
	for _, m := range s.Members {
		members = append(members, identity.Member{Node: m.Node, Hosts: m.Hosts})
	}
	made, err := identity.MeshFiles(s.Dir, members, s.Bits, identity.Validity{})
	if err != nil {
		return err
	}
	for _, path := range made {
		fmt.Fprintln(out, path)
	}
	first := s.Members[0].Node
	_, err = fmt.Fprintf(out, `
Give each node its own two files and ca.crt; ca.key stays here. Node %[1]s, for example:
- tls-server: {name: mesh, cert: %[2]s.crt, key: %[2]s.key, requireclientcert: true, clientcas: %[3]s}
- tls-client: {name: mesh, cert: %[2]s.crt, key: %[2]s.key, rootcas: %[3]s}
and "tls: mesh" in its listeners, peers and services.
`, first, filepath.Join(s.Dir, string(first)), filepath.Join(s.Dir, "ca.crt"))
	return err
}
