// Package runner is the process between the node and one user's command. The node starts its own executable as
//
//	receptor --node id=worker --log-level LEVEL --command-runner command=COMMAND params=PARAMS unitdir=UNITDIR
//
// in a session of its own, and the runner outlives the node: it starts the command, keeps the unit's status file, and
// ends with the command's exit code (255 for a signal, a stop, or trouble of its own).
//
// # One unit after another
//
// With the argument serve=FD instead of these three, the runner does units for the node at the other end of that descriptor
// (serve.go has the messages), one at a time, so that a unit costs no start of a program. It tells the node of the end of a
// command and leaves it to the node to make the result durable. A runner whose node has gone ends the unit that it has, makes
// it durable itself, and ends. It also ends after a unit that was stopped or left processes behind.
//
// # What the command gets
//
// The node's environment, and in it as RECEPTOR_UNIT_DIR the unit's directory; the node's directory and umask; the file stdin as standard input; the file stdout, appended to, as
// standard output and error; a process group of its own, and a cgroup where the node may make one; an empty signal mask,
// whatever the host of the node has blocked; and no other open file.
//
// # What the runner writes
//
// Pending "Not started yet", Running "Running: PID N" if the command is not over after 10 ms, the size of the output while it
// grows (at most every 250 ms), and the final state with the final size and checksum. Output up to 1 MiB is durable before
// the state; more of it, together with the state, before the runner ends. The checksum of much output may follow the state. A unit that is finished already is left alone: the runner ends at once.
//
// While it lives it holds a flock on runner.lock, in which it tells the process IDs and start times of itself and of
// the command, and the cgroup. A node that finds the lock free knows that the runner is dead, however it died, and can
// tell the command's processes from strangers.
//
// # Being stopped
//
// SIGINT, SIGTERM or SIGHUP: SIGINT to the command's process group. When the command has ended, what is left of its
// descendants gets SIGTERM and, a second later, SIGKILL; so does a command that has not ended after 10 s, with all of
// them. Then Failed, "Killed". Descendants that have made sessions of their own or whose parents have ended are among them:
// they become children of the runner. If the unit's directory is taken away the command is stopped in the same way. A
// command that ends by itself may leave processes behind; they go on.
//
// # Interactive units
//
// With the argument attach=pipes, or attach=ROWS:COLS:TERM for a terminal, the command gets neither of the files: the runner
// speaks the frames of package attach over its file descriptor 3. The terminal's command has a session of its own.
// When the client is gone the command gets SIGHUP instead of SIGINT.
//
// The package imports little, so that a runner starts within a few milliseconds and stays small.
package runner

