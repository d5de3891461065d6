package workceptor

import (
	"sync"
	"time"
)

// gather is how long news of a unit waits for others to be written together with it.
const gather = 50 * time.Millisecond

// settleAfter is how long a unit may be in the journal of new units only. Most have been released by then.
const settleAfter = time.Second

// durable writes, or makes durable, what was noted of units a moment before. A unit that is released meanwhile needs it no more.
type durable struct {
	e     *Engine
	after time.Duration
	do    func(*job) error
	end   func() error // Called when all are done, if not nil.

	mu      sync.Mutex
	pending []*job
	running bool
}

func (d *durable) add(j *job) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pending = append(d.pending, j)
	if !d.running {
		d.running = d.e.begin(d.run)
	}
}

func (d *durable) run() {
	wait := time.NewTimer(d.after)
	defer wait.Stop()
	for {
		select {
		case <-wait.C:
		case <-d.e.ctx.Done():
		}
		d.mu.Lock()
		jobs := d.pending
		d.pending, d.running = nil, len(d.pending) > 0
		d.mu.Unlock()
		if len(jobs) == 0 {
			return
		}
		for _, j := range jobs {
			if j.look().gone {
				continue
			}
			if err := d.do(j); err != nil {
				d.e.log.Error("unit cannot be made durable", "unit", j.id, "err", err)
			}
		}
		if d.end != nil {
			if err := d.end(); err != nil {
				d.e.log.Error("journal of new units cannot be written", "err", err)
			}
		}
		wait.Reset(d.after)
	}
}
