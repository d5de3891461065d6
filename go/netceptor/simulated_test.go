package netceptor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// simulation is a mesh in one process on a simulated clock. Links are named by their two ends.
type simulation struct {
	t     *testing.T
	net   *link.Memory
	nodes map[wire.NodeID]*Node
	links map[[2]wire.NodeID][2]*Backend
}

// newSimulation must be called inside a synctest bubble.
func newSimulation(t *testing.T) *simulation {
	return &simulation{t: t, net: link.NewMemory(), nodes: map[wire.NodeID]*Node{}, links: map[[2]wire.NodeID][2]*Backend{}}
}

func (s *simulation) add(id wire.NodeID) *Node {
	n, err := New(Config{ID: id, StreamPacket: SimulatedPacket})
	if err != nil {
		s.t.Fatal(err)
	}
	s.nodes[id] = n
	return n
}

func (s *simulation) link(a, b wire.NodeID, cost float64) {
	s.t.Helper()
	name := fmt.Sprintf("%s-%s", a, b)
	l, err := s.net.Listen(name)
	if err != nil {
		s.t.Fatal(err)
	}
	near, err := s.nodes[a].Listen(l, LinkOptions{Cost: cost})
	if err != nil {
		s.t.Fatal(err)
	}
	far, err := s.nodes[b].Dial(s.net.Dialer(name), LinkOptions{Cost: cost})
	if err != nil {
		s.t.Fatal(err)
	}
	s.links[[2]wire.NodeID{a, b}] = [2]*Backend{near, far}
}

// stream makes two linked nodes and a stream from a to b, on a connection of its own or not.
func (s *simulation) stream(own bool) (a, b *Node, near, far *Stream) {
	s.t.Helper()
	a, b = s.add("a"), s.add("b")
	if own {
		a.protocols = []string{streamALPN}
	}
	s.link("a", "b", 1)
	s.settle("start", 5*time.Second)
	ln := listenStream(s.t, b, "svc")
	near, err := a.DialStream(s.t.Context(), "b", "svc", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return a, b, near, accept(s.t, ln)
}

func (s *simulation) cut(a, b wire.NodeID) {
	for _, backend := range s.links[[2]wire.NodeID{a, b}] {
		if err := backend.Close(); err != nil {
			s.t.Error(err)
		}
	}
	delete(s.links, [2]wire.NodeID{a, b})
}

func (s *simulation) close() {
	for _, n := range s.nodes {
		if err := n.Close(); err != nil {
			s.t.Error(err)
		}
	}
	synctest.Wait()
}

// settle waits in simulated time until every node has a route to every other. Tests that only need the public side use
// package simulation, which knows what is right.
func (s *simulation) settle(what string, limit time.Duration) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), limit)
	defer cancel()
	for _, from := range s.nodes {
		for to := range s.nodes {
			if _, _, err := from.WaitRoute(ctx, to); err != nil {
				s.t.Fatalf("%s: %s has no route to %s after %v", what, from.ID(), to, limit)
			}
		}
	}
	time.Sleep(20 * time.Millisecond) // New links are told of.
	synctest.Wait()
}

// newWithPeer makes node n with a raw peer that calls itself p and has introduced itself.
func newWithPeer(t *testing.T) (*Node, link.Conn) {
	t.Helper()
	n, err := New(Config{ID: "n"})
	if err != nil {
		t.Fatal(err)
	}
	peer := rawPeer(t, n, LinkOptions{Cost: 1})
	say(t, peer, hello("p"))
	return n, peer
}

// rawPeer is the far end of a link on which a test speaks the protocol itself.
func rawPeer(t *testing.T, n *Node, opt LinkOptions) link.Conn {
	near, far := link.Pipe()
	n.wg.Go(func() { _, _ = n.runLink(near, opt, nil) })
	t.Cleanup(func() { _ = far.Close() })
	return far
}

func say(t *testing.T, c link.Conn, msg []byte) {
	t.Helper()
	b, err := wire.AppendFrame(nil, msg)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.WriteBatch(b); err != nil {
		t.Fatal(err)
	}
}

