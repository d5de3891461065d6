// Package store keeps units of work on disk: one directory per unit with the files status, status.lock, stdin and
// stdout, in the form that other Receptor nodes and runners use.
//
// # Promises
//
//   - The status file is replaced whole (temporary file, rename) while status.lock is held with flock, so a reader that
//     takes no lock sees the old record or the new one, and a crash leaves one of them. Only when the disk is full and
//     no temporary file can be written is the file overwritten in place, because losing the news is worse.
//   - [Root.Create] returns when the new unit survives a power loss: three syncs (status, unit directory, node
//     directory, the last shared with units that are made at the same time). So does [Root.CreateSoon], with one sync, of the file
//     .journal in the node directory, that all units share which are made at the same time; [Root.Load] makes the unit from it
//     if the disk has lost its directory. [Root.Settle] makes that durable, too.
//   - Later updates sync if the caller asks; [Dir.UpdateSoon] keeps the record before until [Dir.SyncResult] has synced. An update without sync never damages the record in a crash of
//     the process; after a power loss the file may be empty, which is then reported as such.
//   - A unit is there or not: its directory is filled under another name before it gets its own, and renamed away before
//     it is deleted. [Root.Load] clears what a crash left of either.
//   - What a released unit had is deleted, but its directory and its files, emptied, may be used for another unit (see recycle.go).
//     Those that wait for one are few, and are deleted by [Root.Close] and [Root.Load].
//   - Two nodes do not use one directory at once: see [Root.Claim].
//   - What lies in a unit directory is not trusted: only regular files are read, links are not followed, sizes are
//     bounded, and a lock that somebody keeps does not block for ever.
//
// All methods may be called from several goroutines and processes.
package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/files"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// Names of the files of a unit.
const (
	StatusFile = "status"
	LockFile   = "status.lock"
	StdinFile  = "stdin"
	StdoutFile = "stdout"
	RunnerFile = "runner.lock"

	// JournalFile is in the directory of the node: see [Root.CreateSoon].
	JournalFile = ".journal"

	tempFile      = "status.tmp"
	draftPrefix   = ".new-"
	removedPrefix = ".released-"
)

// Errors that callers tell apart.
var (
	ErrNoStatus = errors.New("no status file")
	ErrLocked   = errors.New("lock is held by another process")
	ErrNoUnit   = errors.New("not a directory")
)

// Root is the directory that holds the units of one node.
type Root struct {
	path     string
	syncs    shared // Of the directory itself.
	journal  journal
	recycled recycled
	claim    claim
}

// shared is a sync of something that many want to be durable.
type shared struct {
	mu            sync.Mutex
	running, next *syncing // One under way, and one that begins after it.
}

// syncing makes durable what was done before it began.
type syncing struct {
	done chan struct{}
	err  error
}

// Open names the directory of node's units below dataDir. It is made when the first unit is.
func Open(dataDir, node string) (*Root, error) {
	if !filepath.IsLocal(node) || filepath.Clean(node) == "." || strings.ContainsRune(node, 0) {
		return nil, fmt.Errorf("node ID %q cannot name a directory below %s", node, dataDir)
	}
	path := filepath.Join(dataDir, node)
	return &Root{path: path, journal: journal{path: filepath.Join(path, JournalFile)}}, nil
}

// Path returns the directory.
func (r *Root) Path() string { return r.path }

// Dir returns the directory of unit id, which must be valid.
func (r *Root) Dir(id unit.ID) *Dir { return At(filepath.Join(r.path, string(id))) }

// Create makes a unit with a new ID that taken does not know, its record and an empty payload file, all of it durable.
// On an error nothing is left behind.
func (r *Root) Create(rec unit.Record, taken func(unit.ID) bool) (unit.ID, *Dir, *os.File, error) {
	return r.create(rec, taken, false)
}

// CreateSoon is Create for a unit that will soon be released, as a rule. [Root.Settle] is called before anything else about it is
// to be durable, and after a while.
func (r *Root) CreateSoon(rec unit.Record, taken func(unit.ID) bool) (unit.ID, *Dir, *os.File, error) {
	return r.create(rec, taken, true)
}

