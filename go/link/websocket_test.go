package link

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

func listenWS(t *testing.T, path string, conf *tls.Config) Listener {
	t.Helper()
	l, err := ListenWebSocket("127.0.0.1:0", path, conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func rawTCP(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(hang))
	return c
}

// request sends lines and returns the status of the answer.
func request(t *testing.T, address string, lines ...string) (*http.Response, net.Conn) {
	t.Helper()
	c := rawTCP(t, address)
	if _, err := c.Write([]byte(strings.Join(lines, "\r\n") + "\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%q: %v", lines, err)
	}
	return resp, c
}

func TestWebSocketRequests(t *testing.T) {
	noLeaks(t)
	upgrade := []string{"Host: h:1", "Upgrade: websocket", "Connection: keep-alive, Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: CKF5lTCC8ZzvF1lB0tnUBQ=="}
	with := func(first string, more ...string) []string {
		return append(append([]string{first}, upgrade...), more...)
	}
	for _, c := range []struct {
		name, path string
		lines      []string
		status     int
	}{
		{"good", "/mesh", with("GET /mesh HTTP/1.1"), 101},
		{"query", "/mesh", with("GET /mesh?x=1 HTTP/1.1"), 101},
		{"other path", "/mesh", with("GET /other HTTP/1.1"), 404},
		{"below an exact path", "/mesh", with("GET /mesh/x HTTP/1.1"), 404},
		{"root serves all", "/", with("GET /any/where HTTP/1.1"), 101},
		{"below a folder", "/mesh/", with("GET /mesh/x HTTP/1.1"), 101},
		{"beside a folder", "/mesh/", with("GET /meshes HTTP/1.1"), 404},
		{"not GET", "/", with("POST / HTTP/1.1", "Content-Length: 5"), 405},
		{"OPTIONS *", "/", with("OPTIONS * HTTP/1.1"), 404},
		{"no upgrade", "/", []string{"GET / HTTP/1.1", "Host: h"}, 400},
		{"old version", "/", []string{"GET / HTTP/1.1", "Host: h", "Upgrade: websocket", "Connection: upgrade", "Sec-WebSocket-Version: 8", "Sec-WebSocket-Key: CKF5lTCC8ZzvF1lB0tnUBQ=="}, 400},
		{"bad key", "/", []string{"GET / HTTP/1.1", "Host: h", "Upgrade: websocket", "Connection: upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: short"}, 400},
		{"same origin", "/", with("GET / HTTP/1.1", "Origin: http://H:1"), 101},
		{"same origin, other scheme", "/", with("GET / HTTP/1.1", "Origin: https://h:1"), 101},
		{"other origin", "/", with("GET / HTTP/1.1", "Origin: http://evil:1"), 403},
		{"other port", "/", with("GET / HTTP/1.1", "Origin: http://h:2"), 403},
		{"no page", "/", with("GET / HTTP/1.1", "Origin: null"), 403},
		{"extensions are ignored", "/", with("GET / HTTP/1.1", "Sec-WebSocket-Extensions: permessage-deflate", "Sec-WebSocket-Protocol: a, b"), 101},
		{"huge header", "/", with("GET / HTTP/1.1", "X: "+strings.Repeat("x", 2*maxHeaderBytes)), 431},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := listenWS(t, c.path, nil)
			resp, conn := request(t, l.Addr(), c.lines...)
			if resp.StatusCode != c.status {
				t.Errorf("answer %s, want %d", resp.Status, c.status)
			}
			if resp.Header.Get("Sec-Websocket-Extensions") != "" || resp.Header.Get("Sec-Websocket-Protocol") != "" {
				t.Errorf("something was negotiated: %v", resp.Header)
			}
			if c.status == 101 {
				s, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				_ = s.Close()
			} else if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "reset") {
				t.Errorf("the connection does not end: %v", err)
			}
		})
	}
}

