package workceptor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/workceptor/proc"
	"github.com/pyreceptor/pyreceptor/go/workceptor/runner"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// cancelWait is how long a client waits for the end of a program that it has cancelled. A runner gives the program ten
// seconds; after this the answer is "pending".
const cancelWait = 3 * time.Second

// The runner of a cancelled unit has this long to end by itself, which takes it 17 s at most. One that hangs is killed then, and
// what its command has left with it. Python work has no runner around it: what [runner] does for a command is done from here.
const (
	hungRunner  = 20 * time.Second
	stubborn    = 10 * time.Second // From SIGINT to SIGTERM for Python work.
	treeGrace   = time.Second      // From SIGTERM to SIGKILL.
	killedLimit = 5 * time.Second  // How long killed processes may take to go.
)

// commandWorker is a unit whose work a runner process does.
type commandWorker struct {
	j      *job
	attach string   // How a client is attached to the command; "" if none is.
	client *os.File // The runner's end of the connection to that client. Belongs to the caller of launch.

	mu       sync.Mutex
	runner   *os.Process // nil: none was started or found.
	found    bool        // The runner was there before this node was.
	over     bool        // No runner will be started any more.
	stopping bool        // Somebody sees to it that the runner ends.
	ended    chan struct{}
	helpers  int                            // How many helpers were started because the one before had died. Belongs to who waits for their end.
	warm     *warmRunner                    // Not nil: the runner is one of the pool, and does this unit.
	attended atomic.Bool                    // The runner tells of the status; the file may be behind.
	podType  atomic.Pointer[KubernetesType] // See pods.
	pollLock chan struct{}                  // Not nil: the kernel cannot tell when the runner ends; this tells when to look.
}

func (w *commandWorker) start(context.Context) (string, error) {
	t, ok := w.j.e.workType(w.j.look().rec.WorkType)
	if !ok || t.argv == nil {
		return "", fmt.Errorf("%w %s", ErrUnknownType, w.j.look().rec.WorkType)
	}
	return w.j.admit(t, func() error { return w.launch(t) })
}

// launch starts the runner and follows it.
func (w *commandWorker) launch(t workType) error {
	if t.command != "" && w.client == nil {
		return w.launchWarm(t)
	}
	j, e := w.j, w.j.e
	if w.client == nil { // Without its client an interactive unit is not made up for.
		if err := w.mark(); err != nil {
			return err
		}
	}
	e.watch.add(j.dir.Path(), j)
	launching, failed := unit.DetailLaunching, "Failed to start command runner: "
	if t.pods != nil {
		launching, failed = unit.DetailConnecting, unit.DetailCreatingPod
	}
	if !j.apply(false, unit.Event{Kind: unit.Prepare, Detail: launching, Size: unit.KeepSize}) {
		e.watch.remove(j)
		return ErrCancelled
	}
	pid, err := w.spawn(t)
	if err != nil {
		e.watch.remove(j)
		if !errors.Is(err, ErrCancelled) {
			j.failBecause(failed+err.Error(), unit.ReasonStart)
		}
		return err
	}
	j.update(false, func(rec *unit.Record) bool {
		if rec.Pod() != nil {
			rec.EditPod(func(p *unit.PodExtra) { p.Submission = "" })
			return true
		}
		if rec.State.Complete() && rec.Extra == nil {
			return false
		}
		rec.SetPid(pid)
		return true
	})
	w.follow(pid)
	return nil
}

// mark notes on the disk that the payload is complete and a runner is about to have the unit: a node that is killed now goes on
// with it.
func (w *commandWorker) mark() error {
	err := w.j.dir.MarkLaunched(proc.BootID())
	if err != nil {
		w.j.failBecause("Failed to start command runner: "+err.Error(), unit.ReasonDisk)
	}
	return err
}

