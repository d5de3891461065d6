package netceptor

import (
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
