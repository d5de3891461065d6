package link

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// proxies is what the environment says about HTTP proxies.
type proxies struct {
	http, https string // For ws and wss; empty: none.
	except      []string
}

// proxyFrom returns the choice of a proxy by an environment, nil if it names none. Both spellings of HTTP_PROXY,
// HTTPS_PROXY and NO_PROXY count, capitals first. HTTP_PROXY in capitals is not believed inside a CGI program, where a
// client could set it.
func proxyFrom(environ []string) func(*http.Request) (*url.URL, error) {
	env := map[string]string{}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		env[name] = value
	}
	if env["REQUEST_METHOD"] != "" {
		delete(env, "HTTP_PROXY")
	}
	either := func(name string) string {
		if v := env[name]; v != "" {
			return v
		}
		return env[strings.ToLower(name)]
	}
	p := proxies{http: either("HTTP_PROXY"), https: either("HTTPS_PROXY")}
	for _, rule := range strings.Split(either("NO_PROXY"), ",") {
		if rule = strings.ToLower(strings.TrimSpace(rule)); rule != "" {
			p.except = append(p.except, rule)
		}
	}
	if p.http == "" && p.https == "" {
		return nil
	}
	return func(r *http.Request) (*url.URL, error) { return p.choose(r.URL) }
}

func (p proxies) choose(u *url.URL) (*url.URL, error) {
	proxy, port := p.http, "80"
	if u.Scheme == "https" {
		proxy, port = p.https, "443"
	}
	if u.Port() != "" {
		port = u.Port()
	}
	if proxy == "" || p.direct(strings.ToLower(strings.TrimSuffix(u.Hostname(), ".")), port) {
		return nil, nil
	}
	chosen, err := url.Parse(proxy)
	if (err != nil || chosen.Host == "") && !strings.Contains(proxy, "://") { // host:port without a scheme.
		chosen, err = url.Parse("http://" + proxy)
	}
	switch {
	case err != nil || chosen.Hostname() == "":
		return nil, fmt.Errorf("the proxy that the environment names for %s is not a valid URL: write it as http://host:port", u.Host)
	case chosen.Scheme != "http" && chosen.Scheme != "socks5":
		return nil, fmt.Errorf("the proxy that the environment names for %s is of kind %s: http://host:port and socks5://host:port are possible", u.Host, chosen.Scheme)
	}
	return chosen, nil
}

// direct reports whether host is reached without a proxy: this machine always, others by NO_PROXY.
func (p proxies) direct(host, port string) bool {
	addr, err := netip.ParseAddr(host)
	isAddr := err == nil
	addr = addr.Unmap()
	if host == "localhost" || isAddr && addr.IsLoopback() {
		return true
	}
	for _, rule := range p.except {
		if rule == "*" {
			return true
		}
		if prefix, err := netip.ParsePrefix(rule); err == nil {
			if isAddr && prefix.Contains(addr) {
				return true
			}
			continue
		}
		name := strings.Trim(rule, "[]")
		if h, rulePort, err := net.SplitHostPort(rule); err == nil {
			if rulePort != port {
				continue
			}
			name = h
		}
		if isAddr {
			if a, err := netip.ParseAddr(name); err == nil && a.Unmap() == addr {
				return true
			}
			continue
		}
		name = strings.TrimPrefix(name, "*")
		if strings.HasPrefix(name, ".") && strings.HasSuffix(host, name) ||
			!strings.HasPrefix(name, ".") && (host == name || strings.HasSuffix(host, "."+name)) {
			return true
		}
	}
	return false
}
