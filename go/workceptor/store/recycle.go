package store

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// recycled are directories of released units, with an empty payload file and lock file, for the next units: to make them and to
// delete them costs more than all else of a short unit, on some file systems many times more if there was another one a moment ago.
type recycled struct {
	mu     sync.Mutex
	dirs   []*Trash
	closed bool
}

const mostRecycled = 16

// Recycle is [Trash.Delete] for a unit that nobody has any file of open for writing, and nobody will. Its directory may become that of
// another one.
func (r *Root) Recycle(t *Trash) error {
	if !t.empty() || !r.recycled.put(t) {
		return t.Delete()
	}
	return nil
}

func (c *recycled) put(t *Trash) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.dirs) == mostRecycled {
		return false
	}
	c.dirs = append(c.dirs, t)
	return true
}

func (c *recycled) take() *Trash {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := len(c.dirs) - 1
	if last < 0 {
		return nil
	}
	t := c.dirs[last]
	c.dirs = c.dirs[:last]
	return t
}

// close deletes all.
func (c *recycled) close() (err error) {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	for t := c.take(); t != nil; t = c.take() {
		err = errors.Join(err, t.Delete())
	}
	return err
}

// draft returns a directory to make a unit of.
func (r *Root) draft(id unit.ID) (*Dir, error) {
	draft := At(filepath.Join(r.path, draftPrefix+string(id)))
	if t := r.recycled.take(); t != nil && syscall.Rename(t.path, draft.path) == nil {
		return draft, nil
	}
	return draft, os.Mkdir(draft.path, 0o700)
}

// empty leaves an empty payload file, and the lock file as a spare one. False: there is something in the directory that no unit has,
// or it is not as it was made.
func (t *Trash) empty() bool {
	d := At(t.path)
	info, err := os.Lstat(d.path)
	if err != nil || info.Mode() != os.ModeDir|0o700 {
		return false
	}
	for _, name := range []string{StatusFile, tempFile, StdoutFile, RunnerFile} {
		if err := syscall.Unlink(d.File(name)); err != nil && err != syscall.ENOENT {
			return false
		}
	}
	if err := syscall.Rename(d.File(LockFile), d.File(spareLock)); err != nil && err != syscall.ENOENT {
		return false
	}
	entries, err := os.ReadDir(d.path)
	payload := false
	for _, entry := range entries {
		payload = payload || entry.Name() == StdinFile
		if entry.Name() != StdinFile && entry.Name() != spareLock || !d.emptied(entry.Name()) {
			return false
		}
	}
	return err == nil && payload
}

func (d *Dir) emptied(name string) bool {
	f, err := openRegular(d.File(name), os.O_WRONLY)
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Mode() != 0o600 || info.Sys().(*syscall.Stat_t).Nlink != 1 {
		return false
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil { // Somebody keeps it.
		return false
	}
	return info.Size() == 0 || f.Truncate(0) == nil
}
