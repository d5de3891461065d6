package daemon

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
)

func (d *Daemon) listen(l link.Listener, opt netceptor.LinkOptions) error {
	_, err := d.Node.Listen(l, opt)
	return err
}

func (d *Daemon) dial(dialer link.Dialer, opt netceptor.LinkOptions) error {
	_, err := d.Node.Dial(dialer, opt)
	return err
}

// linkTLS is the configuration for listeners of links; nil without a profile.
func (d *Daemon) linkTLS(name string) (*tls.Config, error) {
	p, err := d.ServerProfile(name)
	if p == nil {
		return nil, err
	}
	return p.LinkConfig(), nil
}

func bindAddress(host string, port int) string { return host + ":" + strconv.Itoa(port) }

func (d *Daemon) tcpListener(s config.TCPListener) error {
	conf, err := d.linkTLS(s.TLS)
	if err != nil {
		return err
	}
	var l link.Listener
	if address := bindAddress(s.BindAddr, s.Port); conf == nil {
		l, err = link.ListenTCP(address)
	} else {
		l, err = link.ListenTLS(address, conf)
	}
	if err != nil {
		return err
	}
	d.log.Debug("Listening on TCP " + l.Addr())
	return d.listen(l, netceptor.LinkOptions{Cost: s.Cost, NodeCost: s.NodeCost, AllowedPeers: s.AllowedPeers})
}

func (d *Daemon) tcpPeer(s config.TCPPeer) error {
	opt := netceptor.LinkOptions{Cost: s.Cost, AllowedPeers: s.AllowedPeers, NoRedial: !s.Redial}
	p, err := d.ClientProfile(s.TLS)
	if err != nil {
		return err
	}
	if p == nil {
		return d.dial(link.DialTCP(s.Address), opt)
	}
	host, _, err := net.SplitHostPort(s.Address)
	if err != nil {
		return err
	}
	return d.dial(link.DialTLS(s.Address, p.LinkConfig(host)), opt)
}

func (d *Daemon) udpListener(s config.UDPListener) error {
	l, err := link.ListenUDP(bindAddress(s.BindAddr, s.Port))
	if err != nil {
		return err
	}
	d.log.Debug("Listening on UDP " + l.Addr())
	return d.listen(l, netceptor.LinkOptions{Cost: s.Cost, NodeCost: s.NodeCost, AllowedPeers: s.AllowedPeers})
}

func (d *Daemon) wsListener(s config.WSListener) error {
	conf, err := d.linkTLS(s.TLS)
	if err != nil {
		return err
	}
	l, err := link.ListenWebSocket(bindAddress(s.BindAddr, s.Port), s.Path, conf)
	if err != nil {
		return err
	}
	d.log.Debug("Listening on Websocket " + l.Addr() + " path " + s.Path)
	return d.listen(l, netceptor.LinkOptions{Cost: s.Cost, NodeCost: s.NodeCost, AllowedPeers: s.AllowedPeers})
}

// wsDefaultProfile is the tls-client that wss peers without one use if it is defined, as in existing configurations.
const wsDefaultProfile = "default"

func (d *Daemon) wsPeer(s config.WSPeer) error {
	u, err := url.Parse(s.Address)
	if err != nil {
		return err
	}
	opt := link.WebSocketOptions{Environ: d.environ}
	if s.HeaderName != "" {
		opt.Header = http.Header{http.CanonicalHeaderKey(s.HeaderName): {s.HeaderValue}}
	}
	secure := strings.EqualFold(u.Scheme, "wss")
	profile := s.TLS
	if profile == "" && secure && d.hasTLSClient(wsDefaultProfile) {
		profile = wsDefaultProfile
	}
	p, err := d.ClientProfile(profile)
	switch {
	case err != nil:
		return err
	case p != nil && !secure:
		d.log.Warn("the tls profile of ws-peer " + s.Address + " has no effect: only wss:// is encrypted")
	case p != nil:
		opt.TLS = p.LinkConfig(u.Hostname())
	}
	dialer, err := link.DialWebSocket(s.Address, opt)
	if err != nil {
		return err
	}
	return d.dial(dialer, netceptor.LinkOptions{Cost: s.Cost, AllowedPeers: s.AllowedPeers, NoRedial: !s.Redial})
}
