package netceptor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// offer listens on a service that the mesh is told of.
func offer(t *testing.T, n *Node, service string) *PacketConn {
	t.Helper()
	pc, err := n.ListenPacket(service, &ServiceAd{})
	if err != nil {
		t.Fatal(err)
	}
	return pc
}

// wantListed checks whether nodes list a service.
func wantListed(t *testing.T, what string, node wire.NodeID, service string, want bool, nodes ...*Node) {
	t.Helper()
	synctest.Wait()
	for _, n := range nodes {
		if _, listed := n.Service(node, service); listed != want {
			t.Errorf("%s: %s lists %s:%s: %v, want %v", what, n.id, node, service, listed, want)
		}
	}
}

// ourHello is the handshake message of a node of ours.
func ourHello(id wire.NodeID) []byte {
	u := wire.RouteUpdate{NodeID: id, UpdateID: randomName(), UpdateEpoch: 1, UpdateSequence: 1, ForwardingNode: id, KeepAlive: 1000}
	msg, _ := u.Append(nil)
	return msg
}

// ear is what was heard on a link, by type of message.
type ear struct {
	mu    sync.Mutex
	heard map[wire.Type][]string
}

func (e *ear) of(t wire.Type) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.heard[t])
}

// listenAll hears messages of all types until the link ends.
func listenAll(c link.Conn) *ear {
	e := &ear{heard: map[wire.Type][]string{}}
	go func() {
		for {
			batch, err := c.ReadBatch()
			if err != nil {
				return
			}
			e.mu.Lock()
			for msg, rest, ok := batch.Next(); ok; msg, rest, ok = rest.Next() {
				t := wire.Type(msg[0])
				e.heard[t] = append(e.heard[t], string(msg[1:]))
			}
			e.mu.Unlock()
		}
	}()
	return e
}

// TestOwnServicesAreToldToo: who follows the events of a node has what it lists, its own services among them.
func TestOwnServicesAreToldToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimulation(t).add("a")
		sub := n.Subscribe(10)
		first := offer(t, n, "first")
		offer(t, n, "second")
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		hidden, err := n.ListenPacket("hidden", nil)
		if err != nil {
			t.Fatal(err)
		}
		hidden.Close()
		n.Close()
		var told []string
		for e := range sub.C {
			told = append(told, fmt.Sprint(e.Kind == ServiceSeen, " ", e.Kind == ServiceGone, " ", e.Node, ":", e.Service))
		}
		want := []string{"true false a:first", "true false a:second", "false true a:first", "false true a:second"}
		if !slices.Equal(told, want) {
			t.Errorf("told (seen, gone, service): %q, want %q", told, want)
		}
	})
}

// ring is a ring of nodes of ours with a service of n0, which all others list.
func ring(t *testing.T, size int) (s *simulation, nodes []*Node, pc *PacketConn) {
	s = newSimulation(t)
	for i := range size {
		nodes = append(nodes, s.add(wire.NodeID(fmt.Sprint("n", i))))
	}
	for i := range size {
		s.link(nodes[i].id, nodes[(i+1)%size].id, 1)
	}
	s.settle("start", 5*time.Second)
	pc = offer(t, nodes[0], "s")
	time.Sleep(2 * advertDelay)
	wantListed(t, "start", "n0", "s", true, nodes...)
	return s, nodes, pc
}

// TestF087AServiceThatClosesIsGoneAtOnce: all nodes of a ring forget it and say so, each neighbour is told once, and a
// service that is opened again under the name shows as soon as any other.
func TestF087AServiceThatClosesIsGoneAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes, pc := ring(t, 6)
		defer s.close()
		other := rawPeer(t, nodes[3], LinkOptions{Cost: 1})
		heard := listenAll(other)
		say(t, other, ourHello("p"))
		time.Sleep(100 * time.Millisecond) // It is greeted.
		events := nodes[3].Subscribe(100)
		defer events.Close()
		for range 3 {
			if err := pc.Close(); err != nil {
				t.Fatal(err)
			}
			wantListed(t, "closed", "n0", "s", false, nodes...)
			pc = offer(t, nodes[0], "s")
			time.Sleep(2 * advertDelay)
			wantListed(t, "opened again", "n0", "s", true, nodes...)
		}
		if got := len(heard.of(wire.TypeGone)); got != 3 {
			t.Errorf("a neighbour was told %d times of 3 services that closed: %q", got, heard.of(wire.TypeGone))
		}
		var kinds []EventKind
		for len(events.C) > 0 {
			if e := <-events.C; e.Service == "s" {
				kinds = append(kinds, e.Kind)
			}
		}
		if got, want := fmt.Sprint(kinds), fmt.Sprint([]EventKind{ServiceGone, ServiceSeen, ServiceGone, ServiceSeen, ServiceGone, ServiceSeen}); got != want {
			t.Errorf("the events are %v, want %v", got, want)
		}
	})
}

