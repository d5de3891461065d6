package netceptor_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

func inspected(t *testing.T, id wire.NodeID) *netceptor.Node {
	t.Helper()
	n, err := netceptor.New(netceptor.Config{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// await reads events until one satisfies f.
func await(t *testing.T, sub *netceptor.Subscription, f func(netceptor.Event) bool) netceptor.Event {
	t.Helper()
	guard := time.After(time.Minute)
	for {
		select {
		case e := <-sub.C:
			if f(e) {
				return e
			}
		case <-guard:
			t.Fatal("no such event within a minute")
		}
	}
}

func kindIs(k netceptor.EventKind) func(netceptor.Event) bool {
	return func(e netceptor.Event) bool { return e.Kind == k }
}

// TestBackends looks at a link that stands, one that nobody answers and one with another cost.
func TestBackends(t *testing.T) {
	a, b := inspected(t, "a"), inspected(t, "b")
	events := a.Subscribe(100)
	l, err := link.ListenTCP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr()
	if _, err := b.Listen(l, netceptor.LinkOptions{Cost: 2, NodeCost: map[wire.NodeID]float64{"a": 2}, AllowedPeers: []wire.NodeID{"a"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Dial(link.DialTCP(address), netceptor.LinkOptions{Cost: 2}); err != nil {
		t.Fatal(err)
	}
	await(t, events, kindIs(netceptor.PeerUp))
	dead, err := link.ListenTCP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	refused, err := a.Dial(link.DialTCP(dead.Addr()), netceptor.LinkOptions{Cost: 1})
	if err != nil {
		t.Fatal(err)
	}
	e := await(t, events, kindIs(netceptor.BackendFailed))
	if e.Backend != refused.String() || netceptor.LinkErrorKind(e.Err) != "refused" {
		t.Errorf("event about %q, %v", e.Backend, e.Err)
	}

	all := a.Backends()
	if len(all) != 2 {
		t.Fatalf("%d backends, want 2: %+v", len(all), all)
	}
	up, down := all[0], all[1]
	if up.State != netceptor.BackendUp || up.Kind != "dialer" || !slices.Equal(up.Peers, []wire.NodeID{"b"}) || up.Tries != 1 || up.Made != 1 || up.Failure != nil {
		t.Errorf("the link that stands: %+v", up)
	}
	if down.State == netceptor.BackendUp || down.Failure == nil || netceptor.LinkErrorKind(down.Failure.Err) != "refused" || down.Tries == 0 || down.Made != 0 {
		t.Errorf("the link that nobody answers: %+v", down)
	}
	links := a.Links()
	if len(links) != 1 || links[0].Node != "b" || links[0].Cost != 2 || links[0].Since.IsZero() || links[0].Heard.IsZero() {
		t.Errorf("links: %+v", links)
	}
	if listener := b.Backends()[0]; listener.Kind != "listener" || listener.Options.NodeCost["a"] != 2 || listener.Tries != 1 {
		t.Errorf("the listener: %+v", listener)
	}
	refused.Close()
	if left := a.Backends(); len(left) != 1 {
		t.Errorf("after Close: %+v", left)
	}

	c := inspected(t, "c")
	failures, refusals := c.Subscribe(100), b.Subscribe(100)
	if _, err := c.Dial(link.DialTCP(address), netceptor.LinkOptions{Cost: 2}); err != nil {
		t.Fatal(err)
	}
	refusal := await(t, failures, kindIs(netceptor.PeerDown))
	if netceptor.LinkErrorKind(refusal.Err) != "not allowed" || !strings.Contains(refusal.Err.Error(), "add it to allowedpeers") {
		t.Errorf("who is not allowed hears %v", refusal.Err)
	}
	await(t, refusals, kindIs(netceptor.BackendFailed))
	if f := b.Backends()[0].Failure; f == nil || netceptor.LinkErrorKind(f.Err) != "not allowed" {
		t.Errorf("the listener's last failure: %+v", f)
	}
}

func TestInspect(t *testing.T) {
	a, b := inspected(t, "a"), inspected(t, "b")
	near, far := link.Pipe()
	for n, c := range map[*netceptor.Node]link.Conn{a: near, b: far} {
		if _, err := n.AddLink(c, netceptor.LinkOptions{Cost: 3}); err != nil {
			t.Fatal(err)
		}
	}
	pc, err := b.ListenPacket("svc", &netceptor.ServiceAd{Tags: map[string]string{"k": "v"}})
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	events := a.Subscribe(100)
	if !slices.ContainsFunc(a.Services(), func(s netceptor.Service) bool { return s.Service == "svc" }) {
		await(t, events, kindIs(netceptor.ServiceSeen))
	}
	services := a.Services()
	if len(services) != 1 || services[0].NodeID != "b" || services[0].Seen.IsZero() || services[0].Tags["k"] != "v" {
		t.Errorf("services: %+v", services)
	}
	known, routes := a.Inspect()
	if len(known) != 2 || known[0].Node != "a" || known[0].Says["b"] != 3 || known[1].Node != "b" {
		t.Errorf("known: %+v", known)
	}
	if r, ok := routes.Route("b"); !ok || r.Cost != 3 {
		t.Errorf("route to b: %+v, %v", r, ok)
	}
}

func TestLinkErrorKind(t *testing.T) {
	for text, want := range map[string]string{
		"read: remote error: tls: bad certificate":      "tls",
		"x509: certificate signed by unknown authority": "tls",
		"something else":                                             "other",
		"RVF failed: peer certificate missing":                       "tls",
		strings.Repeat("x", 3) + ": tls: no certificates configured": "tls",
	} {
		if got := netceptor.LinkErrorKind(fmt.Errorf("wrapped: %w", errors.New(text))); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}
