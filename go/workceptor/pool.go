package workceptor

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/workceptor/runner"
)

const (
	idleRunner  = 5 * time.Second // How long a runner waits for another unit.
	idlePerCore = 32              // How many may wait.
)

// warmRunner is a runner process that does one unit after another. It ends when conn is closed, after the unit that it does.
type warmRunner struct {
	process *os.Process
	conn    *os.File // A SOCK_SEQPACKET socket.
	state   processState
	since   time.Time
	buf     [runner.MaxMessage]byte // What it says.
}

// runnerPool keeps runners that have ended their unit for the next one. The last that came is the first to go on, so that
// few wait when there is little to do; those that wait for long are dismissed, and so nothing is left when there is nothing
// to do.
type runnerPool struct {
	e *Engine

	mu     sync.Mutex
	idle   []*warmRunner
	ahead  bool        // One is being started for a unit whose payload is on its way.
	timer  *time.Timer // Dismisses; nil until there is something to dismiss.
	closed bool
}

// take returns a runner that waits, or a new one.
func (p *runnerPool) take() (*warmRunner, error) {
	state := ownState()
	p.mu.Lock()
	var r *warmRunner
	if n := len(p.idle); n > 0 {
		r, p.idle = p.idle[n-1], p.idle[:n-1]
	}
	p.mu.Unlock()
	if r != nil && (state.status == "" || r.state != state) {
		p.dismiss(r)
		r = nil
	}
	if r != nil {
		return r, nil
	}
	return p.start(state)
}

// startAhead has a runner ready for a unit whose payload is still to come.
func (p *runnerPool) startAhead() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.ahead || len(p.idle) > 0 {
		return
	}
	p.ahead = p.e.begin(func() {
		r, err := p.start(ownState())
		p.mu.Lock()
		p.ahead = false
		p.mu.Unlock()
		if err == nil { // If not, the unit will say so.
			p.put(r)
		}
	})
}

// put takes back a runner that has no unit.
func (p *runnerPool) put(r *warmRunner) {
	r.since = time.Now()
	p.mu.Lock()
	full := p.closed || len(p.idle) >= idlePerCore*runtime.GOMAXPROCS(0)
	if !full {
		p.idle = append(p.idle, r)
		if p.timer == nil {
			p.timer = time.AfterFunc(idleRunner, p.e.guarded(p.expire))
		} else if len(p.idle) == 1 {
			p.timer.Reset(idleRunner)
		}
	}
	p.mu.Unlock()
	if full {
		p.dismiss(r)
	}
}

// expire dismisses those that have waited for long; they are the first ones.
func (p *runnerPool) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := 0
	for old < len(p.idle) && time.Since(p.idle[old].since) >= idleRunner {
		old++
	}
	for _, r := range p.idle[:old] {
		p.dismiss(r)
	}
	p.idle = append([]*warmRunner(nil), p.idle[old:]...)
	if len(p.idle) > 0 && !p.closed {
		p.timer.Reset(idleRunner - time.Since(p.idle[0].since))
	}
}

// dismiss ends a runner without a unit, also one that somebody has stopped, and buries it.
func (p *runnerPool) dismiss(r *warmRunner) {
	r.conn.Close()
	r.process.Kill()
	if !p.e.begin(func() { r.process.Wait() }) {
		r.process.Wait()
	}
}

// close dismisses all that wait. Those that have a unit go on to its end.
func (p *runnerPool) close() {
	p.mu.Lock()
	p.closed = true
	idle := p.idle
	p.idle = nil
	if p.timer != nil {
		p.timer.Stop()
	}
	p.mu.Unlock()
	for _, r := range idle {
		p.dismiss(r)
	}
}

func (p *runnerPool) start(state processState) (*warmRunner, error) {
	cfg := p.e.cfg
	program, err := exec.LookPath(cfg.Runner)
	if err != nil {
		return nil, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("connection to a runner: %w", err)
	}
	far := os.NewFile(uintptr(ends[1]), "node")
	defer far.Close()
	if err := unix.SetNonblock(ends[0], true); err != nil {
		unix.Close(ends[0])
		return nil, err
	}
	near := os.NewFile(uintptr(ends[0]), "runner")
	process, err := os.StartProcess(program, append([]string{cfg.Runner}, runner.ServeArguments(cfg.LogLevel, 3)...), &os.ProcAttr{
		Env:   cfg.Environ,
		Files: []*os.File{null, os.Stdout, os.Stderr, far},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		near.Close()
		return nil, err
	}
	return &warmRunner{process: process, conn: near, state: state}, nil
}

var errTooLong = errors.New("the command and the path of the unit directory are too long")

func (r *warmRunner) send(msg []byte) error {
	if msg == nil {
		return errTooLong
	}
	_, err := r.conn.Write(msg)
	return err
}

// processState is what a runner gets from this process at its start, and hands on to commands: one that was started when
// this was different does not serve any more. A daemon does not change; the host program of a node in a library may, or
// somebody from outside.
type processState struct {
	status    string // Some lines of /proc/self/status; "" if it cannot be found out.
	dir, root [2]uint64
	nice      int
	limits    [unix.RLIMIT_RTTIME + 1]unix.Rlimit
}

func ownState() (s processState) {
	file, err := os.Open("/proc/self/status")
	if err != nil {
		return processState{}
	}
	defer file.Close()
	var text [8 << 10]byte
	n, err := file.Read(text[:])
	var dir, root syscall.Stat_t
	if err != nil || syscall.Stat(".", &dir) != nil || syscall.Stat("/", &root) != nil {
		return processState{}
	}
	kept := make([]byte, 0, 1<<10)
	for line := range bytes.Lines(text[:n]) {
		name, _, _ := bytes.Cut(line, []byte{':'})
		switch string(name) {
		case "Umask", "Uid", "Gid", "Groups", "SigIgn", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp",
			"Seccomp_filters", "Cpus_allowed", "Mems_allowed":
			kept = append(kept, line...)
		}
	}
	s.status, s.dir, s.root = string(kept), [2]uint64{dir.Dev, dir.Ino}, [2]uint64{root.Dev, root.Ino}
	s.nice, _ = syscall.Getpriority(syscall.PRIO_PROCESS, 0)
	for resource := range s.limits {
		unix.Getrlimit(resource, &s.limits[resource]) // One that is not known stays zero.
	}
	return s
}
