package workceptor

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/workceptor/runner"
	"github.com/pyreceptor/pyreceptor/go/workceptor/store"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// TestOutputFillsTheDisk: the command learns that the disk is full, its unit ends as it ends, and the node goes on.
func TestOutputFillsTheDisk(t *testing.T) {
	dir := smallDisk(t)
	e := openEngine(t, dir, noMesh{"alpha"})
	id := submit(t, e, request("localhost", "shraw", `-c "head -c 1000000 /dev/zero; exit 7"`), "")
	s := wait(t, e, id)
	if s.State != Failed || s.Detail != "exit status 7" || s.Reason != unit.ReasonExit || s.StdoutSize == 0 || s.StdoutSize >= 1000000 {
		t.Errorf("got %v %q, %d bytes, %+v", s.State, s.Detail, s.StdoutSize, s.Outcome)
	}
	if got := output(t, e, id, 0); int64(len(got)) != s.StdoutSize || s.SHA256 != sum(got) {
		t.Errorf("got %d bytes of output, want %d", len(got), s.StdoutSize)
	}
	j, err := e.find(id)
	if err != nil {
		t.Fatal(err)
	}
	if rec, err := j.dir.Read(); err != nil || rec.State != Failed || rec.StdoutSize != s.StdoutSize {
		t.Errorf("the file says %+v, %v", rec, err)
	}
	if _, err := e.Submit(request("localhost", "cat", "")); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a submit to a full disk: got %v", err)
	}
	if _, err := e.Release(testContext(t), id, false); err != nil {
		t.Errorf("release: %v", err)
	}
	left(t, e) // And what that has freed is free.
	id = submit(t, e, request("localhost", "cat", ""), "there is room again")
	wantStatus(t, wait(t, e, id), Succeeded, "exit status 0", 19)
	if units := left(t, e); len(units) != 1 {
		t.Errorf("got %v, want one unit", units)
	}
}

// TestOutputLimit: a limit on the size of files is no different.
func TestOutputLimit(t *testing.T) {
	e := localEngine(t)
	id := submit(t, e, request("localhost", "shraw", `-c "ulimit -f 1; exec head -c 1000000 /dev/zero"`), "")
	s := wait(t, e, id)
	if s.State != Failed || s.Reason != unit.ReasonSignal || s.Signal != "SIGXFSZ" || s.StdoutSize != 1024 {
		t.Errorf("got %v %q, %d bytes, %+v", s.State, s.Detail, s.StdoutSize, s.Outcome)
	}
}

