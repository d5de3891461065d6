// Package runner is the process between the node and one user's command. The node starts its own executable as
//
//	receptor --node id=worker --log-level LEVEL --command-runner command=COMMAND params=PARAMS unitdir=UNITDIR
//
// in a session of its own, and the runner outlives the node: it starts the command, keeps the unit's status file, and
// ends with the command's exit code (255 for a signal, a stop, or trouble of its own).
//
// # What the command gets
//
// The node's environment, directory and umask; the file stdin as standard input; the file stdout, appended to, as
// standard output and error; a process group of its own; an empty signal mask, whatever the host of the node has
// blocked; and no other open file.
//
// # What the runner writes
//
// Pending "Not started yet", Running "Running: PID N" as soon as there is a process, the size of the output while it
// grows (at most every 250 ms), and the final state with the final size, which is durable together with the output. A
// unit that is finished already is left alone: the runner ends at once.
//
// While it lives it holds a flock on runner.lock, in which it tells the process IDs and start times of itself and of
// the command. A node that finds the lock free knows that the runner is dead, however it died, and can tell the
// command's processes from strangers.
//
// # Being stopped
//
// SIGINT, SIGTERM or SIGHUP: SIGINT to the command's process group. When the command has ended, what is left of the
// group gets SIGTERM and, a second later, SIGKILL; a command that has not ended after 10 s gets SIGKILL with its group.
// Then Failed, "Killed". If the unit's directory is taken away the command is stopped in the same way.
//
// The package imports little, so that a runner starts within a few milliseconds and stays small.
package runner

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
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
	minTick = 250 * time.Millisecond
	maxTick = time.Second

	killAfter  = 10 * time.Second // From SIGINT to SIGKILL.
	groupGrace = time.Second      // From SIGTERM to SIGKILL for what a stopped command leaves behind.
	tries      = 4                // How often the final status is tried to be written.
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
	return pid > 1 && proc.HasArgument(pid, unitDirArgument(unitDir))
}

// IsRunner reports whether a process with these arguments, program name left out, is to be a runner.
func IsRunner(args []string) bool { return slices.Contains(args, directive) }

type options struct{ command, params, unitDir string }

func parse(args []string) (options, error) {
	var o options
	fields := map[string]*string{"command": &o.command, "params": &o.params, "unitdir": &o.unitDir}
	missing := map[string]bool{"command": true, "params": true, "unitdir": true}
	at := slices.Index(args, directive)
	for _, arg := range args[at+1:] {
		if strings.HasPrefix(arg, "--") {
			break
		}
		name, value, ok := strings.Cut(arg, "=")
		field := fields[strings.ToLower(name)]
		if !ok || field == nil {
			return o, fmt.Errorf("%s: unknown parameter %q, want command=, params= and unitdir=", directive, arg)
		}
		*field = value
		delete(missing, strings.ToLower(name))
	}
	for _, name := range []string{"command", "params", "unitdir"} {
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
	r := &runner{options: o, dir: store.At(o.unitDir), stops: make(chan os.Signal, 4)}
	signal.Notify(r.stops, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	return r.run()
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "command runner:", err)
	return exitError
}

type runner struct {
	options
	dir   *store.Dir
	lock  *store.RunnerLock
	info  store.RunnerInfo
	stops chan os.Signal

	process  *os.Process
	stdout   *os.File
	ended    chan ending
	reported int64 // Size of the output in the status file.
	stopped  bool
	kill     <-chan time.Time // Fires killAfter after the stop.
}

type ending struct {
	state *os.ProcessState
	err   error
}

func (r *runner) run() int {
	lock, err := r.dir.LockRunner()
	if err != nil {
		return complain(err)
	}
	r.lock = lock
	defer lock.Close()
	r.info = store.RunnerInfo{Boot: proc.BootID(), Runner: os.Getpid(), RunnerStart: proc.Start(os.Getpid())}
	if err := lock.Write(r.info); err != nil {
		return complain(err)
	}
	accepted, err := r.report(unit.Event{Kind: unit.Prepare, Detail: unit.DetailNotStarted, Size: unit.KeepSize}, false)
	if err != nil {
		return complain(err)
	}
	if !accepted {
		return complain(fmt.Errorf("unit in %s has been started or has ended already", r.unitDir))
	}
	if err := r.start(); err != nil {
		return r.finish(unit.Fail, err.Error(), exitError)
	}
	return r.watch()
}

// report applies e to the status file and reports whether the state machine accepted it.
func (r *runner) report(e unit.Event, sync bool) (accepted bool, err error) {
	_, err = r.dir.Update(sync, func(rec *unit.Record) bool {
		accepted = rec.Apply(e)
		return accepted
	})
	if err == nil && e.Size >= 0 {
		r.reported = e.Size
	}
	return accepted, err
}

var errStopped = errors.New(unit.DetailKilled)

func (r *runner) start() error {
	words, err := Split(r.params)
	if err != nil {
		return err
	}
	stdin, err := r.dir.ReadStdin()
	if err != nil {
		return err
	}
	defer stdin.Close()
	if r.stdout, err = r.dir.OpenStdout(); err != nil {
		return err
	}
	path := r.command
	if !strings.Contains(path, "/") {
		if path, err = exec.LookPath(path); err != nil {
			return err
		}
	}
	select {
	case <-r.stops:
		return errStopped
	default:
	}
	if r.process, err = launch(path, append([]string{r.command}, words...), stdin, r.stdout); err != nil {
		return err
	}
	r.ended = make(chan ending, 1)
	go func() { // Ends with the command, which the runner always waits for.
		state, err := r.process.Wait()
		r.ended <- ending{state, err}
	}()
	r.info.Program, r.info.ProgramStart = r.process.Pid, proc.Start(r.process.Pid)
	return r.lock.Write(r.info)
}

// launch starts the program with an empty signal mask and nothing open but the three standard files. The files are
// regular, so that they are never in non-blocking mode as far as the program can tell.
func launch(path string, argv []string, stdin, output *os.File) (*os.Process, error) {
	closeOnExec()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &unix.Sigset_t{}, nil); err != nil {
		return nil, err
	}
	for _, f := range []*os.File{stdin, output} {
		if err := syscall.SetNonblock(int(f.Fd()), false); err != nil {
			return nil, err
		}
	}
	return os.StartProcess(path, argv, &os.ProcAttr{
		Files: []*os.File{stdin, output, output},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	})
}

