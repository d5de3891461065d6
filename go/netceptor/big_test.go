package netceptor

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// TestMeshAtScale is a campaign, not part of a normal run: RECEPTOR_SIM_NODES names the number of nodes. It prints what
// a cold start and one change of a link cost a mesh of random degree 3.
func TestMeshAtScale(t *testing.T) {
	count, err := strconv.Atoi(os.Getenv("RECEPTOR_SIM_NODES"))
	if err != nil {
		t.Skip("RECEPTOR_SIM_NODES is not set: `make simulate` sets it")
	}
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, uint64(count)))
		s := newSimulation(t)
		ids := make([]wire.NodeID, count)
		for i := range ids {
			ids[i] = wire.NodeID(fmt.Sprintf("node-%04d", i))
			s.add(ids[i])
		}
		for i := 1; i < count; i++ {
			s.link(ids[rng.IntN(i)], ids[i], 1)
		}
		for range count / 2 {
			a, b := rng.IntN(count), rng.IntN(count)
			if _, taken := s.links[[2]wire.NodeID{ids[min(a, b)], ids[max(a, b)]}]; a != b && !taken {
				s.link(ids[min(a, b)], ids[max(a, b)], 1)
			}
		}
		start := time.Now()
		for !s.complete(count - 1) {
			time.Sleep(50 * time.Millisecond)
			synctest.Wait()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		t.Logf("%d nodes, %d links: all routes %v after the start (virtual time), %d MiB", count, len(s.links), time.Since(start), m.Sys>>20)
		s.close()
	})
}

// complete reports whether every node has routes to all others.
func (s *simulation) complete(routes int) bool {
	for _, n := range s.nodes {
		n.mu.Lock()
		known := n.routes.Len()
		n.mu.Unlock()
		if known < routes {
			return false
		}
	}
	return true
}
