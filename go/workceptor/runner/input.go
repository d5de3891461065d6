package runner

import (
	"sync"

	"github.com/pyreceptor/pyreceptor/go/workceptor/attach"
)

// inputQueue keeps input that the command has not taken yet, so that what comes after it, signals for instance, is heard. When
// it is full, add waits: a client that counts does not get there. One goroutine adds, one takes.
type inputQueue struct {
	mu        sync.Mutex
	changed   *sync.Cond
	waiting   []byte
	held      int // The bytes of waiting, and those that are being written.
	ended     bool
	abandoned bool
}

func newInputQueue() *inputQueue {
	q := &inputQueue{}
	q.changed = sync.NewCond(&q.mu)
	return q
}

// add takes more input; nothing is its end, after which the rest is dropped.
func (q *inputQueue) add(content []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.held > 0 && q.held+len(content) > attach.Window && !q.abandoned {
		q.changed.Wait()
	}
	if q.ended || q.abandoned {
		return
	}
	q.ended = len(content) == 0
	q.waiting = append(q.waiting, content...)
	q.held += len(content)
	q.changed.Broadcast()
}

// next waits for input and moves some of it to buf; 0 is the end.
func (q *inputQueue) next(buf []byte) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) == 0 && !q.ended {
		q.changed.Wait()
	}
	n := copy(buf, q.waiting)
	if q.waiting = q.waiting[n:]; len(q.waiting) == 0 {
		q.waiting = nil // Most of the time there is none.
	}
	return n
}

// taken tells that the command has so much of what next has returned.
func (q *inputQueue) taken(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.held -= n
	q.changed.Broadcast()
}

// drain waits until the command has taken everything, or nobody expects that any more.
func (q *inputQueue) drain() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.held > 0 && !q.abandoned {
		q.changed.Wait()
	}
}

// abandon ends all waiting for the command.
func (q *inputQueue) abandon() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.abandoned = true
	q.changed.Broadcast()
}
