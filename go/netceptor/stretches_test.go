package netceptor_test

import (
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/simulation"
)

// TestStretchesTellThatMuchPasses: the sender, the relay and the receiver of as many packets as make a stretch each tell
// so, once however many stretches there were, and not for one packet less.
func TestStretchesTellThatMuchPasses(t *testing.T) {
	in(t, func(t *testing.T, m *simulation.Mesh) {
		check(t, m.Link("a", "b", 1))
		check(t, m.Link("b", "c", 1))
		settle(t, m, time.Minute)
		far, err := m.Node("c").ListenPacket("in", nil)
		check(t, err)
		near, err := m.Node("a").ListenPacket("out", nil)
		check(t, err)
		received := make([]byte, 1)
		pass := func(packets int) {
			for range packets {
				_, err := near.WriteTo([]byte{1}, far.LocalAddr())
				check(t, err)
				_, _, err = far.ReadFrom(received)
				check(t, err)
			}
		}
		told := func(node *netceptor.Node) int { return len(node.Stretches()) }
		used := m.Node("a").Counters().Originated
		pass(netceptor.Stretch - 1 - int(used))
		for i, want := range []int{0, 1, 1} {
			if got := told(m.Node("a")); got != want {
				t.Errorf("round %d: the sender told %d times, want %d", i, got, want)
			}
			pass([]int{1, netceptor.Stretch, 0}[i])
		}
		for name, node := range map[string]*netceptor.Node{"relay": m.Node("b"), "receiver": m.Node("c")} {
			if got := told(node); got != 1 {
				t.Errorf("the %s told %d times, want 1", name, got)
			}
		}
	}, "a", "b", "c")
}
