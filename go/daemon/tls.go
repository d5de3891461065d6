package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/identity"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// tlsProfiles are the TLS profiles of a configuration by name.
type tlsProfiles struct {
	servers map[string]*identity.ServerProfile
	clients map[string]*identity.ClientProfile
}

// ProfileOwner is the node as the owner of TLS profiles.
func (d *Daemon) ProfileOwner() identity.Owner {
	return identity.Owner{Node: d.cfg.Node().ID, Logger: d.log, Peer: peerNode}
}

// loadProfiles reads the files of all TLS profiles and reports everything that is wrong with them.
func (d *Daemon) loadProfiles() error {
	d.profiles = tlsProfiles{make(map[string]*identity.ServerProfile), make(map[string]*identity.ClientProfile)}
	owner := d.ProfileOwner()
	var problems error
	for pos, s := range config.All[config.TLSServer](d.cfg) {
		p, err := identity.NewServer(identity.ServerOptions{
			Name: s.Name, Cert: s.Cert, Key: s.Key, RequireClientCert: s.RequireClientCert, ClientCAs: s.ClientCAs,
			PinnedClientCert: s.PinnedClientCert, SkipReceptorNamesCheck: s.SkipReceptorNamesCheck, MinTLS13: s.MinTLS13,
		}, owner)
		if err != nil {
			problems = errors.Join(problems, located(pos, err))
			continue
		}
		d.profiles.servers[s.Name] = p
	}
	for pos, s := range config.All[config.TLSClient](d.cfg) {
		p, err := identity.NewClient(identity.ClientOptions{
			Name: s.Name, Cert: s.Cert, Key: s.Key, RootCAs: s.RootCAs, InsecureSkipVerify: s.InsecureSkipVerify,
			PinnedServerCert: s.PinnedServerCert, SkipReceptorNamesCheck: s.SkipReceptorNamesCheck, MinTLS13: s.MinTLS13,
		}, owner)
		if err != nil {
			problems = errors.Join(problems, located(pos, err))
			continue
		}
		d.profiles.clients[s.Name] = p
	}
	return problems
}

// ServerProfile returns the tls-server of that name; nil for "", which means no TLS.
func (d *Daemon) ServerProfile(name string) (*identity.ServerProfile, error) {
	if p := d.profiles.servers[name]; p != nil || name == "" {
		return p, nil
	}
	return nil, fmt.Errorf("unknown TLS config %s", name)
}

// ClientProfile returns the tls-client of that name; nil for "", which means no TLS.
func (d *Daemon) ClientProfile(name string) (*identity.ClientProfile, error) {
	if p := d.profiles.clients[name]; p != nil || name == "" {
		return p, nil
	}
	return nil, fmt.Errorf("unknown TLS config %s", name)
}

func (d *Daemon) hasTLSClient(name string) bool { return d.profiles.clients[name] != nil }

// TLSStatus describes all TLS profiles: servers, then clients, each in the order they were defined.
func (d *Daemon) TLSStatus() []identity.Status {
	var all []identity.Status
	for _, s := range config.All[config.TLSServer](d.cfg) {
		all = append(all, d.profiles.servers[s.Name].Status())
	}
	for _, s := range config.All[config.TLSClient](d.cfg) {
		all = append(all, d.profiles.clients[s.Name].Status())
	}
	return all
}

// serverStreamTLS is the configuration of a service in the mesh; nil without a profile.
func (d *Daemon) serverStreamTLS(name string) (*tls.Config, error) {
	p, err := d.ServerProfile(name)
	if p == nil {
		return nil, err
	}
	return p.StreamConfig(), nil
}

// clientStreamTLS is the configuration for streams to a node; nil without a profile.
func (d *Daemon) clientStreamTLS(name string, node wire.NodeID) (*tls.Config, error) {
	p, err := d.ClientProfile(name)
	if p == nil {
		return nil, err
	}
	if strings.EqualFold(string(node), "localhost") { // What this node is called on itself; no certificate has it.
		node = d.cfg.Node().ID
	}
	return p.StreamConfig(node), nil
}

// peerNode is the node that a handshake in the mesh comes from.
func peerNode(a net.Addr) (wire.NodeID, bool) {
	addr, ok := netceptor.PeerOf(a)
	return addr.Node, ok
}

// openStream opens a stream to a service of a node, with a TLS client profile if there is a name.
func (d *Daemon) openStream(ctx context.Context, node wire.NodeID, service, tlsClient string) (*netceptor.Stream, error) {
	conf, err := d.clientStreamTLS(tlsClient, node)
	if err != nil {
		return nil, err
	}
	return d.Node.DialStream(ctx, node, service, conf)
}

// dialStream is openStream for the control service.
func (d *Daemon) dialStream(ctx context.Context, node wire.NodeID, service, tlsClient string) (workceptor.Stream, error) {
	s, err := d.openStream(ctx, node, service, tlsClient)
	if err != nil {
		return nil, err // Not a nil *Stream in an interface.
	}
	return s, nil
}
