package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"reflect"

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
	return identity.Owner{Node: d.Config().Node().ID, Logger: d.area("tls"), Peer: peerNode}
}

// loadProfiles reads the files of all TLS profiles of cfg and reports everything that is wrong with them. A profile whose
// section is that of one in use is taken over as it is.
func (d *Daemon) loadProfiles(cfg *config.Config) (*tlsProfiles, error) {
	profiles := &tlsProfiles{make(map[string]*identity.ServerProfile), make(map[string]*identity.ClientProfile)}
	inUse := make(map[string]any) // Sections by kind and name.
	if now := d.profiles.Load(); now != nil {
		for _, s := range config.All[config.TLSServer](d.Config()) {
			inUse["server "+s.Name] = s
		}
		for _, s := range config.All[config.TLSClient](d.Config()) {
			inUse["client "+s.Name] = s
		}
	}
	owner := identity.Owner{Node: cfg.Node().ID, Logger: d.area("tls"), Peer: peerNode}
	var problems error
	for pos, s := range config.All[config.TLSServer](cfg) {
		if reflect.DeepEqual(inUse["server "+s.Name], s) {
			profiles.servers[s.Name] = d.profiles.Load().servers[s.Name]
			continue
		}
		p, err := identity.NewServer(identity.ServerOptions{
			Name: s.Name, Cert: s.Cert, Key: s.Key, RequireClientCert: s.RequireClientCert, ClientCAs: s.ClientCAs,
			PinnedClientCert: s.PinnedClientCert, SkipReceptorNamesCheck: s.SkipReceptorNamesCheck, MinTLS13: s.MinTLS13,
		}, owner)
		if err != nil {
			problems = errors.Join(problems, located(pos, err))
			continue
		}
		profiles.servers[s.Name] = p
	}
	for pos, s := range config.All[config.TLSClient](cfg) {
		if reflect.DeepEqual(inUse["client "+s.Name], s) {
			profiles.clients[s.Name] = d.profiles.Load().clients[s.Name]
			continue
		}
		p, err := identity.NewClient(identity.ClientOptions{
			Name: s.Name, Cert: s.Cert, Key: s.Key, RootCAs: s.RootCAs, InsecureSkipVerify: s.InsecureSkipVerify,
			PinnedServerCert: s.PinnedServerCert, SkipReceptorNamesCheck: s.SkipReceptorNamesCheck, MinTLS13: s.MinTLS13,
		}, owner)
		if err != nil {
			problems = errors.Join(problems, located(pos, err))
			continue
		}
		profiles.clients[s.Name] = p
	}
	return profiles, problems
}

// ServerProfile returns the tls-server of that name as it is now; nil for "", which means no TLS.
func (d *Daemon) ServerProfile(name string) (*identity.ServerProfile, error) {
	if p := d.profiles.Load().servers[name]; p != nil || name == "" {
		return p, nil
	}
	return nil, fmt.Errorf("unknown TLS config %s", name)
}

// ClientProfile returns the tls-client of that name as it is now; nil for "", which means no TLS.
func (d *Daemon) ClientProfile(name string) (*identity.ClientProfile, error) {
	if p := d.profiles.Load().clients[name]; p != nil || name == "" {
		return p, nil
	}
	return nil, fmt.Errorf("unknown TLS config %s", name)
}

func (d *Daemon) hasTLSClient(name string) bool { return d.profiles.Load().clients[name] != nil }

// TLSStatus describes all TLS profiles: servers, then clients, each in the order they were defined.
func (d *Daemon) TLSStatus() []identity.Status {
	var all []identity.Status
	cfg, profiles := d.Config(), d.profiles.Load()
	for _, s := range config.All[config.TLSServer](cfg) {
		if p := profiles.servers[s.Name]; p != nil {
			all = append(all, p.Status())
		}
	}
	for _, s := range config.All[config.TLSClient](cfg) {
		if p := profiles.clients[s.Name]; p != nil {
			all = append(all, p.Status())
		}
	}
	return all
}

// serverTLS is the configuration of a listener, by what pick takes from its profile; nil without a profile. Each
// handshake goes by the profile of its time, so a reload changes profiles without touching their listeners.
func (d *Daemon) serverTLS(name string, pick func(*identity.ServerProfile) *tls.Config) (*tls.Config, error) {
	p, err := d.ServerProfile(name)
	if p == nil {
		return nil, err
	}
	conf := pick(p).Clone()
	conf.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		p, err := d.ServerProfile(name)
		if err != nil {
			return nil, err
		}
		now := pick(p)
		if now.GetConfigForClient != nil {
			return now.GetConfigForClient(hello)
		}
		return now, nil
	}
	return conf, nil
}

// clientTLS is the configuration of connections to a host outside the mesh; nil without a profile. Like serverTLS it
// follows its profile.
func (d *Daemon) clientTLS(name, host string) (*tls.Config, error) {
	p, err := d.ClientProfile(name)
	if p == nil {
		return nil, err
	}
	now := func() (*tls.Config, error) {
		p, err := d.ClientProfile(name)
		if err != nil {
			return nil, err
		}
		return p.LinkConfig(host), nil
	}
	conf := p.LinkConfig(host).Clone()
	conf.MinVersion = tls.VersionTLS12
	conf.GetClientCertificate = func(req *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		c, err := now()
		if err != nil || c.GetClientCertificate == nil {
			return new(tls.Certificate), err
		}
		return c.GetClientCertificate(req)
	}
	conf.VerifyConnection = func(state tls.ConnectionState) error {
		c, err := now()
		if err != nil {
			return err
		}
		if state.Version < c.MinVersion {
			return fmt.Errorf("tls: server offers %s, tls-client %s wants %s", tls.VersionName(state.Version), name, tls.VersionName(c.MinVersion))
		}
		return c.VerifyConnection(state)
	}
	return conf, nil
}

// serverStreamTLS is the configuration of services in the mesh, the same one for one profile; nil without a profile.
func (d *Daemon) serverStreamTLS(name string) (*tls.Config, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if conf := d.streamTLS[name]; conf != nil {
		return conf, nil
	}
	conf, err := d.serverTLS(name, (*identity.ServerProfile).StreamConfig)
	if conf == nil {
		return nil, err
	}
	d.streamTLS[name] = conf
	return conf, nil
}

// clientStreamTLS is the configuration for streams to a node; nil without a profile.
func (d *Daemon) clientStreamTLS(name string, node wire.NodeID) (*tls.Config, error) {
	p, err := d.ClientProfile(name)
	if p == nil {
		return nil, err
	}
	return p.StreamConfig(node.At(d.Config().Node().ID)), nil // No certificate has "localhost".
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