func (r *Root) create(rec unit.Record, taken func(unit.ID) bool, soon bool) (unit.ID, *Dir, *os.File, error) {
	if err := os.MkdirAll(r.path, 0o700); err != nil {
		return "", nil, nil, err
	}
	if err := r.Claim(); err != nil {
		return "", nil, nil, err
	}
	id, err := r.freeID(taken)
	if err != nil {
		return "", nil, nil, err
	}
	data, err := encode(rec)
	if err != nil {
		return "", nil, nil, err
	}
	d := r.Dir(id)
	draft, err := r.draft(id)
	if err != nil {
		return "", nil, nil, err
	}
	stdin, err := draft.fill(data)
	if err == nil && !soon {
		err = draft.syncFilled()
	}
	if err == nil {
		err = os.Rename(draft.path, d.path)
	}
	if err != nil {
		stdin.Close() // May be nil, which is no harm.
		return "", nil, nil, errors.Join(err, deleteUnit(draft.path))
	}
	switch {
	case soon && r.journal.add(id, data):
	case soon:
		err = r.syncUnit(d)
	default:
		err = r.sync()
	}
	if err != nil {
		stdin.Close()
		return "", nil, nil, errors.Join(err, d.Remove())
	}
	return id, d, stdin, nil
}

// Settle makes the directory of a unit durable that was made by [Root.CreateSoon]. It does nothing for others, or twice.
func (r *Root) Settle(id unit.ID) error {
	if !r.journal.has(id) {
		return nil
	}
	if err := r.syncUnit(r.Dir(id)); err != nil && !errors.Is(err, fs.ErrNotExist) { // Being released.
		return err
	}
	r.journal.drop(id)
	return nil
}

// Forget is called before a unit is removed.
func (r *Root) Forget(id unit.ID) { r.journal.drop(id) }

// Flush has the disk know of the units that were settled or forgotten, so that none of those is made anew that are gone.
func (r *Root) Flush() error { return r.journal.flush() }

// Close settles all units, closes the journal, deletes what was to be recycled, and lets another node have the directory.
func (r *Root) Close() error {
	var err error
	for _, id := range r.journal.ids() {
		err = errors.Join(err, r.Settle(id))
	}
	return errors.Join(err, r.journal.close(), r.recycled.close(), r.claim.release())
}

func (r *Root) syncUnit(d *Dir) error {
	if err := d.syncFilled(); err != nil {
		return err
	}
	return r.sync()
}

func (r *Root) sync() error { return r.syncs.do(func() error { return syncDir(r.path) }) }

// do makes durable what was done before the call. Calls that come while another one is under way share the next sync.
func (s *shared) do(sync func() error) error {
	s.mu.Lock()
	mine, before := s.next, s.running
	leads := mine == nil
	if leads {
		mine = &syncing{done: make(chan struct{})}
		s.next = mine
	}
	s.mu.Unlock()
	if !leads {
		<-mine.done
		return mine.err
	}
	if before != nil {
		<-before.done
	}
	s.mu.Lock()
	s.running, s.next = mine, nil
	s.mu.Unlock()
	mine.err = sync()
	close(mine.done)
	return mine.err
}

func (r *Root) freeID(taken func(unit.ID) bool) (unit.ID, error) {
	for {
		id := unit.NewID()
		if taken(id) {
			continue
		}
		_, err := os.Lstat(r.Dir(id).path)
		if errors.Is(err, fs.ErrNotExist) {
			return id, nil
		}
		if err != nil {
			return "", err
		}
	}
}

// fill makes the files of a draft. Nobody sees one, so there is nothing to lock or to replace.
func (d *Dir) fill(status []byte) (stdin *os.File, err error) {
	stdin, err = openRegular(d.File(StdinFile), os.O_WRONLY|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	return stdin, d.write(StatusFile, status, false)
}

// syncFilled makes the status and the directory durable.
func (d *Dir) syncFilled() error {
	if err := d.syncFile(StatusFile); err != nil {
		return err
	}
	return syncDir(d.path)
}

// Found is one unit directory that [Root.Load] came across.
type Found struct {
	ID     unit.ID
	Dir    *Dir
	Record unit.Record
	Err    error // The record could not be read; ErrNoStatus if there is none, ErrNoUnit if a link or a file has the name of a unit.
}

// Load reads all units of the node, which [Root.Claim] keeps others from. Entries that cannot be a unit are left out; a node without
// a directory has no units.
func (r *Root) Load() ([]Found, error) {
	replayed := r.replay()
	entries, err := os.ReadDir(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, files.Denied(err, r.path, r.path)
	}
	err = replayed
	var found []Found
	for _, entry := range entries {
		name := entry.Name()
		switch {
		case strings.HasPrefix(name, removedPrefix), strings.HasPrefix(name, draftPrefix):
			err = errors.Join(err, os.RemoveAll(filepath.Join(r.path, name)))
		case unit.ID(name).Valid():
			f := Found{ID: unit.ID(name), Dir: r.Dir(unit.ID(name))}
			if !entry.IsDir() {
				f.Err = fmt.Errorf("%w: %s", ErrNoUnit, f.Dir.path)
			}
			found = append(found, f)
		}
	}
	readAll(found)
	return slices.DeleteFunc(found, func(f Found) bool { return f.Dir == nil }), err
}

// readers is how many records are read at once: a disk that takes its time, or a lock that somebody keeps, holds up few.
const readers = 16

func readAll(found []Found) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(found)); i = next.Add(1) - 1 {
				found[i].read()
			}
		})
	}
	wg.Wait()
}