// closeOnExec keeps files that the host of the node has left open from reaching the command.
func closeOnExec() {
	if unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return
	}
	// Kernels before 5.11.
	for fd := 3; fd < 1024; fd++ {
		syscall.CloseOnExec(fd)
	}
}

// watch reports on the command until it has ended.
func (r *runner) watch() int {
	if _, err := r.report(r.running(), false); err != nil {
		complain(err)
	}
	pause := minTick
	tick := time.NewTimer(pause)
	for {
		select {
		case end := <-r.ended:
			return r.conclude(end)
		case <-r.stops:
			r.stop()
		case <-r.kill:
			r.signal(syscall.SIGKILL)
		case <-tick.C:
			pause = r.tick(pause)
			tick.Reset(pause)
		}
	}
}

func (r *runner) running() unit.Event {
	return unit.Event{Kind: unit.Run, Detail: unit.DetailRunning(r.process.Pid), Size: r.size()}
}

func (r *runner) tick(pause time.Duration) time.Duration {
	if !r.dir.Exists() {
		r.stop()
		return maxTick
	}
	if r.size() == r.reported {
		return min(2*pause, maxTick)
	}
	if _, err := r.report(r.running(), false); err != nil {
		complain(err)
	}
	return minTick
}

func (r *runner) stop() {
	if !r.stopped {
		r.stopped = true
		// What the command leaves behind becomes our child, so that it does not stay a zombie under a careless init.
		unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
		r.kill = time.After(killAfter)
		r.signal(syscall.SIGINT)
	}
}

func (r *runner) size() int64 {
	info, err := r.stdout.Stat()
	if err != nil {
		return unit.KeepSize
	}
	return info.Size()
}

func (r *runner) signal(sig syscall.Signal) { syscall.Kill(-r.process.Pid, sig) }

func (r *runner) conclude(end ending) int {
	if r.stopped {
		r.endGroup()
		return r.finish(unit.Fail, unit.DetailKilled, exitError)
	}
	if end.err != nil {
		return r.finish(unit.Fail, end.err.Error(), exitError)
	}
	if end.state.Success() {
		return r.finish(unit.Succeed, end.state.String(), 0)
	}
	code := end.state.ExitCode()
	if code < 0 { // A signal.
		code = exitError
	}
	return r.finish(unit.Fail, end.state.String(), code)
}

// endGroup ends what a stopped command has left behind. It polls: no event tells that a process group is empty.
func (r *runner) endGroup() {
	r.signal(syscall.SIGTERM)
	deadline := time.Now().Add(groupGrace)
	for pause := time.Millisecond; time.Now().Before(deadline); pause = min(2*pause, 50*time.Millisecond) {
		syscall.Wait4(-r.process.Pid, nil, syscall.WNOHANG, nil)
		if syscall.Kill(-r.process.Pid, 0) == syscall.ESRCH {
			return
		}
		time.Sleep(pause)
	}
	r.signal(syscall.SIGKILL)
}

// finish writes the final state. The output is made durable first: a state that says N bytes must not outlive them.
func (r *runner) finish(kind unit.Kind, detail string, code int) int {
	e := unit.Event{Kind: kind, Detail: detail, Size: unit.KeepSize}
	if r.stdout != nil {
		e.Size = r.size()
		if err := r.stdout.Sync(); err != nil {
			complain(err)
		}
	}
	for try := 1; ; try++ {
		_, err := r.report(e, true)
		if err == nil {
			return code
		}
		complain(err)
		if try == tries || !r.dir.Exists() {
			return exitError
		}
		time.Sleep(minTick) // For example a full disk; nothing tells when there is room again.
	}
}
