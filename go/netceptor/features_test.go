package netceptor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/simulation"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// in runs f in a bubble with a simulated mesh of these nodes, without links.
func in(t *testing.T, f func(t *testing.T, m *simulation.Mesh), ids ...wire.NodeID) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := simulation.New(simulation.Config{})
		t.Cleanup(func() { _ = m.Close() })
		check(t, m.Add(ids...))
		f(t, m)
	})
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func settle(t *testing.T, m *simulation.Mesh, limit time.Duration) time.Duration {
	t.Helper()
	took, err := m.Settle(limit)
	check(t, err)
	return took
}

// way is the path that a traceroute reports.
func way(t *testing.T, from *netceptor.Node, to wire.NodeID) string {
	t.Helper()
	var path []string
	from.Traceroute(t.Context(), to, func(_ int, p netceptor.Pong) { path = append(path, string(p.From)) })
	return strings.Join(path, " ")
}

// record is a log that a test reads.
type record struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) { r.mu.Lock(); defer r.mu.Unlock(); return r.b.Write(p) }
func (r *record) count(text string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Count(r.b.String(), text)
}

// pair starts two nodes in memory, the second dialling the first, and returns them with the log of the first.
func pair(t *testing.T, a, b wire.NodeID, listen, dial netceptor.LinkOptions) (x, y *netceptor.Node, log *record) {
	t.Helper()
	log = &record{}
	memory := link.NewMemory()
	start := func(id wire.NodeID, log *slog.Logger) *netceptor.Node {
		n, err := netceptor.New(netceptor.Config{ID: id, Logger: log})
		check(t, err)
		t.Cleanup(func() { _ = n.Close() })
		return n
	}
	x, y = start(a, slog.New(slog.NewTextHandler(log, nil))), start(b, nil)
	l, err := memory.Listen("l")
	check(t, err)
	_, err = x.Listen(l, listen)
	check(t, err)
	_, err = y.Dial(memory.Dialer("l"), dial)
	check(t, err)
	return x, y, log
}

func TestF055F226NodeInTheProcess(t *testing.T) {
	in(t, func(t *testing.T, m *simulation.Mesh) {
		check(t, m.Link("MiXed-é", "other", 1))
		settle(t, m, time.Minute)
		if s := m.Node("MiXed-é").Status(); s.NodeID != "MiXed-é" || s.RoutingTable["other"] != "other" || len(s.Connections) != 1 {
			t.Errorf("the status is %+v", s)
		}
	}, "MiXed-é", "other")
}

func TestF058LocalhostIsThisNode(t *testing.T) {
	in(t, func(t *testing.T, m *simulation.Mesh) {
		for _, name := range []wire.NodeID{"localhost", "LocalHost"} {
			if p := m.Node("a").Ping(t.Context(), name, wire.MaxHops); p.Err != nil || p.From != "a" {
				t.Errorf("ping %s: %+v", name, p)
			}
		}
	}, "a")
}

// TestRefusedLinks: both ends stay apart, and the log says why and what to change, once, however often the peer tries.
func TestRefusedLinks(t *testing.T) {
	one := netceptor.LinkOptions{Cost: 1}
	for _, c := range []struct {
		name         string
		a, b         wire.NodeID
		listen, dial netceptor.LinkOptions
		text, told   string // The same in the words of the peer, which may be first with it.
	}{
		{"F073 costs differ", "a", "b", one, netceptor.LinkOptions{Cost: 2.25},
			"we disagree about the connection cost: b uses 2.25, a 1; set the same cost on both ends", "we disagree about the connection cost: a uses 1, b 2.25; set"},
		{"F074 cost for one node differs", "a", "b", netceptor.LinkOptions{Cost: 1, NodeCost: map[wire.NodeID]float64{"b": 3}}, one,
			"we disagree about the connection cost: b uses 1, a 3", "we disagree about the connection cost: a uses 3, b 1"},
		{"F076 not allowed", "a", "b", netceptor.LinkOptions{Cost: 1, AllowedPeers: []wire.NodeID{"c"}}, one, "it is not in the allowed peers list: b", ""},
		{"F076 nobody allowed", "a", "b", netceptor.LinkOptions{Cost: 1, AllowedPeers: []wire.NodeID{}}, one, "it is not in the allowed peers list: b", ""},
		{"F079 own ID", "a", "a", one, one, "it tried to connect using our own node ID a", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x, y, log := pair(t, c.a, c.b, c.listen, c.dial)
				time.Sleep(10 * time.Minute)
				got := log.count(c.text)
				if c.told != "" {
					got += log.count(c.told)
				}
				if got != 1 {
					t.Errorf("%q is in the log %d times, want once", c.text, got)
				}
				linked := 0
				for range 100 { // The first update may have to come before the costs are known to differ.
					time.Sleep(1100 * time.Millisecond)
					linked += x.Routes().Len() + y.Routes().Len()
				}
				if linked > 10 {
					t.Errorf("in %d of 200 looks there was a link", linked)
				}
			})
		})
	}
}

