package netceptor

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pyreceptor/pyreceptor/go/topology"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// TestEpochsIncrease: a node that is started again, however soon, has the greater epoch.
func TestEpochsIncrease(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, later := range []time.Duration{time.Microsecond, time.Millisecond, 999 * time.Millisecond, time.Second, time.Hour} {
		if a, b := epochAt(at), epochAt(at.Add(later)); a >= b {
			t.Errorf("%v later the epoch is %d, not greater than %d", later, b, a)
		}
	}
	if e := epochAt(at); e>>24 != uint64(at.Unix()) {
		t.Errorf("epoch %d does not begin with the second %d", e, at.Unix())
	}
}

// TestAdvertisementsGetLater: receivers take only later advertisements, so each has a later time than the one before, also
// when the clock stands still or was set back.
func TestAdvertisementsGetLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // Where the clock stands still.
		n, err := New(Config{ID: "n"})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		a := &advertised{service: "s"}
		n.lastAdvert = time.Now().Add(time.Hour)
		last := n.lastAdvert
		for range 3 {
			n.mu.Lock()
			ad := n.ownAdvertLocked(a)
			n.mu.Unlock()
			if !ad.Time.After(last) {
				t.Fatalf("an advertisement of %v follows one of %v", ad.Time, last)
			}
			last = ad.Time
		}
	})
}

// TestUpdatesThatDoNotFit: an update that would be longer than a message is neither sent nor passed on, and the links live.
func TestUpdatesThatDoNotFit(t *testing.T) {
	many := map[wire.NodeID]float64{}
	for i := range 3000 {
		many[wire.NodeID(fmt.Sprintf("neighbour-with-a-name-%05d", i))] = 1
	}
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		n, err := New(Config{ID: "n", Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		peer, other := rawPeer(t, n, LinkOptions{Cost: 1}), rawPeer(t, n, LinkOptions{Cost: 1})
		say(t, peer, hello("p"))
		say(t, other, hello("o"))
		synctest.Wait()
		heard := listen(other, wire.TypeRoute)
		listen(peer, wire.TypeRoute)

		fits := map[wire.NodeID]float64{"p": 1}
		for u := update("x", "p", 2, fits); len(u) < wire.MaxMessage-100; u = update("x", "p", 2, fits) {
			for i := range 1 + (wire.MaxMessage-100-len(u))/20 {
				fits[wire.NodeID(fmt.Sprintf("y%07d-%d", len(fits), i))] = 1
			}
		}
		long := update("x", "p", 2, fits)
		if len(long) > wire.MaxMessage {
			t.Fatalf("the test's own update has %d bytes", len(long))
		}
		say(t, peer, long)
		say(t, peer, update("z", "p", 2, map[wire.NodeID]float64{"p": 1}))
		for msg := range heard {
			if u, err := wire.ParseRouteUpdate(msg); err == nil && u.NodeID == "z" {
				break
			}
		}

		n.mu.Lock()
		for id := range many {
			n.db.SetLink(id, 1)
		}
		n.floodLocked(0)
		n.floodLocked(0)
		n.mu.Unlock()
		synctest.Wait()
		if got := len(n.Status().Connections); got != 2 {
			t.Errorf("%d links are left, want 2", got)
		}
		if got := n.Counters().DropTooLarge; got != 2 {
			t.Errorf("%d messages were counted as too large, want the 2 of its own", got)
		}
		if got := strings.Count(log.String(), "too many neighbours"); got != 1 {
			t.Errorf("it was logged %d times that there are too many neighbours, want once:\n%s", got, log.String())
		}
	})
}

// TestAGreetingDoesNotEndTheLink: however much a peer makes a node remember, memory for it is bounded and those that come
// later are told what fits, not cut off.
func TestAGreetingDoesNotEndTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := New(Config{ID: "n"})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		peer := rawPeer(t, n, LinkOptions{Cost: 1})
		listen(peer, wire.TypeReject)
		say(t, peer, hello("p"))
		say(t, peer, update("p", "p", 2, map[wire.NodeID]float64{"n": 1, "x": 1}))
		say(t, peer, update("x", "p", 1, map[wire.NodeID]float64{"p": 1}))
		large := strings.Repeat("x", 60_000)
		for i := range 600 {
			ad := wire.Advertisement{NodeID: "x", Service: fmt.Sprintf("s%d", i), Time: time.Now(), Tags: map[string]string{"t": large}}
			msg, err := ad.Append(nil)
			if err != nil {
				t.Fatal(err)
			}
			say(t, peer, msg)
			say(t, peer, update(wire.NodeID(fmt.Sprint(i, large)), "p", 1, map[wire.NodeID]float64{"p": 1}))
		}
		synctest.Wait()
		n.mu.Lock()
		adverts, updates := 0, 0
		for _, ad := range n.adverts {
			adverts += len(ad.raw)
		}
		for _, heard := range n.updates {
			updates += cap(heard.msg)
		}
		if adverts != n.advertBytes || adverts > maxAdvertBytes || adverts < maxAdvertBytes/2 {
			t.Errorf("%d bytes of advertisements are kept, %d were counted", adverts, n.advertBytes)
		}
		if updates != n.updateBytes || updates > maxUpdateBytes || updates < maxUpdateBytes/2 {
			t.Errorf("%d bytes of updates are kept, %d were counted", updates, n.updateBytes)
		}
		n.mu.Unlock()

		newcomer := rawPeer(t, n, LinkOptions{Cost: 1})
		say(t, newcomer, hello("o"))
		time.Sleep(routePeriod / 2)
		synctest.Wait() // It has read nothing.
		n.mu.Lock()
		if n.links["o"] == nil {
			t.Error("the new neighbour was cut off for what it was told")
		}
		n.mu.Unlock()
		_ = peer.Close()
		time.Sleep(topology.Retention + 2*sweepPeriod)
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.advertBytes != 0 || n.updateBytes != 0 {
			t.Errorf("%d bytes of advertisements and %d of updates are left", n.advertBytes, n.updateBytes)
		}
	})
}

// TestAdvertisementsAreBounded: what a peer advertises in the name of others costs bounded memory, and goes when it is not
// repeated; then there is room again.
func TestAdvertisementsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := New(Config{ID: "n"})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		flood := func() {
			peer := rawPeer(t, n, LinkOptions{Cost: 1})
			listen(peer, wire.TypeReject)
			say(t, peer, hello("p"))
			for node := range 25 {
				for service := range maxAdvertsPerNode + 50 {
					ad := wire.Advertisement{NodeID: wire.NodeID(fmt.Sprintf("x%d", node)), Service: fmt.Sprintf("s%d", service), Time: time.Now()}
					msg, err := ad.Append(nil)
					if err != nil {
						t.Fatal(err)
					}
					say(t, peer, msg)
				}
			}
			synctest.Wait()
			if got := len(n.Status().Advertisements); got != maxAdverts {
				t.Errorf("%d advertisements are kept, want %d", got, maxAdverts)
			}
			_ = peer.Close()
		}
		flood()
		time.Sleep(advertLife + 2*sweepPeriod)
		if got := n.Status().Advertisements; len(got) != 0 || len(n.advertsOf) != 0 {
			t.Errorf("%d advertisements of %d nodes outlive their time", len(got), len(n.advertsOf))
		}
		flood()
	})
}