// The bytes that two existing nodes exchanged, with this package in the place of either.
func TestWebSocketGolden(t *testing.T) {
	text, err := os.ReadFile("testdata/websocket_handshake.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Chunks []struct {
			Dir string
			Hex string `json:"tcp_chunk_hex"`
		}
	}
	if err := json.Unmarshal(text, &golden); err != nil {
		t.Fatal(err)
	}
	sent := map[string][]byte{}
	for _, c := range golden.Chunks {
		b, err := hex.DecodeString(c.Hex)
		if err != nil {
			t.Fatal(err)
		}
		sent[c.Dir] = append(sent[c.Dir], b...)
	}

	t.Run("dialer", func(t *testing.T) {
		l := listenWS(t, "/receptor", nil)
		c := rawTCP(t, l.Addr())
		head, rest, _ := bytes.Cut(sent["dialer->listener"], []byte("\r\n\r\n"))
		if _, err := c.Write(append(head, "\r\n\r\n"...)); err != nil {
			t.Fatal(err)
		}
		answer, _, _ := bytes.Cut(sent["listener->dialer"], []byte("\r\n\r\n"))
		got := make([]byte, len(answer)+4)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != string(answer)+"\r\n\r\n" {
			t.Errorf("answer %q, %v; want %q", got, err, answer)
		}
		if _, err := c.Write(rest); err != nil {
			t.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for _, msg := range read(t, s, 3) {
			if u, err := wire.ParseRouteUpdate([]byte(msg)); err != nil || u.ForwardingNode != "wcli" {
				t.Errorf("message %q: %v", msg, err)
			}
		}
	})

	t.Run("listener", func(t *testing.T) { // Its first message comes with the answer.
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		asked := make(chan *http.Request, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			r, err := http.ReadRequest(bufio.NewReader(c))
			if err != nil {
				return
			}
			asked <- r
			_, rest, _ := bytes.Cut(sent["listener->dialer"], []byte("\r\n\r\n"))
			accept := acceptKey(t, r)
			fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n%s", accept, rest)
			_, _ = io.Copy(io.Discard, c)
		}()
		d, err := DialWebSocket("ws://"+l.Addr().String()+"/receptor", WebSocketOptions{Header: http.Header{"x-mesh-token": {"abc: def"}}})
		if err != nil {
			t.Fatal(err)
		}
		c, err := d.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, msg := range read(t, c, 4) {
			if u, err := wire.ParseRouteUpdate([]byte(msg)); err != nil || u.ForwardingNode != "wsrv" {
				t.Errorf("message %q: %v", msg, err)
			}
		}
		r := <-asked
		want := map[string]string{
			"User-Agent": "Go-http-client/1.1", "Connection": "Upgrade", "Upgrade": "websocket", "Sec-Websocket-Version": "13",
			"Origin": "http://" + l.Addr().String(), "X-Mesh-Token": "abc: def",
		}
		for name, value := range want {
			if got := r.Header.Values(name); len(got) != 1 || got[0] != value {
				t.Errorf("header %s is %q, want %q", name, got, value)
			}
		}
		if len(r.Header) != len(want)+1 || r.Host != l.Addr().String() || r.URL.Path != "/receptor" || r.Proto != "HTTP/1.1" {
			t.Errorf("request %s %s %s %v", r.Proto, r.Host, r.URL, r.Header)
		}
	})
}

// acceptKey lets gorilla answer the challenge of a request.
func acceptKey(t *testing.T, r *http.Request) string {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	u := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	go func() { _, _ = u.Upgrade(hijacked{far}, r, nil) }()
	resp, err := http.ReadResponse(bufio.NewReader(near), nil)
	if err != nil {
		t.Error(err)
		return ""
	}
	return resp.Header.Get("Sec-Websocket-Accept")
}

type hijacked struct{ net.Conn }

func (h hijacked) Header() http.Header { return http.Header{} }
func (h hijacked) WriteHeader(int)     {}
func (h hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.Conn, bufio.NewReadWriter(bufio.NewReader(h.Conn), bufio.NewWriter(h.Conn)), nil
}