// TestReasonsOfRefusalsAreNewsOnce: why links are refused is in the log once for each reason, however often it is tried, and
// once more after a time when all was well.
func TestReasonsOfRefusalsAreNewsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, memory := &record{}, link.NewMemory()
		nodes := map[wire.NodeID]*netceptor.Node{}
		for _, id := range []wire.NodeID{"a", "b", "c"} {
			var logger *slog.Logger
			if id == "a" {
				logger = slog.New(slog.NewTextHandler(log, nil))
			}
			n, err := netceptor.New(netceptor.Config{ID: id, Logger: logger})
			check(t, err)
			t.Cleanup(func() { _ = n.Close() })
			nodes[id] = n
		}
		l, err := memory.Listen("l")
		check(t, err)
		_, err = nodes["a"].Listen(l, netceptor.LinkOptions{Cost: 1, AllowedPeers: []wire.NodeID{"b"}})
		check(t, err)
		tried := func(id wire.NodeID, cost float64) {
			t.Helper()
			b, err := nodes[id].Dial(memory.Dialer("l"), netceptor.LinkOptions{Cost: cost})
			check(t, err)
			time.Sleep(10 * time.Minute)
			check(t, b.Close())
			time.Sleep(time.Minute)
		}
		want := func(what string, cost, stranger int) {
			t.Helper()
			seen := log.count("failed: rejected: we disagree about the connection cost: b uses 2, a 1; set the same cost on both ends")
			told := log.count("we disagree about the connection cost: a uses 1, b 2; set the same cost on both ends")
			if seen+told != cost { // Which end is first with it is chance, each time.
				t.Errorf("%s: the log has the costs %d times as this end sees them and %d times as the other says, want %d together", what, seen, told, cost)
			}
			if got := log.count("it is not in the allowed peers list: c"); got != stranger {
				t.Errorf("%s: the stranger is in the log %d times, want %d", what, got, stranger)
			}
		}
		tried("b", 2)
		want("another cost", 1, 0)
		tried("c", 1)
		want("a stranger", 1, 1)
		tried("b", 2)
		tried("c", 1)
		want("both again", 1, 1)
		tried("b", 1)
		want("a good link", 1, 1)
		tried("b", 2)
		want("another cost after a good link", 2, 1)
	})
}

// TestRefusedLinksAreNotCalledEstablished: the log speaks of the first link that does not last, not of those that the peer
// tries in vain afterwards; and of the one that is good in the end.
func TestRefusedLinksAreNotCalledEstablished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs := map[wire.NodeID]*record{}
		start := func(id wire.NodeID) *netceptor.Node {
			logs[id] = &record{}
			n, err := netceptor.New(netceptor.Config{ID: id, Logger: slog.New(slog.NewTextHandler(logs[id], nil))})
			check(t, err)
			t.Cleanup(func() { _ = n.Close() })
			return n
		}
		x, y := start("x"), start("y")
		memory := link.NewMemory()
		l, err := memory.Listen("l")
		check(t, err)
		_, err = x.Listen(l, netceptor.LinkOptions{Cost: 1})
		check(t, err)
		wrong, err := y.Dial(memory.Dialer("l"), netceptor.LinkOptions{Cost: 2})
		check(t, err)
		time.Sleep(10 * time.Minute)
		for id, log := range logs {
			if got := log.count("Connection established"); got > 1 {
				t.Errorf("%s says %d times that the connection is established, want once", id, got)
			}
		}
		check(t, wrong.Close())
		before := logs["x"].count("Connection established with y")
		_, err = y.Dial(memory.Dialer("l"), netceptor.LinkOptions{Cost: 1})
		check(t, err)
		if _, _, err := x.WaitRoute(t.Context(), "y"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got := logs["x"].count("Connection established with y"); got != before+1 {
			t.Errorf("x says %d times that the connection is established, want %d now that it is", got, before+1)
		}
	})
}

