package session

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/pyreceptor/pyreceptor/go/identity"
	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// backendConfig describes a peer to dial or an address to listen on.
type backendConfig struct {
	Address      string             `json:"address"`
	Cost         *float64           `json:"cost"`
	Redial       *bool              `json:"redial"`
	AllowedPeers *[]string          `json:"allowed_peers"`
	NodeCost     map[string]float64 `json:"node_cost"`
	TLS          *tlsProfile        `json:"tls"`
	Headers      map[string]string  `json:"headers"` // Of the request of a WebSocket.
}

// transport splits an address into its transport and what is behind the scheme.
func transport(address string) (scheme, rest string, err error) {
	if address == "" {
		return "", "", badRequest(`key "address": tcp://host:port is expected`)
	}
	scheme, rest, ok := strings.Cut(address, "://")
	if !ok {
		scheme, rest = "tcp", address
	}
	switch scheme {
	case "ws", "wss":
		return scheme, rest, nil
	case "tcp", "udp":
		rest = strings.TrimSuffix(rest, "/")
		if !strings.Contains(rest, ":") {
			return "", "", badRequest(fmt.Sprintf("address %q: no port; %s://host:port is expected", address, scheme))
		}
		if _, port, err := net.SplitHostPort(rest); err != nil {
			return "", "", badRequest(err.Error())
		} else if _, err = net.LookupPort(scheme, port); err != nil {
			return "", "", badRequest(fmt.Sprintf("address %q: port %q: want a number up to 65535", address, port))
		}
		return scheme, rest, nil
	default:
		return "", "", badRequest(fmt.Sprintf("address %q: transport %q is not known; tcp, udp, ws and wss are", address, scheme))
	}
}

// dialer makes the dialer of an address.
func (h *host) dialer(b *backendConfig) (link.Dialer, error) {
	scheme, rest, err := transport(b.Address)
	if err != nil {
		return nil, err
	}
	profile, err := h.clientTLS(b.TLS)
	if err != nil {
		return nil, err
	}
	if len(b.Headers) > 0 && scheme != "ws" && scheme != "wss" {
		return nil, badRequest(fmt.Sprintf("key \"headers\": only WebSocket has them, and the address is %q", b.Address))
	}
	switch scheme {
	case "udp":
		if profile != nil {
			return nil, errNoTLS(b.Address)
		}
		return link.DialUDP(rest), nil
	case "ws", "wss":
		return h.webSocketDialer(b, profile)
	}
	if profile == nil {
		return link.DialTCP(rest), nil
	}
	host, _, err := net.SplitHostPort(rest)
	if err != nil {
		return nil, badRequest(err.Error())
	}
	return link.DialTLS(rest, profile.LinkConfig(host)), nil
}

func (h *host) webSocketDialer(b *backendConfig, profile *identity.ClientProfile) (link.Dialer, error) {
	opt := link.WebSocketOptions{Environ: h.environ, Header: http.Header{}}
	for name, value := range b.Headers {
		opt.Header.Set(name, value)
	}
	u, err := url.Parse(b.Address)
	if err != nil {
		return nil, badRequest(err.Error())
	}
	if profile == nil && u.Scheme == "wss" && h.trust != "" {
		if profile, err = h.clientTLS(&tlsProfile{files: &tlsFiles{}}); err != nil {
			return nil, err
		}
	}
	if profile != nil {
		if u.Scheme != "wss" {
			return nil, errNoTLS(b.Address)
		}
		opt.TLS = profile.LinkConfig(u.Hostname())
	}
	d, err := link.DialWebSocket(b.Address, opt)
	if err != nil {
		return nil, badRequest(err.Error())
	}
	return d, nil
}

func errNoTLS(address string) *Error {
	return badRequest(fmt.Sprintf("key \"tls\": the transport of %q has no TLS; tcp:// and wss:// have", address))
}

// listener opens the listener of an address.
func (h *host) listener(b *backendConfig) (link.Listener, error) {
	scheme, rest, err := transport(b.Address)
	if err != nil {
		return nil, err
	}
	profile, err := h.serverTLS(b.TLS)
	if err != nil {
		return nil, err
	}
	var conf *tls.Config
	if profile != nil {
		conf = profile.LinkConfig()
	}
	switch {
	case scheme == "wss" && conf == nil:
		return nil, badRequest(fmt.Sprintf("address %q: a listener with TLS takes a certificate: give the key \"tls\"", b.Address))
	case (scheme == "udp" || scheme == "ws") && conf != nil:
		return nil, errNoTLS(b.Address)
	case scheme == "udp":
		return link.ListenUDP(rest)
	case scheme == "ws" || scheme == "wss":
		bind, path, _ := strings.Cut(rest, "/")
		return link.ListenWebSocket(bind, "/"+path, conf)
	case conf != nil:
		return link.ListenTLS(rest, conf)
	}
	return link.ListenTCP(rest)
}

func (b *backendConfig) options() netceptor.LinkOptions {
	opt := netceptor.LinkOptions{Cost: 1, NoRedial: b.Redial != nil && !*b.Redial}
	if b.Cost != nil {
		opt.Cost = *b.Cost
	}
	if b.AllowedPeers != nil {
		opt.AllowedPeers = []wire.NodeID{}
		for _, id := range *b.AllowedPeers {
			opt.AllowedPeers = append(opt.AllowedPeers, wire.NodeID(id))
		}
	}
	for id, cost := range b.NodeCost {
		if opt.NodeCost == nil {
			opt.NodeCost = map[wire.NodeID]float64{}
		}
		opt.NodeCost[wire.NodeID(id)] = cost
	}
	return opt
}

func (h *host) dial(b *backendConfig) (uint64, error) {
	d, err := h.dialer(b)
	if err != nil {
		return 0, err
	}
	backend, err := h.built().Node.Dial(d, b.options())
	if err != nil {
		return 0, toError(err, BadConfig)
	}
	return h.keep(backend), nil
}

func (h *host) listen(b *backendConfig) (id uint64, bound string, err error) {
	l, err := h.listener(b)
	if err != nil {
		return 0, "", toError(err, BadConfig)
	}
	backend, err := h.built().Node.Listen(l, b.options())
	if err != nil {
		return 0, "", toError(err, BadConfig)
	}
	return h.keep(backend), backend.Addr(), nil
}
