package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

var nothingTaken = func(unit.ID) bool { return false }

func openRoot(t *testing.T) *Root {
	t.Helper()
	root, err := Open(t.TempDir(), "alpha")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func createSoon(t *testing.T, root *Root, detail string) (unit.ID, *Dir) {
	t.Helper()
	id, d, stdin, err := root.CreateSoon(unit.Record{WorkType: "cat", Detail: detail}, nothingTaken)
	if err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	return id, d
}

// restarted is what the next node finds.
func restarted(t *testing.T, root *Root) map[unit.ID]Found {
	t.Helper()
	next := &Root{path: root.path, journal: journal{path: root.journal.path}}
	found, err := next.Load()
	if err != nil {
		t.Fatal(err)
	}
	all := map[unit.ID]Found{}
	for _, f := range found {
		all[f.ID] = f
	}
	return all
}

// TestHostileJournal: what lies in the place of the journal keeps no node from its start, and is not taken for one.
func TestHostileJournal(t *testing.T) {
	for name, lay := range map[string]func(path string) error{
		"a pipe":               func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a link to no end":     func(path string) error { return os.Symlink("/dev/zero", path) },
		"a directory":          func(path string) error { return os.Mkdir(path, 0o700) },
		"a file of a tebibyte": func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<40)) },
	} {
		t.Run(name, func(t *testing.T) {
			root := openRoot(t)
			if err := os.Mkdir(root.path, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := lay(root.journal.path); err != nil {
				t.Fatal(err)
			}
			if _, err := root.Load(); (err == nil) != (name == "a file of a tebibyte") { // That one is deleted.
				t.Errorf("got %v", err)
			}
			id, _ := createSoon(t, root, "first")
			if f := root.Dir(id); !f.Exists() {
				t.Error("no unit can be made")
			}
		})
	}
}

// TestPowerLossAfterCreateSoon takes away what the disk may have lost when only the journal was durable.
func TestPowerLossAfterCreateSoon(t *testing.T) {
	for name, lose := range map[string]func(d *Dir) error{
		"nothing":      func(*Dir) error { return nil },
		"all":          func(d *Dir) error { return os.RemoveAll(d.path) },
		"the name":     func(d *Dir) error { return os.Rename(d.path, filepath.Join(filepath.Dir(d.path), draftPrefix+"x")) },
		"the files":    func(d *Dir) error { return errors.Join(os.Remove(d.File(StatusFile)), os.Remove(d.File(StdinFile))) },
		"the record":   func(d *Dir) error { return os.Truncate(d.File(StatusFile), 0) },
		"a part of it": func(d *Dir) error { return os.Truncate(d.File(StatusFile), 20) },
		"the change of a recycled directory": func(d *Dir) error {
			old := unit.Record{WorkType: "cat", Detail: "of another unit"}
			old.Created = time.Unix(1, 0)
			return d.Overwrite(old)
		},
		"the payload file": func(d *Dir) error { return os.Remove(d.File(StdinFile)) },
	} {
		t.Run(name, func(t *testing.T) {
			root := openRoot(t)
			id, d := createSoon(t, root, "first")
			if err := lose(d); err != nil {
				t.Fatal(err)
			}
			for range 2 { // The second time from the directory alone.
				if f := restarted(t, root)[id]; f.Err != nil || f.Record.WorkType != "cat" || f.Record.Detail != "first" {
					t.Fatalf("got %+v", f)
				}
			}
			if stdin, err := d.ReadStdin(); err != nil {
				t.Errorf("payload file: %v", err)
			} else {
				stdin.Close()
			}
			if _, err := os.Stat(root.journal.path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("journal after the restart: %v", err)
			}
		})
	}
}

