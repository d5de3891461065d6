package store

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// writerEnv makes the test binary write one status after the other, until it is killed.
const writerEnv = "STORE_TEST_WRITER"

func TestMain(m *testing.M) {
	if path := os.Getenv(writerEnv); path != "" {
		writeForEver(At(path))
	}
	os.Exit(m.Run())
}

func writeForEver(d *Dir) {
	fmt.Println("ready")
	for n := 1; ; n++ {
		_, err := d.Update(false, func(r *unit.Record) bool {
			r.State, r.StdoutSize, r.Detail = unit.Running, r.StdoutSize+1, strings.Repeat("x", n%3000)
			return true
		})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
}

func create(t testing.TB) (*Root, unit.ID, *Dir) {
	t.Helper()
	root, err := Open(t.TempDir(), "alpha")
	if err != nil {
		t.Fatal(err)
	}
	id, d, stdin, err := root.Create(unit.Record{WorkType: "cat"}, func(unit.ID) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	return root, id, d
}

// TestKilledWriters kills processes that write status files, and reads after each kill, and all the time without lock.
func TestKilledWriters(t *testing.T) {
	_, _, d := create(t)
	var last int64
	for range 12 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), writerEnv+"="+d.Path())
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
			t.Fatalf("writer: %q, %v", line, err)
		}
		for range 200 {
			if _, err := d.read(); err != nil {
				t.Fatalf("read without lock while the file is written: %v", err)
			}
		}
		cmd.Process.Kill()
		cmd.Wait()
		r, err := d.Read()
		if err != nil || r.StdoutSize < last {
			t.Fatalf("after a kill: got size %d, %v, want at least %d", r.StdoutSize, err, last)
		}
		last = r.StdoutSize
	}
	if last == 0 {
		t.Error("the writers wrote nothing")
	}
}