func hello(id wire.NodeID) []byte {
	u := wire.RouteUpdate{NodeID: id, UpdateID: randomName(), UpdateEpoch: 1, UpdateSequence: 1, ForwardingNode: id}
	msg, _ := u.Append(nil)
	return msg
}

func update(node, forwarder wire.NodeID, seq uint64, conns map[wire.NodeID]float64) []byte {
	u := wire.RouteUpdate{NodeID: node, UpdateID: randomName(), UpdateEpoch: 1, UpdateSequence: seq, Connections: conns, ForwardingNode: forwarder}
	msg, _ := u.Append(nil)
	return msg
}

// listen collects the messages of a type until the link ends.
func listen(c link.Conn, want wire.Type) <-chan []byte {
	out := make(chan []byte, 1000)
	go func() {
		defer close(out)
		for {
			batch, err := c.ReadBatch()
			if err != nil {
				return
			}
			for msg, rest, ok := batch.Next(); ok; msg, rest, ok = rest.Next() {
				if wire.Type(msg[0]) == want {
					out <- append([]byte(nil), msg...)
				}
			}
		}
	}()
	return out
}

func TestSilentPeerGetsElevenHellosThenClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := New(Config{ID: "n"})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		hellos := listen(rawPeer(t, n, LinkOptions{Cost: 1}), wire.TypeRoute)
		start, count := time.Now(), 0
		for range hellos {
			count++
		}
		if took := time.Since(start); count != handshakeCount || took != 10*time.Second {
			t.Errorf("%d handshake messages in %v, want 11 in 10s", count, took)
		}
	})
}

func TestIdleLinkIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, peer := newWithPeer(t)
		defer n.Close()
		start := time.Now()
		for range listen(peer, wire.TypeRoute) {
		}
		if took := time.Since(start); took < 21*time.Second || took > 26*time.Second {
			t.Errorf("silent link closed after %v, want 21s to 26s", took)
		}
	})
}

func TestRejections(t *testing.T) {
	lists := map[wire.NodeID]float64{"n": 1}
	cases := []struct {
		name string
		opt  LinkOptions
		say  [][]byte
	}{
		{"own node ID", LinkOptions{Cost: 1}, [][]byte{hello("n")}},
		{"not an allowed peer", LinkOptions{Cost: 1, AllowedPeers: []wire.NodeID{"q"}}, [][]byte{hello("p")}},
		{"nobody is allowed", LinkOptions{Cost: 1, AllowedPeers: []wire.NodeID{}}, [][]byte{hello("p")}},
		{"empty node ID", LinkOptions{Cost: 1}, [][]byte{[]byte("\x01{}")}},
		{"changed name", LinkOptions{Cost: 1}, [][]byte{hello("p"), update("p", "q", 2, lists)}},
		{"other cost", LinkOptions{Cost: 2.25}, [][]byte{hello("p"), update("p", "p", 2, lists)}},
		{"nodecost differs", LinkOptions{Cost: 1, NodeCost: map[wire.NodeID]float64{"p": 3}}, [][]byte{hello("p"), update("p", "p", 2, lists)}},
		{"no longer lists us", LinkOptions{Cost: 1}, [][]byte{hello("p"), update("p", "p", 2, lists), update("p", "p", 3, nil)}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, err := New(Config{ID: "n"})
				if err != nil {
					t.Fatal(err)
				}
				defer n.Close()
				peer := rawPeer(t, n, c.opt)
				rejects := listen(peer, wire.TypeReject)
				for _, msg := range c.say {
					say(t, peer, msg)
				}
				if msg, ok := <-rejects; !ok || string(msg) != "\x03[]" {
					t.Errorf("got %q (%v), want a reject before the close", msg, ok)
				}
				if _, open := <-rejects; open {
					t.Error("the link is still open after the reject")
				}
			})
		})
	}
}