// spawn starts the runner, unless the unit has been cancelled.
func (w *commandWorker) spawn(t workType) (pid int, err error) {
	rec, environ := w.j.look().rec, w.j.e.cfg.Environ
	params := ""
	if command := rec.Command(); command != nil {
		params = command.Params
	}
	if t.pods != nil && rec.Pod() == nil || t.pods == nil && rec.Command() == nil {
		return 0, errors.New("the parameters have been taken out of the status file")
	}
	if t.interpreter != "" {
		if environ == nil {
			environ = os.Environ()
		}
		environ = proc.Environ(environ, w.j.dir.Path())
	}
	return w.spawnProcess(t.argv(params, w.j.dir.Path()), environ)
}

// spawnProcess starts what plays the runner's part, unless the unit has been cancelled.
func (w *commandWorker) spawnProcess(argv, environ []string) (pid int, err error) {
	program, err := exec.LookPath(argv[0])
	if err != nil {
		return 0, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return 0, ErrCancelled
	}
	files := []*os.File{null, os.Stdout, os.Stderr}
	if w.client != nil {
		argv, files = append(argv, "attach="+w.attach), append(files, w.client)
	}
	process, err := os.StartProcess(program, argv, &os.ProcAttr{
		Env:   environ,
		Files: files,
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		w.over = true
		return 0, err
	}
	w.runner = process
	return process.Pid, nil
}

// follow waits for the end of the runner in the background.
func (w *commandWorker) follow(pid int) {
	w.j.set(func() { w.j.runner = true })
	w.mu.Lock()
	exit, err := openExit(pid)
	if err != nil {
		w.pollLock = make(chan struct{}, 1)
		w.pollLock <- struct{}{}
	}
	w.mu.Unlock()
	w.j.e.begin(func() {
		if exit != nil {
			err = awaitExit(w.j.e.ctx, exit)
		} else {
			err = w.awaitLock()
		}
		if err == nil {
			w.runnerEnded()
		}
	})
}

// openExit returns a file that becomes readable when the process ends.
func openExit(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

func awaitExit(ctx context.Context, exit *os.File) error {
	defer exit.Close()
	defer context.AfterFunc(ctx, func() { exit.Close() })()
	raw, err := exit.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 && err == nil
	})
}

// awaitLock is for kernels before 5.3 and runners that nobody can be asked about: it looks at the runner's lock each
// time somebody has closed it.
func (w *commandWorker) awaitLock() error {
	for {
		select {
		case <-w.j.e.ctx.Done():
			return w.j.e.ctx.Err()
		case <-w.pollLock:
			if alive, known := w.j.dir.RunnerAlive(); known && !alive {
				return nil
			}
		}
	}
}

func (w *commandWorker) lockChanged() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pollLock != nil {
		select {
		case w.pollLock <- struct{}{}:
		default:
		}
	}
}

// runnerEnded settles a unit whose runner is no more.
func (w *commandWorker) runnerEnded() {
	w.mu.Lock()
	w.over, w.warm = true, nil
	process := w.runner
	w.mu.Unlock()
	var exit *os.ProcessState
	if process != nil {
		exit, _ = process.Wait() // Reaps a child, and answers at once for others, or when the host has reaped it.
	}
	if !w.podGoesOn() {
		w.settle(exit)
	}
}