// pair returns gorilla's end of a connection and ours, which is the dialer's or the listener's.
func gorillaPair(t *testing.T, ours string) (*websocket.Conn, Conn) {
	t.Helper()
	if ours == "listener" {
		l := listenWS(t, "/", nil)
		ws, _, err := websocket.DefaultDialer.Dial("ws://"+l.Addr(), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ws.Close() })
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return ws, c
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	made := make(chan *websocket.Conn, 1)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
		}
		made <- ws
	})}
	go func() { _ = server.Serve(tcp) }()
	t.Cleanup(func() { _ = server.Close() })
	d, err := DialWebSocket("ws://"+tcp.Addr().String(), WebSocketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	ws := <-made
	t.Cleanup(func() { _ = ws.Close() })
	return ws, c
}

func TestWebSocketMessages(t *testing.T) {
	for _, ours := range []string{"listener", "dialer"} {
		t.Run(ours, func(t *testing.T) {
			noLeaks(t)
			ws, c := gorillaPair(t, ours)
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			pong := make(chan string, 1)
			ws.SetPongHandler(func(s string) error { pong <- s; return nil })
			must(ws.WriteMessage(websocket.TextMessage, []byte("text")))
			must(ws.WriteMessage(websocket.BinaryMessage, nil))
			must(ws.WriteControl(websocket.PingMessage, []byte("are you there"), time.Time{}))
			w, err := ws.NextWriter(websocket.BinaryMessage) // In fragments, with a ping between them.
			must(err)
			for range 10 {
				_, err = w.Write(bytes.Repeat([]byte("f"), 5000))
				must(err)
				must(ws.WriteControl(websocket.PongMessage, nil, time.Time{}))
			}
			must(w.Close())
			must(ws.WriteMessage(websocket.BinaryMessage, bytes.Repeat([]byte("g"), wire.MaxMessage)))
			got := read(t, c, 3)
			if got[0] != "text" || got[1] != strings.Repeat("f", 50000) || got[2] != strings.Repeat("g", wire.MaxMessage) {
				t.Errorf("got messages of %d, %d and %d bytes", len(got[0]), len(got[1]), len(got[2]))
			}
			for _, size := range []int{1, 7, 8, 125, 126, 1000, wire.MaxMessage} {
				want := strings.Repeat("z", size)
				must(c.WriteBatch(frames(want)))
				kind, msg, err := ws.ReadMessage()
				if err != nil || kind != websocket.BinaryMessage || string(msg) != want {
					t.Fatalf("kind %d, %d bytes, %v; want %d bytes, binary", kind, len(msg), err, size)
				}
			}
			if p := <-pong; p != "are you there" {
				t.Errorf("pong %q", p)
			}
			must(ws.WriteMessage(websocket.BinaryMessage, make([]byte, wire.MaxMessage+1)))
			if _, err := c.ReadBatch(); err == nil || err.Error() != "the peer sent a message of more than 65535 bytes" {
				t.Errorf("after a message of 65536 bytes: %v", err)
			}
			_, _, _ = c.Close(), ws.Close(), 0
		})
	}
}

func TestWebSocketMalformedFrames(t *testing.T) {
	long := append([]byte{0x02, 0xff}, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4)
	for name, b := range map[string][]byte{
		"not masked":               {0x82, 0x01, 'x'},
		"reserved bits":            {0xf2, 0x81, 1, 2, 3, 4, 'x'},
		"unknown opcode":           {0x83, 0x81, 1, 2, 3, 4, 'x'},
		"continuation of nothing":  {0x80, 0x81, 1, 2, 3, 4, 'x'},
		"message within a message": {0x02, 0x81, 1, 2, 3, 4, 'x', 0x82, 0x81, 1, 2, 3, 4, 'x'},
		"fragmented ping":          {0x09, 0x80, 1, 2, 3, 4},
		"long ping":                append([]byte{0x89, 0xfe, 0x00, 0x7e, 1, 2, 3, 4}, make([]byte, 126)...),
		"two to the 63rd bytes":    long,
		"negative length":          {0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4},
		"close with one byte":      {0x88, 0x81, 1, 2, 3, 4, 'x'},
		"compressed":               {0xc2, 0x81, 1, 2, 3, 4, 'x'},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			l := listenWS(t, "/", nil)
			resp, raw := request(t, l.Addr(), "GET / HTTP/1.1", "Host: h", "Upgrade: websocket", "Connection: Upgrade",
				"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: CKF5lTCC8ZzvF1lB0tnUBQ==")
			if resp.StatusCode != 101 {
				t.Fatal(resp.Status)
			}
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			_, _ = raw.Write(b)
			if batch, err := c.ReadBatch(); err == nil {
				t.Errorf("got %q, want the end of the link", batch)
			}
			_, _ = c.Close(), raw.Close()
		})
	}
}

