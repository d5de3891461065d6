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

// Behind has the disk keep up with a file that grows and is made durable later. The zero value is for a new file.
type Behind struct{ begun int64 }

// Grown tells the size that f has now. That it cannot be passed on is no error: the sync does all that is left.
func (b *Behind) Grown(f *os.File, size int64) {
	if size-b.begun >= behindMost {
		writeBack(f, b.begun, size-b.begun, unix.SYNC_FILE_RANGE_WRITE)
		b.begun = size
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

func writeBack(f *os.File, from, size int64, how int) {
	if raw, err := f.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { unix.SyncFileRange(int(fd), from, size, how) })
	}
}