// settle ends a unit that no runner has any more. exit is how its process has ended, nil if that is not known.
func (w *commandWorker) settle(exit *os.ProcessState) {
	j := w.j
	j.reload()
	if _, err := j.dir.Look(); errors.Is(err, fs.ErrPermission) {
		w.deny(err)
		return
	}
	switch {
	case !j.complete():
		w.killOrphans()
		w.deletePod()
	case j.look().rec.State == Canceled && w.alone(): // Python work has told its process group only, also if its type was taken back.
		w.endTree(syscall.SIGTERM, treeGrace)
	}
	detail, reason := unit.DetailRunnerDied, unit.ReasonRunnerDied
	if interpreter := w.interpreter(); interpreter != "" && exit != nil {
		detail, reason = w.workerDied(interpreter, exit)
	}
	if !j.dir.Exists() {
		detail, reason = unit.DetailDirectoryGone, unit.ReasonDirectory
	}
	now := time.Now().UTC()
	cancelled := j.wasCancelled()
	size, sum := unit.KeepSize, ""
	if !j.complete() {
		size = j.dir.StdoutSize()
		sum = digest(j, size)
	}
	j.update(true, func(rec *unit.Record) bool {
		if cancelled {
			rec.Apply(unit.Event{
				Kind: unit.Cancel, Detail: unit.DetailCanceled, Size: size, At: now,
				Outcome: unit.Outcome{Reason: unit.ReasonCanceled, SHA256: sum},
			})
		}
		rec.Apply(unit.Event{
			Kind: unit.Fail, Detail: detail, Size: size, At: now, Outcome: unit.Outcome{Reason: reason, SHA256: sum},
		})
		if rec.Pod() == nil {
			rec.Extra = nil
		}
		return true
	})
	j.e.watch.remove(j)
	j.settled()
	close(w.ended)
	j.e.gate.leave(j)
}

// deny gives up a unit whose runner is no more and has left a record that this process may not read: it works for another
// user. How the unit has ended is in there, and whoever may read it will see it.
func (w *commandWorker) deny(err error) {
	j := w.j
	j.e.log.Error("unit has ended, how cannot be read", "unit", j.id, "err", err)
	j.note(func(rec *unit.Record) bool {
		rec.Detail = unit.DetailDenied + err.Error()
		j.ahead = false // The file knows better.
		return true
	})
	j.e.watch.remove(j)
	close(w.ended)
	j.e.gate.leave(j)
}

// killOrphans ends the program of a runner that has died without ending it.
func (w *commandWorker) killOrphans() {
	info, err := w.j.dir.RunnerInfo()
	if err != nil || info.Boot != proc.BootID() {
		return
	}
	whole := proc.KillCgroup(info.Cgroup, w.j.dir.Path())
	group := proc.KillGroup(info.Program, info.ProgramStart, info.Runner)
	if !whole { // What has left the group is known by its environment.
		group = proc.EndUnit(w.j.dir.Path(), info.RunnerStart, syscall.SIGKILL, 0, killedLimit) || group
	}
	if group || whole {
		w.j.e.log.Warn("runner died; its command was killed", "unit", w.j.id, "pid", info.Program)
	}
}

// endTree ends all that lives of the unit: first is the signal that comes before SIGKILL.
func (w *commandWorker) endTree(first syscall.Signal, grace time.Duration) {
	if info, err := w.j.dir.RunnerInfo(); err == nil && info.Boot == proc.BootID() {
		proc.EndUnit(w.j.dir.Path(), info.RunnerStart, first, grace, killedLimit)
	}
}

// interpreter is the program that does the unit if that is Python work; else "".
func (w *commandWorker) interpreter() string {
	t, _ := w.j.e.workType(w.j.look().rec.WorkType)
	return t.interpreter
}

// alone reports whether the unit had a process of its own, and not a runner of the pool that goes on with others.
func (w *commandWorker) alone() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.runner != nil
}

func (w *commandWorker) python() bool { return w.interpreter() != "" }

// workerDied says how the process of a Python unit has ended that did not say so itself.
func (w *commandWorker) workerDied(interpreter string, exit *os.ProcessState) (detail string, reason unit.Reason) {
	if _, begun := w.j.dir.RunnerAlive(); begun {
		return unit.DetailRunnerDied + ": " + exit.String(), unit.ReasonRunnerDied
	}
	return fmt.Sprintf("Error loading worker: %s ended with %s before it began. It must be Python 3.11 or newer with pyreceptor "+
		"installed; what it says is in the log of the node", interpreter, exit), unit.ReasonPlugin
}

