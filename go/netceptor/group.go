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
	tally
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
	g.guard(f)
}

// guard runs f in a goroutine that somebody else waits for.
func (g *group) guard(f func()) {
	defer fault.Catch(g.caught)
	f()
}

// Wait waits until there are none. It is called once.
func (g *group) Wait() { <-g.none() }

// tally counts what goes on.
type tally struct {
	mu     sync.Mutex
	count  int
	awaits chan struct{} // Set by none.
}

func (t *tally) add() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count++
}

func (t *tally) done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count--
	if t.count == 0 && t.awaits != nil {
		close(t.awaits)
		t.awaits = nil
	}
}

// none is closed when nothing goes on. It is called once.
func (t *tally) none() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	none := make(chan struct{})
	if t.count == 0 {
		close(none)
	} else {
		t.awaits = none
	}
	return none
}