func TestF074CostForOneNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, _, _ := pair(t, "a", "b", netceptor.LinkOptions{Cost: 1, NodeCost: map[wire.NodeID]float64{"b": 3}}, netceptor.LinkOptions{Cost: 3})
		if _, cost, err := x.WaitRoute(t.Context(), "b"); err != nil || cost != 3 {
			t.Errorf("the route costs %v (%v), want 3", cost, err)
		}
	})
}

func TestF076F227AllowedPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, y, _ := pair(t, "a", "b", netceptor.LinkOptions{Cost: 1, AllowedPeers: []wire.NodeID{"c", "b"}}, netceptor.LinkOptions{Cost: 1, AllowedPeers: []wire.NodeID{"a"}})
		for _, n := range []*netceptor.Node{x, y} {
			if _, _, err := n.WaitRoute(t.Context(), "b"); err != nil {
				t.Error(err)
			}
		}
	})
}

// failing is a dialer that notes when it is asked.
type failing struct{ tries []time.Time }

func (f *failing) String() string { return "failing" }
func (f *failing) Dial(context.Context) (link.Conn, error) {
	f.tries = append(f.tries, time.Now())
	return nil, errors.New("nobody there")
}

// TestF077Redial: a quarter of a second first, half as long again each time, at most 20 s, and up to a quarter less.
func TestF077Redial(t *testing.T) {
	in(t, func(t *testing.T, m *simulation.Mesh) {
		var f failing
		b, err := m.Node("a").Dial(&f, netceptor.LinkOptions{Cost: 1})
		check(t, err)
		time.Sleep(5 * time.Minute)
		check(t, b.Close())
		want := 250 * time.Millisecond
		for i := 1; i < len(f.tries); i++ {
			if got := f.tries[i].Sub(f.tries[i-1]); got > want || got < want*3/4 {
				t.Fatalf("try %d came after %v, want %v to %v", i, got, want*3/4, want)
			}
			want = min(want*3/2, 20*time.Second)
		}
		if want != 20*time.Second {
			t.Errorf("%d tries in five minutes: the longest delay was not reached", len(f.tries))
		}
	}, "a")
}

func TestF078NoRedial(t *testing.T) {
	in(t, func(t *testing.T, m *simulation.Mesh) {
		var f failing
		b, err := m.Node("a").Dial(&f, netceptor.LinkOptions{Cost: 1, NoRedial: true})
		check(t, err)
		time.Sleep(time.Hour)
		check(t, b.Close())
		if len(f.tries) != 1 || m.Node("a").Err() != nil {
			t.Errorf("%d tries, and the node is %v; want one, and the node running", len(f.tries), m.Node("a").Err())
		}
	}, "a")
}

// TestF044RefusedPeerIsNotLogged: routes are logged when they have changed, not for each try of a peer that refuses us.
func TestF044RefusedPeerIsNotLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, _, log := pair(t, "a", "b", netceptor.LinkOptions{Cost: 1}, netceptor.LinkOptions{Cost: 1, AllowedPeers: []wire.NodeID{"c"}})
		events := x.Subscribe(1000)
		defer events.Close()
		time.Sleep(10 * time.Minute)
		changes := 0
		for range len(events.C) {
			if (<-events.C).Kind == netceptor.RoutesChanged {
				changes++
			}
		}
		if got := log.count("Routing Table:"); changes < 10 || got != 1 {
			t.Errorf("the routes were logged %d times in %d changes, want once in many", got, changes)
		}
	})
}

