package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// TestRecycle: the next unit gets the directory of a released one, and nothing of what was in it.
func TestRecycle(t *testing.T) {
	root := openRoot(t)
	_, d := createSoon(t, root, "first")
	before, err := os.Stat(d.path)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{StdinFile, StdoutFile, RunnerFile, LockFile, tempFile} {
		if err := os.WriteFile(d.File(name), []byte("of the first"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	recycle(t, root, d)
	id, d := createSoon(t, root, "second")
	after, err := os.Stat(d.path)
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the directory was not used again: %v", err)
	}
	wantFiles(t, d, spareLock, StatusFile, StdinFile)
	if info, err := os.Stat(d.File(StdinFile)); err != nil || info.Size() != 0 {
		t.Errorf("payload of a new unit: %+v, %v", info, err)
	}
	lock, err := os.Stat(d.File(spareLock))
	if err != nil || lock.Size() != 0 {
		t.Fatalf("spare lock file: %+v, %v", lock, err)
	}
	if err := d.MarkLaunched("b"); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, d, RunnerFile, StatusFile, LockFile, StdinFile)
	if used, err := os.Stat(d.File(LockFile)); err != nil || !os.SameFile(lock, used) {
		t.Errorf("the lock file was not used again: %v", err)
	}
	if f := restarted(t, root)[id]; f.Err != nil || f.Record.Detail != "second" {
		t.Errorf("got %+v", f)
	}
}

// TestSpareLockIsNotNeeded: a lock that somebody may hold is not replaced by the spare one.
func TestSpareLockIsNotNeeded(t *testing.T) {
	root := openRoot(t)
	_, d := createSoon(t, root, "first")
	if _, err := d.Read(); err != nil {
		t.Fatal(err)
	}
	recycle(t, root, d)
	_, d = createSoon(t, root, "second")
	unlock, err := d.lock(0)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if err := d.MarkLaunched("b"); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, d, RunnerFile, StatusFile, LockFile, StdinFile)
	if _, err := d.lock(0); !errors.Is(err, ErrLocked) {
		t.Errorf("got %v, want ErrLocked", err)
	}
}

// TestNotRecycled: a directory that is not as it was made is deleted.
func TestNotRecycled(t *testing.T) {
	other := filepath.Join(t.TempDir(), "other")
	for name, change := range map[string]func(d *Dir) error{
		"a file of the command": func(d *Dir) error { return os.WriteFile(d.File("notes"), nil, 0o600) },
		"a directory": func(d *Dir) error {
			return errors.Join(os.Remove(d.File(StatusFile)), os.Mkdir(d.File(StatusFile), 0o700))
		},
		"a link": func(d *Dir) error {
			return errors.Join(os.Remove(d.File(StdinFile)), os.Symlink(other, d.File(StdinFile)))
		},
		"another name": func(d *Dir) error {
			return errors.Join(os.Remove(d.File(StdinFile)), os.Link(other, d.File(StdinFile)))
		},
		"no payload file":     func(d *Dir) error { return os.Remove(d.File(StdinFile)) },
		"open to all":         func(d *Dir) error { return os.Chmod(d.path, 0o777) },
		"payload open to all": func(d *Dir) error { return os.Chmod(d.File(StdinFile), 0o666) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(other, []byte("kept"), 0o600); err != nil {
				t.Fatal(err)
			}
			root := openRoot(t)
			_, d := createSoon(t, root, "first")
			if err := change(d); err != nil {
				t.Fatal(err)
			}
			recycle(t, root, d)
			if entries, _ := os.ReadDir(root.Path()); len(entries) != 1 || entries[0].Name() != JournalFile {
				t.Errorf("left: %v", entries)
			}
			if text, err := os.ReadFile(other); string(text) != "kept" || err != nil {
				t.Errorf("what the link leads to has %q, %v", text, err)
			}
		})
	}
}

// TestRecycledAreFew: more than a few are deleted, and all are when the root is closed, or the next node starts.
func TestRecycledAreFew(t *testing.T) {
	root := openRoot(t)
	var all []*Dir
	for range mostRecycled + 3 {
		_, d := createSoon(t, root, "")
		all = append(all, d)
	}
	for _, d := range all {
		recycle(t, root, d)
	}
	kept := func() (n int) {
		entries, _ := os.ReadDir(root.Path())
		for _, entry := range entries {
			if strings.HasPrefix(entry.Name(), removedPrefix) {
				n++
			}
		}
		return n
	}
	if n := kept(); n != mostRecycled {
		t.Errorf("%d directories are kept, want %d", n, mostRecycled)
	}
	restarted(t, root)
	if n := kept(); n != 0 {
		t.Errorf("%d directories after a start", n)
	}
	_, d := createSoon(t, root, "") // The directories that it had are gone.
	wantFiles(t, d, StatusFile, StdinFile)
	recycle(t, root, d)
	if err := root.Close(); err != nil || kept() != 0 {
		t.Errorf("%d directories after the close, %v", kept(), err)
	}
}

func recycle(t *testing.T, root *Root, d *Dir) {
	t.Helper()
	root.Forget(unit.ID(filepath.Base(d.path)))
	trash, err := d.Discard()
	if err != nil {
		t.Fatal(err)
	}
	if err := root.Recycle(trash); err != nil {
		t.Fatal(err)
	}
}

func wantFiles(t *testing.T, d *Dir, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(d.path)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, entry := range entries {
		got = append(got, entry.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("the directory has %v, want %v", got, want)
	}
}

// TestLockThatIsKeptIsNotRecycled: who never gives a lock back does not hold up another unit.
func TestLockThatIsKeptIsNotRecycled(t *testing.T) {
	root := openRoot(t)
	_, d := createSoon(t, root, "first")
	unlock, err := d.lock(0)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	recycle(t, root, d)
	_, d = createSoon(t, root, "second")
	wantFiles(t, d, StatusFile, StdinFile)
}
