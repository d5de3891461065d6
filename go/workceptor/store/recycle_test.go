package store

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// TestRecycle: the next unit gets the directory and the files of a released one, and nothing of what was in them.
func TestRecycle(t *testing.T) {
	root := openRoot(t)
	_, d := createSoon(t, root, "first")
	before := fill(t, d)
	recycle(t, root, d)
	id, d := createSoon(t, root, "second")
	if after, err := os.Stat(d.path); err != nil || !os.SameFile(before["."], after) {
		t.Errorf("the directory was not used again: %v", err)
	}
	wantFiles(t, d, ".lock", ".runner", ".stdout", ".tmp", StatusFile, StdinFile)
	if err := d.MarkLaunched("b"); err != nil {
		t.Fatal(err)
	}
	wantContent(t, d, RunnerFile, "boot b\n")
	stdout, err := d.OpenStdout()
	if err != nil {
		t.Fatal(err)
	}
	stdout.Close()
	if _, err := d.UpdateSoon(func(rec *unit.Record) bool { rec.Detail = "third"; return true }); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, d, RunnerFile, StatusFile, LockFile, tempFile, StdinFile, StdoutFile)
	for _, name := range []string{StdinFile, StdoutFile, LockFile} {
		wantContent(t, d, name, "")
	}
	for name, was := range before {
		switch now, err := os.Stat(d.File(name)); {
		case err != nil:
			t.Error(err)
		case name == StatusFile || name == tempFile: // They have changed places.
		case !os.SameFile(was, now):
			t.Errorf("%s was not used again", name)
		}
	}
	if f := restarted(t, root)[id]; f.Err != nil || f.Record.Detail != "third" {
		t.Errorf("got %+v", f)
	}
}

// TestRecycledIsAUnit: one that a node had made and not begun with is found by the next.
func TestRecycledIsAUnit(t *testing.T) {
	root := openRoot(t)
	_, d := createSoon(t, root, "first")
	fill(t, d)
	recycle(t, root, d)
	id, _ := createSoon(t, root, "second")
	if f := restarted(t, root)[id]; f.Err != nil || f.Record.Detail != "second" {
		t.Errorf("got %+v", f)
	}
}

// fill writes something into every file that a unit may have.
func fill(t *testing.T, d *Dir) map[string]os.FileInfo {
	t.Helper()
	found := map[string]os.FileInfo{".": nil}
	for _, name := range []string{StatusFile, StdinFile, StdoutFile, RunnerFile, LockFile, tempFile} {
		if err := os.WriteFile(d.File(name), []byte("of the first"), 0o600); err != nil {
			t.Fatal(err)
		}
		found[name] = nil
	}
	for name := range found {
		info, err := os.Stat(d.File(name))
		if err != nil {
			t.Fatal(err)
		}
		found[name] = info
	}
	return found
}

func wantContent(t *testing.T, d *Dir, name, want string) {
	t.Helper()
	if text, err := os.ReadFile(d.File(name)); err != nil || string(text) != want {
		t.Errorf("%s has %q, want %q; %v", name, text, want, err)
	}
}

// TestOpenFileIsNotRecycled: who still has a file of a released unit open finds what was in it, and nothing of the next unit.
func TestOpenFileIsNotRecycled(t *testing.T) {
	root := openRoot(t)
	_, d := createSoon(t, root, "first")
	fill(t, d)
	reader, err := d.ReadStdout()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	recycle(t, root, d)
	_, d = createSoon(t, root, "second")
	wantFiles(t, d, ".lock", ".runner", ".tmp", StatusFile, StdinFile)
	stdout, err := d.OpenStdout()
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	if _, err := stdout.WriteString("of the second, and longer"); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(reader); err != nil || string(text) != "of the first" {
		t.Errorf("the reader of the first unit gets %q, %v", text, err)
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

const nobody = 65534

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
		"no payload file":         func(d *Dir) error { return os.Remove(d.File(StdinFile)) },
		"open to all":             func(d *Dir) error { return os.Chmod(d.path, 0o777) },
		"payload open to all":     func(d *Dir) error { return os.Chmod(d.File(StdinFile), 0o666) },
		"of another user":         func(d *Dir) error { return os.Chown(d.path, nobody, -1) },
		"payload of another user": func(d *Dir) error { return os.Chown(d.File(StdinFile), nobody, -1) },
	} {
		t.Run(name, func(t *testing.T) {
			if strings.HasSuffix(name, "of another user") && os.Geteuid() != 0 {
				t.Skip("only root gives files away")
			}
			if err := os.WriteFile(other, []byte("kept"), 0o600); err != nil {
				t.Fatal(err)
			}
			root := openRoot(t)
			_, d := createSoon(t, root, "first")
			if err := change(d); err != nil {
				t.Fatal(err)
			}
			recycle(t, root, d)
			wantFiles(t, At(root.Path()), ClaimFile, JournalFile)
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

// TestNobodyElseHas: a file that has been looked at can be opened although a copy of the descriptor is still there, as a process
// that is being started has one.
func TestNobodyElseHas(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if !nobodyElseHas(int(f.Fd())) {
		t.Fatal("somebody else has a new file, or the file system gives no leases")
	}
	other, err := openRegular(f.Name(), os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	if nobodyElseHas(int(f.Fd())) {
		t.Error("the other one does not count")
	}
	other.Close()
}