// TestLaterRecordsOutliveTheJournal: what was written since is not undone.
func TestLaterRecordsOutliveTheJournal(t *testing.T) {
	root := openRoot(t)
	id, d := createSoon(t, root, "first")
	if _, err := d.Update(false, func(r *unit.Record) bool { r.Detail = "second"; return true }); err != nil {
		t.Fatal(err)
	}
	if f := restarted(t, root)[id]; f.Err != nil || f.Record.Detail != "second" {
		t.Errorf("got %+v, want the second record", f)
	}
}

// TestEntriesThatAreTakenOut: units that were released, or are durable in another way, are not made anew.
func TestEntriesThatAreTakenOut(t *testing.T) {
	root := openRoot(t)
	settled, _ := createSoon(t, root, "settled")
	released, _ := createSoon(t, root, "released")
	kept, _ := createSoon(t, root, "kept")
	for range 2 {
		if err := root.Settle(settled); err != nil {
			t.Fatal(err)
		}
		root.Forget(released)
		if err := root.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []unit.ID{settled, released, kept} {
		if err := root.Dir(id).Remove(); err != nil {
			t.Fatal(err)
		}
	}
	if all := restarted(t, root); len(all) != 1 || all[kept].Record.Detail != "kept" {
		t.Errorf("got %+v, want the one that was kept", all)
	}
}

// TestMoreThanTheJournalHolds: units that find no room are made all the same, and each place is used again.
func TestMoreThanTheJournalHolds(t *testing.T) {
	root := openRoot(t)
	long, _ := createSoon(t, root, strings.Repeat("x", journalEntry))
	if root.journal.has(long) {
		t.Error("a record is in the journal that has no room there")
	}
	for round := range 2 {
		var all []unit.ID
		for n := range journalEntries + 2 {
			id, _ := createSoon(t, root, fmt.Sprint(n))
			if root.journal.has(id) != (n < journalEntries) {
				t.Fatalf("round %d: unit %d is in the journal: %v", round, n, root.journal.has(id))
			}
			all = append(all, id)
		}
		if text, err := os.ReadFile(root.journal.path); err != nil || len(text) != journalEntries*journalEntry {
			t.Fatalf("journal has %d bytes, %v", len(text), err)
		}
		for _, id := range all {
			root.Forget(id)
			if err := root.Dir(id).Remove(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if all := restarted(t, root); len(all) != 1 || all[long].Err != nil {
		t.Errorf("got %+v, want the one with the long record", all)
	}
}

// TestCloseSettles: a root that was closed leaves no journal, and its units.
func TestCloseSettles(t *testing.T) {
	root := openRoot(t)
	id, _ := createSoon(t, root, "first")
	gone, d := createSoon(t, root, "second")
	if err := errors.Join(d.Remove(), root.Close(), root.Close()); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(root.Path()); len(entries) != 1 || entries[0].Name() != string(id) {
		t.Errorf("left: %v", entries)
	}
	root.Forget(gone)
	if late, _ := createSoon(t, root, "late"); root.journal.has(late) {
		t.Error("a closed journal has taken an entry")
	}
}

// TestDamagedJournal: an entry that is not whole counts for nothing, and the others are good.
func TestDamagedJournal(t *testing.T) {
	root := openRoot(t)
	torn, _ := createSoon(t, root, "torn")
	good, _ := createSoon(t, root, "good")
	text, err := os.ReadFile(root.journal.path)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte(`"torn"`), []byte(`"town"`), 1)
	if err := errors.Join(os.WriteFile(root.journal.path, text, 0o600), root.Dir(torn).Remove(), root.Dir(good).Remove()); err != nil {
		t.Fatal(err)
	}
	if all := restarted(t, root); len(all) != 1 || all[good].Record.Detail != "good" {
		t.Errorf("got %+v, want the good one", all)
	}
}

// TestJournalThatCannotBeReplayed is kept, although units are made.
func TestJournalThatCannotBeReplayed(t *testing.T) {
	root := openRoot(t)
	id, d := createSoon(t, root, "first")
	if err := errors.Join(d.Remove(), os.WriteFile(d.path, nil, 0o600), root.claim.release()); err != nil {
		t.Fatal(err)
	}
	next := &Root{path: root.path, journal: journal{path: root.journal.path}}
	if _, err := next.Load(); err == nil {
		t.Error("a unit could not be made anew, and nobody was told")
	}
	if later, _ := createSoon(t, next, "later"); next.journal.has(later) {
		t.Error("the journal is used that is to be kept")
	}
	if err := errors.Join(next.Close(), os.Remove(d.path)); err != nil {
		t.Fatal(err)
	}
	if all := restarted(t, root); len(all) != 2 || all[id].Record.Detail != "first" {
		t.Errorf("got %+v, want both units", all)
	}
}

// TestReleasedUnitOfKeptJournal: a unit that is released is not made anew because another one of its journal could not be, nor is that one.
func TestReleasedUnitOfKeptJournal(t *testing.T) {
	root := openRoot(t)
	good, _ := createSoon(t, root, "good")
	bad, d := createSoon(t, root, "bad")
	if err := errors.Join(d.Remove(), os.WriteFile(d.path, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	next := &Root{path: root.path, journal: journal{path: root.journal.path}}
	if _, err := next.Load(); err == nil {
		t.Error("a unit could not be made anew, and nobody was told")
	}
	for _, id := range []unit.ID{good, bad} {
		next.Forget(id)
		if err := os.RemoveAll(next.Dir(id).path); err != nil {
			t.Fatal(err)
		}
	}
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
	if all := restarted(t, root); len(all) != 0 {
		t.Errorf("got %+v, want no unit", all)
	}
}

// TestHalfMadeUnits: a directory whose record the disk has lost before anybody was told of it is cleared; one that somebody has
// locked since is reported.
func TestHalfMadeUnits(t *testing.T) {
	root := openRoot(t)
	for _, name := range []string{"cleared1/stdin", "cleared2/stdin", "cleared2/status", "cleared2/.lock", "locked01/stdin", "locked01/status", "locked01/status.lock", "payload1/status"} {
		path := filepath.Join(root.Path(), name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root.Path(), "payload1/stdin"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	all := restarted(t, root)
	if len(all) != 2 || all["locked01"].Err == nil || all["payload1"].Err == nil {
		t.Errorf("got %+v, want two that cannot be read", all)
	}
	if entries, _ := os.ReadDir(root.Path()); len(entries) != 2 {
		t.Errorf("left: %v", entries)
	}
}

func TestJournalTogether(t *testing.T) {
	root := openRoot(t)
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for n := range 20 {
				id, d, stdin, err := root.CreateSoon(unit.Record{WorkType: "cat"}, nothingTaken)
				if err != nil {
					t.Error(err)
					return
				}
				stdin.Close()
				if n%2 == 0 {
					err = root.Settle(id)
				}
				root.Forget(id)
				if err = errors.Join(err, d.Remove()); err != nil {
					t.Errorf("worker %d: %v", worker, err)
				}
			}
		})
	}
	all.Wait()
	if len(root.journal.ids()) != 0 || len(root.journal.free) != journalEntries {
		t.Errorf("journal has %v, and %d places", root.journal.ids(), len(root.journal.free))
	}
}

// FuzzEntry: whatever is in the journal, an entry is read as it was written, or counts for nothing.
func FuzzEntry(f *testing.F) {
	f.Add(appendEntry("unit0001", []byte(`{"State":0}`)))
	f.Add([]byte("unit0001 -1 00000000\n"))
	f.Add([]byte("../x 0 00000000\n"))
	f.Fuzz(func(t *testing.T, place []byte) {
		id, record := parseEntry(place)
		if id == "" {
			return
		}
		again, same := parseEntry(append(appendEntry(id, record), "rest of an earlier entry"...))
		if !id.Valid() || again != id || !bytes.Equal(same, record) {
			t.Errorf("got %q %q, then %q %q", id, record, again, same)
		}
	})
}
