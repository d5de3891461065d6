package workceptor

import "sync"

// Subscription delivers changes of units. When the receiver is slow the oldest changes are dropped and counted; the
// last change of every unit that is not dropped is its present state.
type Subscription struct {
	C <-chan Change // Closed by Close and when the engine ends.

	e    *Engine
	mu   sync.Mutex
	c    chan Change
	lost uint64
	over bool
}

// Subscribe delivers every change from now on through a queue of size changes, at least one.
func (e *Engine) Subscribe(size int) *Subscription {
	c := make(chan Change, max(size, 1))
	s := &Subscription{C: c, c: c, e: e}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		s.end()
	} else {
		e.subscriptions[s] = struct{}{}
	}
	return s
}

// Lost returns how many changes were dropped so far.
func (s *Subscription) Lost() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}

// Close ends the subscription. It may be called twice.
func (s *Subscription) Close() {
	s.e.mu.Lock()
	delete(s.e.subscriptions, s)
	s.e.mu.Unlock()
	s.end()
}

func (s *Subscription) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.over = true
		close(s.c)
	}
}

func (s *Subscription) send(c Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.over {
		select {
		case s.c <- c:
			return
		default:
		}
		select {
		case <-s.c:
			s.lost++
		default:
		}
	}
}

func (e *Engine) publish(c Change) {
	e.mu.Lock()
	var all []*Subscription
	for s := range e.subscriptions {
		all = append(all, s)
	}
	e.mu.Unlock()
	for _, s := range all {
		s.send(c)
	}
}
