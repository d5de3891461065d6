package runner

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/workceptor/store"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

func TestMain(m *testing.M) {
	if IsRunner(os.Args[1:]) {
		os.Exit(Main(os.Args[1:]))
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0")
	os.Exit(m.Run())
}

func newUnit(t *testing.T, rec unit.Record, payload string) *store.Dir {
	t.Helper()
	root, err := store.Open(t.TempDir(), "alpha")
	if err != nil {
		t.Fatal(err)
	}
	_, d, stdin, err := root.Create(rec, func(unit.ID) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	stdin.WriteString(payload)
	stdin.Close()
	return d
}

func command(d *store.Dir, program, params string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], Arguments("info", program, params, d.Path())...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

func wantRecord(t *testing.T, d *store.Dir, state unit.State, detail string, size int64) {
	t.Helper()
	r, err := d.Read()
	if err != nil || r.State != state || r.Detail != detail || r.StdoutSize != size {
		t.Errorf("got %v %q with %d bytes, %v, want %v %q with %d", r.State, r.Detail, r.StdoutSize, err, state, detail, size)
	}
}

func exitCode(t *testing.T, err error) int {
	t.Helper()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	if err != nil { // It was not even started.
		t.Fatal(err)
	}
	return 0
}

func TestExitCodes(t *testing.T) {
	for _, test := range []struct {
		params string
		code   int
		state  unit.State
		detail string
	}{
		{`-c "cat"`, 0, unit.Succeeded, "exit status 0"},
		{`-c "cat; exit 37"`, 37, unit.Failed, "exit status 37"},
		{`-c "cat; kill -9 $$"`, 255, unit.Failed, "signal: killed"},
	} {
		d := newUnit(t, unit.Record{}, "payload")
		if code := exitCode(t, command(d, "sh", test.params).Run()); code != test.code {
			t.Errorf("%s: got exit code %d, want %d", test.params, code, test.code)
		}
		wantRecord(t, d, test.state, test.detail, 7)
	}
}

func TestFinishedUnitIsLeftAlone(t *testing.T) {
	d := newUnit(t, unit.Record{State: unit.Failed, Detail: "Pending at restart"}, "")
	if code := exitCode(t, command(d, "sh", `-c "echo ran"`).Run()); code != 255 {
		t.Errorf("got exit code %d, want 255", code)
	}
	wantRecord(t, d, unit.Failed, "Pending at restart", 0)
	if d.StdoutSize() != 0 {
		t.Error("the command ran")
	}
}

func TestBadArguments(t *testing.T) {
	for _, args := range []string{
		"--command-runner", "--command-runner command=x params=", "--command-runner command= params= unitdir=/x",
		"--command-runner command=x params= unitdir=/x surprise", "--command-runner command=x params= unitdir=/x other=y",
	} {
		if _, err := parse(strings.Fields(args)); err == nil {
			t.Errorf("%s: accepted", args)
		}
	}
	o, err := parse(Arguments("debug", "bash", `-c "a = b"`, "/data/alpha/U"))
	if want := (options{command: "bash", params: `-c "a = b"`, unitDir: "/data/alpha/U"}); o != want || err != nil {
		t.Errorf("got %+v, %v", o, err)
	}
	if IsRunner([]string{"--node", "id=worker"}) {
		t.Error("a node is taken for a runner")
	}
}

// TestHostState: what the host of the node has blocked or left open does not reach the command, and a blocked SIGINT
// still stops the runner.
func TestHostState(t *testing.T) {
	leak, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	d := newUnit(t, unit.Record{}, "")
	ready := filepath.Join(t.TempDir(), "ready")
	if err := syscall.Mkfifo(ready, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := command(d, "sh", `-c "grep -h -e SigBlk /proc/self/status; ls /proc/self/fd | wc -l; exec cat `+ready+`"`)
	cmd.ExtraFiles = []*os.File{leak, leak}
	if err := startBlocked(cmd); err != nil {
		t.Fatal(err)
	}
	// Waits for cat: a shell that is about to become another program may lose the signal.
	hold, err := os.OpenFile(ready, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	cmd.Process.Signal(syscall.SIGINT)
	if code := exitCode(t, cmd.Wait()); code != 255 {
		t.Errorf("got exit code %d, want 255", code)
	}
	out, _ := os.ReadFile(d.File(store.StdoutFile))
	if want := "SigBlk:\t0000000000000000\n4\n"; string(out) != want { // 0, 1, 2 and ls's own.
		t.Errorf("got %q, want %q", out, want)
	}
	wantRecord(t, d, unit.Failed, "Killed", int64(len(out)))
}

// startBlocked starts a process with all signals blocked, as an embedding host may have them.
func startBlocked(cmd *exec.Cmd) error {
	done := make(chan error)
	go func() {
		// The thread is locked and ends with the goroutine.
		runtime.LockOSThread()
		var all unix.Sigset_t
		for i := range all.Val {
			all.Val[i] = ^uint64(0)
		}
		if err := unix.PthreadSigmask(unix.SIG_BLOCK, &all, nil); err != nil {
			done <- err
			return
		}
		done <- cmd.Start()
	}()
	return <-done
}

func TestDirectoryRemoved(t *testing.T) {
	d := newUnit(t, unit.Record{}, "")
	ready := filepath.Join(t.TempDir(), "ready")
	if err := syscall.Mkfifo(ready, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := command(d, "cat", ready)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	hold, err := os.OpenFile(ready, os.O_WRONLY, 0) // Waits for the command.
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, cmd.Wait()); code != 255 {
		t.Errorf("got exit code %d, want 255", code)
	}
	if complaints.Len() > 0 {
		t.Errorf("the runner complains of a unit that nobody waits for: %s", &complaints)
	}
}

// TestSecondRunnerIsRefused: a unit whose runner left it Pending, whatever it had done, is not run by another.
func TestSecondRunnerIsRefused(t *testing.T) {
	d := newUnit(t, unit.Record{Detail: unit.DetailNotStarted}, "payload")
	lock, _, err := d.LockRunner()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(lock.Write(store.RunnerInfo{Boot: "x", Runner: 4242, RunnerStart: 7}), lock.Close()); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, command(d, "cat", "").Run()); code != exitError {
		t.Errorf("got exit status %d, want %d", code, exitError)
	}
	wantRecord(t, d, unit.Pending, unit.DetailNotStarted, 0)
}

// TestOnlyItsOwnUnit: what the node says late about the unit before is not taken for this one's.
func TestOnlyItsOwnUnit(t *testing.T) {
	r := &runner{options: options{unitDir: "/data/now"}, node: &node{
		unread: make(chan string, 2), release: make(chan string, 2), gone: make(chan struct{}),
	}}
	r.node.release <- "/data/before"
	if r.released() {
		t.Error("the release of another unit counts")
	}
	r.node.unread <- "/data/before"
	r.node.unread <- "/data/now"
	r.awaitReaders()
	if left := len(r.node.unread); left != 0 || r.released() {
		t.Errorf("it did not wait for its own: %d messages are left", left)
	}
	r.node.release <- "/data/before"
	r.node.release <- "/data/now"
	r.awaitReaders()
	if !r.released() || len(r.node.release) != 0 {
		t.Error("its own release does not count")
	}
	if d := newDigest(nil); d.sum(1, r.released) != "" {
		t.Error("it sums for nobody")
	}
	close(r.node.gone)
	r.awaitReaders()
}