// Connections that ask for nothing do not keep others out, and have a deadline.
func TestWebSocketSlowRequests(t *testing.T) {
	noLeaks(t)
	l := listenWS(t, "/", nil)
	server := l.(*webSocketListener)
	if s := server.server; s.ReadHeaderTimeout != 5*time.Second || s.ReadTimeout == 0 || s.WriteTimeout == 0 {
		t.Errorf("a request may take for ever: %+v", s)
	}
	server.young.mu.Lock()
	server.young.limit = 3
	server.young.mu.Unlock()
	var conns []net.Conn
	for range 6 {
		c := rawTCP(t, l.Addr())
		_, _ = c.Write([]byte("GET / HTTP/1.1\r\nHost:"))
		conns = append(conns, c)
	}
	for _, c := range conns[:3] {
		if n, err := c.Read(make([]byte, 100)); err == nil {
			t.Errorf("got %d bytes from a listener that should have given up", n)
		}
	}
	d, _ := DialWebSocket("ws://"+l.Addr(), WebSocketOptions{})
	c, err := d.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = c.Close(), s.Close()
	for _, c := range conns {
		_ = c.Close()
	}
}

func TestWebSocketALPN(t *testing.T) {
	server, client := testTLS(t)
	server.NextProtos = []string{"h2", "http/1.1"}
	server.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return server, nil }
	l := listenWS(t, "/", server)
	for _, c := range []struct {
		offer []string
		want  string
	}{{nil, ""}, {[]string{"h2", "http/1.1"}, "http/1.1"}, {[]string{"http/1.1"}, "http/1.1"}} {
		conf := client.Clone()
		conf.NextProtos = c.offer
		conn, err := tls.Dial("tcp", l.Addr(), conf)
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.ConnectionState().NegotiatedProtocol; got != c.want {
			t.Errorf("offered %v, got %q, want %q", c.offer, got, c.want)
		}
		_ = conn.Close()
	}
}

func TestWebSocketURLs(t *testing.T) {
	for address, want := range map[string]string{
		"ws://h":          "",
		"wss://h:1/p?q=1": "",
		"WS://h":          "",
		"ws://[::1]:80/":  "",
		"127.0.0.1:1":     `address 127.0.0.1:1 is not a valid URL: parse "127.0.0.1:1": first path segment in URL cannot contain colon`,
		"http://h":        "address http://h: malformed ws or wss URL: it must begin with ws:// or wss://",
		"ws://::1:80/":    "address ws://::1:80/: malformed ws or wss URL: an IPv6 address needs brackets",
		"h:80":            "address h:80: malformed ws or wss URL: it must begin with ws:// or wss://",
		"":                "address : malformed ws or wss URL: it must begin with ws:// or wss://",
		"ws://":           "address ws://: malformed ws or wss URL: it names no host",
		"ws://:80":        "address ws://:80: malformed ws or wss URL: it names no host",
		"ws://u:secret@h": "address ws://u:xxxxx@h: malformed ws or wss URL: a user name or password cannot be sent",
		"ws://h/#f":       "address ws://h/#f: malformed ws or wss URL: it has a fragment (#)",
	} {
		_, err := DialWebSocket(address, WebSocketOptions{})
		if got := fmt.Sprint(err); err == nil && want != "" || err != nil && got != want {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
	}
	for _, h := range []http.Header{{"": {"x"}}, {"A B": {"x"}}, {"upgrade": {"x"}}, {"X": {"a\r\nB: c"}}} {
		if _, err := DialWebSocket("ws://h", WebSocketOptions{Header: h}); err == nil {
			t.Errorf("header %q is accepted", h)
		}
	}
	if _, err := ListenWebSocket("127.0.0.1:0", "", nil); err == nil {
		t.Error("an empty path is accepted")
	}
}

// answers is the address of a server that has one answer, to one request. One that ends with "endless" does not end.
func answers(t *testing.T, text string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		_, _ = c.Write([]byte(text))
		for strings.HasSuffix(text, "endless") {
			if _, err := c.Write(bytes.Repeat([]byte("X: y\r\n"), 1000)); err != nil {
				return
			}
		}
	}()
	return l.Addr().String()
}

