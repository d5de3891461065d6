package config

import (
	"net/url"
	"strings"
)

func checkUDPListener(c *checker, l *UDPListener) { c.costs(l.Cost, l.NodeCost) }

func checkUDPPeer(c *checker, p *UDPPeer) {
	c.address("address", p.Address)
	c.cost(p.Cost)
}

func checkWSListener(c *checker, l *WSListener) {
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
	case u.User != nil:
		c.refuse("address", "leave the user name and the password out; a listener would not ask for them", "address %s: malformed ws or wss URL", u.Redacted())
	}
}
