package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestWhatWasReadLeavesTheMemory: of a large file that is read while it grows only the end stays in memory, and of one that nobody
// reads all.
func TestWhatWasReadLeavesTheMemory(t *testing.T) {
	var fs unix.Statfs_t
	if err := unix.Statfs(t.TempDir(), &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Type == unix.TMPFS_MAGIC {
		t.Skip("the files of tests are in memory only: set TMPDIR to a directory on a disk")
	}
	const size = 8 * behindMost
	grow := func(read func(size int64) int64) (left int64) {
		f, err := os.Create(filepath.Join(t.TempDir(), "stdout"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var b Behind
		piece := make([]byte, behindMost)
		for at := int64(0); at < size; at += behindMost {
			if _, err := f.Write(piece); err != nil {
				t.Fatal(err)
			}
			if err := f.Sync(); err != nil { // What is not on disk would stay.
				t.Fatal(err)
			}
			b.Grown(f, at+behindMost, read(at+behindMost))
		}
		return cached(t, f)
	}
	if left := grow(func(int64) int64 { return 0 }); left != size {
		t.Skipf("the filesystem of %s, or a lack of memory, has %d of %d bytes in the cache by itself", t.TempDir(), left, size)
	}
	if left := grow(func(size int64) int64 { return size }); left != keepMost {
		t.Errorf("%d bytes are left in memory of what was read at once, want %d", left, keepMost)
	}
	if left := grow(func(size int64) int64 { return size - 2*behindMost }); left != keepMost+2*behindMost {
		t.Errorf("%d bytes are left in memory of what was read a little later, want %d", left, keepMost+2*behindMost)
	}
}

// cached is how many bytes of a file are in memory.
func cached(t *testing.T, f *os.File) int64 {
	t.Helper()
	var c unix.Cachestat_t
	err := unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &c, 0)
	if errors.Is(err, unix.ENOSYS) {
		t.Skip("the kernel does not tell what of a file is in memory: it is older than 6.5")
	}
	if err != nil {
		t.Fatal(err)
	}
	return int64(c.Cache) * int64(os.Getpagesize())
}
