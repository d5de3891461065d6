package netceptor

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// testNode starts a node that the test closes at its end.
func testNode(tb testing.TB, id wire.NodeID) *Node {
	tb.Helper()
	n, err := New(Config{ID: id, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = n.Close() })
	return n
}

// joinTCP links two nodes over loopback TCP.
func joinTCP(tb testing.TB, listener, dialer *Node) {
	tb.Helper()
	l, err := link.ListenTCP("127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := listener.Listen(l, LinkOptions{Cost: 1}); err != nil {
		tb.Fatal(err)
	}
	if _, err := dialer.Dial(link.DialTCP(l.Addr()), LinkOptions{Cost: 1}); err != nil {
		tb.Fatal(err)
	}
}

func waitRoute(tb testing.TB, from *Node, to wire.NodeID) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
	defer cancel()
	if _, _, err := from.WaitRoute(ctx, to); err != nil {
		tb.Fatalf("%s has no route to %s: %v\n%+v", from.ID(), to, err, from.Status())
	}
}

// chain links nodes in a line over TCP and waits until the ends see each other.
func chain(tb testing.TB, ids ...wire.NodeID) []*Node {
	tb.Helper()
	var nodes []*Node
	for i, id := range ids {
		nodes = append(nodes, testNode(tb, id))
		if i > 0 {
			joinTCP(tb, nodes[i-1], nodes[i])
		}
	}
	first, last := nodes[0], nodes[len(nodes)-1]
	waitRoute(tb, first, last.ID())
	waitRoute(tb, last, first.ID())
	return nodes
}

// TestStreamPacket: streams are made of packets of the size that the configuration says.
func TestStreamPacket(t *testing.T) {
	for _, size := range []int{-1, 1199, 1409, 1 << 20} {
		if n, err := New(Config{ID: "a", StreamPacket: size}); err == nil || !strings.Contains(err.Error(), "want 1200 to 1408") {
			t.Errorf("%d: got %v, %v", size, n, err)
		}
	}
	for size, want := range map[int]uint64{0: 1408, 1200: 1200} {
		n, err := New(Config{ID: "a", StreamPacket: size})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = n.Close() })
		ln := listenStream(t, n, "sink")
		s, err := n.DialStream(t.Context(), "a", "sink", nil)
		if err != nil {
			t.Fatal(err)
		}
		out := accept(t, ln)
		done := make(chan error, 1)
		go func() {
			_, err := io.Copy(io.Discard, out)
			done <- err
		}()
		_, err = s.Write(make([]byte, 1<<20))
		_ = s.CloseWrite()
		if err = errors.Join(err, <-done); err != nil {
			t.Error(err)
		}
		if sent := s.qc.ConnectionStats(); sent.BytesSent/sent.PacketsSent > want || sent.BytesSent/sent.PacketsSent < want-50 {
			t.Errorf("%d: %d bytes in %d packets, want about %d in each", size, sent.BytesSent, sent.PacketsSent, want)
		}
	}
}

func TestStreamOverTwoHops(t *testing.T) {
	nodes := chain(t, "laptop", "hub", "edge")
	ln, err := nodes[2].ListenStream("echo", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			s, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(s, s)
				_ = s.CloseWrite()
			}()
		}
	}()
	s, err := nodes[0].DialStream(t.Context(), "edge", "echo", nil)
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
		t.Fatalf("echo gave %d bytes back, err %v; sent %d", len(got), err, len(sent))
	}
}

func TestDialErrors(t *testing.T) {
	nodes := chain(t, "a", "b")
	cases := []struct {
		node    wire.NodeID
		service string
		text    string
		is      error
	}{
		{"b", "nothing", "context canceled", ErrServiceUnknown},
		{"a", "nothing", "context canceled", ErrServiceUnknown},
		{"nowhere", "x", "INTERNAL_ERROR (local): no route to node", ErrNoRoute},
		{"b", "nine-char", "INTERNAL_ERROR (local): service name too long", wire.ErrServiceLength},
	}
	for _, c := range cases {
		_, err := nodes[0].DialStream(t.Context(), c.node, c.service, nil)
		dial, ok := errors.AsType[*DialError](err)
		if !ok || dial.Text != c.text || !errors.Is(err, c.is) {
			t.Errorf("dial %s:%s gave %v (%q), want text %q and %v", c.node, c.service, err, dial.Text, c.text, c.is)
		}
	}
}

func TestPingAndTraceroute(t *testing.T) {
	nodes := chain(t, "a", "b", "c")
	if p := nodes[0].Ping(t.Context(), "c", wire.MaxHops); p.Err != nil || p.From != "c" {
		t.Errorf("ping c: %+v", p)
	}
	if p := nodes[0].Ping(t.Context(), "LOCALHOST", wire.MaxHops); p.Err != nil || p.From != "a" {
		t.Errorf("ping localhost: %+v", p)
	}
	var path []wire.NodeID
	nodes[0].Traceroute(t.Context(), "c", func(_ int, p Pong) { path = append(path, p.From) })
	if len(path) != 3 || path[0] != "a" || path[1] != "b" || path[2] != "c" {
		t.Errorf("traceroute a to c went %v, want [a b c]", path)
	}
}

func TestTracerouteToNowhere(t *testing.T) {
	n := testNode(t, "a")
	var hops []Pong
	n.Traceroute(t.Context(), "nowhere", func(_ int, p Pong) { hops = append(hops, p) })
	if len(hops) != 2 || hops[0].From != "a" || !errors.Is(hops[0].Err, ErrExpired) || hops[1].From != "a" || !errors.Is(hops[1].Err, ErrNoRoute) {
		t.Errorf("hops %+v, want this node itself and then no route", hops)
	}
}