// TestReasonsOfRejections: two of ours tell each other why, an existing node is told nothing and tells nothing.
func TestReasonsOfRejections(t *testing.T) {
	lists := map[wire.NodeID]float64{"n": 5}
	beating := wire.RouteUpdate{NodeID: "p", UpdateID: randomName(), UpdateEpoch: 1, UpdateSequence: 1, ForwardingNode: "p", KeepAlive: 1000}
	ours, err := beating.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name       string
		hello, say []byte
		sent       string
		kind, text string
	}{
		{"we refuse one of ours", ours, update("p", "p", 2, lists), "\x03[\"cost\",\"we disagree about the connection cost: p uses 5, n 2.25; set the same cost on both ends\"]", "cost", "p uses 5, n 2.25"},
		{"we refuse another", hello("p"), update("p", "p", 2, lists), "\x03[]", "cost", "p uses 5, n 2.25"},
		{"one of ours refuses us", ours, wire.RejectFor("cost", "p uses 5, n 2.25"), "", "cost", "p uses 5, n 2.25"},
		{"another refuses us", hello("p"), []byte("\x03[]"), "", "rejected", "the log of p says why, often another link cost (it is 2.25 here)"},
		{"garbage for a reason", ours, []byte("\x03[\"cost\","), "", "rejected", "the log of p says why"},
		{"a kind of its own", ours, wire.RejectFor("silent", "no"), "", "rejected", `"no"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, err := New(Config{ID: "n"})
				if err != nil {
					t.Fatal(err)
				}
				defer n.Close()
				events := n.Subscribe(10)
				peer := rawPeer(t, n, LinkOptions{Cost: 2.25})
				rejects := listen(peer, wire.TypeReject)
				say(t, peer, c.hello)
				say(t, peer, c.say)
				if msg := <-rejects; string(msg) != c.sent {
					t.Errorf("sent %q, want %q", msg, c.sent)
				}
				for e := range events.C {
					if e.Kind != PeerDown {
						continue
					}
					if LinkErrorKind(e.Err) != c.kind || !strings.Contains(e.Err.Error(), c.text) {
						t.Errorf("got %s: %v, want %s: ... %s", LinkErrorKind(e.Err), e.Err, c.kind, c.text)
					}
					return
				}
			})
		})
	}
}

// TestGarbageDoesNotHurt sends every malformed message, before and after the handshake, and looks whether the node and
// the link still work.
func TestGarbageDoesNotHurt(t *testing.T) {
	garbage := [][]byte{
		{0}, {0, 1, 2}, make([]byte, 35), make([]byte, 36), {1}, []byte("\x01{"), []byte(`\x01{"NodeID":"p","Upda`),
		[]byte("\x01[]"), []byte("\x01{\"UpdateEpoch\":1.5}"), []byte("\x01{\"UpdateSequence\":-1}"), []byte("\x01nul"),
		{2}, []byte("\x02{}"), []byte("\x02{\"Cancel\":true}"), []byte("\x02{\"NodeID\":5}"), {9}, make([]byte, wire.MaxMessage),
		append([]byte{9}, make([]byte, wire.MaxMessage-1)...), []byte("\xff\xfe"),
	}
	synctest.Test(t, func(t *testing.T) {
		n, err := New(Config{ID: "n"})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		for _, up := range []bool{false, true} {
			peer := rawPeer(t, n, LinkOptions{Cost: 1})
			if up {
				say(t, peer, hello("p"))
			}
			if err := peer.WriteBatch(wire.Batch{0, 0}); err != nil { // An empty message.
				t.Fatal(err)
			}
			for _, msg := range garbage {
				say(t, peer, msg)
			}
			if !up {
				say(t, peer, hello("p"))
			}
			synctest.Wait()
			if got := n.Status().Connections; len(got) != 1 || got[0].NodeID != "p" {
				t.Fatalf("after garbage (link up before it: %v) the connections are %v, want p", up, got)
			}
			_ = peer.Close()
			synctest.Wait()
		}
		if c := n.Counters(); c.DropMalformed == 0 {
			t.Errorf("malformed messages were not counted: %+v", c)
		}
	})
}

func TestForgedPingsDoNotLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, peer := newWithPeer(t)
		defer n.Close()
		answers := listen(peer, wire.TypeData)
		for _, from := range []wire.NodeID{"n", "p"} {
			h := wire.Header{Hops: 5, From: wire.Hash(from), To: wire.Hash("n"), FromService: servicePing, ToService: servicePing}
			say(t, peer, h.AppendTo(nil))
		}
		good := wire.Header{Hops: 5, From: wire.Hash("p"), To: wire.Hash("n"), FromService: mustService("me"), ToService: servicePing}
		say(t, peer, good.AppendTo(nil))
		h, err := wire.ParseHeader(<-answers)
		if err != nil || h.ToService != mustService("me") {
			t.Errorf("first answer is %+v (%v), want the one to the honest ping", h, err)
		}
		synctest.Wait()
		if len(answers) != 0 {
			t.Errorf("%d more packets came, want none", len(answers))
		}
	})
}

