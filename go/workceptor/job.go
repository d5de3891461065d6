package workceptor

import (
	"cmp"
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pyreceptor/pyreceptor/go/workceptor/proc"
	"github.com/pyreceptor/pyreceptor/go/workceptor/store"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// worker does what depends on the kind of work. A new kind of work is a new worker.
type worker interface {
	// start is called once, when the payload is complete. An error fails the unit unless it has ended already.
	start(ctx context.Context) (result string, err error)
	// resume is called once instead of start for a unit that was found on disk.
	resume()
	// cancel ends the work. pending: that goes on in the background.
	cancel(ctx context.Context) (pending bool, err error)
	// release ends the work and has the unit removed. pending: both go on in the background.
	release(ctx context.Context, force bool) (pending bool, err error)
}

// deniedWorker is for a unit whose files this process may not read: whatever has become of it, it is left as it is.
type deniedWorker struct {
	j   *job
	err error
}

func (w deniedWorker) start(context.Context) (string, error) { return "", w.err }
func (w deniedWorker) resume()                               {}
func (w deniedWorker) cancel(context.Context) (bool, error)  { return false, w.err }

// release with force takes it off the list, and the files stay.
func (w deniedWorker) release(_ context.Context, force bool) (bool, error) {
	if !force {
		return false, w.err
	}
	w.j.forget()
	return false, nil
}

// job is one unit in memory. Lock order: files, mu, the engine's mu.
type job struct {
	e          *Engine
	id         UnitID
	name       string // Of its submission. Guarded by the engine's mu.
	dir        *store.Dir
	work       worker
	configured bool

	files sync.Mutex  // Held from reading or writing the status file until the memory says the same. See unlockFiles.
	clean bool        // The command has left nothing behind but its files. Guarded by files.
	ahead bool        // The memory says what the file does not yet: see later. Guarded by files.
	stale atomic.Bool // The status file has changed: who has files locked reads it before the unlock.

	fetched  atomic.Int64            // How much of the output the last who read some had then,
	fetching atomic.Pointer[os.File] // and the file of who is reading it: see hasRead.

	mu        sync.Mutex
	rec       unit.Record
	changed   chan struct{} // Closed, and replaced, when anything here or the output changes.
	started   bool          // The payload is complete and the worker has taken over.
	cancelled bool          // A client asked for the end: "Killed" means Canceled.
	copying   bool          // Output is still to come although the state may be final.
	gone      bool          // Released.
	position  int           // In the queue, as it was told last.
	finished  time.Time     // See finishedAt.
	trouble   trouble       // What keeps the unit from the node that does it.
	runner    bool          // One is known to be alive.
	owed      bool          // The node that has done the unit is about to tell the checksum of its output.
	readers   int           // They wait for more of the output.
}

func newJob(e *Engine, id UnitID, dir *store.Dir, rec unit.Record) *job {
	return &job{e: e, id: id, dir: dir, rec: rec, changed: make(chan struct{})}
}

// snapshot is a consistent view of a job.
type snapshot struct {
	rec     unit.Record
	offered bool
	changed <-chan struct{}
	copying bool
	gone    bool

	position int
	trouble  trouble
}

// trouble is why a node cannot be spoken to, and since when; zero if it can, as far as is known.
type trouble struct {
	text  string
	since time.Time
}

func (j *job) look() snapshot {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lookLocked()
}

func (j *job) lookLocked() snapshot {
	return snapshot{j.rec, j.configured, j.changed, j.copying || j.summingLocked(), j.gone, j.position, j.trouble}
}

// ended is why a unit that has not started never will; nil if it has not ended.
func (s snapshot) ended() error {
	switch x := s.rec.Remote(); {
	case !s.gone && !s.rec.State.Complete():
		return nil
	case s.rec.Reason == unit.ReasonExpired && x != nil:
		return &ExpiredError{x.Expiration}
	}
	return ErrCancelled
}

// begun has the worker take over, unless the unit has ended.
func (j *job) begun() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.lookLocked().ended(); err != nil {
		return err
	}
	j.started = true
	return nil
}

func (j *job) status() Status { return j.statusOf(j.look()) }

func (j *job) statusOf(now snapshot) Status {
	if !queued(now.rec) {
		return now.statusAt(0)
	}
	return now.statusAt(j.e.gate.position(j))
}

