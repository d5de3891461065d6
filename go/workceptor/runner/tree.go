package runner

import (
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/workceptor/proc"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

const (
	stubborn   = 10 * time.Second // From the first signal to SIGTERM, for a command that goes on.
	groupGrace = time.Second      // From SIGTERM to SIGKILL, also for what a stopped command leaves behind.
	killGrace  = 5 * time.Second  // How long killed processes may take to go; one in the kernel may take longer.
)

// ownStart is the start time of this process.
var ownStart = sync.OnceValue(func() uint64 { return proc.Start(os.Getpid()) })

// adoptOrphans makes descendants whose parents end children of the runner, so that it can find them.
func adoptOrphans() { unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// burialWait is how long adopted children that have ended may stay unburied.
const burialWait = time.Second

// await waits for the end of the command and buries adopted children meanwhile. exit is a pidfd of the command, or -1. Most
// commands end soon; for them no thread is blocked.
func await(command, exit int) ending {
	if exit >= 0 {
		awaitExit(exit, burialWait)
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return ending{err: err}
		case pid == command && (status.Exited() || status.Signaled()):
			return ending{status: status}
		}
	}
}

// awaitExit waits for the end of a process, or for so long.
func awaitExit(pidfd int, limit time.Duration) {
	if err := syscall.SetNonblock(pidfd, true); err != nil {
		syscall.Close(pidfd)
		return
	}
	exit := os.NewFile(uintptr(pidfd), "pidfd")
	defer exit.Close()
	raw, err := exit.SyscallConn()
	if err != nil || exit.SetReadDeadline(time.Now().Add(limit)) != nil {
		return
	}
	raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 && err == nil
	})
}

func (r *runner) stop(why unit.Reason, first syscall.Signal) {
	if r.stopped != "" {
		return
	}
	r.stopped = why
	r.harder, r.next = time.After(stubborn), syscall.SIGTERM
	syscall.Kill(-r.info.Program, first)
	if first == syscall.SIGHUP {
		syscall.Kill(-r.info.Program, syscall.SIGCONT) // A stopped process would not hear it.
	}
}

// insist gives a command that goes on although it was stopped, and all its descendants, the next harder signal.
func (r *runner) insist() {
	if r.next == syscall.SIGKILL {
		r.killTree()
		return
	}
	proc.SignalDescendants(r.next)
	r.harder, r.next = time.After(groupGrace), syscall.SIGKILL
}

// killTree kills the command and all its descendants.
func (r *runner) killTree() {
	if !r.group.Kill() {
		syscall.Kill(-r.info.Program, syscall.SIGKILL)
	}
	proc.SignalDescendants(syscall.SIGKILL)
}

// endTree ends what a stopped command has left behind. It polls: no event tells that there are no descendants any more.
func (r *runner) endTree() {
	proc.SignalDescendants(syscall.SIGTERM)
	if r.awaitTree(groupGrace, func() {}) {
		return
	}
	// A process that makes others while they are killed is met by another round.
	r.awaitTree(killGrace, r.killTree)
}

func (r *runner) awaitTree(limit time.Duration, do func()) (gone bool) {
	deadline := time.Now().Add(limit)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		do()
		if childless() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(pause)
	}
}

// childless buries what has ended and reports whether the runner has no child any more, and so no descendant.
func childless() bool {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if err == syscall.ECHILD {
			return true
		}
		if pid <= 0 && err != syscall.EINTR {
			return false
		}
	}
}