// TestOlderTwinKeepsTheName: the node that was first learns of another with its ID and makes that one give up.
func TestOlderTwinKeepsTheName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t)
		defer s.close()
		for _, id := range []wire.NodeID{"left", "right", "twin"} {
			s.add(id)
		}
		older := s.nodes["twin"]
		s.link("left", "right", 1)
		s.link("left", "twin", 1)
		s.settle("start", 5*time.Second)
		time.Sleep(2 * time.Second)
		newer := s.add("twin")
		l, err := s.net.Listen("second")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.nodes["right"].Listen(l, LinkOptions{Cost: 1}); err != nil {
			t.Fatal(err)
		}
		if _, err := newer.Dial(s.net.Dialer("second"), LinkOptions{Cost: 1}); err != nil {
			t.Fatal(err)
		}
		<-newer.Done()
		if !errors.Is(newer.Err(), ErrDuplicateNode) {
			t.Errorf("the newer node ended with %v, want ErrDuplicateNode", newer.Err())
		}
		s.nodes["twin"] = older
		time.Sleep(15 * time.Second)
		if next, _, err := s.nodes["right"].WaitRoute(t.Context(), "twin"); err != nil || next != "left" {
			t.Errorf("right reaches twin by %q (%v), want left", next, err)
		}
	})
}

// TestWithdrawalStops: in a triangle a withdrawal is passed on once by each node.
func TestWithdrawalStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t)
		defer s.close()
		for _, id := range []wire.NodeID{"a", "b", "c"} {
			s.add(id)
		}
		s.link("a", "b", 1)
		s.link("b", "c", 1)
		s.link("a", "c", 1)
		s.settle("start", 5*time.Second)
		peer := rawPeer(t, s.nodes["a"], LinkOptions{Cost: 1})
		back := listen(peer, wire.TypeAdvert)
		say(t, peer, hello("p"))
		other := rawPeer(t, s.nodes["c"], LinkOptions{Cost: 1})
		passed := listen(other, wire.TypeAdvert)
		say(t, other, hello("q"))
		synctest.Wait()
		ad := wire.Advertisement{NodeID: "p", Service: "x", Time: time.Now(), Cancel: true}
		msg, _ := ad.Append(nil)
		say(t, peer, msg)
		time.Sleep(9 * time.Second)
		if len(passed) != 1 {
			t.Errorf("the withdrawal came by %d times at the far side of the triangle, want once", len(passed))
			for id, n := range s.nodes {
				t.Logf("%s: %v %+v %v", id, n.Status().Connections, n.Counters(), len(n.adverts))
			}
		}
		if len(back) > 1 {
			t.Errorf("the withdrawal came back to its origin %d times, want at most once", len(back))
		}
	})
}

