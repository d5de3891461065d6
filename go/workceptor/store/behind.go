package store

import (
	"os"

	"golang.org/x/sys/unix"
)

// A large file that is made durable at its end would keep everybody waiting for all of it if the disk began only then. On some
// filesystems, everything else that is written would wait, too.
const (
	behindMost = 8 << 20  // How much the kernel may keep in memory before the disk begins with it.
	syncPiece  = 32 << 20 // How much the disk is given at once.
)

// What of a large file has been read by who wanted it need not fill the memory. The file goes on in the memory that this frees, which is
// faster than memory that was not in use: a virtual machine may have to get that from its host first.
const (
	keepMost = 16 << 20  // How much is left for who reads a little behind.
	freeMost = 256 << 20 // How far behind that the disk may be, and still have it freed.
)

// Behind has the disk keep up with a file that grows and is made durable later. The zero value is for a new file.
type Behind struct{ begun int64 }

// Grown tells the size that f has now, and how much of it has been read by a reader that will not come back: 0 without
// one. That it cannot be passed on is no error: the sync does all that is left.
func (b *Behind) Grown(f *os.File, size, read int64) {
	if size-b.begun < behindMost {
		return
	}
	writeBack(f, b.begun, size-b.begun, unix.SYNC_FILE_RANGE_WRITE)
	b.begun = size
	if end := min(size, read) - keepMost; end > 0 {
		free(f, max(end-freeMost, 0), end)
	}
}

// SyncLarge makes a file durable a piece at a time.
func SyncLarge(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	for at := int64(0); at < info.Size(); at += syncPiece {
		writeBack(f, at, syncPiece, unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
	}
	return f.Sync()
}

// free takes from the memory what lies between two places of a file and is on disk.
func free(f *os.File, from, to int64) {
	if raw, err := f.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { unix.Fadvise(int(fd), from, to-from, unix.FADV_DONTNEED) })
	}
}

func writeBack(f *os.File, from, size int64, how int) {
	if raw, err := f.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { unix.SyncFileRange(int(fd), from, size, how) })
	}
}