// TestF080SecondLink: a second link to the same node is refused, and the first one stays.
func TestF080SecondLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, y, log := pair(t, "a", "b", netceptor.LinkOptions{Cost: 1}, netceptor.LinkOptions{Cost: 1})
		_, _, err := y.WaitRoute(t.Context(), "a")
		check(t, err)
		near, far := link.Pipe()
		_, err = x.AddLink(near, netceptor.LinkOptions{Cost: 1})
		check(t, err)
		second, err := y.AddLink(far, netceptor.LinkOptions{Cost: 1})
		check(t, err)
		<-second.Done()
		time.Sleep(time.Minute)
		if got := log.count("it connected using a node ID we are already connected to: b"); got > 1 {
			t.Errorf("the refusal is logged %d times", got)
		}
		if s := x.Status(); len(s.Connections) != 1 {
			t.Errorf("the connections are %v, want one", s.Connections)
		}
	})
}

// TestF081F082SeveralKindsAtOnce: one node with a listener in memory, one on TCP and a connection that the program made.
func TestF081F082SeveralKindsAtOnce(t *testing.T) {
	hub, _, _ := pair(t, "hub", "memory", netceptor.LinkOptions{Cost: 1}, netceptor.LinkOptions{Cost: 1})
	var spokes []*netceptor.Node
	for _, id := range []wire.NodeID{"tcp", "own"} {
		n, err := netceptor.New(netceptor.Config{ID: id})
		check(t, err)
		t.Cleanup(func() { _ = n.Close() })
		spokes = append(spokes, n)
	}
	l, err := link.ListenTCP("127.0.0.1:0")
	check(t, err)
	_, err = hub.Listen(l, netceptor.LinkOptions{Cost: 1})
	check(t, err)
	_, err = spokes[0].Dial(link.DialTCP(l.Addr()), netceptor.LinkOptions{Cost: 1})
	check(t, err)
	a, b := net.Pipe()
	_, err = hub.AddLink(link.NewStream(a, "own"), netceptor.LinkOptions{Cost: 1})
	check(t, err)
	_, err = spokes[1].AddLink(link.NewStream(b, "own"), netceptor.LinkOptions{Cost: 1})
	check(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, id := range []wire.NodeID{"memory", "tcp", "own"} {
		if _, _, err := hub.WaitRoute(ctx, id); err != nil {
			t.Errorf("no link to %s: %v", id, err)
		}
	}
}

// TestF083F085Routing: a mesh of a hundred nodes finds its routes, goes around a link that is cut, and is calm.
func TestF083F085Routing(t *testing.T) {
	in(t, func(t *testing.T, m *simulation.Mesh) {
		check(t, m.Build(simulation.Random(100, 3, 7)))
		settle(t, m, 5*time.Second)
		ends := m.Links()[len(m.Links())-1]
		check(t, m.Cut(ends[0], ends[1]))
		if took := settle(t, m, time.Second); took > 300*time.Millisecond {
			t.Errorf("a cut link was gone around after %v, want 300ms", took)
		}
		check(t, m.Mend(ends[0], ends[1]))
		settle(t, m, 30*time.Second)
		before := m.Traffic()
		time.Sleep(10 * time.Second)
		if wrong := m.Disagreements(1); len(wrong) > 0 {
			t.Errorf("ten quiet seconds later: %s", wrong[0])
		}
		sent := m.Traffic().Messages - before.Messages
		if flood := uint64(100 * (2*150 - 100 + 1)); sent > flood+10*2*150 { // And a beat a second on each side of a link.
			t.Errorf("%d messages in ten quiet seconds, want at most %d", sent, flood)
		}
		if p := m.Node(simulation.Name(0)).Ping(t.Context(), simulation.Name(99), wire.MaxHops); p.Err != nil {
			t.Errorf("ping across the mesh: %v", p.Err)
		}
	})
}

func TestF084LowestCost(t *testing.T) {
	in(t, func(t *testing.T, m *simulation.Mesh) {
		check(t, m.Link("a", "dear", 5))
		check(t, m.Link("dear", "z", 5))
		check(t, m.Link("a", "cheap", 1))
		check(t, m.Link("cheap", "cheaper", 1))
		check(t, m.Link("cheaper", "z", 1.5))
		settle(t, m, time.Minute)
		if got := way(t, m.Node("a"), "z"); got != "a cheap cheaper z" {
			t.Errorf("the way is %s, want that over the cheap nodes", got)
		}
		if r, ok := m.Node("a").Routes().Route("z"); !ok || r.Cost != 3.5 {
			t.Errorf("its cost is %+v, want 3.5", r)
		}
		check(t, m.Cut("cheap", "cheaper"))
		settle(t, m, time.Minute)
		if got := way(t, m.Node("a"), "z"); got != "a dear z" {
			t.Errorf("after the cut the way is %s, want that over dear", got)
		}
	}, "a", "z", "dear", "cheap", "cheaper")
}

// TestF085PartitionHeals: without a way there is no route, and it comes back.
func TestF085PartitionHeals(t *testing.T) {
	in(t, func(t *testing.T, m *simulation.Mesh) {
		for _, l := range [][2]wire.NodeID{{"a", "b"}, {"b", "c"}, {"c", "d"}} {
			check(t, m.Link(l[0], l[1], 1))
		}
		settle(t, m, 5*time.Second)
		check(t, m.Cut("b", "c"))
		settle(t, m, time.Second)
		if p := m.Node("a").Ping(t.Context(), "d", wire.MaxHops); !errors.Is(p.Err, netceptor.ErrNoRoute) {
			t.Errorf("ping over the gap: %v, want no route", p.Err)
		}
		check(t, m.Mend("b", "c"))
		settle(t, m, 30*time.Second)
	}, "a", "b", "c", "d")
}

// TestF086RouteUpdates: an existing node hears an update every ten seconds, and at once when a link comes or goes.
func TestF086RouteUpdates(t *testing.T) {
	in(t, func(t *testing.T, m *simulation.Mesh) {
		near, far := link.Pipe()
		_, err := m.Node("a").AddLink(near, netceptor.LinkOptions{Cost: 1})
		check(t, err)
		start := time.Now()
		heard := make(chan time.Duration, 100)
		go func() {
			defer close(heard)
			for batch, err := far.ReadBatch(); err == nil; batch, err = far.ReadBatch() {
				for msg, rest, ok := batch.Next(); ok; msg, rest, ok = rest.Next() {
					if u, err := wire.ParseRouteUpdate(msg); err == nil && u.NodeID == "a" && len(u.Connections) > 0 {
						heard <- time.Since(start).Round(time.Second)
					}
				}
			}
		}()
		hello, err := (&wire.RouteUpdate{NodeID: "p", UpdateID: "12345678", UpdateEpoch: 1, UpdateSequence: 1, ForwardingNode: "p"}).Append(nil)
		check(t, err)
		for i := range 9 { // Speaks every five seconds, or the link would end.
			b, err := wire.AppendFrame(nil, append([]byte{}, []byte{9}...))
			check(t, err)
			if i == 0 {
				b, err = wire.AppendFrame(b, hello)
				check(t, err)
			}
			check(t, far.WriteBatch(b))
			if i == 5 {
				check(t, m.Link("a", "b", 1))
			}
			if i == 7 {
				check(t, m.Cut("a", "b"))
			}
			time.Sleep(5 * time.Second)
		}
		_ = far.Close() // At 45 s, when the next update would be due.
		var got []time.Duration
		for at := range heard {
			if at < 45*time.Second {
				got = append(got, at)
			}
		}
		want := []time.Duration{0, 10 * time.Second, 20 * time.Second, 25 * time.Second, 35 * time.Second}
		if got = slices.Compact(got); !slices.Equal(got, want) {
			t.Errorf("updates came at %v, want %v", got, want)
		}
	}, "a", "b")
}

func TestF087ServiceAdvertisements(t *testing.T) {
	in(t, func(t *testing.T, m *simulation.Mesh) {
		check(t, m.Link("a", "b", 1))
		settle(t, m, time.Minute)
		pc, err := m.Node("a").ListenPacket("svc", &netceptor.ServiceAd{Tags: map[string]string{"type": "Test"}})
		check(t, err)
		ad := func() *wire.Advertisement {
			for _, ad := range m.Node("b").Status().Advertisements {
				if ad.NodeID == "a" && ad.Service == "svc" && ad.Tags["type"] == "Test" && ad.ConnType == wire.ConnDatagram {
					return &ad
				}
			}
			return nil
		}
		time.Sleep(time.Second)
		first := ad()
		if first == nil {
			t.Fatal("the service is not known after a second")
		}
		time.Sleep(60 * time.Second)
		if again := ad(); again == nil || !again.Time.After(first.Time) {
			t.Errorf("a minute later the advertisement is %+v, want a newer one than %v", again, first.Time)
		}
		check(t, pc.Close())
		time.Sleep(5 * time.Minute)
		if ad() != nil {
			t.Error("a service that is closed is still known five minutes later")
		}
	}, "a", "b")
}

func TestF088WorkTypes(t *testing.T) {
	in(t, func(t *testing.T, m *simulation.Mesh) {
		check(t, m.Link("a", "b", 1))
		settle(t, m, time.Minute)
		a := m.Node("a")
		a.SetWorkCommands([]wire.WorkCommand{{WorkType: "cat", Secure: true}})
		for name, kind := range map[string]string{"control": "Control Service", "other": "TCP Proxy"} {
			l, err := a.ListenStream(name, &netceptor.ServiceAd{Tags: map[string]string{"type": kind}}, nil)
			check(t, err)
			t.Cleanup(func() { _ = l.Close() })
		}
		time.Sleep(time.Second)
		for _, ad := range m.Node("b").Status().Advertisements {
			if has := len(ad.WorkCommands) == 1 && ad.WorkCommands[0] == (wire.WorkCommand{WorkType: "cat", Secure: true}); has != (ad.Service == "control") {
				t.Errorf("service %s is advertised with the work types %v", ad.Service, ad.WorkCommands)
			}
		}
	}, "a", "b")
}

func TestF089F230Ping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := simulation.New(simulation.Config{Conditions: simulation.Conditions{Delay: 20 * time.Millisecond}})
		defer m.Close()
		check(t, m.Add("a", "b"))
		check(t, m.Link("a", "b", 1))
		settle(t, m, time.Minute)
		a := m.Node("a")
		if p := a.Ping(t.Context(), "b", wire.MaxHops); p.Err != nil || p.From != "b" || p.RTT != 40*time.Millisecond {
			t.Errorf("ping: %+v, want an answer of b after 40ms", p)
		}
		if p := a.Ping(t.Context(), "nowhere", wire.MaxHops); !errors.Is(p.Err, netceptor.ErrNoRoute) || p.Err.Error() != "no route to node" {
			t.Errorf("ping of an unknown node: %v", p.Err)
		}
		check(t, m.Partition([]wire.NodeID{"a"})) // What is sent now vanishes.
		if p := a.Ping(t.Context(), "b", wire.MaxHops); !errors.Is(p.Err, netceptor.ErrTimeout) || p.Err.Error() != "timeout" || p.RTT != 10*time.Second {
			t.Errorf("ping into the void: %+v, want a time-out after 10s", p)
		}
	})
}