func TestDatagramsAndNotices(t *testing.T) {
	nodes := chain(t, "a", "b", "c")
	in, err := nodes[2].ListenPacket("in", nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := nodes[0].ListenPacket("", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.WriteTo([]byte("hi"), Addr{"c", "in"}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, from, err := in.ReadFrom(buf)
	if err != nil || string(buf[:n]) != "hi" || from != net.Addr(Addr{"a", out.Service()}) {
		t.Fatalf("got %q from %v (%v), want hi from a:%s", buf[:n], from, err, out.Service())
	}
	if _, err := out.WriteTo([]byte("hi"), Addr{"c", "nobody"}); err != nil {
		t.Fatal(err)
	}
	if notice := <-out.Notices(); notice.Problem != wire.ProblemServiceUnknown || notice.Reporter != "c" {
		t.Errorf("notice %+v, want service unknown from c", notice)
	}
	if _, err := out.WriteTo(make([]byte, wire.MaxPayload+1), Addr{"c", "in"}); !errors.Is(err, ErrPayloadSize) {
		t.Errorf("oversize datagram: %v, want ErrPayloadSize", err)
	}
	if _, err := nodes[2].ListenPacket("in", nil); !errors.Is(err, ErrServiceInUse) {
		t.Errorf("second listener: %v, want ErrServiceInUse", err)
	}
	if _, err := nodes[2].ListenPacket("ping", nil); !errors.Is(err, ErrServiceInUse) {
		t.Errorf("listening on a reserved name: %v, want ErrServiceInUse", err)
	}
	_ = in.SetReadDeadline(time.Unix(1, 0))
	if _, _, err := in.ReadFrom(buf); err == nil || !err.(net.Error).Timeout() {
		t.Errorf("read after the deadline: %v, want a time-out", err)
	}
	_ = in.Close()
	if _, _, err := in.ReadFrom(buf); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after close: %v, want net.ErrClosed", err)
	}
}

func TestStreamEndings(t *testing.T) {
	nodes := chain(t, "a", "b")
	ln, err := nodes[1].ListenStream("svc", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	pair := func(t *testing.T) (*Stream, *Stream) {
		t.Helper()
		s, err := nodes[0].DialStream(t.Context(), "b", "svc", nil)
		if err != nil {
			t.Fatal(err)
		}
		p, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return s, p
	}
	t.Run("half close", func(t *testing.T) {
		s, p := pair(t)
		_, _ = s.Write([]byte("question"))
		_ = s.CloseWrite()
		q, err := io.ReadAll(p)
		if err != nil || string(q) != "question" {
			t.Fatalf("read %q, %v", q, err)
		}
		_, _ = p.Write([]byte("answer"))
		_ = p.Close()
		if a, err := io.ReadAll(s); err != nil || string(a) != "answer" {
			t.Errorf("read %q, %v after the half close", a, err)
		}
	})
	t.Run("close delivers what was written", func(t *testing.T) {
		s, p := pair(t)
		data := make([]byte, 300_000)
		go func() { _, _ = s.Write(data); _ = s.Close() }()
		if got, err := io.ReadAll(p); err != nil || len(got) != len(data) {
			t.Errorf("read %d bytes, %v; want %d", len(got), err, len(data))
		}
	})
	t.Run("abort is no end of data", func(t *testing.T) {
		for code, want := range map[uint64]uint64{42: 42, MaxErrorCode: MaxErrorCode, math.MaxUint64: MaxErrorCode} {
			s, p := pair(t)
			_, _ = s.Write([]byte("half a"))
			_ = s.Abort(code)
			_, err := io.ReadAll(p)
			reset, ok := errors.AsType[*ResetError](err)
			if !ok || reset.Code != want || !reset.Remote {
				t.Errorf("the peer read %v, want a reset with code %d", err, want)
			}
		}
	})
	t.Run("node gone is no end of data", func(t *testing.T) {
		extra := testNode(t, "extra")
		joinTCP(t, nodes[1], extra)
		waitRoute(t, extra, "b")
		waitRoute(t, nodes[1], "extra")
		s, err := extra.DialStream(t.Context(), "b", "svc", nil)
		if err != nil {
			t.Fatal(err)
		}
		p, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = s.Write([]byte("x"))
		_, _ = io.ReadFull(p, make([]byte, 1))
		_ = extra.Close()
		if _, err := p.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("read %v after the peer's node closed, want an error", err)
		}
	})
	t.Run("service again while its streams live", func(t *testing.T) {
		s, p := pair(t)
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := nodes[0].DialStream(t.Context(), "b", "svc", nil); err == nil {
			t.Error("a closed listener still accepts")
		}
		if ln, err = nodes[1].ListenStream("svc", nil, nil); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = s.Write([]byte("still here")); _ = s.Close() }()
		if got, err := io.ReadAll(p); err != nil || string(got) != "still here" {
			t.Errorf("old stream: %q, %v", got, err)
		}
		s, p = pair(t)
		_, _ = s.Close(), p.Close()
	})
}

func TestDialHonoursItsContext(t *testing.T) {
	nodes := chain(t, "a", "b")
	pc, err := nodes[1].ListenPacket("mute", nil) // Receives, never answers.
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _, _ = pc.ReadFrom(make([]byte, 2000))
		cancel()
	}()
	if _, err := nodes[0].DialStream(ctx, "b", "mute", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("dial ended with %v, want context.Canceled", err)
	}
}

