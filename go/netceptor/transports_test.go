package netceptor

import (
	"crypto/tls"
	"errors"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// linkKind is one way to link nodes: real sockets, or memory.
type linkKind struct {
	name   string
	max    int // Largest message.
	listen func() (link.Listener, error)
	dialer func(addr string) (link.Dialer, error)
}

func linkKinds(tb testing.TB) []linkKind {
	tb.Helper()
	n := testNode(tb, "certificate")
	server, err := n.serverTLS(nil)
	if err != nil {
		tb.Fatal(err)
	}
	client := &tls.Config{InsecureSkipVerify: true}
	memory := link.NewMemory()
	return []linkKind{
		{"tcp", wire.MaxMessage, func() (link.Listener, error) { return link.ListenTCP("127.0.0.1:0") },
			func(a string) (link.Dialer, error) { return link.DialTCP(a), nil }},
		{"tls", wire.MaxMessage, func() (link.Listener, error) { return link.ListenTLS("127.0.0.1:0", server) },
			func(a string) (link.Dialer, error) { return link.DialTLS(a, client), nil }},
		{"udp", link.MaxUDPMessage, func() (link.Listener, error) { return link.ListenUDP("127.0.0.1:0") },
			func(a string) (link.Dialer, error) { return link.DialUDP(a), nil }},
		{"ws", wire.MaxMessage, func() (link.Listener, error) { return link.ListenWebSocket("127.0.0.1:0", "/", nil) },
			func(a string) (link.Dialer, error) { return link.DialWebSocket("ws://"+a, link.WebSocketOptions{}) }},
		{"wss", wire.MaxMessage, func() (link.Listener, error) { return link.ListenWebSocket("127.0.0.1:0", "/", server) },
			func(a string) (link.Dialer, error) {
				return link.DialWebSocket("wss://"+a, link.WebSocketOptions{TLS: client})
			}},
		{"memory", wire.MaxMessage, func() (link.Listener, error) { return memory.Listen("m") },
			func(string) (link.Dialer, error) { return memory.Dialer("m"), nil }},
	}
}

// over runs f with a node that listens on each kind of link; dial makes links to it.
func over(t *testing.T, opt LinkOptions, f func(t *testing.T, k linkKind, n *Node, dial func() link.Conn)) {
	for _, k := range linkKinds(t) {
		t.Run(k.name, func(t *testing.T) {
			n := testNode(t, "n")
			l, err := k.listen()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := n.Listen(l, opt); err != nil {
				t.Fatal(err)
			}
			f(t, k, n, func() link.Conn {
				t.Helper()
				d, err := k.dialer(l.Addr())
				if err != nil {
					t.Fatal(err)
				}
				c, err := d.Dial(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = c.Close() })
				return c
			})
		})
	}
}

// next returns the next message of a type, copied.
func next(t *testing.T, c link.Conn, want wire.Type) []byte {
	t.Helper()
	for {
		batch, err := c.ReadBatch()
		if err != nil {
			t.Fatalf("waiting for a message of type %d: %v", want, err)
		}
		for msg, rest, ok := batch.Next(); ok; msg, rest, ok = rest.Next() {
			if wire.Type(msg[0]) == want {
				return append([]byte(nil), msg...)
			}
		}
	}
}

func TestHandshakeOverEveryTransport(t *testing.T) {
	over(t, LinkOptions{Cost: 1}, func(t *testing.T, k linkKind, _ *Node, dial func() link.Conn) {
		c := dial()
		if k.name == "udp" {
			say(t, c, []byte{9}) // The listener's end begins with the first datagram, whatever it is.
		}
		u, err := wire.ParseRouteUpdate(next(t, c, wire.TypeRoute))
		if err != nil || u.ForwardingNode != "n" || u.NodeID != "n" || len(u.Connections) != 0 {
			t.Fatalf("the node's first message is %+v, %v; want its handshake", u, err)
		}
		say(t, c, hello("p"))
		for {
			u, err := wire.ParseRouteUpdate(next(t, c, wire.TypeRoute))
			if err != nil {
				t.Fatal(err)
			}
			if u.NodeID == "n" && u.Connections["p"] == 1 {
				return
			}
		}
	})
}

