package store

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// recycled are directories of released units, with their files, emptied, for the next units: to make and to delete files costs more
// than all else of a short unit. On ext4 without a journal it is many times more if others have been deleted in the last minutes: it
// does not use the inode of one of those again and looks for another one, which took 0.7 ms for each file of a busy node where 0.02 ms
// is usual.
type recycled struct {
	mu     sync.Mutex
	dirs   []*Trash
	closed bool
}

const mostRecycled = 64

// spares are the names under which a recycled directory has files for its next unit. The payload file and the status file are under
// their own names: every unit has them from the beginning.
var spares = map[string]string{LockFile: ".lock", RunnerFile: ".runner", StdoutFile: ".stdout", tempFile: ".tmp"}

func isSpare(name string) bool {
	for _, spare := range spares {
		if name == spare {
			return true
		}
	}
	return false
}

// useSpare makes a file of the spare one that a recycled directory has, unless somebody has made one, and reports whether it did.
func (d *Dir) useSpare(name string) bool {
	spare := spares[name]
	if spare == "" {
		return false
	}
	spare = d.File(spare)
	err := unix.Renameat2(unix.AT_FDCWD, spare, unix.AT_FDCWD, d.File(name), unix.RENAME_NOREPLACE)
	if err != nil && err != unix.ENOENT {
		os.Remove(spare)
	}
	return err == nil
}

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

// empty empties the files that units have and leaves them for the next one: under their names what every unit has, the others as
// spare ones. False: there is something in the directory that no unit has, or it is not as it was made.
func (t *Trash) empty() bool {
	d := At(t.path)
	info, err := os.Lstat(d.path)
	if err != nil || !ownedAs(info, os.ModeDir|0o700) {
		return false
	}
	for _, name := range []string{StatusFile, tempFile, StdoutFile, RunnerFile} {
		if d.emptied(name) {
			continue
		}
		if err := syscall.Unlink(d.File(name)); err != nil && err != syscall.ENOENT {
			return false
		}
	}
	for name, spare := range spares {
		if err := syscall.Rename(d.File(name), d.File(spare)); err != nil && err != syscall.ENOENT {
			return false
		}
	}
	entries, err := os.ReadDir(d.path)
	payload := false
	for _, entry := range entries {
		name := entry.Name()
		payload = payload || name == StdinFile
		if name != StdinFile && name != StatusFile && !isSpare(name) || !d.emptied(name) {
			return false
		}
	}
	return err == nil && payload
}

// emptied reports whether a file is one that can be used again, and empties it.
func (d *Dir) emptied(name string) bool {
	f, err := openRegular(d.File(name), os.O_WRONLY)
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !ownedAs(info, 0o600) || info.Sys().(*syscall.Stat_t).Nlink != 1 || !nobodyElseHas(int(f.Fd())) {
		return false
	}
	return cut(f) == nil
}

// ownedAs reports whether nobody else may read what comes into a file or directory: a command may have given it away.
func ownedAs(info os.FileInfo, mode os.FileMode) bool {
	return info.Mode() == mode && int(info.Sys().(*syscall.Stat_t).Uid) == os.Geteuid()
}

// nobodyElseHas reports whether no other process has the file open, nor this one a second time: who reads the output of a released
// unit would read that of the next one, and who keeps its lock would hold that one up. The kernel gives a write lease only then, and
// some file systems never. The signal that somebody who opens the file meanwhile would cause is one that does nothing.
//
// The lease is given back at once, and not with the file: a process that is being started has that, too, until it runs its program.
func nobodyElseHas(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETSIG, int(unix.SIGURG))
	for _, lease := range []int{unix.F_WRLCK, unix.F_UNLCK} {
		if err == nil {
			_, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, lease)
		}
	}
	return err == nil
}
