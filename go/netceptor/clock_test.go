package netceptor

import (
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// stepped is the moment t as a clock shows it that was set by d: the date moves, what has passed since does not.
func stepped(t *testing.T, at time.Time, d time.Duration) time.Time {
	t.Helper()
	moved := at
	*(*uint64)(unsafe.Pointer(&moved)) += uint64(d/time.Second) << 30 // Seconds of the date above its nanoseconds.
	if moved.Sub(at) != 0 || moved.Round(0).Sub(at.Round(0)) != d {
		t.Fatalf("a time is no longer made as this test has it: %#v, %#v", at, moved)
	}
	return moved
}

// TestSetClocksEndNoLink: a link that lives is not ended, and a silent one is spoken on, when the clock of the machine is set.
func TestSetClocksEndNoLink(t *testing.T) {
	for _, step := range []time.Duration{5 * time.Second, 3 * time.Hour, -5 * time.Second, -3 * time.Hour} {
		n, err := New(Config{ID: "n"})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		near, _ := link.Pipe()
		nb := &neighbour{node: n, id: "p", conn: near, queue: newSendQueue(), beats: true, ended: make(chan struct{}), written: make(chan struct{})}
		close(nb.written)                 // Nobody takes what is queued.
		now := time.Now().Add(beatPeriod) // Both ends have been silent so long.
		shown := stepped(t, now, step)
		n.mu.Lock()
		n.links["p"] = nb
		nb.heard.Store(n.clock())
		nb.spoke.Store(n.clock())
		n.beaten = now.Add(-beatPeriod)
		n.beatLocked(shown)
		if nb.cause != nil {
			t.Errorf("when the clock was set by %v a link ended: %v", step, nb.cause)
		}
		if nb.queue.controlWaiting() == 0 {
			t.Errorf("when the clock was set by %v the node did not say that it lives", step)
		}
		n.mu.Unlock()
	}
}

// TestAdvertisementsGetLaterThoughTheClockIsSetBack: receivers compare dates, so ours go on from the last one, also for a
// service that is offered again.
func TestAdvertisementsGetLaterThoughTheClockIsSetBack(t *testing.T) {
	n, err := New(Config{ID: "n"})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	before := stepped(t, time.Now(), time.Hour)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lastAdvert = before
	for range 2 { // The service is closed and opened again meanwhile.
		ad := n.ownAdvertLocked(&advertised{service: "s"})
		if !ad.Time.Round(0).After(before.Round(0)) {
			t.Errorf("an advertisement has the date %v, not later than that of %v", ad.Time, before)
		}
		before = ad.Time
	}
}

// TestRestartWithTheClockSetBack: a node that is restarted with a smaller epoch, and advertises with earlier dates, is heeded
// by the whole mesh all the same.
func TestRestartWithTheClockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t)
		defer s.close()
		again := s.add("c") // Its epoch is the smaller one.
		time.Sleep(time.Hour)
		for _, id := range []wire.NodeID{"a", "b", "c"} {
			s.add(id)
		}
		former := s.nodes["c"]
		if _, err := former.ListenPacket("s", &ServiceAd{Tags: map[string]string{"life": "former"}}); err != nil {
			t.Fatal(err)
		}
		former.mu.Lock()
		former.lastAdvert = time.Now().Add(2 * time.Hour)
		former.mu.Unlock()
		s.link("a", "b", 1)
		s.link("b", "c", 1)
		s.settle("the former life", 5*time.Second)
		time.Sleep(time.Second)
		if err := former.Close(); err != nil {
			t.Fatal(err)
		}
		s.nodes["c"] = again
		if _, err := again.ListenPacket("s", &ServiceAd{Tags: map[string]string{"life": "new"}}); err != nil {
			t.Fatal(err)
		}
		s.link("a", "c", 1)
		s.settle("the new life", time.Second)
		time.Sleep(advertAgain + time.Second)
		synctest.Wait()
		for _, id := range []wire.NodeID{"a", "b"} {
			for _, service := range s.nodes[id].Services() {
				if service.NodeID == "c" && service.Tags["life"] != "new" {
					t.Errorf("%s still has the service of the former life: %v", id, service.Advertisement)
				}
			}
		}
	})
}

// TestForgedAdvertisementsAreOutdone: an advertisement or withdrawal that somebody forges with a date in the future does not
// hide a service for good.
func TestForgedAdvertisementsAreOutdone(t *testing.T) {
	for _, date := range []string{"2099-01-01T00:00:00Z", "9998-12-31T23:59:59.999999999Z"} {
		synctest.Test(t, func(t *testing.T) {
			s := newSimulation(t)
			defer s.close()
			a, b := s.add("a"), s.add("b")
			s.link("a", "b", 1)
			s.settle("start", 5*time.Second)
			if _, err := a.ListenPacket("s", &ServiceAd{}); err != nil {
				t.Fatal(err)
			}
			peer := rawPeer(t, b, LinkOptions{Cost: 1})
			say(t, peer, hello("p"))
			time.Sleep(time.Second)
			for _, forged := range [][]byte{
				advert(`{"NodeID":"a","Service":"s","Time":"` + date + `","Cancel":true}`),
				gone(`{"NodeID":"a","Service":"s","Time":"` + date + `"}`),
			} {
				say(t, peer, forged)
				time.Sleep(advertAgain + time.Second)
				synctest.Wait()
				if services := b.Services(); len(services) != 1 || services[0].NodeID != "a" {
					t.Errorf("after the forged withdrawal %q b knows the services %v", forged, services)
				}
			}
		})
	}
}
