package netceptor

import (
	"context"
	"sync"

	"github.com/pyreceptor/pyreceptor/go/fault"
)

// group is the goroutines of a node.
type group struct {
	sync.WaitGroup
	caught func(*fault.Error) // See Config.OnPanic.
}

// Go runs f as one of them.
func (g *group) Go(f func()) {
	g.WaitGroup.Go(func() {
		defer fault.Catch(g.caught)
		f()
	})
}

// After runs f as one of them once ctx has ended. Until then it takes no goroutine.
func (g *group) After(ctx context.Context, f func()) {
	g.Add(1)
	context.AfterFunc(ctx, func() {
		defer g.Done()
		defer fault.Catch(g.caught)
		f()
	})
}