func (f *Found) read() {
	defer fault.Into(&f.Err)
	switch {
	case f.Err != nil:
	case f.Dir.halfMade() && os.RemoveAll(f.Dir.path) == nil:
		f.Dir = nil
	default:
		f.Record, f.Err = f.Dir.Read()
	}
}

// halfMade reports whether the disk has lost the record before a unit was made of it that anybody was told of: those are in the journal
// until they are durable, and whoever reads or writes the status from then on leaves the lock file.
func (d *Dir) halfMade() bool {
	if _, err := os.Lstat(d.File(LockFile)); err == nil {
		return false
	}
	payload := false
	files, err := os.ReadDir(d.path)
	for _, f := range files {
		info, gone := f.Info()
		known := f.Name() == StdinFile || f.Name() == StatusFile || isSpare(f.Name())
		if !known || gone != nil || !info.Mode().IsRegular() || info.Size() > 0 {
			return false
		}
		payload = payload || f.Name() == StdinFile
	}
	return err == nil && payload
}

// Dir is the directory of one unit.
type Dir struct{ path string }

// At returns the unit directory of that path. The runner uses it; the node goes through [Root.Dir].
func At(path string) *Dir { return &Dir{path} }

// Path returns the directory.
func (d *Dir) Path() string { return d.path }

// File returns the path of one of the unit's files.
func (d *Dir) File(name string) string { return filepath.Join(d.path, name) }

// Read reads the record under the lock. If somebody keeps the lock for long, it reads without: our own writers replace
// the file whole.
func (d *Dir) Read() (unit.Record, error) { return d.readWithin(readWait) }

// Peek is Read that does not wait for the lock. The record of a writer that writes in place may be unreadable then.
func (d *Dir) Peek() (unit.Record, error) { return d.readWithin(0) }

// Look is Read without the lock, for what our own writers have written.
func (d *Dir) Look() (unit.Record, error) { return d.read() }

func (d *Dir) readWithin(wait time.Duration) (unit.Record, error) {
	if _, err := os.Lstat(d.File(StatusFile)); errors.Is(err, fs.ErrNotExist) {
		return unit.Record{}, fmt.Errorf("%w in %s", ErrNoStatus, d.path) // And no lock file is made there.
	}
	unlock, err := d.lock(wait)
	if err == nil {
		defer unlock()
	}
	return d.read()
}

func (d *Dir) read() (unit.Record, error) {
	data, err := d.readFile(StatusFile)
	if errors.Is(err, fs.ErrNotExist) {
		return unit.Record{}, fmt.Errorf("%w in %s", ErrNoStatus, d.path)
	}
	if err != nil {
		return unit.Record{}, err
	}
	if len(data) == 0 { // Lost by the disk: see UpdateSoon.
		if kept, err := d.readFile(tempFile); err == nil && len(kept) > 0 {
			data = kept
		}
	}
	return unit.Parse(data)
}

