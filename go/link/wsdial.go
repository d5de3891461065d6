package link

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/socket"
)

const (
	webSocketDialTimeout = 30 * time.Second
	// maxAnswer is what a server may send, in bytes, until the connection is a WebSocket: certificates and headers.
	maxAnswer = 512 << 10
)

// WebSocketOptions are what a dialer needs beside the URL. The zero value is usable.
type WebSocketOptions struct {
	TLS    *tls.Config // For wss; nil: certificates that the system trusts, for the host of the URL.
	Header http.Header // Sent with the request.
	// Environ has entries NAME=value, of which HTTP_PROXY (for ws), HTTPS_PROXY (for wss) and NO_PROXY say which proxy to
	// use: http://host:port, which is asked to CONNECT, or socks5://host:port, either with user:password@. This machine is
	// reached without. nil: no proxy. A program's own environment is its own business: this package does not read it.
	Environ []string
}

type webSocketDialer struct {
	url    string
	header http.Header
	dialer websocket.Dialer
}

// DialWebSocket makes links over WebSocket to a ws:// or wss:// URL.
func DialWebSocket(address string, opt WebSocketOptions) (Dialer, error) {
	u, err := parseWebSocketURL(address)
	if err != nil {
		return nil, err
	}
	d := &webSocketDialer{url: address, header: http.Header{}}
	scheme := "http"
	if u.Scheme == "wss" {
		scheme = "https"
		d.dialer.TLSClientConfig = forHost(opt.TLS, net.JoinHostPort(u.Hostname(), "443"))
	}
	d.header.Set("Origin", scheme+"://"+u.Host)
	for name, values := range opt.Header {
		if err := checkHeader(name, values); err != nil {
			return nil, fmt.Errorf("address %s: %w", address, err)
		}
		d.header[http.CanonicalHeaderKey(name)] = values
	}
	d.dialer.ReadBufferSize = webSocketBuffer
	d.dialer.WriteBufferSize = minReadBuffer
	d.dialer.Proxy = proxyFrom(opt.Environ)
	return d, nil
}

// ownHeaders are those of the handshake itself.
var ownHeaders = []string{"Upgrade", "Connection", "Sec-Websocket-Key", "Sec-Websocket-Version", "Sec-Websocket-Extensions", "Sec-Websocket-Protocol"}

func checkHeader(name string, values []string) error {
	const token = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" // RFC 9110, section 5.6.2.
	if name == "" || strings.Trim(name, token) != "" {
		return fmt.Errorf("extra header %q: that is no name of a header", name)
	}
	if slices.Contains(ownHeaders, http.CanonicalHeaderKey(name)) {
		return fmt.Errorf("extra header %s: the handshake has its own", name)
	}
	for _, v := range values {
		if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return fmt.Errorf("extra header %s: the value has control characters", name)
		}
	}
	return nil
}

func parseWebSocketURL(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("address %s is not a valid URL: %w", address, err)
	}
	shown := address
	if u.User != nil {
		shown = u.Redacted()
	}
	bad := func(why string) (*url.URL, error) {
		return nil, fmt.Errorf("address %s: malformed ws or wss URL: %s", shown, why)
	}
	switch {
	case u.Scheme != "ws" && u.Scheme != "wss":
		return bad("it must begin with ws:// or wss://")
	case u.User != nil:
		return bad("a user name or password cannot be sent")
	case u.Hostname() == "":
		return bad("it names no host")
	case strings.Count(u.Host, ":") > 1 && !strings.HasPrefix(u.Host, "["):
		return bad("an IPv6 address needs brackets")
	case u.Fragment != "":
		return bad("it has a fragment (#)")
	}
	return u, nil
}

func (d *webSocketDialer) String() string { return d.url }

func (d *webSocketDialer) Dial(ctx context.Context) (Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, webSocketDialTimeout)
	defer cancel()
	var bottom *cappedConn
	var stop func() bool
	var proxy *url.URL
	dialer := d.dialer
	if choose := dialer.Proxy; choose != nil {
		dialer.Proxy = func(r *http.Request) (chosen *url.URL, err error) {
			chosen, err = choose(r)
			proxy = chosen
			return chosen, err
		}
	}
	dialer.NetDialContext = func(_ context.Context, network, address string) (net.Conn, error) {
		conn, err := socket.Dialer().DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		bottom = &cappedConn{Conn: conn}
		bottom.left.Store(maxAnswer)
		stop = context.AfterFunc(ctx, func() { _ = conn.Close() }) // The rest of gorilla's handshake heeds no ctx.
		return bottom, nil
	}
	ws, resp, err := upgrade(ctx, &dialer, d.url, d.header)
	if err != nil && bottom != nil {
		_ = bottom.Close() // A fault has left it open.
	}
	if stop != nil && !stop() && err == nil {
		_ = hangUp(ws.NetConn())
		err = context.Cause(ctx)
	}
	what := "dial " + d.url
	if proxy != nil {
		what += throughProxy(proxy)
	}
	switch {
	case errors.Is(err, websocket.ErrBadHandshake) && resp != nil:
		return nil, fmt.Errorf("%s: the server answered %s instead of changing to WebSocket", what, resp.Status)
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("%s: no connection and handshake in time: %w", what, context.Cause(ctx))
	case err != nil && proxy != nil && bottom != nil:
		return nil, fmt.Errorf("%s: %w", what, proxyError(bottom.head, err))
	case err != nil:
		return nil, fmt.Errorf("%s: %w", what, err)
	case resp.Header.Get("Sec-Websocket-Extensions") != "":
		_ = hangUp(ws.NetConn())
		return nil, fmt.Errorf("dial %s: the server answered with extensions that were not asked for", d.url)
	}
	bottom.release()
	return newWebSocketConn(ws, true), nil
}

// upgrade makes the handshake. What the server sends may find a bug: that ends this connection alone.
func upgrade(ctx context.Context, d *websocket.Dialer, url string, header http.Header) (ws *websocket.Conn, resp *http.Response, err error) {
	defer fault.Into(&err)
	return d.DialContext(ctx, url, header)
}

// throughProxy says that a proxy is in use, which people tend to forget, and how to do without.
func throughProxy(proxy *url.URL) string {
	return fmt.Sprintf(" through the proxy %s (of HTTP_PROXY or HTTPS_PROXY; NO_PROXY names hosts to reach without)", proxy.Host)
}

// proxyError is err, unless the answer of the proxy, which begins with head, says more.
func proxyError(head []byte, err error) error {
	line, _, _ := bytes.Cut(head, []byte("\n"))
	version, status, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
	switch {
	case !strings.HasPrefix(version, "HTTP/1.") || strings.HasPrefix(status, "2"):
		return err
	case strings.HasPrefix(status, "407"):
		return fmt.Errorf("the proxy answered %q: give it a name and password, as http://user:password@host:port", status)
	}
	return fmt.Errorf("the proxy answered %q", status)
}

// cappedConn limits what is read until release: a server that never ends its answer must not fill the memory.
type cappedConn struct {
	net.Conn
	left atomic.Int64
	head []byte // How the answer begins.
}

// maxHead is enough for a status line.
const maxHead = 128

var errLongAnswer = fmt.Errorf("the server sent more than %d bytes before the handshake was done", maxAnswer)

func (c *cappedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	left := c.left.Add(-int64(n))
	if room := maxHead - len(c.head); left < maxAnswer && room > 0 {
		c.head = append(c.head, b[:min(n, room)]...)
	}
	if left < 0 {
		return 0, errLongAnswer
	}
	return n, err
}

// release makes the connection an ordinary one.
func (c *cappedConn) release() { c.left.Store(math.MaxInt64) }