// TestHowMuchWasReadIsKnown while it is read, as what has been read need not stay in memory.
func TestHowMuchWasReadIsKnown(t *testing.T) {
	const size = 1 << 20
	e := localEngine(t)
	id := submit(t, e, request("localhost", "shraw", `-c "head -c `+strconv.Itoa(size)+` /dev/zero"`), "")
	wait(t, e, id)
	j, err := e.find(id)
	if err != nil {
		t.Fatal(err)
	}
	r, err := e.Results(testContext(t), id, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	read := int64(0)
	n, err := r.(io.WriterTo).WriteTo(&tapped{write: func(p []byte) {
		read += int64(len(p))
		if known := j.hasRead(); known != read {
			t.Errorf("%d bytes were read, and %d are known to be", read, known)
		}
	}})
	if known := j.hasRead(); err != nil || n != size || read != size || known != size {
		t.Errorf("got %d bytes and %d, %v, and %d are known, want %d", n, read, err, known, size)
	}
}

// TestMemoryIsBounded: neither the node nor a runner gets larger with what passes through.
func TestMemoryIsBounded(t *testing.T) {
	const output, payload, most = 2 << 30, 128 << 20, 48 << 20
	e := localEngine(t)
	before := memory()
	s, err := e.Submit(request("localhost", "shraw", `-c "wc -c; truncate -s `+strconv.Itoa(output)+` /proc/self/fd/1; sleep 300"`))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ReadPayload(io.LimitReader(zeros{}, payload)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	r, err := e.Results(t.Context(), s.ID(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{io.LimitReader(r, output)}, make([]byte, 1<<20)); n != output || err != nil {
		t.Fatalf("got %d bytes, %v", n, err)
	}
	if grown := memory() - before; grown > most {
		t.Errorf("this process has grown by %d bytes", grown)
	}
	j, err := e.find(s.ID())
	if err != nil {
		t.Fatal(err)
	}
	info, err := j.dir.RunnerInfo()
	if err != nil {
		t.Fatal(err)
	}
	// The runner is this test's program, with the race detector perhaps.
	if peak := peakMemory(t, info.Runner); peak > 4*most {
		t.Errorf("the runner has grown to %d bytes", peak)
	}
}

// memory is what this process has from the system.
func memory() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys)
}

func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	number, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	kib, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// TestChecksumFollows: the output of a unit ends with its state, but who waits for the end is told of the checksum, too,
// unless the runner has ended without it.
func TestChecksumFollows(t *testing.T) {
	for name, told := range map[string]bool{"the checksum comes": true, "the runner ends": false} {
		t.Run(name, func(t *testing.T) {
			e := localEngine(t)
			j, err := e.create(unit.Record{WorkType: "cat", Extra: &unit.CommandExtra{}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(j.dir.File(store.StdoutFile), []byte("output"), 0o600); err != nil {
				t.Fatal(err)
			}
			close(j.work.(*commandWorker).ended)
			j.set(func() { j.runner = true })
			changes := e.Subscribe(10)
			defer changes.Close()
			rec := unit.Record{State: Succeeded, Detail: "exit status 0", StdoutSize: 6, WorkType: "cat"}
			j.adopt(rec)
			if got := output(t, e, j.id, 0); got != "output" {
				t.Errorf("got %q", got)
			}
			if c := <-changes.C; c.Status.State != Succeeded || !c.Status.Unsettled {
				t.Errorf("got %+v", c)
			}
			ended := make(chan Status)
			go func() { ended <- wait(t, e, j.id) }()
			want := ""
			if told {
				want = sum("output")
				rec.SHA256 = want
				j.adopt(rec)
			} else {
				j.settled()
			}
			if s := <-ended; s.SHA256 != want {
				t.Errorf("got checksum %q, want %q", s.SHA256, want)
			}
			if c := <-changes.C; c.Status.Unsettled || c.Status.SHA256 != want {
				t.Errorf("got %+v", c)
			}
		})
	}
}

// much is a command whose output takes a moment to sum, and comes at once, so that nothing is summed while it grows; and how much it is.
const (
	much     = `-c "truncate -s 67108864 /proc/self/fd/1"`
	muchSize = 64 << 20
)

// endsUnsettled waits for the end of a unit of much as it is told first.
func endsUnsettled(t *testing.T, changes *Subscription) {
	t.Helper()
	for s := (Status{}); s.State != Succeeded; {
		select {
		case c := <-changes.C:
			if s = c.Status; s.State == Succeeded && (!s.Unsettled || s.SHA256 != "" || s.StdoutSize != muchSize) {
				t.Errorf("the end is told first as %+v", s)
			}
		case <-testContext(t).Done():
			t.Fatal("the unit does not end")
		}
	}
}

func sumOfMuch(t *testing.T) string {
	t.Helper()
	h := sha256.New()
	if _, err := io.CopyN(h, zeros{}, muchSize); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// TestChecksumOfARealRunnerFollows: the end of a unit with much output is told before its checksum, and the checksum reaches
// the file, who waits here or on the node that has submitted it, and the next engine on the directory.
func TestChecksumOfARealRunnerFollows(t *testing.T) {
	want := sumOfMuch(t)
	t.Run("here and there", func(t *testing.T) {
		_, alpha, beta := pair(t)
		changes, here := beta.Subscribe(64), alpha.Subscribe(1024)
		defer changes.Close()
		defer here.Close()
		mirror := submit(t, alpha, request("beta", "shraw", much), "")
		endsUnsettled(t, changes)
		endsUnsettled(t, here)
		unit := one(t, beta)
		if s := wait(t, beta, unit); s.SHA256 != want || s.Unsettled {
			t.Errorf("there: got %+v", s)
		}
		if s := wait(t, alpha, mirror); s.SHA256 != want || s.StdoutSize != muchSize {
			t.Errorf("here: got %+v", s)
		}
		if text := file(t, beta, unit, "status"); !strings.Contains(text, want) {
			t.Errorf("the status file is %s", text)
		}
	})
	t.Run("the engine ends before it comes", func(t *testing.T) {
		dir := t.TempDir()
		e := openEngine(t, dir, noMesh{"alpha"})
		changes := e.Subscribe(64)
		defer changes.Close()
		id := submit(t, e, request("localhost", "shraw", much), "")
		endsUnsettled(t, changes)
		runner := runnerOf(t, e, id)
		syscall.Kill(runner, syscall.SIGSTOP)
		e.Close()
		e = openEngine(t, dir, noMesh{"alpha"})
		releaseAll(t, e)
		syscall.Kill(runner, syscall.SIGCONT)
		if s := wait(t, e, id); s.SHA256 != want || s.State != Succeeded {
			t.Errorf("got %+v", s)
		}
	})
}

// TestSessionBreaksBeforeTheChecksum: a unit that is complete but for the checksum asks for it again, and is complete without if
// there is none, or the executor does not know the unit any more.
func TestSessionBreaksBeforeTheChecksum(t *testing.T) {
	for name, test := range map[string]struct {
		meanwhile func(t *testing.T, beta *Engine, id UnitID)
		want      string
	}{
		"it comes": {func(t *testing.T, beta *Engine, id UnitID) {
			syscall.Kill(runnerOf(t, beta, id), syscall.SIGCONT)
		}, sumOfMuch(t)},
		"there is none": {func(t *testing.T, beta *Engine, id UnitID) {
			syscall.Kill(runnerOf(t, beta, id), syscall.SIGKILL)
		}, ""},
		"the unit is gone": {func(t *testing.T, beta *Engine, id UnitID) {
			syscall.Kill(runnerOf(t, beta, id), syscall.SIGKILL)
			if _, err := beta.Release(testContext(t), id, false); err != nil {
				t.Errorf("release: %v", err)
			}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m, alpha, beta := pair(t)
			there, here := beta.Subscribe(1024), alpha.Subscribe(1024)
			defer there.Close()
			defer here.Close()
			mirror := submit(t, alpha, request("beta", "shraw", much), "")
			id := one(t, beta)
			reader, err := beta.Results(t.Context(), id, 0) // It keeps the checksum waiting.
			if err != nil {
				t.Fatal(err)
			}
			endsUnsettled(t, there)
			syscall.Kill(runnerOf(t, beta, id), syscall.SIGSTOP)
			reader.Close()
			endsUnsettled(t, here)
			if got := output(t, alpha, mirror, 0); len(got) != muchSize {
				t.Errorf("got %d bytes of output", len(got))
			}
			m.cut("beta")
			test.meanwhile(t, beta, id)
			m.mend("beta")
			if s := wait(t, alpha, mirror); s.State != Succeeded || s.Detail != "exit status 0" || s.StdoutSize != muchSize || s.SHA256 != test.want {
				t.Errorf("got %+v, want checksum %q", s, test.want)
			}
			if got := output(t, alpha, mirror, 0); len(got) != muchSize {
				t.Errorf("got %d bytes of output after that", len(got))
			}
		})
	}
}

// TestChecksumWaitsForReaders: who reads the output of a unit that has ended is not to share the processor with its checksum. The
// runner is told of the last who has all, or has left, and at once if there is nobody, or other units may wait for the place.
func TestChecksumWaitsForReaders(t *testing.T) {
	e := localEngine(t)
	j, err := e.create(unit.Record{WorkType: "cat", Extra: &unit.CommandExtra{}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := j.work.(*commandWorker)
	close(w.ended)
	if err := os.WriteFile(j.dir.File(store.StdoutFile), []byte("output"), 0o600); err != nil {
		t.Fatal(err)
	}
	j.adopt(unit.Record{State: Succeeded, Detail: "exit status 0", StdoutSize: 6, WorkType: "cat"})
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	near, far := os.NewFile(uintptr(fds[0]), "runner"), os.NewFile(uintptr(fds[1]), "node")
	defer near.Close()
	defer far.Close()
	r := &warmRunner{conn: near}
	told := func() {
		t.Helper()
		got := make([]byte, runner.MaxMessage)
		if n, err := far.Read(got); err != nil || string(got[:n]) != string(runner.UnreadMessage(j.dir.Path())) {
			t.Errorf("the runner is told %q, %v", got[:max(n, 0)], err)
		}
	}
	notTold := func() {
		t.Helper()
		if n, _, err := unix.Recvfrom(fds[1], make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT); err != unix.EAGAIN {
			t.Errorf("the runner is told something: %d, %v", n, err)
		}
	}
	w.tellWhenRead(r)
	told()
	open := func() io.ReadCloser {
		r, err := e.Results(t.Context(), j.id, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		return r
	}
	first, second := open(), open()
	w.tellWhenRead(r)
	if _, err := io.ReadFull(first, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	notTold() // It does not know yet that this was all.
	if n, err := first.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("got %d, %v", n, err)
	}
	notTold()
	second.Close()
	told()
	first.Close() // Is not counted twice.
	third := open()
	w.tellWhenRead(r)
	notTold()
	third.Close()
	told()
	e.gate.setTotal(1)
	open()
	w.tellWhenRead(r)
	told()
}

// TestReleaseDoesNotWaitForTheChecksum: it is not computed for a unit that is released.
func TestReleaseDoesNotWaitForTheChecksum(t *testing.T) {
	e := localEngine(t)
	changes := e.Subscribe(1024)
	defer changes.Close()
	s, err := e.Submit(request("localhost", "shraw", much))
	if err != nil {
		t.Fatal(err)
	}
	reader, err := e.Results(t.Context(), s.ID(), 0) // It keeps the checksum waiting.
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := s.ReadPayload(strings.NewReader("")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	endsUnsettled(t, changes)
	if pending, err := e.Release(testContext(t), s.ID(), false); pending || err != nil {
		t.Fatalf("release: %v, %v", pending, err)
	}
	for c := range changes.C {
		if c.Status.SHA256 != "" {
			t.Errorf("the checksum was computed: %+v", c)
		}
		if c.Released {
			break
		}
	}
	if units := left(t, e); len(units) != 0 {
		t.Errorf("%v is left", units)
	}
}

// TestReboot: a unit that ran when the machine went down says so, and no process of today is taken for one of then.
func TestReboot(t *testing.T) {
	dir := t.TempDir()
	e := openEngine(t, dir, noMesh{"alpha"})
	id := submit(t, e, request("localhost", "shraw", `-c "echo begun; sleep 300"`), "")
	until(t, e, id, "output", func(s Status) bool { return s.State == Running && s.StdoutSize > 0 })
	j, err := e.find(id)
	if err != nil {
		t.Fatal(err)
	}
	info, err := j.dir.RunnerInfo()
	if err != nil {
		t.Fatal(err)
	}
	e.Close()
	// What the disk of that machine looks like: nobody holds the lock, which is of another boot.
	text := file(t, e, id, store.RunnerFile)
	if err := os.Remove(j.dir.File(store.RunnerFile)); err != nil {
		t.Fatal(err)
	}
	text = strings.Replace(text, info.Boot, "01234567-89ab-cdef-0123-456789abcdef", 1)
	if err := os.WriteFile(j.dir.File(store.RunnerFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	e = openEngine(t, dir, noMesh{"alpha"})
	releaseAll(t, e)
	s := wait(t, e, id)
	wantStatus(t, s, Failed, "Runner died", 6)
	if s.Reason != unit.ReasonRebooted || s.SHA256 != sum("begun\n") || s.Finished.IsZero() {
		t.Errorf("got %+v", s)
	}
	if err := syscall.Kill(info.Program, 0); err != nil {
		t.Errorf("a process of this boot was killed: %v", err)
	}
	syscall.Kill(info.Runner, syscall.SIGINT)
	gone(t, info.Runner)
}

// TestABugIsNoEndOfOutput: output whose copying has met a bug here is asked for again.
func TestABugIsNoEndOfOutput(t *testing.T) {
	found := new(atomic.Bool)
	_, alpha, _ := pairWith(t, (*testMesh).serveBase, func(c *Config) { c.Mesh = faulty{Mesh: c.Mesh, found: found, inOutput: true} })
	id := submit(t, alpha, request("beta", "cat", ""), "payload")
	if got := output(t, alpha, id, 0); got != "payload" || !found.Load() {
		t.Errorf("got %q, a bug was met: %v", got, found.Load())
	}
	wantStatus(t, wait(t, alpha, id), Succeeded, "exit status 0", 7)
}