// insist sees to it that the runner, which was asked to stop, does.
func (w *commandWorker) insist() {
	wait := w.j.e.hungRunner
	if w.python() {
		wait = w.j.e.stubborn
	}
	limit := time.NewTimer(wait)
	defer limit.Stop()
	select {
	case <-w.ended:
		return
	case <-w.j.e.ctx.Done():
		return
	case <-limit.C:
	}
	w.j.e.log.Warn("unit does not end and is killed", "unit", w.j.id)
	if w.python() {
		w.endTree(syscall.SIGTERM, treeGrace)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.signalLocked(syscall.SIGKILL) // What a runner of commands leaves is killed when it has ended.
}

func (w *commandWorker) resume() {
	j := w.j
	rec := j.look().rec
	if rec.State.Complete() && !w.summing(rec) {
		w.finish()
		return
	}
	_, known := j.dir.RunnerAlive()
	t, ok := j.e.workType(rec.WorkType)
	if ok && t.argv != nil && rec.State == Pending && rec.Detail == unit.DetailQueued && !known {
		j.queue(t, func() error { return w.launch(t) })
		return
	}
	j.e.watch.add(j.dir.Path(), j)
	pid, alive := w.findRunner(rec)
	if alive {
		j.e.gate.occupy(j, rec.WorkType)
		w.takeUp(pid)
		return
	}
	j.reload() // The runner may have finished since the directory was read.
	info, _ := j.dir.RunnerInfo()
	if pods := w.pods(); pods != nil {
		if rec := j.look().rec; rec.State != Pending || !w.relaunch(rec) {
			w.resumePod(pods)
		}
		return
	}
	if rec := j.look().rec; rec.State == Pending && info.Program == 0 {
		if w.relaunch(rec) {
			return
		}
		w.killOrphans()
		reason := unit.ReasonRestart
		switch {
		case info.Boot != "" && info.Boot != proc.BootID():
			reason = unit.ReasonRebooted
		case rec.Detail == unit.DetailNotStarted || info.Runner != 0:
			reason = unit.ReasonRunnerDied // It may have started the command, and had no time to say so.
		}
		j.failBecause(unit.DetailPendingAtRestart, reason)
	} else if !rec.State.Complete() {
		w.killOrphans()
		reason := unit.ReasonRunnerDied
		if info.Boot != "" && info.Boot != proc.BootID() {
			reason = unit.ReasonRebooted
		}
		j.abandon(unit.DetailRunnerDied, reason)
	}
	j.e.watch.remove(j)
	w.finish()
}

// takeUp follows a runner that this engine has not started.
func (w *commandWorker) takeUp(pid int) {
	w.mu.Lock()
	w.runner, _ = os.FindProcess(pid)
	w.found, w.over, w.warm = true, false, nil
	w.mu.Unlock()
	w.follow(pid)
	w.j.reload()
	if info, err := w.j.dir.RunnerInfo(); err == nil && info.Program != 0 && w.j.look().rec.State == Pending {
		running := unit.Event{Kind: unit.Run, Detail: unit.DetailRunning(info.Program), Size: unit.KeepSize, At: time.Now().UTC()}
		w.j.note(func(rec *unit.Record) bool { return rec.Apply(running) }) // The file will say so in a moment.
	}
	w.j.outputChanged()
}

// summing reports whether a runner is about to tell the checksum of a complete unit's output.
func (w *commandWorker) summing(rec unit.Record) bool {
	if rec.SHA256 != "" || rec.StdoutSize == 0 {
		return false
	}
	_, alive := w.findRunner(rec)
	return alive
}

// relaunch starts a unit that has its payload and never had a runner: the node ended in the moment between the two. The payload
// may have been lost if the machine was started anew since. A runner that is on its way all the same, and this one's, find out
// by the lock which of them is first.
func (w *commandWorker) relaunch(rec unit.Record) bool {
	t, ok := w.j.e.workType(rec.WorkType)
	if !ok || t.argv == nil || t.interpreter != "" && rec.Detail != unit.DetailLaunching { // A worker may have begun with it.
		return false
	}
	if info, err := w.j.dir.RunnerInfo(); err != nil || info.Runner != 0 || info.Boot != proc.BootID() {
		return false
	}
	w.j.e.watch.remove(w.j)
	w.j.queue(t, func() error { return w.launch(t) })
	return true
}

// finish says that there is no runner to wait for.
func (w *commandWorker) finish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	close(w.ended)
}