// TestRouteMeansAnswers: as soon as a node that joins has a route, the far side can answer it, however many join at once.
func TestRouteMeansAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t)
		defer s.close()
		s.add("hub")
		s.add("edge")
		s.link("hub", "edge", 1)
		for i := range 5 {
			id := wire.NodeID(fmt.Sprintf("laptop-%d", i))
			n := s.add(id)
			s.link("hub", id, 1)
			if _, _, err := n.WaitRoute(t.Context(), "edge"); err != nil {
				t.Fatal(err)
			}
			if p := n.Ping(t.Context(), "edge", wire.MaxHops); p.Err != nil {
				t.Errorf("%s has a route, but its ping ended with %v", id, p.Err)
				for _, m := range s.nodes {
					t.Logf("%s: %+v %v", m.ID(), m.Counters(), m.Status().RoutingTable)
				}
			}
		}
	})
}

// TestForgedTwinNotice: what anybody can send does not end a node.
func TestForgedTwinNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, peer := newWithPeer(t)
		defer n.Close()
		say(t, peer, update("invented", "p", 1, map[wire.NodeID]float64{"n": 1, "p": 1})) // That it is our neighbour is no proof.
		for _, epoch := range []uint64{1, n.Epoch() - 1, n.Epoch() + 1} {
			u := wire.RouteUpdate{NodeID: "n", UpdateID: randomName(), UpdateEpoch: epoch, UpdateSequence: 1, ForwardingNode: "p", SuspectedDuplicate: n.Epoch()}
			msg, _ := u.Append(nil)
			say(t, peer, msg)
		}
		synctest.Wait()
		if n.Err() != nil || len(n.Status().Connections) != 1 {
			t.Errorf("after forged notices the node is %v with links %v, want it running with one", n.Err(), n.Status().Connections)
		}
	})
}

func TestSilentLinkBetweenTwoOfOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := New(Config{ID: "n"})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		peer := rawPeer(t, n, LinkOptions{Cost: 1})
		u := wire.RouteUpdate{NodeID: "p", UpdateID: randomName(), UpdateEpoch: 1, UpdateSequence: 1, ForwardingNode: "p", KeepAlive: 1000}
		msg, _ := u.Append(nil)
		say(t, peer, msg)
		beats := listen(peer, wire.TypeBeat)
		for i := range 20 { // Late by half a second, again and again: that is no reason.
			time.Sleep(1500 * time.Millisecond)
			say(t, peer, wire.BeatMessage)
			if len(n.Status().Connections) != 1 {
				t.Fatalf("the link ended after beat %d although it was alive", i)
			}
		}
		start := time.Now()
		count := 0
		for range beats {
			count++
		}
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("a silent link was closed after %v, want at most 3s", took)
		}
		if count < 25 {
			t.Errorf("%d keep-alive messages in half a minute, want about one a second", count)
		}
	})
}