// TestRefusedPeersReadWhyWhileTheyWrite: the node has closed its direction only, and what the peer still sends does not make
// the reason be lost. There is an end to the patience, in number too, and the end of the node is one.
func TestRefusedPeersReadWhyWhileTheyWrite(t *testing.T) {
	over(t, LinkOptions{Cost: 1}, func(t *testing.T, k linkKind, n *Node, dial func() link.Conn) {
		if k.name == "udp" || k.name == "memory" { // Nothing is reset there.
			return
		}
		much := make([]byte, 50_000)
		much[0] = 9
		refused := func() link.Conn {
			c := dial()
			say(t, c, hello("n"))
			next(t, c, wire.TypeReject)
			for ended := false; !ended; {
				_, err := c.ReadBatch()
				ended = err != nil
			}
			return c
		}
		for range maxFinishing {
			c := refused()
			for range 3 {
				say(t, c, much)
			}
		}
		n.mu.Lock()
		finishing := n.finishing
		n.mu.Unlock()
		if finishing > maxFinishing {
			t.Errorf("%d refused links are held open, want %d at most", finishing, maxFinishing)
		}
		refused() // One more is just closed.
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestRejectionsOverEveryTransport(t *testing.T) {
	over(t, LinkOptions{Cost: 1, AllowedPeers: []wire.NodeID{"p"}}, func(t *testing.T, _ linkKind, n *Node, dial func() link.Conn) {
		for _, id := range []wire.NodeID{"q", "n"} {
			c := dial()
			say(t, c, hello(id))
			if msg := next(t, c, wire.TypeReject); string(msg) != "\x03[]" {
				t.Errorf("%s was rejected by %q", id, msg)
			}
			_ = c.Close()
		}
		c := dial()
		say(t, c, hello("p"))
		pingOver(t, c)
		second := dial()
		say(t, second, hello("p"))
		next(t, second, wire.TypeReject)
		pingOver(t, c) // The first link lives.
		if got := n.Status().Connections; len(got) != 1 || got[0].NodeID != "p" {
			t.Errorf("the connections are %v, want p", got)
		}
	})
}

// pingOver has the node answer a ping from p, which shows that it has handled all that was sent before.
func pingOver(t *testing.T, c link.Conn) {
	t.Helper()
	h := wire.Header{Hops: 5, From: wire.Hash("p"), To: wire.Hash("n"), FromService: mustService("me"), ToService: servicePing}
	say(t, c, h.AppendTo(nil))
	for { // Notices may come before.
		batch, err := c.ReadBatch()
		if err != nil {
			t.Fatalf("waiting for the answer to a ping: %v", err)
		}
		for msg, rest, ok := batch.Next(); ok; msg, rest, ok = rest.Next() {
			if got, err := wire.ParseHeader(msg); err == nil && got.FromService == servicePing && got.ToService == mustService("me") {
				return
			}
		}
	}
}

func TestGarbageOverEveryTransport(t *testing.T) {
	garbage := [][]byte{
		{0}, {0, 1, 2}, make([]byte, 35), make([]byte, 36), {1}, []byte("\x01{"), []byte("\x01[]"), []byte("\x01nul"),
		[]byte("\x01{\"UpdateEpoch\":1.5}"), {2}, []byte("\x02{}"), []byte("\x02{\"Cancel\":true}"), []byte("\x02{\"NodeID\":5}"), {9},
		make([]byte, link.MaxUDPMessage), append([]byte{9}, make([]byte, wire.MaxMessage-1)...), []byte("\xff\xfe"),
	}
	over(t, LinkOptions{Cost: 1}, func(t *testing.T, k linkKind, n *Node, dial func() link.Conn) {
		c := dial()
		for _, up := range []bool{false, true} {
			if up {
				say(t, c, hello("p"))
			}
			if err := c.WriteBatch(wire.Batch{0, 0}); err != nil { // An empty message.
				t.Fatal(err)
			}
			for _, msg := range garbage {
				if len(msg) <= k.max {
					say(t, c, msg)
				}
			}
		}
		pingOver(t, c)
		if got := n.Status().Connections; len(got) != 1 || got[0].NodeID != "p" {
			t.Errorf("the connections are %v, want p", got)
		}
	})
}

// TestStreamOverEveryTransport sends a stream through a link of each kind, and back.
func TestStreamOverEveryTransport(t *testing.T) {
	for _, k := range linkKinds(t) {
		t.Run(k.name, func(t *testing.T) {
			a, b := testNode(t, "a"), testNode(t, "b")
			join(t, k, a, b)
			waitRoute(t, b, "a")
			if p := b.Ping(t.Context(), "a", wire.MaxHops); p.Err != nil || p.From != "a" {
				t.Errorf("ping: %+v", p)
			}
			echo(t, a, b)
		})
	}
}

func join(t *testing.T, k linkKind, listener, dialer *Node) {
	t.Helper()
	l, err := k.listen()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listener.Listen(l, LinkOptions{Cost: 1}); err != nil {
		t.Fatal(err)
	}
	d, err := k.dialer(l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dialer.Dial(d, LinkOptions{Cost: 1}); err != nil {
		t.Fatal(err)
	}
}

// echo sends a megabyte from one node to the other and back.
func echo(t *testing.T, server, client *Node) {
	t.Helper()
	ln, err := server.ListenStream("echo", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		s, err := ln.Accept()
		if err == nil {
			_, err = io.Copy(s, s)
			err = errors.Join(err, s.CloseWrite())
		}
		done <- err
	}()
	s, err := client.DialStream(t.Context(), server.ID(), "echo", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	sent := make([]byte, 1<<20)
	for i := range sent {
		sent[i] = byte(i * 7)
	}
	go func() {
		_, _ = s.Write(sent)
		_ = s.CloseWrite()
	}()
	got, err := io.ReadAll(s)
	if err != nil || string(got) != string(sent) {
		t.Errorf("echo gave %d bytes back, err %v; sent %d", len(got), err, len(sent))
	}
	if err := <-done; err != nil {
		t.Errorf("the far side: %v", err)
	}
}

// TestChainOfAllTransports: a path does not care what its links are made of.
func TestChainOfAllTransports(t *testing.T) {
	var nodes []*Node
	for i, k := range linkKinds(t) {
		if i == 0 {
			nodes = append(nodes, testNode(t, "start"))
		}
		n := testNode(t, wire.NodeID("behind-"+k.name))
		join(t, k, nodes[i], n)
		nodes = append(nodes, n)
	}
	first, last := nodes[0], nodes[len(nodes)-1]
	waitRoute(t, first, last.ID())
	waitRoute(t, last, first.ID())
	var hops []Pong
	first.Traceroute(t.Context(), last.ID(), func(_ int, p Pong) { hops = append(hops, p) })
	if len(hops) != len(nodes) {
		t.Errorf("traceroute over %d links has %d hops: %+v", len(nodes)-1, len(hops), hops)
		for _, n := range nodes {
			t.Logf("%s: %+v, routes %v", n.ID(), n.Counters(), n.Status().RoutingTable)
		}
	}
	echo(t, first, last)
}

// TestLinkLeavesOutWhatIsTooLarge: a message that UDP cannot carry costs itself, not the link.
func TestLinkLeavesOutWhatIsTooLarge(t *testing.T) {
	a, b := testNode(t, "a"), testNode(t, "b")
	join(t, linkKinds(t)[2], a, b)
	waitRoute(t, b, "a")
	in, err := a.ListenPacket("in", nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := b.ListenPacket("", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{wire.MaxPayload, link.MaxUDPMessage - wire.HeaderSize} {
		if _, err := out.WriteTo(make([]byte, size), Addr{"a", "in"}); err != nil {
			t.Fatal(err)
		}
	}
	n, _, err := in.ReadFrom(make([]byte, wire.MaxMessage))
	if err != nil || n != link.MaxUDPMessage-wire.HeaderSize {
		t.Errorf("got %d bytes, %v; want the smaller of two datagrams", n, err)
	}
	for start := time.Now(); b.Counters().DropTooLarge == 0 && time.Since(start) < time.Minute; {
		runtime.Gosched() // It is counted after what fits is sent.
	}
	if c := b.Counters(); c.DropTooLarge != 1 {
		t.Errorf("%d messages are counted as too large, want 1", c.DropTooLarge)
	}
}
