package workceptor

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pyreceptor/pyreceptor/go/workceptor/runner"
	"github.com/pyreceptor/pyreceptor/go/workceptor/store"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// launchWarm has a runner of the pool do the unit. Until the unit ends the runner writes the status file and tells of it;
// the file need not be read.
func (w *commandWorker) launchWarm(t workType) error {
	j, e := w.j, w.j.e
	if err := w.mark(); err != nil {
		return err
	}
	w.attended.Store(true)
	launching := unit.Event{Kind: unit.Prepare, Detail: unit.DetailLaunching, Size: unit.KeepSize}
	if !j.note(func(rec *unit.Record) bool { return rec.Apply(launching) }) {
		w.attended.Store(false)
		return ErrCancelled
	}
	r, err := w.handOver(t.command)
	if err != nil {
		w.attended.Store(false)
		e.watch.remove(j)
		if !errors.Is(err, ErrCancelled) {
			j.failBecause("Failed to start command runner: "+err.Error(), unit.ReasonStart)
		}
		return err
	}
	if !e.begin(func() { w.attend(r, t.command) }) {
		r.conn.Close() // It goes on, and the next engine takes it up.
	}
	return nil
}

// handOver gives the unit to a runner, unless it has been cancelled.
func (w *commandWorker) handOver(command string) (*warmRunner, error) {
	j, e := w.j, w.j.e
	if stdout, err := j.dir.OpenStdout(); err == nil {
		stdout.Close()
		e.watch.addFile(j.dir.File(store.StdoutFile), j)
	}
	for try := 0; ; try++ {
		r, err := e.runners.take()
		if err != nil {
			w.mu.Lock()
			w.over = true
			w.mu.Unlock()
			return nil, err
		}
		w.mu.Lock()
		over := w.over
		if !over {
			if err = r.send(runner.RunMessage(command, j.dir.Path())); err == nil {
				w.runner, w.warm = r.process, r
			}
		}
		w.over = over || err != nil && try == idlePerCore
		w.mu.Unlock()
		switch {
		case over:
			e.runners.put(r)
			return nil, ErrCancelled
		case err == nil:
			return r, nil
		}
		e.runners.dismiss(r) // Somebody has killed it while it waited.
		if try == idlePerCore || errors.Is(err, errTooLong) {
			return nil, err
		}
	}
}

// killedEarly is how many runners may die before they have begun with the unit.
const killedEarly = 3

// attend sees to it that the unit is done and ends.
func (w *commandWorker) attend(r *warmRunner, command string) {
	for try := 0; ; try++ {
		if !w.hear(r) {
			return
		}
		r.process.Wait()
		_, begun := w.j.dir.RunnerAlive()
		if begun || try == killedEarly || w.j.wasCancelled() || !w.j.dir.Exists() {
			break
		}
		w.mu.Lock()
		w.runner, w.warm = nil, nil
		w.mu.Unlock()
		w.j.e.watch.remove(w.j)
		next, err := w.handOver(command)
		if err != nil {
			break
		}
		r = next
	}
	w.attended.Store(false)
	if !w.overtaken() {
		w.runnerEnded()
	}
}

// overtaken goes on with a runner of an earlier engine, if one was on its way when this one started its own, and was first.
func (w *commandWorker) overtaken() bool {
	w.j.reload()
	rec := w.j.look().rec
	pid, alive := w.findRunner(rec)
	if rec.State.Complete() || !alive {
		return false
	}
	w.j.e.watch.remove(w.j)
	w.j.e.watch.add(w.j.dir.Path(), w.j)
	w.takeUp(pid)
	if w.j.wasCancelled() {
		w.mu.Lock()
		w.signalLocked(w.stopSignal())
		w.mu.Unlock()
	}
	return true
}

// beginLimit is how long the end of an engine waits for a runner that has a unit, and has not begun with it: until it has the
// lock of the unit, the next engine cannot know of it.
const beginLimit = 5 * time.Second

// hear hears what the runner says until the unit has ended; true if the runner died before that.
func (w *commandWorker) hear(r *warmRunner) (died bool) {
	var begun atomic.Bool
	defer context.AfterFunc(w.j.e.ctx, func() {
		if begun.Load() || r.conn.SetReadDeadline(time.Now().Add(w.j.e.beginLimit)) != nil {
			r.conn.Close()
		}
	})()
	for {
		n, err := r.conn.Read(r.buf[:])
		report, bad := runner.ParseReport(r.buf[:n])
		begun.Store(true)
		switch {
		case w.j.e.ctx.Err() != nil:
			r.conn.Close() // The runner goes on, and the next engine takes it up.
			return false
		case err != nil || bad != nil:
			r.conn.Close()
			return true
		case report.Ended:
			w.unitEnded(r, report)
			return false
		case report.Program == 0:
			if rec, err := unit.Parse(report.Status); err == nil && rec.State.Complete() {
				w.j.set(func() { w.j.runner = true }) // Its checksum may follow.
				w.j.note(func(now *unit.Record) bool { *now = rec; return true })
				w.tellWhenRead(r)
			}
		default:
			w.j.note(func(rec *unit.Record) bool {
				rec.SetPid(r.process.Pid)
				detail := unit.DetailRunning(report.Program)
				return rec.Apply(unit.Event{Kind: unit.Run, Detail: detail, Size: unit.KeepSize, At: report.Began})
			})
		}
	}
}

// readersLimit is how long the checksum of a unit that has ended waits for those who read its output.
const readersLimit = 5 * time.Second

// tellWhenRead tells the runner when nobody waits for more of the output of the unit, which has ended. Those who do have the
// processor first, unless other units may have to wait for this one's place.
func (w *commandWorker) tellWhenRead(r *warmRunner) {
	j := w.j
	unread := func() { _ = r.send(runner.UnreadMessage(j.dir.Path())) } // Else it does not wait for ever.
	wait := func() {
		defer unread()
		ctx, stop := context.WithTimeout(j.e.ctx, readersLimit)
		defer stop()
		for {
			now := j.look() // Before the readers: one who leaves after that wakes us.
			if !j.awaited() {
				return
			}
			select {
			case <-now.changed:
			case <-ctx.Done():
				return
			}
		}
	}
	if !j.awaited() || j.e.gate.limited(j) || !j.e.begin(wait) {
		unread()
	}
}

// unitEnded takes the final status over.
func (w *commandWorker) unitEnded(r *warmRunner, report runner.Report) {
	j, e := w.j, w.j.e
	rec, err := unit.Parse(report.Status)
	w.mu.Lock()
	w.over, w.runner, w.warm = true, nil, nil
	w.mu.Unlock()
	if report.Last {
		e.runners.dismiss(r)
	} else {
		e.runners.put(r)
	}
	w.attended.Store(false)
	if err != nil || !rec.State.Complete() || j.wasCancelled() {
		if !w.overtaken() {
			w.settle(nil)
		}
		return
	}
	j.note(func(now *unit.Record) bool { *now, j.clean = rec, !report.Last; return true })
	j.settled()
	e.watch.remove(j)
	e.results.add(j)
	close(w.ended)
	e.gate.leave(j)
}

// signal has the runner of the pool that does the unit stop the command, or kills it.
func (r *warmRunner) signal(sig syscall.Signal, unitDir string) error {
	if sig == syscall.SIGKILL {
		return r.process.Signal(sig)
	}
	err := r.send(runner.CancelMessage(unitDir))
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, os.ErrClosed) {
		return os.ErrProcessDone
	}
	return err
}
