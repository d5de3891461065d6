package netceptor

import (
	"context"
	"sync"

	"github.com/pyreceptor/pyreceptor/go/fault"
)

// group is the goroutines of a node. Other than with a sync.WaitGroup, one may be started while the last ones are waited
// for, and after that: programs close their streams when they like.
type group struct {
	caught func(*fault.Error) // See Config.OnPanic.

	mu      sync.Mutex
	running int
	none    chan struct{} // Set by Wait.
}

// Go runs f as one of them. Who waited for the last one already does not wait for it.
func (g *group) Go(f func()) {
	g.add()
	go g.run(f)
}

// After runs f as one of them once ctx has ended. Until then it takes no goroutine.
func (g *group) After(ctx context.Context, f func()) {
	g.add()
	context.AfterFunc(ctx, func() { g.run(f) })
}

func (g *group) run(f func()) {
	defer g.done()
	defer fault.Catch(g.caught)
	f()
}

func (g *group) add() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running++
}

func (g *group) done() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running--
	if g.running == 0 && g.none != nil {
		close(g.none)
		g.none = nil
	}
}

// Wait waits until there are none. It is called once.
func (g *group) Wait() {
	g.mu.Lock()
	if g.running == 0 {
		g.mu.Unlock()
		return
	}
	none := make(chan struct{})
	g.none = none
	g.mu.Unlock()
	<-none
}
