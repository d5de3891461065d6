package netceptor

import (
	"sync/atomic"
	"time"
)

// Subscription delivers events of a node. A subscriber that does not keep up loses events, never delays the node.
type Subscription struct {
	C    <-chan Event // Closed when the subscription or the node ends.
	c    chan Event
	node *Node
	lost atomic.Uint64
}

// Subscribe delivers events from now on; size is how many may wait.
func (n *Node) Subscribe(size int) *Subscription {
	c := make(chan Event, size)
	s := &Subscription{C: c, c: c, node: n}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.subs == nil {
		close(c)
		return s
	}
	n.subs[s] = struct{}{}
	return s
}

// Lost returns and resets the number of events that did not fit.
func (s *Subscription) Lost() uint64 { return s.lost.Swap(0) }

// Close ends the subscription. Safe to call twice.
func (s *Subscription) Close() {
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	if _, ok := s.node.subs[s]; ok {
		delete(s.node.subs, s)
		close(s.c)
	}
}

func (n *Node) publishLocked(e Event) {
	e.Time = time.Now()
	for s := range n.subs {
		select {
		case s.c <- e:
		default:
			s.lost.Add(1)
		}
	}
}

func (n *Node) closeSubscriptions() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for s := range n.subs {
		close(s.c)
	}
	n.subs = nil
}
