package identity

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// Member is a node of a mesh that gets a certificate.
type Member struct {
	Node  wire.NodeID
	Hosts []string // Names and addresses under which others reach it.
}

// ErrExists means that a file is there already and is not overwritten.
var ErrExists = errors.New("exists already")

// MeshFiles makes what a small mesh needs in a directory: ca.crt and ca.key, unless they are there, and NODE.crt and
// NODE.key for each member, which are good as servers and as clients. No file is overwritten; with the CA of an
// earlier call nodes can be added.
func MeshFiles(dir string, members []Member, bits int, v Validity) (made []string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	caCert, caKey := dir+"/ca.crt", dir+"/ca.key"
	for _, m := range members {
		for _, ending := range []string{".crt", ".key"} {
			path := dir + "/" + string(m.Node) + ending
			if _, err := os.Lstat(path); err == nil {
				return nil, fmt.Errorf("%s %w", path, ErrExists)
			}
		}
	}
	if _, err := os.Lstat(caKey); errors.Is(err, os.ErrNotExist) {
		if _, err := os.Lstat(caCert); err == nil {
			return nil, fmt.Errorf("%s %w, but its key %s does not", caCert, ErrExists, caKey)
		}
		if err := InitFiles("Receptor mesh CA", bits, Validity{NotBefore: v.NotBefore}, caCert, caKey); err != nil {
			return nil, err
		}
		made = append(made, caCert, caKey)
	}
	a, err := LoadAuthority(caCert, caKey)
	if err != nil {
		return made, err
	}
	for _, m := range members {
		paths, err := a.issue(dir, m, bits, v)
		if err != nil {
			return made, fmt.Errorf("node %s: %w", m.Node, err)
		}
		made = append(made, paths...)
	}
	return made, nil
}

// issue makes the key and the certificate of one node.
func (a *Authority) issue(dir string, m Member, bits int, v Validity) ([]string, error) {
	names := Names{Nodes: []wire.NodeID{m.Node}}
	for _, host := range m.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			names.IPs = append(names.IPs, ip)
		} else {
			names.DNS = append(names.DNS, host)
		}
	}
	key, err := NewKey(bits)
	if err != nil {
		return nil, err
	}
	req, err := Request(string(m.Node), names, key)
	if err != nil {
		return nil, err
	}
	cert, err := a.Sign(req, v)
	if err != nil {
		return nil, err
	}
	base := dir + "/" + string(m.Node)
	if err := SaveKey(base+".key", key); err != nil {
		return nil, err
	}
	return []string{base + ".crt", base + ".key"}, SaveCertificate(base+".crt", cert)
}
