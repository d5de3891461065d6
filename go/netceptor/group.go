package netceptor

import "sync"

// group is the goroutines of a node.
type group struct {
	sync.WaitGroup
	caught func(any) // See Config.OnPanic.
}

// Go runs f as one of them.
func (g *group) Go(f func()) {
	g.WaitGroup.Go(func() {
		if g.caught != nil {
			defer func() {
				if p := recover(); p != nil {
					g.caught(p)
				}
			}()
		}
		f()
	})
}
