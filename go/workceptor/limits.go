package workceptor

import (
	"fmt"
	"sort"
	"time"
)

// Limits bound what an engine holds and does at once. Zero is no limit.
type Limits struct {
	MaxRunning int           // Units of this node that run at once; others wait in order.
	KeepUnits  int           // Complete units that are kept; of more, the oldest are released.
	KeepFor    time.Duration // Complete units are released so long after their end.
}

func (l Limits) check() error {
	if l.MaxRunning < 0 || l.KeepUnits < 0 || l.KeepFor < 0 {
		return fmt.Errorf("work engine: %+v: want limits above 0, or 0 for none", l)
	}
	return nil
}

// SetLimits replaces the limits. Units that run already are left alone.
func (e *Engine) SetLimits(l Limits) error {
	if err := l.check(); err != nil {
		return err
	}
	e.mu.Lock()
	e.limits = l
	e.mu.Unlock()
	e.gate.setTotal(l.MaxRunning)
	e.sweepSoon()
	return nil
}

// sweepPause is the least time between two looks at all units. Under load many ends share one look.
const sweepPause = time.Second

// sweepSoon has the complete units looked at.
func (e *Engine) sweepSoon() {
	select {
	case e.sweeps <- struct{}{}:
	default:
	}
}

// sweep releases complete units beyond the limits: after each end of a unit, and when the next one is old enough.
func (e *Engine) sweep() {
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-e.sweeps:
		case <-next.C:
		case <-e.ctx.Done():
			return
		}
		if wait := e.releaseOld(time.Now()); wait > 0 {
			next.Reset(wait)
		}
		pause := time.NewTimer(sweepPause)
		select {
		case <-pause.C:
		case <-e.ctx.Done():
			pause.Stop()
			return
		}
	}
}

// releaseOld releases what is beyond the limits and returns when to look again; 0 is not before something happens.
func (e *Engine) releaseOld(now time.Time) (wait time.Duration) {
	e.mu.Lock()
	limits := e.limits
	e.mu.Unlock()
	if limits.KeepUnits == 0 && limits.KeepFor == 0 {
		return 0
	}
	type finished struct {
		j  *job
		at time.Time
	}
	var complete []finished
	for _, j := range e.jobs() {
		s := j.look()
		if x := s.rec.Remote(); x != nil && x.LocalReleased {
			continue // It will go when its other node can be told.
		}
		if s.rec.State.Complete() && !s.copying && !s.gone {
			complete = append(complete, finished{j, j.finishedAt(s, now)})
		}
	}
	sort.Slice(complete, func(i, j int) bool { return complete[i].at.Before(complete[j].at) })
	for i, f := range complete {
		tooMany := limits.KeepUnits > 0 && len(complete)-i > limits.KeepUnits
		left := f.at.Add(limits.KeepFor).Sub(now) // So a time far ahead, of a clock that was wrong, does not overflow.
		if !tooMany && (limits.KeepFor == 0 || left > 0) {
			if limits.KeepFor > 0 {
				wait = left
			}
			break
		}
		if _, err := e.Release(e.ctx, f.j.id, false); err != nil {
			e.log.Warn("old unit cannot be released", "unit", f.j.id, "err", err)
		}
	}
	return wait
}

// finishedAt is when the unit became complete: what its record says, or, if another implementation has written that, when it
// did. From the first time that it is asked for it holds whatever somebody sets the clock to: nothing gets old by that.
func (j *job) finishedAt(s snapshot, now time.Time) time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.finished.IsZero() {
		date := s.rec.Finished
		if date.IsZero() {
			date = j.dir.StatusTime()
		}
		j.finished = now.Add(date.Sub(now))
	}
	return j.finished
}