// countingDialer counts the connections it makes.
type countingDialer struct {
	link.Dialer
	dials *atomic.Int32
}

func (d countingDialer) Dial(ctx context.Context) (link.Conn, error) {
	d.dials.Add(1)
	return d.Dialer.Dial(ctx)
}

// TestBothDial: the dialler that comes second waits until the standing link is gone, and then makes one.
func TestBothDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t)
		defer s.close()
		a, b := s.add("a"), s.add("b")
		s.link("a", "b", 1)
		s.settle("first link", 5*time.Second)
		l, err := s.net.Listen("back")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Listen(l, LinkOptions{Cost: 1}); err != nil {
			t.Fatal(err)
		}
		var dials atomic.Int32
		if _, err := a.Dial(countingDialer{s.net.Dialer("back"), &dials}, LinkOptions{Cost: 1}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if got := dials.Load(); got > 2 {
			t.Errorf("the second dialler dialled %d times in ten minutes beside a standing link", got)
		}
		if second := a.Backends()[1]; second.State != BackendStandby || second.Failure == nil || second.Failure.Peer != "b" {
			t.Errorf("the second dialler is %s, failure %v; want standby, since b is linked", second.State, second.Failure)
		}
		before := dials.Load()
		s.cut("a", "b")
		time.Sleep(time.Second)
		if len(a.Status().Connections) != 1 || dials.Load() != before+1 {
			t.Errorf("a second after the first link was cut: links %v, %d more dials; want one of each", a.Status().Connections, dials.Load()-before)
		}
	})
}

// standingLink is the link of a node to a peer.
func standingLink(n *Node, peer wire.NodeID) *neighbour {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.links[peer]
}

// TestBothDialAtOnce: two nodes that dial each other at the same moment come to one link and keep it, whatever the moment, and
// have another one soon after it is lost.
func TestBothDialAtOnce(t *testing.T) {
	for range 10 { // Each time it is chance who comes first.
		synctest.Test(t, func(t *testing.T) {
			s := newSimulation(t)
			defer s.close()
			var dials atomic.Int32
			nodes := []*Node{s.add("a"), s.add("b")}
			for _, n := range nodes {
				l, err := s.net.Listen(string(n.ID()))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := n.Listen(l, LinkOptions{Cost: 1}); err != nil {
					t.Fatal(err)
				}
			}
			for i, n := range nodes {
				to := s.net.Dialer(string(nodes[1-i].ID()))
				if _, err := n.Dial(countingDialer{to, &dials}, LinkOptions{Cost: 1}); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				s.settle("both dial", 5*time.Second)
				time.Sleep(time.Minute) // The first tries may have ended each other.
				before, up := dials.Load(), standingLink(nodes[0], "b")
				time.Sleep(10 * time.Minute)
				if more := dials.Load() - before; more > 0 || standingLink(nodes[0], "b") != up {
					t.Errorf("beside a standing link %d more connections were made in ten minutes, or it is another", more)
				}
				_ = up.conn.Close()
				synctest.Wait()
			}
			s.settle("the link was lost", 2*time.Second)
		})
	}
}

// TestBeatsAreAnswered: a peer whose handshake message got lost on the way is known by its keep-alive messages.
func TestBeatsAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := New(Config{ID: "n"})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		peer := rawPeer(t, n, LinkOptions{Cost: 1})
		say(t, peer, hello("p")) // Does not tell of keep-alive messages.
		beats := listen(peer, wire.TypeBeat)
		time.Sleep(5 * time.Second)
		if len(beats) != 0 {
			t.Error("a peer that may not know them was sent keep-alive messages")
		}
		say(t, peer, wire.BeatMessage)
		time.Sleep(2 * time.Second)
		if len(beats) == 0 {
			t.Error("a peer that sends keep-alive messages was sent none")
		}
	})
}

