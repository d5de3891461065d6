package netceptor

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// introduction is the handshake message of a peer that keeps links alive.
func introduction(t *testing.T, id wire.NodeID, epoch uint64, lists map[wire.NodeID]float64) []byte {
	t.Helper()
	u := wire.RouteUpdate{
		NodeID: id, UpdateID: randomName(), UpdateEpoch: epoch, UpdateSequence: 1, Connections: lists, ForwardingNode: id, KeepAlive: 1000,
	}
	msg, err := u.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

// speak plays a peer on a link: it answers when asked, until the link or the peer ends. ended is closed with the link.
func speak(c link.Conn, answers bool) (ended <-chan struct{}) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			batch, err := c.ReadBatch()
			if err != nil {
				return
			}
			for msg, rest, ok := batch.Next(); ok; msg, rest, ok = rest.Next() {
				if wire.Type(msg[0]) == wire.TypeBeat && wire.AsksBack(msg) && answers {
					b, _ := wire.AppendFrame(nil, wire.BeatMessage)
					_ = c.WriteBatch(b)
				}
			}
		}
	}()
	return done
}

func isOpen(c <-chan struct{}) bool {
	select {
	case <-c:
		return false
	default:
		return true
	}
}

// TestSecondLinkOfAPeer: who has the place of the link to a peer when another one comes.
func TestSecondLinkOfAPeer(t *testing.T) {
	cases := []struct {
		name    string
		answers bool
		silent  time.Duration // Of the first link, before the second comes.
		epoch   uint64        // Of the second; the first has 5.
		takes   time.Duration // Until the second link stands; 0: it is refused at once.
	}{
		{"restarted at once", false, 0, 6, answerLimit},
		{"restarted later", false, 2 * time.Second, 6, answerLimit},
		{"twin beside a living node", true, 0, 6, 0},
		{"twin beside a silent but living node", true, 2 * time.Second, 6, 0},
		{"older twin", false, 0, 4, 0},
		{"dials twice", false, 0, 5, 0},
		{"has lost the link", false, 2 * time.Second, 5, answerLimit},
		{"dials twice and answers", true, 2 * time.Second, 5, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, err := New(Config{ID: "n"})
				if err != nil {
					t.Fatal(err)
				}
				defer n.Close()
				peer := rawPeer(t, n, LinkOptions{Cost: 1})
				first := speak(peer, c.answers)
				say(t, peer, introduction(t, "p", 5, nil))
				synctest.Wait()
				time.Sleep(c.silent)
				other := rawPeer(t, n, LinkOptions{Cost: 1})
				second := speak(other, true)
				say(t, other, introduction(t, "p", c.epoch, nil))
				if c.takes > 0 {
					time.Sleep(c.takes - time.Nanosecond)
					synctest.Wait()
					if !isOpen(first) || !isOpen(second) {
						t.Fatalf("before the time is up: first link open %v, second %v; want both", isOpen(first), isOpen(second))
					}
					time.Sleep(time.Nanosecond)
				}
				synctest.Wait()
				if taken := c.takes > 0; isOpen(first) == taken || isOpen(second) != taken {
					t.Errorf("first link open %v, second %v; want the second to take the place: %v", isOpen(first), isOpen(second), taken)
				}
				if got := n.Status().Connections; len(got) != 1 || got[0].NodeID != "p" {
					t.Errorf("the connections are %v, want p once", got)
				}
			})
		})
	}
}

// TestWhatFollowsAnIntroductionIsKept: what a restarted peer says while its former link is in doubt counts afterwards.
func TestWhatFollowsAnIntroductionIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := New(Config{ID: "n"})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		say(t, rawPeer(t, n, LinkOptions{Cost: 1}), introduction(t, "p", 5, nil))
		synctest.Wait()
		second := rawPeer(t, n, LinkOptions{Cost: 1})
		say(t, second, introduction(t, "p", 6, nil))
		u := wire.RouteUpdate{NodeID: "p", UpdateID: randomName(), UpdateEpoch: 6, UpdateSequence: 2, ForwardingNode: "p",
			Connections: map[wire.NodeID]float64{"n": 1, "far": 2}}
		msg, _ := u.Append(nil)
		say(t, second, msg)
		u = wire.RouteUpdate{NodeID: "far", UpdateID: randomName(), UpdateEpoch: 1, UpdateSequence: 2, ForwardingNode: "p",
			Connections: map[wire.NodeID]float64{"p": 2}}
		msg, _ = u.Append(nil)
		say(t, second, msg)
		time.Sleep(answerLimit + 100*time.Millisecond)
		if r, ok := n.Routes().Route("far"); !ok || r.Cost != 3 {
			t.Errorf("the route to what is behind the restarted peer is %+v (%v), want one at cost 3", r, ok)
		}
	})
}