func TestF090F091TracerouteAndHops(t *testing.T) {
	in(t, func(t *testing.T, m *simulation.Mesh) {
		check(t, m.Build(simulation.Line(33)))
		settle(t, m, time.Minute)
		first := m.Node(simulation.Name(0))
		var hops []netceptor.Pong
		first.Traceroute(t.Context(), simulation.Name(3), func(hop int, p netceptor.Pong) {
			if hop != len(hops) {
				t.Errorf("hop %d is reported as number %d", len(hops), hop)
			}
			hops = append(hops, p)
		})
		for i, p := range hops {
			if p.From != simulation.Name(i) || (p.Err == nil) != (i == 3) {
				t.Errorf("hop %d is %+v", i, p)
			}
		}
		if p := first.Ping(t.Context(), simulation.Name(30), wire.MaxHops); p.Err != nil {
			t.Errorf("a node 30 links away does not answer: %v", p.Err)
		}
		if p := first.Ping(t.Context(), simulation.Name(32), wire.MaxHops); !errors.Is(p.Err, netceptor.ErrExpired) || p.Err.Error() != "message expired" {
			t.Errorf("ping of a node 32 links away: %v, want message expired", p.Err)
		}
	})
}

func TestF092F093F229Datagrams(t *testing.T) {
	in(t, func(t *testing.T, m *simulation.Mesh) {
		check(t, m.Link("a", "b", 1))
		check(t, m.Link("b", "c", 1))
		settle(t, m, time.Minute)
		far, err := m.Node("c").ListenPacket("svc", nil)
		check(t, err)
		near, err := m.Node("a").ListenPacket("", nil)
		check(t, err)
		sent := bytes.Repeat([]byte{7}, wire.MaxPayload)
		_, err = near.WriteTo(sent, netceptor.Addr{Node: "c", Service: "svc"})
		check(t, err)
		buf := make([]byte, wire.MaxMessage)
		n, from, err := far.ReadFrom(buf)
		if err != nil || n != 65499 || !bytes.Equal(buf[:n], sent) || from != net.Addr(netceptor.Addr{Node: "a", Service: near.Service()}) {
			t.Errorf("got %d bytes from %v, %v; want 65499 from a", n, from, err)
		}
		_, err = near.WriteTo(nil, netceptor.Addr{Node: "c", Service: "nobody"})
		check(t, err)
		if notice := <-near.Notices(); notice.Problem != wire.ProblemServiceUnknown || notice.Reporter != "c" || notice.ToService != "nobody" {
			t.Errorf("notice %+v, want service unknown from c", notice)
		}
		near.SetHops(1)
		_, err = near.WriteTo(nil, netceptor.Addr{Node: "c", Service: "svc"})
		check(t, err)
		if notice := <-near.Notices(); notice.Problem != wire.ProblemExpired || notice.Reporter != "b" {
			t.Errorf("notice %+v, want message expired from b", notice)
		}
	}, "a", "b", "c")
}

