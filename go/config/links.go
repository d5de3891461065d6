package config

import (
	"fmt"
	"maps"
	"math"
	"net/url"
	"slices"
	"strings"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// TCPListener accepts links from peers over TCP.
type TCPListener struct {
	BindAddr     string // Host part, IPv6 in brackets.
	Port         int    // 0 means any free port.
	TLS          string
	Cost         float64                 // Of every link, > 0.
	NodeCost     map[wire.NodeID]float64 // Overrides Cost by peer.
	AllowedPeers []wire.NodeID           // nil admits everybody, an empty list nobody.
}

// TCPPeer keeps a link to one peer over TCP.
type TCPPeer struct {
	Address      string // host:port
	Redial       bool   // Try again after a failure or loss.
	TLS          string
	Cost         float64       // > 0; the other end must use the same.
	AllowedPeers []wire.NodeID // As in TCPListener.
}

// UDPListener accepts links from peers over UDP.
type UDPListener struct {
	BindAddr     string                  // Host part, IPv6 in brackets.
	Port         int                     // 0 means any free port.
	Cost         float64                 // Of every link, > 0.
	NodeCost     map[wire.NodeID]float64 // Overrides Cost by peer.
	AllowedPeers []wire.NodeID           // nil admits everybody, an empty list nobody.
}

// UDPPeer keeps a link to one peer over UDP.
type UDPPeer struct {
	Address      string        // host:port
	Redial       bool          // Try again after a failure or loss.
	Cost         float64       // > 0; the other end must use the same.
	AllowedPeers []wire.NodeID // As in UDPListener.
}

// WSListener accepts links from peers over WebSocket.
type WSListener struct {
	BindAddr     string // Host part, IPv6 in brackets.
	Port         int    // 0 means any free port.
	Path         string // Begins with a slash. If it ends with one, everything below is served too.
	TLS          string
	Cost         float64                 // Of every link, > 0.
	NodeCost     map[wire.NodeID]float64 // Overrides Cost by peer.
	AllowedPeers []wire.NodeID           // nil admits everybody, an empty list nobody.
}

// WSPeer keeps a link to one peer over WebSocket.
type WSPeer struct {
	Address      string // A ws:// or wss:// URL.
	Redial       bool   // Try again after a failure or loss.
	TLS          string
	HeaderName   string // One more header of the request; empty: none.
	HeaderValue  string
	Cost         float64       // > 0; the other end must use the same.
	AllowedPeers []wire.NodeID // As in WSListener.

	header string // As written.
}

// linkDirectives are the back-ends: what links come from.
func linkDirectives() []*directive {
	return []*directive{
		of(directive{name: "tcp-listener", help: "Accept links from other nodes over TCP", group: backends, bare: "port"},
			TCPListener{BindAddr: "0.0.0.0", Cost: 1}, checkTCPListener,
			text("bindaddr", "Local address to bind to, IPv6 in brackets", func(l *TCPListener) *string { return &l.BindAddr }).names(),
			number("port", "Local TCP port to listen on, 0 for any free one", func(l *TCPListener) *int { return &l.Port }).need().names().between(0, 65535),
			text("tls", "Name of the tls-server to use", func(l *TCPListener) *string { return &l.TLS }),
			float("cost", "Cost of a link, more than 0", func(l *TCPListener) *float64 { return &l.Cost }),
			costs("nodecost", "Costs of links to particular nodes", func(l *TCPListener) *map[wire.NodeID]float64 { return &l.NodeCost }),
			list("allowedpeers", "IDs of the nodes that may connect, all if absent", func(l *TCPListener) *[]wire.NodeID { return &l.AllowedPeers }),
		),
		of(directive{name: "tcp-peer", help: "Keep a link to another node over TCP", group: backends, bare: "address"},
			TCPPeer{Redial: true, Cost: 1}, checkTCPPeer,
			text("address", "Where the other node listens, as host:port", func(p *TCPPeer) *string { return &p.Address }).need().names(),
			boolean("redial", "Connect again after a failure or loss", func(p *TCPPeer) *bool { return &p.Redial }),
			text("tls", "Name of the tls-client to use", func(p *TCPPeer) *string { return &p.TLS }),
			float("cost", "Cost of the link, more than 0; the same at both ends", func(p *TCPPeer) *float64 { return &p.Cost }),
			list("allowedpeers", "IDs of the nodes that may answer, all if absent", func(p *TCPPeer) *[]wire.NodeID { return &p.AllowedPeers }),
		),
		of(directive{name: "udp-listener", help: "Accept links from other nodes over UDP", group: backends, bare: "port"},
			UDPListener{BindAddr: "0.0.0.0", Cost: 1}, checkUDPListener,
			text("bindaddr", "Local address to bind to, IPv6 in brackets", func(l *UDPListener) *string { return &l.BindAddr }).names(),
			number("port", "Local UDP port to listen on, 0 for any free one", func(l *UDPListener) *int { return &l.Port }).need().names().between(0, 65535),
			float("cost", "Cost of a link, more than 0", func(l *UDPListener) *float64 { return &l.Cost }),
			costs("nodecost", "Costs of links to particular nodes", func(l *UDPListener) *map[wire.NodeID]float64 { return &l.NodeCost }),
			list("allowedpeers", "IDs of the nodes that may connect, all if absent", func(l *UDPListener) *[]wire.NodeID { return &l.AllowedPeers }),
		),
		of(directive{name: "udp-peer", help: "Keep a link to another node over UDP", group: backends, bare: "address"},
			UDPPeer{Redial: true, Cost: 1}, checkUDPPeer,
			text("address", "Where the other node listens, as host:port", func(p *UDPPeer) *string { return &p.Address }).need().names(),
			boolean("redial", "Connect again after a failure or loss", func(p *UDPPeer) *bool { return &p.Redial }),
			float("cost", "Cost of the link, more than 0; the same at both ends", func(p *UDPPeer) *float64 { return &p.Cost }),
			list("allowedpeers", "IDs of the nodes that may answer, all if absent", func(p *UDPPeer) *[]wire.NodeID { return &p.AllowedPeers }),
		),
		of(directive{name: "ws-listener", help: "Accept links from other nodes over WebSocket", group: backends, bare: "port"},
			WSListener{BindAddr: "0.0.0.0", Path: "/", Cost: 1}, checkWSListener,
			text("bindaddr", "Local address to bind to, IPv6 in brackets", func(l *WSListener) *string { return &l.BindAddr }).names(),
			number("port", "Local TCP port to listen on, 0 for any free one", func(l *WSListener) *int { return &l.Port }).need().names().between(0, 65535),
			text("path", "Path of the URL to answer; / answers all", func(l *WSListener) *string { return &l.Path }),
			text("tls", "Name of the tls-server to use", func(l *WSListener) *string { return &l.TLS }),
			float("cost", "Cost of a link, more than 0", func(l *WSListener) *float64 { return &l.Cost }),
			costs("nodecost", "Costs of links to particular nodes", func(l *WSListener) *map[wire.NodeID]float64 { return &l.NodeCost }),
			list("allowedpeers", "IDs of the nodes that may connect, all if absent", func(l *WSListener) *[]wire.NodeID { return &l.AllowedPeers }),
		),
		of(directive{name: "ws-peer", help: "Keep a link to another node over WebSocket", group: backends, bare: "address"},
			WSPeer{Redial: true, Cost: 1}, checkWSPeer,
			text("address", "URL of the other node, as ws://host:port/path or wss://host:port/path", func(p *WSPeer) *string { return &p.Address }).need().names(),
			boolean("redial", "Connect again after a failure or loss", func(p *WSPeer) *bool { return &p.Redial }),
			text("tls", "Name of the tls-client to use with wss", func(p *WSPeer) *string { return &p.TLS }),
			text("extraheader", "One more header of the request, as Name: value", func(p *WSPeer) *string { return &p.header }).private(),
			float("cost", "Cost of the link, more than 0; the same at both ends", func(p *WSPeer) *float64 { return &p.Cost }),
			list("allowedpeers", "IDs of the nodes that may answer, all if absent", func(p *WSPeer) *[]wire.NodeID { return &p.AllowedPeers }),
		),
	}
}

func checkTCPListener(c *checker, l *TCPListener) {
	c.bindAddress(l.BindAddr, l.Port)
	c.port("tcp", l.Port)
	c.costs(l.Cost, l.NodeCost)
	c.tlsServer("tls", l.TLS)
}

func checkTCPPeer(c *checker, p *TCPPeer) {
	c.address("address", p.Address)
	c.cost(p.Cost)
	c.tlsClient("tls", p.TLS)
}

func checkUDPListener(c *checker, l *UDPListener) {
	c.bindAddress(l.BindAddr, l.Port)
	c.port("udp", l.Port)
	c.costs(l.Cost, l.NodeCost)
}

func checkUDPPeer(c *checker, p *UDPPeer) {
	c.address("address", p.Address)
	c.cost(p.Cost)
}

func checkWSListener(c *checker, l *WSListener) {
	c.bindAddress(l.BindAddr, l.Port)
	c.port("tcp", l.Port)
	c.costs(l.Cost, l.NodeCost)
	c.tlsServer("tls", l.TLS)
	if !strings.HasPrefix(l.Path, "/") {
		c.refuse("path", "it must begin with /; / alone answers all paths", "websocket path %q would never be asked for", l.Path)
	}
}

func checkWSPeer(c *checker, p *WSPeer) {
	c.webSocketURL(p.Address)
	c.cost(p.Cost)
	c.tlsClient("tls", p.TLS)
	if p.header == "" {
		return
	}
	name, value, ok := strings.Cut(p.header, ":")
	if !ok {
		c.refuse("extraheader", "", "extra header must be in the form key:value")
		return
	}
	p.HeaderName, p.HeaderValue = strings.TrimSpace(name), strings.TrimSpace(value)
	if p.HeaderName == "" {
		c.refuse("extraheader", "write it as Name: value", "extra header %q has no name", p.header)
	}
}

func (c *checker) webSocketURL(address string) {
	u, err := url.Parse(address)
	const form = "write it as ws://host:port/path or wss://host:port/path"
	switch {
	case err != nil:
		c.refuse("address", form, "address %s is not a valid URL: %s", address, err)
	case u.Scheme != "ws" && u.Scheme != "wss" || u.Hostname() == "":
		c.refuse("address", form, "address %s: malformed ws or wss URL", u.Redacted())
	case manyColons(u.Host):
		c.refuse("address", bracketsHint, "address %s: malformed ws or wss URL", u.Redacted())
	case u.User != nil:
		c.refuse("address", "leave the user name and the password out; a listener would not ask for them", "address %s: malformed ws or wss URL", u.Redacted())
	}
}

func (c *checker) cost(cost float64) {
	if problem := badCost(cost); problem != "" {
		c.refuse("cost", "", "connection cost %s", problem)
	}
}

func (c *checker) costs(cost float64, nodeCost map[wire.NodeID]float64) {
	c.cost(cost)
	for _, peer := range slices.Sorted(maps.Keys(nodeCost)) {
		if problem := badCost(nodeCost[peer]); problem != "" {
			c.refuse("nodecost", "", "connection cost %s for %s", problem, peer)
		}
	}
}

// badCost is why a link cannot have a cost; empty if it can.
func badCost(cost float64) string {
	switch {
	case math.IsNaN(cost) || cost <= 0:
		return "must be positive"
	case cost > wire.MaxLinkCost:
		return fmt.Sprintf("must be at most %g", float64(wire.MaxLinkCost))
	default:
		return ""
	}
}
