package netceptor

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// countingConn counts what is written, by the moment within a second.
type countingConn struct {
	link.Conn
	writes, between *atomic.Int64
}

func (c countingConn) WriteBatch(parts ...wire.Batch) error {
	c.writes.Add(1)
	if time.Now().Nanosecond() != 0 {
		c.between.Add(1)
	}
	return c.Conn.WriteBatch(parts...)
}

// TestIdleLinksSpeakTogether: an idle link of ours is written to once a second in each direction, at a full second, so
// that a node wakes once for all its links; the updates and advertisements of a mesh go with that.
func TestIdleLinksSpeakTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var writes, between atomic.Int64
		var nodes []*Node
		for _, id := range []wire.NodeID{"a", "b", "c"} {
			n, err := New(Config{ID: id})
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			nodes = append(nodes, n)
			time.Sleep(337 * time.Millisecond) // Nodes start at any time.
			if len(nodes) == 1 {
				continue
			}
			x, y := link.Pipe()
			for i, end := range []link.Conn{x, y} {
				if _, err := nodes[len(nodes)-2+i].AddLink(countingConn{end, &writes, &between}, LinkOptions{Cost: 1}); err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(time.Minute) // Advertisements and the first updates are out.
		synctest.Wait()
		writes.Store(0)
		between.Store(0)
		const seconds = 100
		time.Sleep(seconds * time.Second)
		synctest.Wait()
		if w := writes.Load(); w < 4*seconds*3/4 || w > 4*(seconds+1) {
			t.Errorf("two links were written to %d times in %d s, want at most once a second and direction", w, seconds)
		}
		if b := between.Load(); b != 0 {
			t.Errorf("%d writes were not at a full second", b)
		}
		if next, _, err := nodes[0].WaitRoute(t.Context(), "c"); err != nil || next != "b" {
			t.Errorf("after a quiet while the way from a to c goes by %q, %v", next, err)
		}
	})
}

// TestSilenceIsJudgedAtItsLimit: a link that has beats ends exactly when its limit is over, wherever in a second that is.
func TestSilenceIsJudgedAtItsLimit(t *testing.T) {
	for _, phase := range []time.Duration{0, 1, 250 * time.Millisecond, 999 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			n, err := New(Config{ID: "n"})
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			time.Sleep(phase)
			peer := rawPeer(t, n, LinkOptions{Cost: 1})
			start := time.Now()
			ended := speak(peer, false)
			say(t, peer, introduction(t, "p", 5, nil))
			<-ended
			if took := time.Since(start); took != beatLimit {
				t.Errorf("a peer that spoke %v after a full second was given up after %v, want %v", phase, took, beatLimit)
			}
		})
	}
}