func TestF094F228Streams(t *testing.T) {
	in(t, func(t *testing.T, m *simulation.Mesh) {
		check(t, m.Link("a", "b", 1))
		check(t, m.Link("b", "c", 1))
		settle(t, m, time.Minute)
		streams, err := m.Node("c").ListenStream("echo", nil, nil)
		check(t, err)
		l := streams.NetListener()
		go func() {
			if s, err := l.Accept(); err == nil {
				_, _ = io.Copy(s, s)
				_ = s.Close()
			}
		}()
		if l.Addr().String() != "c:echo" {
			t.Errorf("the listener's address is %v", l.Addr())
		}
		s, err := m.Node("a").DialStream(t.Context(), "c", "echo", nil)
		check(t, err)
		var c net.Conn = s
		check(t, c.SetReadDeadline(time.Now().Add(time.Second)))
		if _, err := c.Read(make([]byte, 1)); err == nil || !err.(net.Error).Timeout() {
			t.Errorf("read beyond the deadline: %v, want a time-out", err)
		}
		check(t, c.SetReadDeadline(time.Time{}))
		_, err = io.WriteString(c, "hello")
		check(t, err)
		check(t, s.CloseWrite())
		if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
			t.Errorf("the echo is %q, %v", got, err)
		}
		check(t, l.Close())
	}, "a", "b", "c")
}

