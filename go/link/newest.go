package link

import (
	"container/list"
	"sync"
)

// newest holds a bounded number of things that are not trusted yet, such as connections in their handshake. When one
// more comes, the oldest goes: strangers who open many and finish none cannot keep a newcomer out, and an honest one
// has as long as it takes to open a whole set.
type newest[T comparable] struct {
	mu    sync.Mutex
	limit int
	order list.List // Of T, oldest first.
	at    map[T]*list.Element
}

// add takes x and returns the one that has to go for it, if any.
func (n *newest[T]) add(x T) (out T, full bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.at == nil {
		n.at = map[T]*list.Element{}
	}
	n.at[x] = n.order.PushBack(x)
	if n.order.Len() <= n.limit {
		return out, false
	}
	out = n.order.Remove(n.order.Front()).(T)
	delete(n.at, out)
	return out, true
}

// remove takes x out and reports whether it was in.
func (n *newest[T]) remove(x T) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	e, ok := n.at[x]
	if ok {
		n.order.Remove(e)
		delete(n.at, x)
	}
	return ok
}
