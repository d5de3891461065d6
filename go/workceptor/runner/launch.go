package runner

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/workceptor/proc"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

var errStopped = errors.New(unit.DetailKilled)

// startOutcome says why a command could not be started.
func startOutcome(err error) unit.Outcome {
	switch {
	case errors.Is(err, errStopped):
		return unit.Because(unit.ReasonKilled)
	case errors.Is(err, errQuote), errors.Is(err, errEscape):
		return unit.Because(unit.ReasonParams)
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return unit.Because(unit.ReasonNotFound)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return unit.Because(unit.ReasonDisk)
	}
	return unit.Because(unit.ReasonStart)
}

func (r *runner) start() error {
	words, err := Split(r.params)
	if err != nil {
		return err
	}
	files, closeFiles, err := r.files()
	if err != nil {
		return err
	}
	defer closeFiles()
	path := r.command
	if !strings.Contains(path, "/") {
		if path, err = exec.LookPath(path); err != nil {
			return err
		}
	}
	select {
	case <-r.stops:
		r.stopped = unit.ReasonKilled
		return errStopped
	default:
	}
	r.group = proc.NewCgroup(r.unitDir)
	r.began = time.Now().UTC()
	pid, exit, err := r.launch(path, append([]string{r.command}, words...), files)
	if err != nil {
		r.group.Remove()
		return err
	}
	r.ended = make(chan ending, 1)
	go func() { r.ended <- await(pid, exit) }() // Ends with the command, which the runner always waits for.
	r.info.Program, r.info.ProgramStart, r.info.Cgroup = pid, proc.Start(pid), r.group.Path()
	err = r.lock.Write(r.info)
	r.client.begin(pid)
	return err
}

// files opens what the command gets as standard input, output and error.
func (r *runner) files() (files []*os.File, closeAll func(), err error) {
	if r.attach != "" {
		r.client, files, err = attachClient(r.attach)
		return files, func() { closeEach(files) }, err
	}
	stdin, err := r.dir.ReadStdin()
	if err != nil {
		return nil, nil, err
	}
	if r.stdout, err = r.dir.OpenStdout(); err != nil {
		stdin.Close()
		return nil, nil, err
	}
	if output, err := r.dir.ReadStdout(); err == nil {
		r.digest = newDigest(output)
	}
	return []*os.File{stdin, r.stdout, r.stdout}, func() { stdin.Close() }, nil
}

func closeEach(files []*os.File) {
	for i, f := range files {
		if i == 0 || f != files[i-1] {
			f.Close()
		}
	}
}

// launch starts the program with an empty signal mask and nothing open but the three standard files, which are never in
// non-blocking mode as far as the program can tell. It does without os.StartProcess, which forks a process just to find
// out what the kernel can do.
// exit is a pidfd; -1 if the kernel makes none.
func (r *runner) launch(path string, argv []string, files []*os.File) (pid, exit int, err error) {
	exit = -1
	closeOnExec()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &unix.Sigset_t{}, nil); err != nil {
		return 0, exit, err
	}
	var fds []uintptr
	for _, f := range files {
		if err := syscall.SetNonblock(int(f.Fd()), false); err != nil {
			return 0, exit, err
		}
		fds = append(fds, f.Fd())
	}
	env, sys := proc.Environ(os.Environ(), r.unitDir), &syscall.SysProcAttr{Setpgid: true, PidFD: &exit}
	if r.client.hasTerminal() {
		env = proc.Setenv(env, "TERM="+r.client.term)
		sys = &syscall.SysProcAttr{Setsid: true, Setctty: true, PidFD: &exit}
	}
	pid, err = r.group.Start(sys, func() (int, error) {
		return syscall.ForkExec(path, argv, &syscall.ProcAttr{Env: env, Files: fds, Sys: sys})
	})
	if err != nil {
		return 0, -1, &fs.PathError{Op: "fork/exec", Path: path, Err: err}
	}
	return pid, exit, nil
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