// TestAServiceThatNobodyWasToldOfIsNotWithdrawn: what opens and closes between two advertisements costs no message.
func TestAServiceThatNobodyWasToldOfIsNotWithdrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t)
		defer s.close()
		a := s.add("a")
		peer := rawPeer(t, a, LinkOptions{Cost: 1})
		heard := listenAll(peer)
		say(t, peer, ourHello("p"))
		time.Sleep(100 * time.Millisecond)
		for range 100 {
			_ = offer(t, a, "s").Close()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := heard.of(wire.TypeGone); len(got) > 0 {
			t.Errorf("withdrawn were %q", got)
		}
	})
}

// TestWithdrawalsStayAmongUs: no existing node hears of a withdrawal of ours, from its origin or from who passes it on,
// in any form; nodes behind one expire the service.
func TestWithdrawalsStayAmongUs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes, pc := ring(t, 3)
		defer s.close()
		var heard []*ear
		for i, n := range nodes {
			existing := rawPeer(t, n, LinkOptions{Cost: 1})
			heard = append(heard, listenAll(existing))
			say(t, existing, hello(wire.NodeID(fmt.Sprint("existing", i))))
		}
		behind := s.add("behind") // One of those, which has passed the advertisement on, and speaks as an existing node.
		bridge := rawPeer(t, behind, LinkOptions{Cost: 1})
		_ = listenAll(bridge)
		say(t, bridge, hello("bridge"))
		time.Sleep(time.Second)
		for _, ad := range heard[1].of(wire.TypeAdvert) {
			say(t, bridge, advert(ad))
		}
		delete(s.nodes, "behind") // It is no part of the ring.
		wantListed(t, "start", "n0", "s", true, behind)
		if err := pc.Close(); err != nil {
			t.Fatal(err)
		}
		wantListed(t, "closed", "n0", "s", false, nodes...)
		time.Sleep(10 * time.Second)
		for i, h := range heard {
			if got := h.of(wire.TypeGone); len(got) > 0 {
				t.Errorf("the existing node at n%d was sent %q", i, got)
			}
			for _, ad := range h.of(wire.TypeAdvert) {
				if strings.Contains(ad, `"Cancel":true`) {
					t.Errorf("the existing node at n%d was sent %q", i, ad)
				}
			}
		}
		wantListed(t, "closed", "n0", "s", true, behind)
		time.Sleep(advertLife + sweepPeriod)
		wantListed(t, "expired", "n0", "s", false, behind)
		if err := behind.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestLateAdvertisementsDoNotBringAServiceBack: one that is older than the withdrawal is neither taken nor passed on, as
// long as somebody may have it.
func TestLateAdvertisementsDoNotBringAServiceBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes, pc := ring(t, 3)
		defer s.close()
		existing := rawPeer(t, nodes[1], LinkOptions{Cost: 1})
		heard := listenAll(existing)
		say(t, existing, hello("existing"))
		time.Sleep(time.Second)
		late := heard.of(wire.TypeAdvert)
		if len(late) != 1 {
			t.Fatalf("the existing node was told %q, want one service", late)
		}
		if err := pc.Close(); err != nil {
			t.Fatal(err)
		}
		for range 18 { // It falls silent after 20 s, and what is kept is swept after 190.
			say(t, existing, advert(late[0]))
			wantListed(t, "late advertisement", "n0", "s", false, nodes...)
			time.Sleep(10 * time.Second)
		}
		time.Sleep(advertLife + sweepPeriod)
		for _, n := range nodes {
			n.mu.Lock()
			if len(n.adverts) != 0 || n.advertBytes != 0 || len(n.advertsOf) != 0 {
				t.Errorf("%s keeps %v of what is long gone", n.id, n.adverts)
			}
			n.mu.Unlock()
		}
	})
}