func (d *Dir) readFile(name string) ([]byte, error) {
	f, err := openRegular(d.File(name), os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > unit.MaxRecord { // Not read to find out.
		return nil, fmt.Errorf("%s has %d bytes, at most %d are read", f.Name(), info.Size(), unit.MaxRecord)
	}
	return io.ReadAll(io.LimitReader(f, unit.MaxRecord+1))
}

// Update changes the record: it takes the lock, reads the file, lets edit change what it read and, if edit answers
// true, puts the result in place. It returns the record as it is on disk afterwards. edit must not block. An unreadable
// file is an error; use [Dir.Mend] then.
func (d *Dir) Update(sync bool, edit func(*unit.Record) bool) (unit.Record, error) {
	return d.update(edit, func(rec unit.Record) error { return d.replace(rec, sync) })
}

// UpdateSoon is Update, without sync, of a record that [Dir.SyncResult] makes durable soon. The disk does not begin with it before
// that, as some file systems do when a file is replaced. The record before is kept until then, and read if the disk has lost the new
// one.
func (d *Dir) UpdateSoon(edit func(*unit.Record) bool) (unit.Record, error) {
	return d.update(edit, d.exchange)
}

func (d *Dir) update(edit func(*unit.Record) bool, replace func(unit.Record) error) (unit.Record, error) {
	unlock, err := d.lock(writeWait)
	if err != nil {
		return unit.Record{}, err
	}
	defer unlock()
	old, err := d.read()
	if err != nil {
		return unit.Record{}, err
	}
	rec := old
	if !edit(&rec) {
		return old, nil
	}
	if err := replace(rec); err != nil {
		return old, err
	}
	return rec, nil
}

// Overwrite puts rec in place whatever the file held.
func (d *Dir) Overwrite(rec unit.Record) error {
	unlock, err := d.lock(writeWait)
	if err != nil {
		return err
	}
	defer unlock()
	return d.replace(rec, true)
}

// Mend puts rec in place of a record that cannot be read, or is not there, although the unit is; it reports whether it did.
// One of another user is left alone: there is nothing wrong with it.
func (d *Dir) Mend(rec unit.Record) bool {
	_, err := d.read()
	return err != nil && !errors.Is(err, fs.ErrPermission) && d.Exists() && d.Overwrite(rec) == nil
}

func (d *Dir) replace(rec unit.Record, sync bool) error {
	data, err := encode(rec)
	if err != nil {
		return err
	}
	err = d.write(tempFile, data, sync)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		os.Remove(d.File(tempFile))
		if d.writeInPlace(data) == nil {
			return nil
		}
	}
	if err != nil {
		return err
	}
	err = os.Rename(d.File(tempFile), d.File(StatusFile))
	if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.EISDIR) { // A directory, which a file does not take the place of.
		d.setAside(StatusFile)
		err = os.Rename(d.File(tempFile), d.File(StatusFile))
	}
	return err
}

// setAside gives another name to what lies in the place of a file of ours and is none, such as a directory: nobody knows what it is
// good for. It goes with the unit.
func (d *Dir) setAside(name string) {
	os.Rename(d.File(name), d.File(name+"."+string(unit.NewID())))
}

// exchange is replace that keeps the file which it replaces.
func (d *Dir) exchange(rec unit.Record) error {
	data, err := encode(rec)
	if err == nil {
		err = d.write(tempFile, data, false)
	}
	if err == nil {
		err = unix.Renameat2(unix.AT_FDCWD, d.File(tempFile), unix.AT_FDCWD, d.File(StatusFile), unix.RENAME_EXCHANGE)
	}
	if err != nil { // Not every file system can do it.
		return d.replace(rec, false)
	}
	return nil
}

func encode(rec unit.Record) ([]byte, error) {
	data := rec.Append(nil)
	if len(data) > unit.MaxRecord {
		return nil, fmt.Errorf("status would have %d bytes, at most %d are allowed: send large values as payload", len(data), unit.MaxRecord)
	}
	return data, nil
}