// TestANewNeighbourLearnsAllAtOnce: one of the base protocol is told of the whole mesh, and of the services in it, within
// milliseconds and not at the next period: in ordinary updates and advertisements, which it knows how to read.
func TestANewNeighbourLearnsAllAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t)
		defer s.close()
		for _, id := range []wire.NodeID{"far", "middle", "near"} {
			s.add(id)
		}
		s.link("far", "middle", 2)
		s.link("middle", "near", 3)
		s.settle("start", 5*time.Second)
		offer(t, s.nodes["far"], "svc")
		time.Sleep(13 * time.Second) // Between two periods.
		newcomer := rawPeer(t, s.nodes["near"], LinkOptions{Cost: 1})
		heard := listenAll(newcomer)
		say(t, newcomer, hello("newcomer"))
		time.Sleep(20 * time.Millisecond)
		synctest.Wait()
		told := map[wire.NodeID]map[wire.NodeID]float64{}
		for _, text := range heard.of(wire.TypeRoute) {
			u, err := wire.ParseRouteUpdate(route(text))
			if err != nil || u.ForwardingNode != "near" || u.UpdateEpoch != s.nodes[u.NodeID].Epoch() {
				t.Errorf("an update that no neighbour sends: %s (%v)", text, err)
				continue
			}
			told[u.NodeID] = u.Connections
		}
		if told["far"]["middle"] != 2 || told["middle"]["far"] != 2 || told["middle"]["near"] != 3 {
			t.Errorf("the newcomer was told of the links %v", told)
		}
		var services []string
		for _, text := range heard.of(wire.TypeAdvert) {
			ad, err := wire.ParseAdvertisement(advert(text))
			if err != nil || ad.Cancel {
				t.Errorf("an advertisement that cannot be read: %s (%v)", text, err)
			}
			services = append(services, string(ad.NodeID)+":"+ad.Service)
		}
		if got := fmt.Sprint(services); got != "[far:svc]" {
			t.Errorf("the newcomer was told of the services %s", got)
		}
	})
}

// TestServicesOfALostNodeExpire: a node that is cut off says nothing of its services any more, and all others forget them.
func TestServicesOfALostNodeExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t)
		defer s.close()
		lost, b, c := s.add("lost"), s.add("b"), s.add("c")
		s.link("lost", "b", 1)
		s.link("b", "c", 1)
		s.settle("start", 5*time.Second)
		offer(t, lost, "svc")
		offer(t, b, "other")
		time.Sleep(10 * time.Second)
		wantListed(t, "linked", "lost", "svc", true, b, c)
		events := c.Subscribe(100)
		defer events.Close()
		s.cut("lost", "b")
		time.Sleep(advertLife + 2*sweepPeriod)
		wantListed(t, "cut off", "lost", "svc", false, b, c)
		wantListed(t, "still there", "b", "other", true, b, c)
		gone := 0
		for len(events.C) > 0 {
			if e := <-events.C; e.Kind == ServiceGone && e.Node == "lost" && e.Service == "svc" {
				gone++
			}
		}
		if gone != 1 {
			t.Errorf("c said %d times that the service is gone, want once", gone)
		}
	})
}

// TestCopiesAreNotParsed: of an update that came before nothing but its sender and ID is read.
func TestCopiesAreNotParsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, peer := newWithPeer(t)
		defer n.Close()
		first := update("x", "p", 1, map[wire.NodeID]float64{"p": 1})
		broken := first[:len(first)-1]
		say(t, peer, first)
		say(t, peer, broken)
		synctest.Wait()
		if got := n.Counters().DropMalformed; got != 0 {
			t.Errorf("a copy was parsed: %d malformed messages", got)
		}
		other := update("y", "p", 1, map[wire.NodeID]float64{"p": 1})
		say(t, peer, other[:len(other)-1])
		synctest.Wait()
		if got := n.Counters().DropMalformed; got != 1 {
			t.Errorf("of what did not come before %d malformed messages were counted, want 1", got)
		}
	})
}
