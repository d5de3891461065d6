package daemon

import (
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/identity"
	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
)

func (d *Daemon) listen(l link.Listener, opt netceptor.LinkOptions) (io.Closer, error) {
	b, err := d.Node.Listen(l, opt)
	if err != nil {
		return nil, err // Not a nil *Backend in an interface.
	}
	return b, nil
}

func (d *Daemon) dial(dialer link.Dialer, opt netceptor.LinkOptions) (io.Closer, error) {
	b, err := d.Node.Dial(dialer, opt)
	if err != nil {
		return nil, err
	}
	return b, nil
}

func bindAddress(host string, port int) string { return host + ":" + strconv.Itoa(port) }

func (d *Daemon) tcpListener(s config.TCPListener) (io.Closer, error) {
	conf, err := d.serverTLS(s.TLS, (*identity.ServerProfile).LinkConfig)
	if err != nil {
		return nil, err
	}
	tcp, err := d.listenStream(endpoints(s)[0])
	if err != nil {
		return nil, err
	}
	l := link.ServeTCP(tcp, conf)
	d.log.Debug("Listening on TCP " + l.Addr())
	return d.listen(l, netceptor.LinkOptions{Cost: s.Cost, NodeCost: s.NodeCost, AllowedPeers: s.AllowedPeers})
}

func (d *Daemon) tcpPeer(s config.TCPPeer) (io.Closer, error) {
	host, _, err := net.SplitHostPort(s.Address)
	if err != nil {
		return nil, err
	}
	conf, err := d.clientTLS(s.TLS, host)
	if err != nil {
		return nil, err
	}
	dialer := link.DialTCP(s.Address)
	if conf != nil {
		dialer = link.DialTLS(s.Address, conf)
	}
	return d.dial(dialer, netceptor.LinkOptions{Cost: s.Cost, AllowedPeers: s.AllowedPeers, NoRedial: !s.Redial})
}

func (d *Daemon) udpListener(s config.UDPListener) (io.Closer, error) {
	conn, err := d.listenUDP(endpoints(s)[0])
	if err != nil {
		return nil, err
	}
	l, err := link.ServeUDP(conn)
	if err != nil {
		return nil, err
	}
	d.log.Debug("Listening on UDP " + l.Addr())
	return d.listen(l, netceptor.LinkOptions{Cost: s.Cost, NodeCost: s.NodeCost, AllowedPeers: s.AllowedPeers})
}

func (d *Daemon) wsListener(s config.WSListener) (io.Closer, error) {
	conf, err := d.serverTLS(s.TLS, (*identity.ServerProfile).LinkConfig)
	if err != nil {
		return nil, err
	}
	tcp, err := d.listenStream(endpoints(s)[0])
	if err != nil {
		return nil, err
	}
	l, err := link.ServeWebSocket(tcp, s.Path, conf)
	if err != nil {
		return nil, err
	}
	d.log.Debug("Listening on Websocket " + l.Addr() + " path " + s.Path)
	return d.listen(l, netceptor.LinkOptions{Cost: s.Cost, NodeCost: s.NodeCost, AllowedPeers: s.AllowedPeers})
}

// wsDefaultProfile is the tls-client that wss peers without one use if it is defined, as in existing configurations.
const wsDefaultProfile = "default"

func (d *Daemon) wsPeer(s config.WSPeer) (io.Closer, error) {
	u, err := url.Parse(s.Address)
	if err != nil {
		return nil, err
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
	conf, err := d.clientTLS(profile, u.Hostname())
	switch {
	case err != nil:
		return nil, err
	case conf != nil && !secure:
		d.log.Warn("the tls profile of ws-peer " + s.Address + " has no effect: only wss:// is encrypted")
	case conf != nil:
		opt.TLS = conf
	}
	dialer, err := link.DialWebSocket(s.Address, opt)
	if err != nil {
		return nil, err
	}
	return d.dial(dialer, netceptor.LinkOptions{Cost: s.Cost, AllowedPeers: s.AllowedPeers, NoRedial: !s.Redial})
}