// TestWithdrawalsReachThoseWhoWereAway: who was cut off when a service closed learns of it with the first link, from its
// node or from another that knows.
func TestWithdrawalsReachThoseWhoWereAway(t *testing.T) {
	for _, way := range [][2]wire.NodeID{{"a", "b"}, {"b", "c"}} {
		synctest.Test(t, func(t *testing.T) {
			s := newSimulation(t)
			defer s.close()
			a, c := s.add("a"), s.add("c")
			s.add("b")
			s.link("a", "b", 1)
			s.link("b", "c", 1)
			s.settle("start", 5*time.Second)
			pc := offer(t, a, "s")
			time.Sleep(2 * advertDelay)
			s.cut(way[0], way[1])
			if err := pc.Close(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			wantListed(t, "cut off", "a", "s", true, c)
			s.link(way[1], way[0], 1)
			s.settle("healed", 5*time.Second)
			wantListed(t, "healed", "a", "s", false, c)
		})
	}
}

// lossyDialer makes links on which withdrawals are lost as long as loses says so.
type lossyDialer struct {
	link.Dialer
	loses *atomic.Bool
}

func (d lossyDialer) Dial(ctx context.Context) (link.Conn, error) {
	c, err := d.Dialer.Dial(ctx)
	return &lossyConn{c, d.loses}, err
}

type lossyConn struct {
	link.Conn
	loses *atomic.Bool
}

func (c *lossyConn) ReadBatch() (wire.Batch, error) {
	batch, err := c.Conn.ReadBatch()
	var kept wire.Batch
	for msg, rest, ok := batch.Next(); ok; msg, rest, ok = rest.Next() {
		if wire.Type(msg[0]) != wire.TypeGone || !c.loses.Load() {
			kept, _ = wire.AppendFrame(kept, msg)
		}
	}
	return kept, err
}

// TestLostWithdrawalsAreRepeated by each node that has them, after a period at most, and forgotten in the end.
func TestLostWithdrawalsAreRepeated(t *testing.T) {
	for _, way := range [][2]wire.NodeID{{"a", "b"}, {"b", "c"}} {
		synctest.Test(t, func(t *testing.T) {
			s := newSimulation(t)
			defer s.close()
			a, b, c := s.add("a"), s.add("b"), s.add("c")
			var loses atomic.Bool
			l, err := s.net.Listen("lossy")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.nodes[way[0]].Listen(l, LinkOptions{Cost: 1}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.nodes[way[1]].Dial(lossyDialer{s.net.Dialer("lossy"), &loses}, LinkOptions{Cost: 1}); err != nil {
				t.Fatal(err)
			}
			if way[0] == "a" {
				s.link("b", "c", 1)
			} else {
				s.link("a", "b", 1)
			}
			pc := offer(t, a, "s")
			time.Sleep(2 * advertPeriod)
			wantListed(t, "start", "a", "s", true, b, c)
			loses.Store(true)
			if err := pc.Close(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(withdrawAgain)
			wantListed(t, "lost", "a", "s", true, c)
			loses.Store(false)
			time.Sleep(sweepPeriod + beatPeriod)
			wantListed(t, "repeated", "a", "s", false, b, c)
			time.Sleep(advertLife + 2*sweepPeriod)
			for _, n := range s.nodes {
				n.mu.Lock()
				if len(n.adverts) != 0 {
					t.Errorf("%s keeps %v", n.id, n.adverts)
				}
				n.mu.Unlock()
			}
		})
	}
}

// TestANodeThatIsClosedTakesItsServicesAlong: others list none of them any more; those of a twin that gives up its ID to
// another are left to that one.
func TestANodeThatIsClosedTakesItsServicesAlong(t *testing.T) {
	for cause, listed := range map[error]bool{ErrClosed: false, ErrDuplicateNode: true} {
		synctest.Test(t, func(t *testing.T) {
			s, nodes, _ := ring(t, 4)
			defer s.close()
			delete(s.nodes, "n0")
			nodes[0].shutdown(cause)
			<-nodes[0].Done()
			wantListed(t, cause.Error(), "n0", "s", listed, nodes[1:]...)
		})
	}
}

// TestWithdrawalsTakeNoMoreRoomThanServices: those of services that nobody knows are bounded as advertisements are, and
// what a service leaves behind makes no difference for the next one of its name.
func TestWithdrawalsTakeNoMoreRoomThanServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t)
		defer s.close()
		a := s.add("a")
		peer := rawPeer(t, a, LinkOptions{Cost: 1})
		_ = listenAll(peer)
		say(t, peer, hello("p"))
		for i := range maxAdvertsPerNode + 10 {
			say(t, peer, gone(fmt.Sprintf(`{"NodeID":"x","Service":"%d","Time":"2026-01-01T00:00:00Z"}`, i)))
		}
		synctest.Wait()
		a.mu.Lock()
		if len(a.adverts) != maxAdvertsPerNode {
			t.Errorf("%d withdrawals of one node are kept, want %d", len(a.adverts), maxAdvertsPerNode)
		}
		a.mu.Unlock()
		say(t, peer, advert(`{"NodeID":"x","Service":"7","Time":"2026-01-01T00:00:01Z"}`))
		wantListed(t, "opened", "x", "7", true, a)
	})
}