import (
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/workceptor/proc"
	"github.com/pyreceptor/pyreceptor/go/workceptor/store"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

const (
	directive = "--command-runner"
	exitError = 255

	// Output that grows is reported this often; the pauses get longer while it does not grow. This polls because inotify
	// instances are few per user (128 by default), so thousands of runners cannot have one each. The node has one and
	// sees output at once.
	firstTick = 10 * time.Millisecond
	minTick   = 250 * time.Millisecond
	maxTick   = time.Second

	tries = 4 // How often the final status is tried to be written.
)

// Arguments returns the arguments, program name left out, that make the receptor binary a runner.
func Arguments(logLevel, command, params, unitDir string) []string {
	return []string{
		"--node", "id=worker", "--log-level", logLevel,
		directive, "command=" + command, "params=" + params, unitDirArgument(unitDir),
	}
}

func unitDirArgument(unitDir string) string { return "unitdir=" + unitDir }

// IsRunnerOf reports whether process pid is a runner of the unit in unitDir, of whatever make.
func IsRunnerOf(pid int, unitDir string) bool {
	return pid > 1 && (proc.HasArgument(pid, unitDirArgument(unitDir)) || proc.HasArgument(pid, unitDir))
}

// IsRunner reports whether a process with these arguments, program name left out, is to be a runner.
func IsRunner(args []string) bool { return slices.Contains(args, directive) }

type options struct{ command, params, unitDir, attach, serve string }

func parse(args []string) (options, error) {
	var o options
	fields := map[string]*string{"command": &o.command, "params": &o.params, "unitdir": &o.unitDir, "attach": &o.attach, "serve": &o.serve}
	missing := map[string]bool{"command": true, "params": true, "unitdir": true}
	at := slices.Index(args, directive)
	for _, arg := range args[at+1:] {
		if strings.HasPrefix(arg, "--") {
			break
		}
		name, value, ok := strings.Cut(arg, "=")
		field := fields[strings.ToLower(name)]
		if !ok || field == nil {
			return o, fmt.Errorf("%s: unknown parameter %q, want command=, params=, unitdir= and attach=", directive, arg)
		}
		*field = value
		delete(missing, strings.ToLower(name))
	}
	for _, name := range []string{"command", "params", "unitdir"} {
		if o.serve != "" {
			break
		}
		if missing[name] || name != "params" && *fields[name] == "" {
			return o, fmt.Errorf("%s: %s= is required", directive, name)
		}
	}
	return o, nil
}

// Main runs one command as args, program name left out, say and returns the exit code.
func Main(args []string) int {
	o, err := parse(args)
	if err != nil {
		return complain(err)
	}
	time.AfterFunc(firstTick, forgetProgram) // A command that ends at once does not wait for that.
	if o.serve != "" {
		fd, err := strconv.Atoi(o.serve)
		if err != nil || fd < clientFD {
			return complain(fmt.Errorf("%s: serve=%s: want a file descriptor from %d", directive, o.serve, clientFD))
		}
		return serve(fd)
	}
	r := &runner{options: o, dir: store.At(o.unitDir), stops: make(chan os.Signal, 4)}
	signal.Notify(r.stops, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	return r.run()
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "command runner:", err)
	return exitError
}

// complain says what went wrong with the unit, unless its directory has been taken away: then nobody waits for it.
func (r *runner) complain(err error) {
	if r.dir.Exists() {
		complain(err)
	}
}

type runner struct {
	options
	dir   *store.Dir
	lock  *store.RunnerLock
	info  store.RunnerInfo
	stops chan os.Signal

	node     *node    // nil: the process is there for this unit only.
	client   *client  // nil: the output goes to the file.
	stdout   *os.File // nil: it does not.
	digest   *digest
	group    *proc.Cgroup // nil: there is none.
	ended    chan ending
	began    time.Time    // When the command was started.
	known    *unit.Record // What the status file said last; nil if it was not read yet.
	told     bool         // That the command runs is in the status file.
	reported int64        // Size of the output there.
	stopped  unit.Reason
	unwanted bool             // See released.
	harder   <-chan time.Time // Fires when a stopped command has gone on for too long.
	next     syscall.Signal   // What it gets then.
	final    []byte           // The final status file, once it is written.
	late     bool             // There was too much output to make it durable before the final state.
}

// ending is how the command ended.
type ending struct {
	status syscall.WaitStatus
	err    error
}

func (r *runner) run() int {
	defer r.release()
	if err := r.take(); err != nil {
		return complain(err)
	}
	adoptOrphans()
	accepted, err := r.report(unit.Event{Kind: unit.Prepare, Detail: unit.DetailNotStarted, Size: unit.KeepSize}, false)
	if err != nil {
		return complain(err)
	}
	if !accepted {
		return complain(fmt.Errorf("unit in %s has been started or has ended already", r.unitDir))
	}
	if err := r.start(); err != nil {
		return r.finish(unit.Fail, err.Error(), startOutcome(err), exitError)
	}
	return r.watch()
}

// report applies e to the status file and reports whether the state machine accepted it.
func (r *runner) report(e unit.Event, sync bool) (accepted bool, err error) {
	return r.apply(e, func(edit func(*unit.Record) bool) (unit.Record, error) { return r.dir.Update(sync, edit) })
}

func (r *runner) apply(e unit.Event, update func(edit func(*unit.Record) bool) (unit.Record, error)) (accepted bool, err error) {
	e.At = time.Now().UTC()
	edit := func(rec *unit.Record) bool {
		accepted = rec.Apply(e)
		if accepted && !r.began.IsZero() {
			rec.Started = r.began
		}
		if accepted && r.node != nil {
			rec.SetPid(os.Getpid())
			if rec.State.Complete() && !r.node.lost() {
				rec.Extra = nil // As the node would have it when the runner has ended.
			}
		}
		return accepted
	}
	rec, err := update(edit)
	if err != nil && r.known != nil { // Somebody may have damaged the file.
		rec = *r.known
		if edit(&rec) && r.dir.Mend(rec) {
			err = nil
		}
	}
	if err == nil {
		r.known = &rec
	}
	if err == nil && e.Size >= 0 {
		r.reported = e.Size
	}
	if err == nil && rec.State.Complete() {
		r.final = rec.Append(nil)
	}
	return accepted, err
}

// watch reports on the command until it has ended.
func (r *runner) watch() int {
	pause := firstTick // Nobody needs to know of a command that ends at once.
	tick := time.NewTimer(pause)
	gone := r.client.gone()
	for {
		select {
		case end := <-r.ended:
			return r.conclude(end)
		case <-r.stops:
			r.stop(unit.ReasonKilled, syscall.SIGINT)
		case unitDir := <-r.node.stops():
			if unitDir == r.unitDir {
				r.stop(unit.ReasonKilled, syscall.SIGINT)
			}
		case <-gone:
			gone = nil
			r.stop(unit.ReasonHangup, syscall.SIGHUP)
		case <-r.harder:
			r.insist()
		case <-tick.C:
			pause = r.tick(pause)
			tick.Reset(pause)
		}
	}
}

func (r *runner) running() unit.Event {
	return unit.Event{Kind: unit.Run, Detail: unit.DetailRunning(r.info.Program), Size: r.size()}
}

func (r *runner) tick(pause time.Duration) time.Duration {
	if !r.dir.Exists() {
		r.stop(unit.ReasonKilled, syscall.SIGINT)
		return maxTick
	}
	size := r.size()
	if r.told && (size == r.reported || size == unit.KeepSize) {
		return min(2*pause, maxTick)
	}
	if !r.told {
		r.node.send(msgRunning, fmt.Sprint(r.info.Program, " ", r.began.UnixNano()))
	}
	if size-r.reported < fastGrowth || r.digest.behind(size) > digestLag {
		r.digest.follow(size)
	}
	_, err := r.report(r.running(), false)
	if err != nil {
		r.complain(err)
	}
	r.told = r.told || err == nil
	return minTick
}

func (r *runner) size() int64 {
	if r.stdout == nil {
		return unit.KeepSize
	}
	info, err := r.stdout.Stat()
	if err != nil {
		return unit.KeepSize
	}
	return info.Size()
}

func (r *runner) conclude(end ending) int {
	kind, detail, outcome, code := describe(end)
	if r.stopped != "" {
		r.endTree()
		kind, detail, outcome.Reason, code = unit.Fail, unit.DetailKilled, r.stopped, exitError
	}
	r.client.drain()
	r.group.Remove()
	return r.finish(kind, detail, outcome, code)
}

// describe translates the end of the command; code is the runner's own exit status.
func describe(end ending) (kind unit.Kind, detail string, outcome unit.Outcome, code int) {
	switch s := end.status; {
	case end.err != nil:
		return unit.Fail, end.err.Error(), unit.Because(unit.ReasonStart), exitError
	case s.Signaled():
		detail = "signal: " + s.Signal().String()
		if s.CoreDump() {
			detail += " (core dumped)"
		}
		return unit.Fail, detail, unit.Outcome{Reason: unit.ReasonSignal, Signal: unix.SignalName(s.Signal())}, exitError
	case s.ExitStatus() == 0:
		return unit.Succeed, "exit status 0", unit.Exit(0), 0
	default:
		return unit.Fail, fmt.Sprintf("exit status %d", s.ExitStatus()), unit.Exit(s.ExitStatus()), s.ExitStatus()
	}
}

// syncFirst is how much output is made durable before the final state is written: a state that says N bytes must not
// outlive them. More would keep everybody waiting for the disk; then the state is told first, and both are made durable
// before the runner ends. A loss of power in between may leave less output than the state says, which the checksum shows.
const syncFirst = 1 << 20

// Output that grows by fastGrowth between two looks is read by somebody, as a rule, who would have to share the processor and
// the memory with the checksum: that is computed when it grows slower, or lags behind by digestLag, or at the end.
const (
	fastGrowth = 32 << 20
	digestLag  = 1 << 30
)

// sumFirst is how much output may be left to compute the checksum of when the command ends; that takes milliseconds. With more,
// the final state is told first, so that who reads the output is not kept waiting, and the checksum follows.
const sumFirst = 32 << 20

// finish writes the final state.
func (r *runner) finish(kind unit.Kind, detail string, outcome unit.Outcome, code int) int {
	e := unit.Event{Kind: kind, Detail: detail, Size: r.size(), Outcome: outcome}
	told := !r.node.lost() // Then the node makes it durable.
	r.late = e.Size > syncFirst
	if e.Size > 0 && !r.late && !told {
		r.syncOutput()
	}
	sum := ""
	if e.Size >= 0 && r.digest.behind(e.Size) <= sumFirst {
		sum = r.digest.sum(e.Size, never)
	}
	e.Outcome.SHA256 = sum
	if !r.conclusion(e, !r.late && !told) {
		return exitError
	}
	if r.late {
		r.node.send(msgFinal, r.finalText())
		r.afterwards(e.Size, sum)
	}
	return code
}

// afterwards completes a final state that was told before all was done for it: the checksum, and what makes both durable.
func (r *runner) afterwards(size int64, sum string) {
	if sum == "" {
		r.awaitReaders()
		if sum = r.digest.sum(size, r.released); !r.released() {
			r.amend(false, sum)
		}
	}
	if r.released() {
		return
	}
	r.syncOutput()
	r.amend(true, sum)
}

// readersWait is how long the checksum of a unit that has ended waits for those who read its output: the node says when they
// have it.
const readersWait = 10 * time.Second

func (r *runner) awaitReaders() {
	if r.node.lost() {
		return
	}
	limit := time.NewTimer(readersWait)
	defer limit.Stop()
	for {
		select {
		case unitDir := <-r.node.unread:
			if unitDir == r.options.unitDir {
				return
			}
		case unitDir := <-r.node.release:
			if r.noteRelease(unitDir) {
				return
			}
		case <-r.node.gone:
			return
		case <-limit.C:
			return
		}
	}
}

func (r *runner) noteRelease(unitDir string) bool {
	r.unwanted = r.unwanted || unitDir == r.options.unitDir
	return r.unwanted
}

// released reports whether the node has released the unit, which has ended.
func (r *runner) released() bool {
	if r.node == nil {
		return false
	}
	select {
	case unitDir := <-r.node.release:
		return r.noteRelease(unitDir)
	default:
		return r.unwanted
	}
}

func (r *runner) amend(sync bool, sum string) {
	rec, err := r.dir.Update(sync, func(rec *unit.Record) bool {
		if rec.SHA256 == "" {
			rec.SHA256 = sum
		}
		return true
	})
	if err != nil {
		r.complain(err)
		return
	}
	r.final = rec.Append(nil)
}

func (r *runner) syncOutput() {
	if err := store.SyncLarge(r.stdout); err != nil {
		r.complain(err)
	}
}

// conclusion writes the final state, and tries again if it cannot be written.
func (r *runner) conclusion(e unit.Event, sync bool) (written bool) {
	write := func() (bool, error) { return r.report(e, sync) }
	if !sync && !r.late { // The node makes it durable.
		write = func() (bool, error) { return r.apply(e, r.dir.UpdateSoon) }
	}
	for try := 1; ; try++ {
		_, err := write()
		if err == nil {
			return true
		}
		r.complain(err)
		if try == tries || !r.dir.Exists() {
			return false
		}
		time.Sleep(minTick) // For example a full disk; nothing tells when there is room again.
	}
}