// statusAt is the status of a unit whose place in the queue of this node is known; 0 is none.
func (s snapshot) statusAt(position int) Status {
	status := s.rec.Status(s.offered)
	status.Unsettled = s.copying && s.rec.State.Complete()
	if queued(s.rec) {
		status.QueuePosition = cmp.Or(position, s.position) // The one known is that of a unit that waits on another node.
	}
	if !s.rec.State.Complete() || s.copying {
		status.Trouble, status.TroubleSince = s.trouble.text, s.trouble.since
	}
	return status
}

// meets notes what keeps the unit from the node that does it; nil if nothing does.
func (j *job) meets(err error) {
	text := ""
	if reasoned, ok := errors.AsType[interface {
		error
		Reason() string
	}](err); ok {
		text = reasoned.Reason()
	} else if err != nil {
		text = err.Error()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.trouble.text != text {
		now := trouble{text, j.trouble.since}
		switch {
		case text == "":
			now.since = time.Time{}
		case now.since.IsZero():
			now.since = time.Now().UTC()
		}
		j.trouble = now
		j.tellLocked()
	}
}

func queued(rec unit.Record) bool {
	return rec.State == unit.Pending && rec.Detail == unit.DetailQueued
}

// summingLocked reports whether the unit is complete but for the checksum of its output, which is about to be told.
func (j *job) summingLocked() bool {
	return (j.runner || j.owed) && j.rec.State.Complete() && j.rec.StdoutSize > 0 && j.rec.SHA256 == ""
}

// settled notes that who does the unit has ended: what was not told is not told any more.
func (j *job) settled() {
	j.mu.Lock()
	defer j.mu.Unlock()
	missed := j.summingLocked()
	j.runner, j.owed = false, false
	if missed {
		j.e.sweepSoon()
		j.tellLocked()
	}
}

// await notes that somebody waits for output of the unit, until the result is called, once.
func (j *job) await() (done func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.readers++
	return sync.OnceFunc(func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.readers--; j.readers == 0 {
			j.wakeLocked()
		}
	})
}

// awaited reports whether somebody does.
func (j *job) awaited() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.readers > 0
}

func (j *job) complete() bool { return j.look().rec.State.Complete() }

// wakeLocked wakes all who wait for a change.
func (j *job) wakeLocked() {
	close(j.changed)
	j.changed = make(chan struct{})
}

func (j *job) set(f func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f()
	j.wakeLocked()
}

// update changes the record on disk and in memory. If the disk refuses, the memory changes all the same, so that
// clients see what happened, and the error is returned.
func (j *job) update(sync bool, edit func(*unit.Record) bool) error {
	j.files.Lock()
	defer j.unlockFiles()
	if sync {
		if err := j.e.root.Settle(j.id); err != nil {
			j.e.log.Error("directory of unit cannot be made durable", "unit", j.id, "err", err)
		}
	}
	now := j.look()
	rec, err := j.dir.Update(sync, func(rec *unit.Record) bool {
		if j.ahead {
			*rec = now.rec
		}
		return edit(rec) || j.ahead
	})
	if err == nil {
		j.ahead = false
	} else {
		if j.look().gone {
			return nil
		}
		j.e.log.Error("status of unit cannot be written", "unit", j.id, "err", err)
		rec = now.rec
		if !edit(&rec) {
			return err
		}
		if j.dir.Mend(rec) {
			j.e.log.Warn("status of unit was damaged and is written anew", "unit", j.id)
			j.ahead, err = false, nil
		}
	}
	j.adopt(rec)
	return err
}

// later changes the record in memory. The file follows with the next update, or about 50 ms later: this is for changes that the
// node finds out again if it dies before.
func (j *job) later(edit func(*unit.Record) bool) {
	changed := j.note(func(rec *unit.Record) bool {
		if !edit(rec) {
			return false
		}
		j.ahead = true
		return true
	})
	if changed {
		j.e.results.add(j)
	}
}

// catchUp has the file say what the memory does.
func (j *job) catchUp() {
	j.files.Lock()
	ahead := j.ahead
	j.unlockFiles()
	if ahead {
		j.update(false, func(*unit.Record) bool { return false })
	}
}

// note changes the record in memory. The file says so already, or does not matter.
func (j *job) note(edit func(*unit.Record) bool) bool {
	j.files.Lock()
	defer j.unlockFiles()
	rec := j.look().rec
	if !edit(&rec) {
		return false
	}
	j.adopt(rec)
	return true
}

