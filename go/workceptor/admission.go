package workceptor

import (
	"slices"
	"sync"
	"time"
)

// admission decides which units of this node run. Those that must wait start in the order they came, except that a unit
// whose type has its limit running does not hold up units of other types.
type admission struct {
	mu      sync.Mutex
	total   int             // Units that may run at once; 0 is any number.
	limits  map[string]int  // Those of a type, as it was registered last; none is any number.
	running map[*job]string // Name of the type of each.
	byType  map[string]int
	waiting []waiting
	moved   chan struct{} // Holds a token when the queue has changed since somebody took it.
}

type waiting struct {
	j     *job
	name  string
	start func() // Called when the unit is admitted, without a lock; must not block.
}

func newAdmission(total int) *admission {
	return &admission{total: total, limits: map[string]int{}, running: map[*job]string{}, byType: map[string]int{}, moved: make(chan struct{}, 1)}
}

// enter admits the unit if it may run at once and nobody of its type waits; false if not.
func (a *admission) enter(j *job, name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.roomLocked(name) || slices.ContainsFunc(a.waiting, func(w waiting) bool { return w.name == name }) {
		return false
	}
	a.admitLocked(j, name)
	return true
}

// occupy admits a unit that runs already.
func (a *admission) occupy(j *job, name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.admitLocked(j, name)
}

// wait puts the unit at the end of the queue, from which it may be started at once.
func (a *admission) wait(j *job, name string, start func()) {
	a.mu.Lock()
	a.waiting = append(a.waiting, waiting{j, name, start})
	a.changedLocked()
	ready := a.readyLocked()
	a.mu.Unlock()
	startAll(ready)
}

// leave is called when a unit has ended or will not run. Others take its place.
func (a *admission) leave(j *job) {
	a.mu.Lock()
	if name, ok := a.running[j]; ok {
		delete(a.running, j)
		if a.byType[name]--; a.byType[name] == 0 {
			delete(a.byType, name)
		}
	}
	if before := len(a.waiting); before > 0 {
		a.waiting = slices.DeleteFunc(a.waiting, func(w waiting) bool { return w.j == j })
		if len(a.waiting) < before {
			a.changedLocked()
		}
	}
	ready := a.readyLocked()
	a.mu.Unlock()
	startAll(ready)
}

// limited reports whether others may have to wait for the place of a running unit.
func (a *admission) limited(j *job) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.total > 0 || a.limits[a.running[j]] > 0
}

func (a *admission) setTotal(total int) {
	a.mu.Lock()
	a.total = total
	ready := a.readyLocked()
	a.mu.Unlock()
	startAll(ready)
}

// setLimit counts for the units of the type that wait already, too.
func (a *admission) setLimit(name string, limit int) {
	a.mu.Lock()
	a.limits[name] = limit
	ready := a.readyLocked()
	a.mu.Unlock()
	startAll(ready)
}

func startAll(ready []waiting) {
	for _, w := range ready {
		w.start()
	}
}

func (a *admission) roomLocked(name string) bool {
	limit := a.limits[name]
	return (a.total == 0 || len(a.running) < a.total) && (limit == 0 || a.byType[name] < limit)
}

func (a *admission) admitLocked(j *job, name string) {
	a.running[j] = name
	a.byType[name]++
}

func (a *admission) readyLocked() (ready []waiting) {
	a.waiting = slices.DeleteFunc(a.waiting, func(w waiting) bool {
		if !a.roomLocked(w.name) {
			return false
		}
		a.admitLocked(w.j, w.name)
		ready = append(ready, w)
		return true
	})
	if len(ready) > 0 {
		a.changedLocked()
	}
	return ready
}

func (a *admission) changedLocked() {
	select {
	case a.moved <- struct{}{}:
	default:
	}
}

// positions tells of all units that wait which comes first; 1 is the next.
func (a *admission) positions() map[*job]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.waiting) == 0 {
		return nil
	}
	all := make(map[*job]int, len(a.waiting))
	for i, w := range a.waiting {
		all[w.j] = i + 1
	}
	return all
}

func (a *admission) position(j *job) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return 1 + slices.IndexFunc(a.waiting, func(w waiting) bool { return w.j == j })
}

// tellQueue tells the units that wait, and so those who watch them, when their places change. Of a long queue that moves fast
// not every move is told: it may take a twentieth of one processor's time.
func (e *Engine) tellQueue() {
	const share = 20
	for {
		select {
		case <-e.gate.moved:
		case <-e.ctx.Done():
			return
		}
		began := time.Now()
		for j, position := range e.gate.positions() {
			j.moveTo(position)
		}
		rest := time.NewTimer(share * time.Since(began))
		select {
		case <-rest.C:
		case <-e.ctx.Done():
		}
		rest.Stop()
	}
}

// moveTo notes the unit's place in the queue.
func (j *job) moveTo(position int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.position != position && queued(j.rec) {
		j.position = position
		j.tellLocked()
	}
}
