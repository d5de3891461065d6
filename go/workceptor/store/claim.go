package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/files"
)

// ErrInUse says that another node, of this process or of another one, has the directory.
var ErrInUse = errors.New("units are in use by another node")

// ClaimFile is in the directory of a node while there is one.
const ClaimFile = ".claim"

// claim is what keeps two nodes from doing the same units. It is a lock of the process, not of the open file as those of units are:
// what the host program has forked does not keep it when the node has died.
type claim struct {
	mu   sync.Mutex
	file *os.File // nil: not claimed.
	of   inode
}

// inode is a file, by whatever path.
type inode struct{ dev, ino uint64 }

func inodeOf(info os.FileInfo) inode {
	stat := info.Sys().(*syscall.Stat_t)
	return inode{stat.Dev, stat.Ino}
}

// claims are the files that nodes of this process have locked: the kernel would let in a second one, and its end would give up the
// lock of the first.
var claims = struct {
	sync.Mutex
	taken map[inode]bool
}{taken: map[inode]bool{}}

// Claim has no other node use the directory until [Root.Close]. One that ends now is waited for, for a second; [ErrInUse] is one that
// goes on. It does nothing while there is no directory yet, or where no lock can be had.
func (r *Root) Claim() error {
	r.claim.mu.Lock()
	defer r.claim.mu.Unlock()
	if r.claim.file != nil {
		return nil
	}
	holder := 0
	err := patiently(readWait, func() (err error) {
		holder, err = r.claim.tryLocked(r.path)
		return err
	})
	switch {
	case err != syscall.EWOULDBLOCK:
		return nil
	case holder > 0:
		return fmt.Errorf("%w: %s, process %d", ErrInUse, r.path, holder)
	}
	return fmt.Errorf("%w: %s", ErrInUse, r.path)
}

// tryLocked answers EWOULDBLOCK, and which process that is if it is another one, if somebody has the directory.
func (c *claim) tryLocked(dir string) (holder int, err error) {
	claims.Lock()
	defer claims.Unlock()
	path := filepath.Join(dir, ClaimFile)
	if info, err := os.Lstat(path); err == nil && claims.taken[inodeOf(info)] { // It is not even opened: its close would give up the lock.
		return 0, syscall.EWOULDBLOCK
	}
	f, info, err := files.OpenRegular(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW)
	if err != nil {
		return 0, err
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	switch err = unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock); {
	case err == nil && isAt(f, path):
		c.file, c.of = f, inodeOf(info)
		claims.taken[c.of] = true
		return 0, nil
	case err == nil: // The node that had it has just taken it away.
		err = syscall.EWOULDBLOCK
	case err == syscall.EACCES || err == syscall.EWOULDBLOCK: // Both mean the same here.
		err = syscall.EWOULDBLOCK
		if unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock) == nil && lock.Type != unix.F_UNLCK {
			holder = int(lock.Pid)
		}
	}
	f.Close()
	return holder, err
}

// isAt reports whether f is what path leads to.
func isAt(f *os.File, path string) bool {
	mine, err := f.Stat()
	there, gone := os.Lstat(path)
	return err == nil && gone == nil && os.SameFile(mine, there)
}

// release lets other nodes in.
func (c *claim) release() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file == nil {
		return nil
	}
	claims.Lock()
	defer claims.Unlock()
	var err error
	if path := c.file.Name(); isAt(c.file, path) {
		if err = os.Remove(path); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	err = errors.Join(err, c.file.Close())
	delete(claims.taken, c.of)
	c.file = nil
	return err
}