// TestF095KeepAlive: a stream that says nothing stays, and one whose path is gone ends with an error.
func TestF095KeepAlive(t *testing.T) {
	in(t, func(t *testing.T, m *simulation.Mesh) {
		check(t, m.Link("a", "b", 1))
		settle(t, m, time.Minute)
		l, err := m.Node("b").ListenStream("quiet", nil, nil)
		check(t, err)
		defer l.Close()
		s, err := m.Node("a").DialStream(t.Context(), "b", "quiet", nil)
		check(t, err)
		far, err := l.Accept()
		check(t, err)
		time.Sleep(10 * time.Minute)
		_, err = far.Write([]byte("x"))
		check(t, err)
		if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
			t.Errorf("after ten quiet minutes: %v", err)
		}
		check(t, m.Cut("a", "b"))
		start := time.Now()
		if _, err := s.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) || time.Since(start) > 31*time.Second {
			t.Errorf("without a path the stream ended with %v after %v, want an error within 30s", err, time.Since(start))
		}
	}, "a", "b")
}

func TestF231F232RoutesAndStatus(t *testing.T) {
	in(t, func(t *testing.T, m *simulation.Mesh) {
		events := m.Node("a").Subscribe(100)
		check(t, m.Link("a", "b", 2))
		check(t, m.Link("b", "c", 3))
		settle(t, m, time.Minute)
		changes := 0
		for len(events.C) > 0 {
			if e := <-events.C; e.Kind == netceptor.RoutesChanged {
				changes++
			}
		}
		if changes == 0 {
			t.Error("nobody was told that routes have changed")
		}
		if next, cost, err := m.Node("a").WaitRoute(t.Context(), "c"); err != nil || next != "b" || cost != 5 {
			t.Errorf("the route to c leads over %s at cost %v (%v), want b and 5", next, cost, err)
		}
		s := m.Node("a").Status()
		if s.RoutingTable["c"] != "b" || s.KnownConnectionCosts["c"]["b"] != 3 || s.KnownConnectionCosts["a"]["b"] != 2 {
			t.Errorf("the status is %+v", s)
		}
	}, "a", "b", "c")
}

