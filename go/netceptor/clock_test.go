package netceptor

import (
	"testing"
	"time"
	"unsafe"

	"github.com/pyreceptor/pyreceptor/go/link"
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