// TestLateMessagesMakeNoLink: what was on its way when a link ended is not taken for a new peer.
func TestLateMessagesMakeNoLink(t *testing.T) {
	late := map[string]wire.RouteUpdate{
		"an update that lists this node":       {NodeID: "p", ForwardingNode: "p", Connections: map[wire.NodeID]float64{"n": 1}},
		"an update that was passed on":         {NodeID: "q", ForwardingNode: "p"},
		"an update of this node's own, passed": {NodeID: "n", ForwardingNode: "p"},
	}
	synctest.Test(t, func(t *testing.T) {
		n, err := New(Config{ID: "n"})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		for name, u := range late {
			peer := rawPeer(t, n, LinkOptions{Cost: 1})
			u.UpdateID, u.UpdateEpoch, u.UpdateSequence = randomName(), 1, 1
			msg, _ := u.Append(nil)
			say(t, peer, msg)
			synctest.Wait()
			if got := n.Status().Connections; len(got) != 0 {
				t.Errorf("%s made a link: %v", name, got)
			}
		}
		// A peer that does not know yet that its older link is dead introduces itself all the same.
		say(t, rawPeer(t, n, LinkOptions{Cost: 1}), introduction(t, "p", 1, map[wire.NodeID]float64{"n": 1}))
		synctest.Wait()
		if got := n.Status().Connections; len(got) != 1 {
			t.Errorf("an introduction was not taken: %v", got)
		}
	})
}

// TestRestartOverUDP: nobody is told when a UDP node dies. Started again at once, as the one that dials or the one that
// listens, it is linked again by one new link, and answers as soon as its neighbour's route says so.
func TestRestartOverUDP(t *testing.T) {
	for _, dies := range []string{"dialer", "listener"} {
		t.Run(dies, func(t *testing.T) {
			far, near := testNode(t, "far"), testNode(t, "near")
			joinTCP(t, far, near)
			events := near.Subscribe(1000)
			defer events.Close()
			l, err := link.ListenUDP("127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			addr := l.Addr()
			start := func() *Node {
				t.Helper()
				n, err := New(Config{ID: "mortal"})
				if err != nil {
					t.Fatal(err)
				}
				if dies == "listener" {
					if l == nil {
						if l, err = link.ListenUDP(addr); err != nil {
							t.Fatal(err)
						}
					}
					_, err = n.Listen(l, LinkOptions{Cost: 1})
					l = nil
				} else {
					_, err = n.Dial(link.DialUDP(addr), LinkOptions{Cost: 1})
				}
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			if dies == "listener" {
				if _, err := near.Dial(link.DialUDP(addr), LinkOptions{Cost: 1}); err != nil {
					t.Fatal(err)
				}
			} else if _, err := near.Listen(l, LinkOptions{Cost: 1}); err != nil {
				t.Fatal(err)
			}
			life := start()
			for i := range 3 {
				ups := waitUp(t, events, "mortal")
				waitRoute(t, life, "far")
				if p := life.Ping(t.Context(), "far", wire.MaxHops); p.Err != nil {
					t.Errorf("life %d: ping from the node that was started again: %v\n%v\n%v\n%v", i, p.Err, life.Counters(), near.Counters(), far.Counters())
				}
				if p := far.Ping(t.Context(), "mortal", wire.MaxHops); p.Err != nil {
					t.Errorf("life %d: ping to the node that was started again: %v", i, p.Err)
				}
				if ups > 1 {
					t.Errorf("life %d: the link was made %d times, want once", i, ups)
				}
				_ = life.Close()
				life = start()
			}
			_ = life.Close()
		})
	}
}

// waitUp waits until the link to a node is made, and until it stands for good as far as events tell: it returns how often
// it was made.
func waitUp(t *testing.T, events *Subscription, node wire.NodeID) (ups int) {
	t.Helper()
	hang := time.After(time.Minute)
	up := false
	for {
		select {
		case e := <-events.C:
			if e.Node == node && e.Kind == PeerUp {
				up, ups = true, ups+1
			} else if e.Node == node && e.Kind == PeerDown {
				up = false
			}
			if up && len(events.C) == 0 {
				return ups
			}
		case <-hang:
			t.Fatalf("no link to %s", node)
		}
	}
}

// TestNoRouteOverALinkThatIsRefused: a link whose ends disagree about its cost is up for a moment, and nobody who waits
// for a route is told of one.
func TestNoRouteOverALinkThatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t)
		defer s.close()
		a, b := s.add("a"), s.add("b")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var waiting sync.WaitGroup
		for _, way := range []struct {
			from *Node
			to   wire.NodeID
		}{{a, "b"}, {b, "a"}} {
			waiting.Go(func() {
				if next, cost, err := way.from.WaitRoute(ctx, way.to); err == nil {
					t.Errorf("%s was told of a route to %s via %s at cost %v", way.from.ID(), way.to, next, cost)
				}
			})
		}
		near, far := link.Pipe()
		if _, err := a.AddLink(near, LinkOptions{Cost: 1}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.AddLink(far, LinkOptions{Cost: 2}); err != nil {
			t.Fatal(err)
		}
		waiting.Wait()
		if made := a.Backends(); len(made) != 0 {
			t.Errorf("the link is still there: %+v", made)
		}
	})
}