// TestF238F239QuietAndClean: a node without a logger is silent, and Close returns when all has ended.
func TestF238F239QuietAndClean(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // The bubble waits for every goroutine.
		x, y, log := pair(t, "a", "b", netceptor.LinkOptions{Cost: 1}, netceptor.LinkOptions{Cost: 1})
		_, _, err := y.WaitRoute(t.Context(), "a")
		check(t, err)
		synctest.Wait()
		if log.count("Connection established with b") != 1 {
			t.Error("the logger was not told of the link")
		}
		for _, n := range []*netceptor.Node{x, y} {
			check(t, n.Close())
			if !errors.Is(n.Err(), netceptor.ErrClosed) {
				t.Errorf("a closed node ended with %v", n.Err())
			}
		}
		if _, err := x.ListenPacket("late", nil); err == nil {
			t.Error("a closed node opens sockets")
		}
	})
}

// TestThousandUnknownNames: names that one peer makes up cost a bounded amount, and are told to others once each.
func TestThousandUnknownNames(t *testing.T) {
	in(t, func(t *testing.T, m *simulation.Mesh) {
		check(t, m.Link("a", "b", 1))
		settle(t, m, time.Minute)
		time.Sleep(time.Second)
		near, far := link.Pipe()
		_, err := m.Node("a").AddLink(near, netceptor.LinkOptions{Cost: 1})
		check(t, err)
		before := m.Traffic().Messages
		say := func(u wire.RouteUpdate) {
			u.UpdateID, u.UpdateEpoch, u.ForwardingNode = fmt.Sprintf("%08d", u.UpdateSequence), 1, "p"
			msg, err := u.Append(nil)
			check(t, err)
			b, err := wire.AppendFrame(nil, msg)
			check(t, err)
			check(t, far.WriteBatch(b))
		}
		go func() {
			for {
				if _, err := far.ReadBatch(); err != nil {
					return
				}
			}
		}()
		say(wire.RouteUpdate{NodeID: "p", UpdateSequence: 1})
		for i := range uint64(1000) {
			say(wire.RouteUpdate{NodeID: wire.NodeID(fmt.Sprintf("nobody-%d", i)), UpdateSequence: i + 2, Connections: map[wire.NodeID]float64{"nowhere": 1}})
		}
		time.Sleep(5 * time.Second)
		if sent := m.Traffic().Messages - before; sent > 1200 {
			t.Errorf("%d messages went to the other neighbour for 1000 names", sent)
		}
		if got := m.Node("b").Routes().Len(); got > 2 {
			t.Errorf("b has routes to %d nodes, want a and p at most", got)
		}
		_ = far.Close()
	}, "a", "b")
}