func TestConcurrentUpdates(t *testing.T) {
	_, _, d := create(t)
	const writers, rounds = 8, 50
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for range rounds {
				if _, err := d.Update(false, func(r *unit.Record) bool { r.StdoutSize++; return true }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if r, err := d.Read(); err != nil || r.StdoutSize != writers*rounds {
		t.Errorf("got %d, %v, want %d", r.StdoutSize, err, writers*rounds)
	}
}

func TestUpdateThatChangesNothing(t *testing.T) {
	_, _, d := create(t)
	before, _ := os.Stat(d.File(StatusFile))
	if _, err := d.Update(true, func(r *unit.Record) bool { r.Detail = "not kept"; return false }); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.Stat(d.File(StatusFile)); !os.SameFile(before, after) {
		t.Error("the file was written")
	}
}

// TestUpdateSoon: until the new record is durable the one before is kept, for the case that the disk loses the new one.
func TestUpdateSoon(t *testing.T) {
	root, id, d := create(t)
	for _, detail := range []string{"second", "third"} {
		rec, err := d.UpdateSoon(func(r *unit.Record) bool { r.Detail = detail; return true })
		if err != nil || rec.Detail != detail {
			t.Fatalf("got %+v, %v", rec, err)
		}
	}
	if r, err := d.Read(); err != nil || r.Detail != "third" {
		t.Errorf("got %q, %v, want the third record", r.Detail, err)
	}
	if err := os.Truncate(d.File(StatusFile), 0); err != nil {
		t.Fatal(err)
	}
	if found, err := root.Load(); err != nil || len(found) != 1 || found[0].ID != id || found[0].Record.Detail != "second" {
		t.Errorf("after the loss of the third record: got %+v, %v, want the second", found, err)
	}
	if _, err := d.UpdateSoon(func(r *unit.Record) bool { r.Detail = "fourth"; return true }); err != nil {
		t.Fatal(err)
	}
	if err := d.SyncResult(); err != nil {
		t.Fatal(err)
	}
	if r, err := d.Read(); err != nil || r.Detail != "fourth" {
		t.Errorf("got %q, %v, want the fourth record", r.Detail, err)
	}
	if _, err := os.Stat(d.File(tempFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the record before a durable one: %v", err)
	}
}

func TestLoadAndRemove(t *testing.T) {
	root, id, d := create(t)
	os.Mkdir(filepath.Join(root.Path(), removedPrefix+"Gone0001"), 0o700) // A crash in the middle of a removal,
	os.Mkdir(filepath.Join(root.Path(), draftPrefix+"Gone0002"), 0o700)   // and one of a creation.
	found, err := root.Load()
	if err != nil || len(found) != 1 || found[0].ID != id || found[0].Record.WorkType != "cat" {
		t.Fatalf("got %+v, %v", found, err)
	}
	for range 2 {
		if err := d.Remove(); err != nil {
			t.Fatal(err)
		}
	}
	wantFiles(t, At(root.Path()), ClaimFile)
	if _, err := d.Read(); !errors.Is(err, ErrNoStatus) {
		t.Errorf("read of a removed unit: %v", err)
	}
	if _, err := d.Update(true, func(*unit.Record) bool { return true }); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("update of a removed unit: %v", err)
	}
}

func TestCreateThatFailsLeavesNothing(t *testing.T) {
	root, err := Open(t.TempDir(), "alpha")
	if err != nil {
		t.Fatal(err)
	}
	big := unit.Record{Detail: strings.Repeat("x", unit.MaxRecord)}
	if _, _, _, err := root.Create(big, func(unit.ID) bool { return false }); err == nil {
		t.Error("a record that could not be read again was written")
	}
	wantFiles(t, At(root.Path()), ClaimFile)
}

func TestNodeNames(t *testing.T) {
	for _, name := range []string{"..", "../x", "/etc", "", ".", "a/../..", "a\x00b"} {
		if root, err := Open("/data", name); err == nil {
			t.Errorf("%q became %s", name, root.Path())
		}
	}
	for _, name := range []string{"alpha", "my node", "a/b", "ä", "..x"} {
		if _, err := Open("/data", name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestRunnerLock(t *testing.T) {
	_, _, d := create(t)
	if alive, known := d.RunnerAlive(); alive || known {
		t.Errorf("before any runner: got %v, %v", alive, known)
	}
	for range 2 {
		if err := d.MarkLaunched("b"); err != nil {
			t.Fatal(err)
		}
	}
	if alive, known := d.RunnerAlive(); alive || known {
		t.Errorf("marked as launched: got %v, %v", alive, known)
	}
	lock, before, err := d.LockRunner()
	if err != nil || before != (RunnerInfo{Boot: "b"}) {
		t.Fatalf("got %+v, %v", before, err)
	}
	info := RunnerInfo{Boot: "b", Runner: 10, RunnerStart: 11, Program: 20, ProgramStart: 21}
	if err := lock.Write(info); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.LockRunner(); !errors.Is(err, ErrLocked) {
		t.Errorf("second runner: got %v, want ErrLocked", err)
	}
	if alive, known := d.RunnerAlive(); !alive || !known {
		t.Errorf("with a runner: got %v, %v", alive, known)
	}
	for _, info.Cgroup = range []string{"/a/longer/text", ""} {
		if err := lock.Write(info); err != nil {
			t.Fatal(err)
		}
		if got, err := d.RunnerInfo(); got != info || err != nil {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	if err := d.MarkLaunched("c"); err != nil {
		t.Fatal(err)
	}
	lock.Close()
	if lock, before, err := d.LockRunner(); before != info || err != nil {
		t.Errorf("got %+v, %v", before, err)
	} else {
		lock.Close()
	}
	if alive, known := d.RunnerAlive(); alive || !known {
		t.Errorf("after the runner: got %v, %v", alive, known)
	}
	os.WriteFile(d.File(RunnerFile), []byte("boot\nrunner -1 5\nprogram 1 x\nrunner 99999999999999999999 1\n\xff"), 0o600)
	if got, err := d.RunnerInfo(); got != (RunnerInfo{}) || err != nil {
		t.Errorf("garbage: got %+v, %v", got, err)
	}
}

// TestLockThatIsKept: somebody who never gives the lock back delays, but does not hang.
func TestLockThatIsKept(t *testing.T) {
	_, _, d := create(t)
	unlock, err := d.lock(readWait)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if _, err := d.Read(); err != nil {
		t.Errorf("read: %v", err)
	}
	if _, err := d.lock(0); !errors.Is(err, ErrLocked) {
		t.Errorf("lock: got %v, want ErrLocked", err)
	}
}

// TestFullDisk fills a small file system: the news still gets into the status file.
func TestFullDisk(t *testing.T) {
	mount := t.TempDir()
	if err := syscall.Mount("tmpfs", mount, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("cannot mount a file system: %v", err)
	}
	defer syscall.Unmount(mount, syscall.MNT_DETACH)
	root, err := Open(mount, "alpha")
	if err != nil {
		t.Fatal(err)
	}
	_, d, stdin, err := root.Create(unit.Record{Detail: "Waiting for Input Data"}, func(unit.ID) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	for err == nil {
		_, err = stdin.Write(make([]byte, 1000))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling: %v", err)
	}
	for _, detail := range []string{"no space left on device, and a long text about it", "short"} {
		if _, err := d.Update(true, func(r *unit.Record) bool { r.Detail = detail; return true }); err != nil {
			t.Fatalf("update on a full disk: %v", err)
		}
		if r, err := d.Read(); err != nil || r.Detail != detail {
			t.Errorf("got %q, %v, want %q", r.Detail, err, detail)
		}
	}
	if _, _, _, err := root.Create(unit.Record{}, func(unit.ID) bool { return false }); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("another unit: got %v, want ENOSPC", err)
	}
	wantFiles(t, At(root.Path()), ClaimFile, filepath.Base(d.Path()))
}

// TestNothingIsLeftAtTheLimitOfOpenFiles: what cannot be made leaves nothing, and what is released is deleted, also if no file can be
// opened for that.
func TestNothingIsLeftAtTheLimitOfOpenFiles(t *testing.T) {
	r, err := Open(t.TempDir(), "alpha")
	if err != nil {
		t.Fatal(err)
	}
	none := func(unit.ID) bool { return false }
	_, d, stdin, err := r.Create(unit.Record{}, none)
	if err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	trash, err := d.Discard()
	if err != nil {
		t.Fatal(err)
	}
	var before unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: before.Max}, nil); err != nil {
		t.Fatal(err)
	}
	_, _, _, createErr := r.Create(unit.Record{}, none)
	deleteErr := trash.Delete()
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &before, nil); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(createErr, syscall.EMFILE) || deleteErr != nil {
		t.Errorf("create: %v, delete: %v", createErr, deleteErr)
	}
	wantFiles(t, At(r.Path()), ClaimFile)
}

// TestABugInARecord: the unit whose record finds it cannot be read; the others can.
func TestABugInARecord(t *testing.T) {
	_, id, dir := create(t)
	found := []Found{{ID: "broken"}, {ID: id, Dir: dir}} // The first has no directory.
	readAll(found)
	if _, is := errors.AsType[*fault.Error](found[0].Err); !is {
		t.Errorf("got %v, want a fault", found[0].Err)
	}
	if found[1].Err != nil || found[1].Record.WorkType != "cat" {
		t.Errorf("got %+v", found[1])
	}
}