func (d *Dir) write(name string, data []byte, sync bool) error {
	d.useSpare(name)
	f, err := openRegular(d.File(name), os.O_WRONLY|os.O_CREATE)
	if errors.Is(err, files.ErrNotRegular) {
		d.setAside(name)
		f, err = openRegular(d.File(name), os.O_WRONLY|os.O_CREATE)
	}
	if err != nil {
		return err
	}
	if err = cut(f); err == nil {
		_, err = f.Write(data)
	}
	if err == nil && sync {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// writeInPlace overwrites the status file without needing new space: one write, padded with blanks to the old length
// so that a reader finds either JSON or, for an instant, JSON followed by blanks.
func (d *Dir) writeInPlace(data []byte) error {
	f, err := openRegular(d.File(StatusFile), os.O_WRONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := int64(len(data))
	for int64(len(data)) < info.Size() && info.Size() <= unit.MaxRecord {
		data = append(data, ' ')
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		return err
	}
	return f.Truncate(size)
}

// OpenStdout opens the output for appending and makes it if needed.
func (d *Dir) OpenStdout() (*os.File, error) {
	d.useSpare(StdoutFile)
	return openRegular(d.File(StdoutFile), os.O_WRONLY|os.O_APPEND|os.O_CREATE)
}

// ReadStdout opens the output for reading.
func (d *Dir) ReadStdout() (*os.File, error) { return openRegular(d.File(StdoutFile), os.O_RDONLY) }

// ReadStdin opens the payload for reading.
func (d *Dir) ReadStdin() (*os.File, error) { return openRegular(d.File(StdinFile), os.O_RDONLY) }

// StdoutSize returns the length of the output; a missing file has none.
func (d *Dir) StdoutSize() int64 {
	info, err := os.Lstat(d.File(StdoutFile))
	if err != nil || !info.Mode().IsRegular() {
		return 0
	}
	return info.Size()
}

// StatusTime is when the status file was last written; zero if there is none.
func (d *Dir) StatusTime() time.Time {
	info, err := os.Lstat(d.File(StatusFile))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// SyncResult makes the output and the status durable. What is gone already is no error.
func (d *Dir) SyncResult() error {
	for _, name := range []string{StdoutFile, StatusFile} {
		if err := d.syncFile(name); err != nil {
			return err
		}
	}
	if unlock, err := d.lock(readWait); err == nil { // Nobody writes a new one.
		os.Remove(d.File(tempFile))
		unlock()
	}
	if err := syncDir(d.path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// SyncStdin makes the payload durable.
func (d *Dir) SyncStdin() error { return d.syncFile(StdinFile) }

func (d *Dir) syncFile(name string) error {
	f, err := openRegular(d.File(name), os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// SyncEntry makes durable that the directory is there.
func (d *Dir) SyncEntry() error { return syncDir(filepath.Dir(d.path)) }

// SyncStdout makes the output durable that f, from [Dir.OpenStdout], has written, and the file's place in the directory.
func (d *Dir) SyncStdout(f *os.File) error {
	entry := make(chan error, 1)
	go func() { entry <- fault.Try(func() error { return syncDir(d.path) }) }() // The disk does both at once.
	return errors.Join(f.Sync(), <-entry)
}

// Exists reports whether the directory is there.
func (d *Dir) Exists() bool {
	info, err := os.Lstat(d.path)
	return err == nil && info.IsDir()
}

// Remove deletes the unit. A directory that is gone already is no error.
func (d *Dir) Remove() error {
	trash, err := d.Discard()
	if err != nil || trash == nil {
		return err
	}
	return trash.Delete()
}

// Discard takes the unit away from where units are. What is left to do takes its time, if there is much to delete. It is nil
// if the directory was gone already.
func (d *Dir) Discard() (*Trash, error) {
	parent, name := filepath.Split(d.path)
	trash := &Trash{filepath.Join(parent, removedPrefix+name)}
	err := os.Rename(d.path, trash.path)
	switch {
	case err == nil:
		return trash, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	}
	return nil, err
}

// Trash is a unit that is no more. [Root.Load] deletes what a node that ended has left of it.
type Trash struct{ path string }

// Delete frees the room that it has on the disk.
func (t *Trash) Delete() error { return deleteUnit(t.path) }

// deleteUnit deletes a directory with what units have, also if no file can be opened any more to see what else is in it.
func deleteUnit(path string) error {
	err := os.RemoveAll(path)
	if !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE) {
		return err
	}
	if info, err := os.Lstat(path); err != nil || !info.IsDir() { // Nothing is deleted through a link.
		return err
	}
	names := []string{StatusFile, LockFile, StdinFile, StdoutFile, RunnerFile, tempFile}
	for _, name := range slices.AppendSeq(names, maps.Values(spares)) {
		os.Remove(filepath.Join(path, name))
	}
	return os.Remove(path)
}

// openRegular opens a regular file that is not a link. It does not block on what is none.
func openRegular(path string, flags int) (*os.File, error) {
	f, _, err := files.OpenRegular(path, flags|syscall.O_NOFOLLOW)
	return f, files.Denied(err, path, filepath.Dir(filepath.Dir(path))) // The directory of the node: it is one of many.
}

// cut leaves nothing in a file. Of an empty one it does not take anything away: ext4 would have what is written next on the disk at
// once.
func cut(f *os.File) error {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	return f.Truncate(0)
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