func TestWebSocketDialFailures(t *testing.T) {
	noLeaks(t)
	for name, c := range map[string]struct{ answer, want string }{
		"not found":   {"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "the server answered 404 Not Found instead of changing to WebSocket"},
		"wrong key":   {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: eA==\r\n\r\n", "the server answered 101 Switching Protocols"},
		"hangs up":    {"", "EOF"},
		"no HTTP":     {"SSH-2.0-x\r\n\r\n", "malformed HTTP"},
		"never stops": {"HTTP/1.1 101 Switching Protocols\r\nX: endless", "the server sent more than"},
	} {
		address := "ws://" + answers(t, c.answer)
		d, err := DialWebSocket(address, WebSocketOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Dial(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "dial "+address+": ") {
			t.Errorf("%s: %v, want %q in it", name, err, c.want)
		}
	}
}

func TestWebSocketThroughProxy(t *testing.T) {
	noLeaks(t)
	server, client := testTLS(t)
	server.Certificates[0].Leaf = nil
	for _, scheme := range []string{"ws", "wss"} {
		var conf *tls.Config
		if scheme == "wss" {
			conf = server
		}
		l := listenWS(t, "/", conf)
		proxy, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer proxy.Close()
		asked := make(chan *http.Request, 1)
		go func() {
			c, err := proxy.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			r, err := http.ReadRequest(bufio.NewReader(c))
			if err != nil {
				return
			}
			asked <- r
			far, err := net.Dial("tcp", l.Addr())
			if err != nil {
				return
			}
			defer far.Close()
			_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\n\r\n"))
			go func() { _, _ = io.Copy(far, c); _ = far.Close() }()
			_, _ = io.Copy(c, far)
		}()
		trusting := client.Clone()
		trusting.ServerName = "127.0.0.1"
		d, err := DialWebSocket(scheme+"://mesh.example:1234/", WebSocketOptions{TLS: trusting,
			Environ: []string{"http_proxy=user:pw@" + proxy.Addr().String(), "HTTPS_PROXY=http://user:pw@" + proxy.Addr().String()}})
		if err != nil {
			t.Fatal(err)
		}
		c, err := d.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r := <-asked
		if r.Method != "CONNECT" || r.Host != "mesh.example:1234" || r.Header.Get("Proxy-Authorization") != "Basic dXNlcjpwdw==" {
			t.Errorf("the proxy was asked for %s %s %v", r.Method, r.Host, r.Header)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.WriteBatch(frames("hello")); err != nil {
			t.Fatal(err)
		}
		if got := read(t, s, 1); got[0] != "hello" {
			t.Errorf("got %q", got)
		}
		_, _ = c.Close(), s.Close()
	}
}

func TestProxyChoice(t *testing.T) {
	env := []string{"HTTP_PROXY=plain:1", "https_proxy=http://secure:2", "NO_PROXY=direct.example, .sub.example,10.0.0.0/8,192.0.2.1,ported.example:99,*.star.example"}
	for address, want := range map[string]string{
		"http://far.example":          "http://plain:1",
		"https://far.example":         "http://secure:2",
		"http://localhost:1":          "",
		"http://127.1.2.3":            "",
		"http://[::1]:5":              "",
		"http://direct.example":       "",
		"http://a.direct.example:7":   "",
		"http://notdirect.example":    "http://plain:1",
		"http://sub.example":          "http://plain:1",
		"http://x.sub.example":        "",
		"http://x.star.example":       "",
		"http://10.9.8.7:1":           "",
		"http://11.9.8.7:1":           "http://plain:1",
		"http://192.0.2.1":            "",
		"http://ported.example:99":    "",
		"http://ported.example":       "http://plain:1",
		"http://[::ffff:10.1.1.1]:80": "",
	} {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		got, err := proxyFrom(env)(&http.Request{URL: u})
		if err != nil {
			t.Error(err)
		}
		text := ""
		if got != nil {
			text = got.String()
		}
		if text != want {
			t.Errorf("%s goes by %q, want %q", address, text, want)
		}
	}
	if proxyFrom([]string{"PATH=/bin"}) != nil || proxyFrom([]string{"HTTP_PROXY=x:1", "REQUEST_METHOD=GET"}) != nil {
		t.Error("a proxy was made up")
	}
	u, _ := url.Parse("http://far.example")
	if p, err := proxyFrom([]string{"HTTP_PROXY=x:1", "NO_PROXY=*"})(&http.Request{URL: u}); p != nil || err != nil {
		t.Errorf("NO_PROXY=* goes by %v, %v", p, err)
	}
	if _, err := proxyFrom([]string{"HTTP_PROXY=http://%zz"})(&http.Request{URL: u}); err == nil {
		t.Error("nonsense is a proxy")
	}
}

// Every mask gives back what went in, at every length.
func TestMask(t *testing.T) {
	for size := range 70 {
		c := &webSocketConn{client: true}
		payload := bytes.Repeat([]byte("ab\x00\xff"), 20)[:size]
		frame := c.appendFrame(nil, websocket.BinaryMessage, payload)
		key, got := frame[2:6], frame[6:]
		for i := range got {
			if got[i]^key[i%4] != payload[i] {
				t.Fatalf("byte %d of %d is wrong", i, size)
			}
		}
	}
}

func TestWebSocketPeerThatIsNotRead(t *testing.T) {
	l := listenWS(t, "/", nil)
	d, _ := DialWebSocket("ws://"+l.Addr(), WebSocketOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	c, err := d.Dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	blocked := make(chan error, 1)
	go func() {
		big := frames(strings.Repeat("x", wire.MaxMessage))
		for {
			if err := c.WriteBatch(big, big, big, big); err != nil {
				blocked <- err
				return
			}
		}
	}()
	lane := s.(*webSocketConn).in
	lane.mu.Lock()
	for len(lane.pending) < webSocketInbox { // A lane tells its reader of the first message only.
		lane.mu.Unlock()
		runtime.Gosched()
		lane.mu.Lock()
	}
	if len(lane.pending) > webSocketInbox+wire.MaxMessage+wire.FrameOverhead {
		t.Errorf("%d bytes wait unread", len(lane.pending))
	}
	lane.mu.Unlock()
	_ = s.Close()
	if err := <-blocked; err == nil {
		t.Error("the writer did not notice")
	}
	_ = c.Close()
}

// takenOver is an HTTP exchange whose connection is already there.
type takenOver struct {
	http.ResponseWriter
	conn net.Conn
}

func (h takenOver) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(bufio.NewReader(h.conn), bufio.NewWriter(h.conn)), nil
}

// deaf is a scripted connection that takes what is written to it.
type deaf struct{ scripted }

func (*deaf) Write(p []byte) (int, error)      { return len(p), nil }
func (*deaf) SetDeadline(time.Time) error      { return nil }
func (*deaf) SetReadDeadline(time.Time) error  { return nil }
func (*deaf) SetWriteDeadline(time.Time) error { return nil }

// FuzzWebSocketFrames: whatever a dialer sends after the upgrade, messages come out whole, the same however the bytes
// are cut, and there is an end.
func FuzzWebSocketFrames(f *testing.F) {
	dialer := &webSocketConn{client: true}
	hello := dialer.appendFrame(nil, websocket.BinaryMessage, []byte("hello"))
	ping := dialer.appendFrame(nil, websocket.PingMessage, []byte("there?"))
	begin := dialer.appendFrame(nil, websocket.TextMessage, []byte("be"))
	begin[0] &= 0x7f
	rest := dialer.appendFrame(nil, 0, []byte("gin"))
	for _, seed := range [][]byte{
		hello, slices.Concat(begin, ping, rest, hello), rest, hello[:3],
		dialer.appendFrame(nil, websocket.BinaryMessage, nil),
		dialer.appendFrame(nil, websocket.CloseMessage, []byte("\x03\xe8bye")),
		(&webSocketConn{}).appendFrame(nil, websocket.BinaryMessage, []byte("not masked")),
		{0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4},
		{0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4},
	} {
		f.Add(seed, uint8(2))
	}
	request := httptest.NewRequest(http.MethodGet, "/", nil)
	for name, value := range map[string]string{
		"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "CKF5lTCC8ZzvF1lB0tnUBQ==",
	} {
		request.Header.Set(name, value)
	}
	messages := func(t *testing.T, reads ...[]byte) (string, bool) {
		ws, err := (&websocket.Upgrader{}).Upgrade(takenOver{httptest.NewRecorder(), &deaf{scripted{reads: reads}}}, request, nil)
		if err != nil {
			t.Fatal(err)
		}
		c := newWebSocketConn(ws, false)
		defer c.Close()
		got, err := all(c)
		for _, m := range got {
			if len(m) == 0 || len(m) > wire.MaxMessage {
				t.Errorf("a message of %d bytes came out", len(m))
			}
		}
		return strings.Join(got, "|"), errors.Is(err, io.EOF)
	}
	f.Fuzz(func(t *testing.T, stream []byte, cut uint8) {
		at := min(int(cut), len(stream))
		reads := slices.DeleteFunc([][]byte{bytes.Clone(stream[:at]), bytes.Clone(stream[at:])}, func(b []byte) bool { return len(b) == 0 })
		one, clean := messages(t, slices.DeleteFunc([][]byte{bytes.Clone(stream)}, func(b []byte) bool { return len(b) == 0 })...)
		two, cleanToo := messages(t, reads...)
		if one != two || clean != cleanToo {
			t.Errorf("in one piece %q (end is clean: %v), cut at %d %q (%v)", one, clean, at, two, cleanToo)
		}
	})
}

// TestProxyFailures: what goes wrong with a proxy names it, where it comes from, and what to do.
func TestProxyFailures(t *testing.T) {
	noLeaks(t)
	proxy := func(answer string) string { return "http://me:secret@" + answers(t, answer) }
	for _, c := range []struct{ proxy, want string }{
		{proxy("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"), `the proxy answered "407 Proxy Authentication Required": give it a name and password, as http://user:password@host:port`},
		{proxy("HTTP/1.1 407\r\n\r\n"), `the proxy answered "407": give it a name`}, // A status without words.
		{proxy("HTTP/1.1 403 Forbidden\r\n\r\n"), `the proxy answered "403 Forbidden"`},
		{proxy("SSH-2.0-x\r\n\r\n"), "malformed HTTP"},
		{proxy(""), "EOF"},
		{proxy("HTTP/1.1 200 OK\r\n\r\n"), "EOF"},
		{"http://127.0.0.1:1", "connection refused"},
	} {
		u, err := url.Parse(c.proxy)
		if err != nil {
			t.Fatal(err)
		}
		d, err := DialWebSocket("ws://mesh.example:1234/", WebSocketOptions{Environ: []string{"HTTP_PROXY=" + c.proxy}})
		if err != nil {
			t.Fatal(err)
		}
		start := "dial ws://mesh.example:1234/ through the proxy " + u.Host + " (of HTTP_PROXY or HTTPS_PROXY; NO_PROXY names hosts to reach without): "
		if _, err := d.Dial(t.Context()); err == nil || !strings.HasPrefix(err.Error(), start) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("got %v, want %s...%s", err, start, c.want)
		}
	}
	for proxy, want := range map[string]string{
		"https://h:1":          "is of kind https: http://host:port and socks5://host:port are possible",
		"http://me:sec ret@:1": "is not a valid URL: write it as http://host:port",
	} {
		d, err := DialWebSocket("ws://mesh.example:1234/", WebSocketOptions{Environ: []string{"HTTP_PROXY=" + proxy}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Dial(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("proxy %s: got %v, want %q in it", proxy, err, want)
		}
	}
}