// apply tells the state machine of an event; true if it was accepted.
func (j *job) apply(sync bool, e unit.Event) (accepted bool) {
	j.update(sync, func(rec *unit.Record) bool {
		accepted = rec.Apply(e)
		return accepted
	})
	return accepted
}

func (j *job) failBecause(detail string, reason unit.Reason) bool {
	return j.apply(true, unit.Event{
		Kind: unit.Fail, Detail: detail, Size: unit.KeepSize, At: time.Now().UTC(), Outcome: unit.Because(reason),
	})
}

// abandon fails a unit that was found on disk and whose work nobody does any more. What there is of its output is all of it.
func (j *job) abandon(detail string, reason unit.Reason) {
	size := j.dir.StdoutSize()
	j.apply(true, unit.Event{
		Kind: unit.Fail, Detail: detail, Size: size,
		At: time.Now().UTC(), Outcome: unit.Outcome{Reason: reason, SHA256: digest(j, size)},
	})
}

// payloadCame has the unit say that it waits for its payload no longer. The file says so with the next change: until then it is
// as if it had not come.
func (j *job) payloadCame() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.rec.State == Pending && j.rec.Detail == unit.DetailWaiting {
		j.rec.Detail = unit.DetailStarting
		j.tellLocked()
	}
}

// startFailed fails the unit if err is the end of its start.
func (j *job) startFailed(err error) {
	if err != nil && !errors.Is(err, ErrClosed) && !errors.Is(err, context.Canceled) {
		j.failBecause("Error starting worker: "+err.Error(), unit.ReasonStart)
	}
}

// admit starts the unit, at once or when its turn comes.
func (j *job) admit(t workType, launch func() error) (result string, err error) {
	if !j.e.gate.enter(j, t.name) {
		if err := errors.Join(j.e.root.Settle(j.id), j.dir.SyncStdin()); err != nil {
			return "", err
		}
		if !j.apply(true, unit.Event{Kind: unit.Prepare, Detail: unit.DetailQueued, Size: unit.KeepSize}) {
			return "", ErrCancelled
		}
		j.queue(t, launch)
		return JobSubmitted, nil
	}
	if err := launch(); err != nil {
		j.e.gate.leave(j)
		return "", err
	}
	return JobStarted, nil
}

func (j *job) queue(t workType, launch func() error) {
	j.e.gate.wait(j, t.name, func() {
		j.e.begin(func() {
			if err := launch(); err != nil {
				j.startFailed(err)
				j.e.gate.leave(j)
			}
		})
	})
}

// cancelUnstarted ends a unit that nothing runs for, and will not.
func (j *job) cancelUnstarted() {
	j.apply(true, unit.Event{
		Kind: unit.Cancel, Detail: unit.DetailCanceled, Size: unit.KeepSize,
		At: time.Now().UTC(), Outcome: unit.Because(unit.ReasonCanceled),
	})
	j.e.gate.leave(j)
}

// awaitEnd waits a while for the end of a unit that was told to stop; true if it goes on.
func (j *job) awaitEnd(ctx context.Context, ended <-chan struct{}) (pending bool) {
	wait := time.NewTimer(cancelWait)
	defer wait.Stop()
	select {
	case <-ended:
		return false
	case <-wait.C:
	case <-ctx.Done():
	case <-j.e.ctx.Done():
	}
	return true
}

// removeAfter removes a unit of this node that is complete, or was told to stop. running says that ended will be closed; the end
// of a complete one is a matter of moments, and waited for so that the last update of the status does not meet a directory
// that is being deleted. pending: that goes on in the background.
func (j *job) removeAfter(ctx context.Context, running bool, ended <-chan struct{}, pending, force bool) (bool, error) {
	if pending && !force {
		return j.e.begin(func() {
			select {
			case <-ended:
				if err := j.remove(); err != nil {
					j.e.log.Error("unit cannot be deleted", "unit", j.id, "err", err)
				}
			case <-j.e.ctx.Done():
			}
		}), nil
	}
	if running && !pending {
		j.awaitEnd(ctx, ended)
	}
	err := j.remove()
	if err != nil && force {
		j.e.log.Error("unit cannot be deleted", "unit", j.id, "err", err)
		j.forget()
		err = nil
	}
	return false, err
}

