package workceptor

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
)

// TestManyUnits runs, cancels and releases many units at once, here and on another node, while the link comes and goes.
// Whatever the order, every unit ends, every output is whole, and nothing is left behind.
func TestManyUnits(t *testing.T) {
	m, alpha, beta := pair(t)
	before := openFiles(t)
	flaps := make(chan struct{})
	var link, clients sync.WaitGroup
	link.Go(func() {
		for range flaps {
			m.cut("beta")
			m.mend("beta")
		}
	})
	for client := range 8 {
		clients.Go(func() {
			random := rand.New(rand.NewPCG(uint64(client), 1))
			for round := range 12 {
				node := []string{"beta", "localhost"}[random.IntN(2)]
				text := fmt.Sprintf("%d %d\n", client, round)
				id := submit(t, alpha, request(node, "cat", ""), text)
				flaps <- struct{}{}
				switch random.IntN(3) {
				case 0:
					if _, err := alpha.Cancel(testContext(t), id); err != nil {
						t.Errorf("cancel: %v", err)
					}
					wait(t, alpha, id)
				case 1:
					if got, s := output(t, alpha, id, 0), wait(t, alpha, id); got != text || s.State != Succeeded {
						t.Errorf("got %q in %v %q, want %q", got, s.State, s.Detail, text)
					}
				}
				if _, err := alpha.Release(testContext(t), id, false); err != nil {
					t.Errorf("release: %v", err)
				}
			}
		})
	}
	clients.Wait()
	close(flaps)
	link.Wait()
	m.mend("beta")
	// A submit that breaks off before the executor's answer leaves a unit there that nobody knows of.
	for id, s := range beta.List() {
		if strings.HasPrefix(s.Detail, "Error reading input data: ") {
			beta.Release(testContext(t), id, false)
		}
	}
	for _, e := range []*Engine{alpha, beta} {
		changes := e.Subscribe(1000)
		for ctx := testContext(t); len(e.List()) > 0; {
			select {
			case <-changes.C:
			case <-ctx.Done():
				t.Fatalf("%s: units are left: %v", e.cfg.Mesh.ID(), e.List())
			}
		}
		changes.Close()
		if entries := left(t, e); len(entries) != 0 {
			t.Errorf("directories are left: %v", entries)
		}
	}
	alpha.Close()
	beta.Close()
	if after := openFiles(t); after > before {
		t.Errorf("%d files are open, %d were before", after, before)
	}
}

func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
