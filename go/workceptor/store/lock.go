package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// How long a lock is waited for. Holders keep it for microseconds, so these tell a stuck one.
const (
	readWait  = time.Second
	writeWait = 5 * time.Second
)

// lock takes status.lock and returns what gives it back.
func (d *Dir) lock(wait time.Duration) (unlock func(), err error) {
	f, err := openRegular(d.File(LockFile), os.O_WRONLY|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	if err := flockWithin(f, wait); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// flockWithin takes a lock of a file that somebody may have.
func flockWithin(f *os.File, wait time.Duration) error {
	err := patiently(wait, func() error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) })
	if err == syscall.EWOULDBLOCK {
		return fmt.Errorf("%s: %w", f.Name(), ErrLocked)
	}
	return err
}

// patiently tries until the answer is another one than EWOULDBLOCK. It polls because locks have no form with a time limit, and a
// process that keeps one must not hang the node.
func patiently(wait time.Duration, try func() error) error {
	deadline := time.Now().Add(wait)
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		err := try()
		if err != syscall.EWOULDBLOCK && err != syscall.EINTR || err == syscall.EWOULDBLOCK && time.Now().After(deadline) {
			return err
		}
		time.Sleep(pause)
	}
}

// RunnerInfo is what a runner tells in runner.lock about the processes it is responsible for. A start time is that of
// /proc/PID/stat, in clock ticks since Boot began, so that a process ID that was used again is noticed.
type RunnerInfo struct {
	Boot                      string // The kernel's boot ID.
	Runner, Program           int    // Process IDs; Program, which leads its process group, is 0 before its start.
	RunnerStart, ProgramStart uint64
	Cgroup                    string // Of the command; empty if it has none of its own.
}

// MarkLaunched makes runner.lock before a runner has the unit, so that whoever finds the unit knows that its payload is
// complete, and in which boot. It leaves the file of a unit that is marked already as it is.
func (d *Dir) MarkLaunched(boot string) error {
	d.useSpare(LockFile) // A unit has none before its start, as a rule: see halfMade.
	how := os.O_EXCL
	if d.useSpare(RunnerFile) {
		how = 0
	}
	f, err := os.OpenFile(d.File(RunnerFile), os.O_WRONLY|os.O_CREATE|how, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString("boot " + boot + "\n")
	return errors.Join(err, f.Close())
}

// RunnerLock is held by a runner for its life.
type RunnerLock struct {
	f    *os.File
	size int // Of what is in it.
}

// LockRunner makes the calling process the unit's runner, or answers ErrLocked if there is one. It returns what the last one told.
func (d *Dir) LockRunner() (*RunnerLock, RunnerInfo, error) {
	f, err := openRegular(d.File(RunnerFile), os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, RunnerInfo{}, err
	}
	// A node that looks whether a runner is alive has the lock for an instant.
	err = flockWithin(f, readWait)
	text := ""
	if err == nil {
		text, err = readText(f)
	}
	if err != nil {
		f.Close()
		return nil, RunnerInfo{}, err
	}
	return &RunnerLock{f, len(text)}, parseRunnerInfo(text), nil
}

// Write replaces what the lock file tells.
func (l *RunnerLock) Write(info RunnerInfo) error {
	text := fmt.Sprintf("boot %s\nrunner %d %d\nprogram %d %d\n", info.Boot, info.Runner, info.RunnerStart, info.Program, info.ProgramStart)
	if info.Cgroup != "" && !strings.ContainsAny(info.Cgroup, "\n ") {
		text += "cgroup " + info.Cgroup + "\n"
	}
	if _, err := l.f.WriteAt([]byte(text), 0); err != nil { // Before the cut: a reader never finds nothing.
		return err
	}
	before := l.size
	l.size = len(text)
	if l.size >= before {
		return nil
	}
	return l.f.Truncate(int64(l.size))
}

// Close gives the lock up.
func (l *RunnerLock) Close() error { return l.f.Close() }

// RunnerAlive reports whether a runner holds the lock. known is false if there never was one that takes it.
func (d *Dir) RunnerAlive() (alive, known bool) {
	f, err := openRegular(d.File(RunnerFile), os.O_RDONLY)
	if err != nil {
		return false, false
	}
	defer f.Close()
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return true, true
	}
	text, err := readText(f)
	return false, err != nil || parseRunnerInfo(text).Runner != 0
}

// maxRunnerText is how much is read of what a runner tells.
const maxRunnerText = 4096

func readText(f *os.File) (string, error) {
	text, err := io.ReadAll(io.NewSectionReader(f, 0, maxRunnerText))
	return string(text), err
}

// RunnerInfo reads what the last runner told. Of a unit that has only been marked as launched it has the boot.
func (d *Dir) RunnerInfo() (RunnerInfo, error) {
	f, err := openRegular(d.File(RunnerFile), os.O_RDONLY)
	if err != nil {
		return RunnerInfo{}, err
	}
	defer f.Close()
	text, err := readText(f)
	return parseRunnerInfo(text), err
}

func parseRunnerInfo(text string) (info RunnerInfo) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		switch {
		case len(words) == 2 && words[0] == "boot":
			info.Boot = words[1]
		case len(words) == 2 && words[0] == "cgroup":
			info.Cgroup = words[1]
		case len(words) == 3 && words[0] == "runner":
			info.Runner, info.RunnerStart = pidAndStart(words)
		case len(words) == 3 && words[0] == "program":
			info.Program, info.ProgramStart = pidAndStart(words)
		}
	}
	return info
}

func pidAndStart(words []string) (int, uint64) {
	pid, err := strconv.Atoi(words[1])
	if err != nil || pid <= 1 {
		return 0, 0
	}
	start, _ := strconv.ParseUint(words[2], 10, 64)
	return pid, start
}
