package workceptor

import (
	"sync"
	"time"
)

// gather is how long the end of a unit waits for others to be made durable together with it.
const gather = 50 * time.Millisecond

// durable makes the results of units durable soon after they have been told of. A unit that is released before needs it no
// more.
type durable struct {
	e *Engine

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
	wait := time.NewTimer(gather)
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
			if err := j.dir.SyncResult(); err != nil {
				d.e.log.Error("result of unit cannot be made durable", "unit", j.id, "err", err)
			}
		}
		wait.Reset(gather)
	}
}