// findRunner looks for a living runner of a unit that was found on disk. One that holds the unit's lock is believed;
// runners of other implementations have none and are known by their command line.
func (w *commandWorker) findRunner(rec unit.Record) (pid int, alive bool) {
	if alive, known := w.j.dir.RunnerAlive(); known {
		info, _ := w.j.dir.RunnerInfo()
		return info.Runner, alive && proc.Start(info.Runner) == info.RunnerStart
	}
	if c := rec.Command(); c != nil {
		return c.Pid, runner.IsRunnerOf(c.Pid, w.j.dir.Path())
	}
	return 0, false
}

func (j *job) wasCancelled() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.cancelled
}

// cancel ends the unit at once if there is no runner yet, and else tells the runner and waits a while.
func (w *commandWorker) cancel(ctx context.Context) (pending bool, err error) {
	w.j.set(func() { w.j.cancelled = true })
	w.mu.Lock()
	if w.runner == nil {
		over := w.over
		w.over = true
		w.mu.Unlock()
		if !over {
			w.j.cancelUnstarted()
		}
		return false, nil
	}
	w.signalLocked(w.stopSignal())
	if !w.stopping {
		w.stopping = w.j.e.begin(w.insist)
	}
	w.mu.Unlock()
	return w.j.awaitEnd(ctx, w.ended), nil
}

// stopSignal is what ends a unit's process in its own way. A runner of this implementation gets SIGTERM: one that was started
// a moment ago does not listen yet, and SIGINT would then be lost if the node ignores it, as whatever a shell script starts
// in the background does. Other runners and Python work know SIGINT.
func (w *commandWorker) stopSignal() syscall.Signal {
	if _, ours := w.j.dir.RunnerAlive(); w.python() || w.found && !ours {
		return syscall.SIGINT
	}
	return syscall.SIGTERM
}

// signalLocked asks the runner to stop, or kills it. The process handle cannot hit another process that got the same ID, except
// on kernels without pidfds, where the lock or the command line is asked first.
func (w *commandWorker) signalLocked(sig syscall.Signal) {
	if w.runner == nil {
		return
	}
	if w.pollLock != nil {
		if pid, alive := w.findRunner(w.j.look().rec); !alive || pid != w.runner.Pid {
			return
		}
	}
	signal := w.runner.Signal
	if w.warm != nil {
		signal = func(os.Signal) error { return w.warm.signal(sig, w.j.dir.Path()) }
	}
	if err := signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		w.j.e.log.Error("runner cannot be stopped", "unit", w.j.id, "err", err)
	}
}

func (w *commandWorker) release(ctx context.Context, force bool) (pending bool, err error) {
	if !w.j.complete() {
		if pending, err = w.cancel(ctx); err != nil {
			return false, err
		}
	}
	w.mu.Lock()
	running := w.runner != nil
	if running && w.warm != nil && w.j.complete() { // What its runner has left to do is for nothing.
		_ = w.warm.send(runner.ReleaseMessage(w.j.dir.Path()))
	}
	w.mu.Unlock()
	if deleted := w.deletePod(); deleted != nil && !pending { // One that is cancelled is deleted by its helper.
		return w.j.removeAfter(ctx, true, deleted, w.j.awaitEnd(ctx, deleted), force)
	}
	return w.j.removeAfter(ctx, running, w.ended, pending, force)
}