// unlockFiles reads the status file if it has changed meanwhile, so that nobody has to wait for the lock to do that.
func (j *job) unlockFiles() {
	for {
		j.readAndUnlock()
		if !j.stale.Load() || !j.files.TryLock() {
			return
		}
	}
}

func (j *job) readAndUnlock() {
	defer j.files.Unlock()
	if j.stale.Swap(false) {
		j.read()
	}
}

// statusChanged is called by the watcher, which must not wait for a disk.
func (j *job) statusChanged() {
	j.stale.Store(true)
	if j.files.TryLock() {
		j.unlockFiles()
	}
}

// reload makes the memory say what the file says.
func (j *job) reload() {
	j.files.Lock()
	j.stale.Store(true)
	j.unlockFiles()
}

func (j *job) read() {
	if w, ok := j.work.(*commandWorker); ok && w.attended.Load() {
		return
	}
	rec, err := j.dir.Peek()
	if err != nil {
		// Another implementation's runner writes in place: an event follows when it is done. A directory that is gone
		// is told by its own event.
		j.e.log.Debug("status of unit cannot be read", "unit", j.id, "err", err)
		return
	}
	j.adopt(rec)
}

func (j *job) adopt(rec unit.Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.cancelled && rec.State == unit.Failed && unit.Killed(rec.Detail) {
		rec.Apply(unit.Event{
			Kind: unit.Cancel, Detail: unit.DetailCanceled, Size: unit.KeepSize, Outcome: unit.Because(unit.ReasonCanceled),
		})
	}
	if !rec.State.Complete() && !j.rec.State.Complete() {
		rec.StdoutSize = max(rec.StdoutSize, j.rec.StdoutSize) // The memory may have seen more output already.
	}
	same := rec.State == j.rec.State && rec.Detail == j.rec.Detail && rec.StdoutSize == j.rec.StdoutSize &&
		string(rec.Append(nil)) == string(j.rec.Append(nil))
	before := j.rec.State.Complete() && !j.summingLocked()
	j.rec = rec
	if !before && rec.State.Complete() {
		j.e.sweepSoon()
	}
	if !same {
		j.tellLocked()
	}
}

// tellLocked wakes all who wait and tells the subscribers; it keeps j.mu so that they learn in order.
func (j *job) tellLocked() {
	j.wakeLocked()
	s := snapshot{rec: j.rec, offered: j.configured, position: j.position, trouble: j.trouble, copying: j.summingLocked()}.statusAt(0)
	j.e.publish(Change{Unit: j.id, Status: s, Released: j.gone})
}

// outputChanged, like the other methods of a watched directory, is called by the watcher. It wakes the readers, and
// counts the new output before the runner does.
func (j *job) outputChanged() {
	info, err := os.Lstat(j.dir.File(store.StdoutFile))
	j.mu.Lock()
	defer j.mu.Unlock()
	if err == nil && !j.rec.State.Complete() && info.Size() > j.rec.StdoutSize {
		j.rec.StdoutSize = info.Size()
		j.tellLocked()
		return
	}
	j.wakeLocked()
}

func (j *job) runnerChanged() {
	if c, ok := j.work.(*commandWorker); ok {
		c.lockChanged()
	}
}

func (j *job) directoryGone() {
	if !j.look().gone {
		j.e.log.Warn("unit directory was taken away", "unit", j.id)
	}
}

// remove deletes the unit from disk and memory.
func (j *job) remove() error {
	j.files.Lock()
	if !j.clean {
		if info, err := j.dir.RunnerInfo(); err == nil { // Processes that the command left behind may have been in it.
			proc.RemoveCgroup(info.Cgroup, j.dir.Path())
		}
	}
	j.e.root.Forget(j.id)
	trash, err := j.dir.Discard()
	clean := j.clean
	j.unlockFiles()
	if err != nil {
		return err
	}
	if trash != nil {
		j.e.delete(trash, clean) // Begun before anybody learns that the unit is gone.
	}
	j.forget()
	return nil
}

// forget makes the engine forget the unit, wherever its directory is.
func (j *job) forget() {
	j.e.mu.Lock()
	delete(j.e.units, j.id)
	if n := j.e.named[j.name]; n != nil && n.j == j {
		delete(j.e.named, j.name)
	}
	j.e.mu.Unlock()
	j.e.gate.leave(j)
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.gone {
		j.gone = true
		j.tellLocked()
	}
}
