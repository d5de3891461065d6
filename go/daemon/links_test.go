package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// relay is a daemon of a chain; its log tells where it listens.
func relay(t *testing.T, p *papers, id wire.NodeID, args ...string) (*Daemon, *output) {
	t.Helper()
	all := append([]string{"--node", "id=" + string(id), "datadir=" + t.TempDir()}, args...)
	if p != nil {
		p.issue(t, id)
		all = append(all, p.profiles(id)...)
	}
	out := newOutput()
	d, err := Build(t.Context(), parse(t, all...), Options{Logger: slog.New(NewLogHandler(out, slog.LevelDebug)), Environ: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d, out
}

// listening returns the port in the line of the log that begins with text.
func listening(t *testing.T, out *output, text string) string {
	t.Helper()
	out.await(t, text)
	_, rest, _ := strings.Cut(out.String(), text)
	_, port, err := net.SplitHostPort(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// TestF065F066F067ChainOfTransports links five daemons by UDP, WebSocket, WebSocket with TLS, and TLS.
func TestF065F066F067ChainOfTransports(t *testing.T) {
	p := newPapers(t)
	first, out := relay(t, &p, "first", "--udp-listener", "bindaddr=127.0.0.1", "port=0")
	_, out = relay(t, &p, "udp", "--udp-peer", "127.0.0.1:"+listening(t, out, "Listening on UDP "), "--ws-listener", "bindaddr=127.0.0.1", "port=0", "path=/mesh")
	port := listening(t, out, "Listening on Websocket ")
	if !strings.Contains(out.String(), "Listening on Websocket 127.0.0.1:"+port+" path /mesh\n") {
		t.Errorf("the log is\n%s", out)
	}
	_, out = relay(t, &p, "ws", "--ws-peer", "address=ws://127.0.0.1:"+port+"/mesh", "extraheader=X-Token: t", "--ws-listener", "bindaddr=127.0.0.1", "port=0", "tls=srv")
	_, out = relay(t, &p, "wss", "--ws-peer", "address=wss://localhost:"+listening(t, out, "Listening on Websocket "), "tls=cli", "--tcp-listener", "bindaddr=127.0.0.1", "port=0", "tls=srv")
	last, _ := relay(t, &p, "last", "--tcp-peer", "address=127.0.0.1:"+listening(t, out, "Listening on TCP "), "tls=cli")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, way := range []struct {
		from *Daemon
		to   wire.NodeID
	}{{first, "last"}, {last, "first"}} {
		if _, _, err := way.from.Node.WaitRoute(ctx, way.to); err != nil {
			t.Fatal(err)
		}
	}
	if pong := first.Node.Ping(ctx, "last", wire.MaxHops); pong.Err != nil || pong.From != "last" {
		t.Errorf("ping: %+v", pong)
	}
	ln, err := last.Node.ListenStream("echo", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if s, err := ln.Accept(); err == nil {
			_, _ = io.Copy(s, s)
			_ = s.CloseWrite()
		}
	}()
	s, err := first.Node.DialStream(ctx, "last", "echo", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	text := strings.Repeat("over all of them ", 20_000)
	go func() {
		_, _ = io.WriteString(s, text)
		_ = s.CloseWrite()
	}()
	if got, err := io.ReadAll(s); err != nil || string(got) != text {
		t.Errorf("%d bytes came back, %v; want %d", len(got), err, len(text))
	}
	<-done
}

// A link does not come up with somebody the profile does not trust, and the log says why.
func TestF070LinksWithTheWrongCertificate(t *testing.T) {
	p, strangers := newPapers(t), newPapers(t)
	_, hub := relay(t, &p, "hub", "--tcp-listener", "bindaddr=127.0.0.1", "port=0", "tls=srv", "--ws-listener", "bindaddr=127.0.0.1", "port=0", "tls=srv")
	tcp, ws := listening(t, hub, "Listening on TCP "), listening(t, hub, "Listening on Websocket ")
	for _, address := range [][]string{{"--tcp-peer", "address=127.0.0.1:" + tcp}, {"--ws-peer", "address=wss://127.0.0.1:" + ws}} {
		_, out := relay(t, &strangers, "stranger", append(address, "tls=cli")...)
		out.await(t, "Backend connection failed (will retry): ")
		if line := out.String(); !strings.Contains(line, "certificate signed by unknown authority") {
			t.Errorf("%v: the log is\n%s", address, line)
		}
	}
	hub.await(t, "tls handshake with 127.0.0.1: ")
	if strings.Contains(hub.String(), "Connection established") {
		t.Errorf("the log of the hub is\n%s", hub)
	}
}

// wss without a profile trusts what the system trusts, or uses the profile called default.
func TestSecureWebSocketWithoutProfile(t *testing.T) {
	p := newPapers(t)
	_, out := relay(t, &p, "hub", "--ws-listener", "bindaddr=127.0.0.1", "port=0", "--ws-listener", "bindaddr=127.0.0.1", "port=0", "tls=srv")
	_, rest, _ := strings.Cut(out.String(), "Listening on Websocket ")
	plain, rest, _ := strings.Cut(rest, " path")
	_, rest, _ = strings.Cut(rest, "Listening on Websocket ")
	secure, _, _ := strings.Cut(rest, " path")
	_, out = relay(t, nil, "system", "--ws-peer", "wss://"+secure)
	out.await(t, "certificate signed by unknown authority")
	p.issue(t, "default")
	_, out = relay(t, nil, "default", "--ws-peer", "wss://"+secure, "--tls-client", "name=default", "rootcas="+p.file("ca.crt"),
		"cert="+p.file("default.crt"), "key="+p.file("default.key"))
	out.await(t, "Connection established with hub")
	_, out = relay(t, &p, "lax", "--ws-peer", "address=ws://"+plain, "tls=cli")
	out.await(t, "has no effect: only wss:// is encrypted")
	out.await(t, "Connection established with hub")
}

func TestListenerErrors(t *testing.T) {
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	_, taken, _ := net.SplitHostPort(udp.LocalAddr().String())
	for _, tc := range []struct{ args, want string }{
		{"--udp-listener bindaddr=127.0.0.1 port=" + taken, "listen udp 127.0.0.1:" + taken + ": bind: address already in use"},
		{"--ws-peer ws://h extraheader=Upgrade:x", "extra header Upgrade: the handshake has its own"},
	} {
		_, err := Build(t.Context(), parse(t, append([]string{"--node", "id=a", "datadir=" + t.TempDir()}, strings.Fields(tc.args)...)...), Options{})
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.args, err, tc.want)
		}
	}
}

func TestF068PathOfWebSocketListener(t *testing.T) {
	_, out := relay(t, nil, "hub", "--ws-listener", "bindaddr=127.0.0.1", "port=0", "path=/mesh")
	port := listening(t, out, "Listening on Websocket ")
	resp, err := http.Get("http://127.0.0.1:" + port + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("another path gives %s", resp.Status)
	}
	_, out = relay(t, nil, "lost", "--ws-peer", "ws://127.0.0.1:"+port+"/elsewhere")
	out.await(t, "the server answered 404 Not Found instead of changing to WebSocket")
}

// The listener of a UDP link that goes away is found again.
func TestUDPPeerDialsAgain(t *testing.T) {
	port := fmt.Sprint(idlePort(t))
	_, out := relay(t, nil, "edge", "--udp-peer", "127.0.0.1:"+port)
	out.await(t, "connection refused")
	_, hub := relay(t, nil, "hub", "--udp-listener", "bindaddr=127.0.0.1", "port="+port)
	hub.await(t, "Connection established with edge")
	out.await(t, "Connection established with hub")
}

func TestEveryBackendIsAReasonToRun(t *testing.T) {
	for _, args := range []string{"--udp-listener 0", "--udp-peer h:1", "--ws-listener 0", "--ws-peer ws://h"} {
		if !hasBackend(parse(t, append([]string{"--node", "id=a"}, strings.Fields(args)...)...)) {
			t.Errorf("%s is no back-end", args)
		}
	}
}

// TestF071F072BindAddressAndFreePort: port 0 takes a free one, and only the address that was given answers.
func TestF071F072BindAddressAndFreePort(t *testing.T) {
	port := fmt.Sprint(idlePort(t))
	_, out := relay(t, nil, "a", "--tcp-listener", "bindaddr=127.0.0.2", "port="+port)
	listening(t, out, "Listening on TCP ")
	c, err := net.Dial("tcp", "127.0.0.2:"+port)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if c, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
		_ = c.Close()
		t.Error("another address than that of bindaddr answers")
	}
	if probe, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skip("no IPv6 here")
	} else {
		_ = probe.Close()
	}
	_, out = relay(t, nil, "b", "--tcp-listener", "bindaddr=[::1]", "port=0")
	if c, err = net.Dial("tcp", "[::1]:"+listening(t, out, "Listening on TCP ")); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}
