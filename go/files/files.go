// Package files reads whole files that people have named, within bounds: of size, since a name may be that of a device or
// of a disk image, and of time, since it may be that of a pipe that nobody writes to.
//
//	key, _, err := files.Read("/etc/receptor/work.pem", 16<<20)
//
// [Read] is for what is read again and again, such as a key; [ReadOnce] for what may come by a pipe when a program starts, as in
// receptor -c <(generate).
package files

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// PipeWait is how long [ReadOnce] waits for each further piece of what comes by a pipe.
const PipeWait = time.Minute

// Errors, which are wrapped with the path.
var (
	ErrNotRegular = errors.New("not a regular file")
	ErrTooLarge   = errors.New("too large")
)

// OpenRegular opens a regular file; flags are those of [os.OpenFile]. It does not block on what is none.
func OpenRegular(path string, flags int) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(path, flags|unix.O_NONBLOCK, 0o600)
	if what := unopened(err, flags); what != "" {
		err = &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("%s, %w", what, ErrNotRegular)}
	}
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("%s, %w", kind(info.Mode()), ErrNotRegular)}
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// unopened is what lies where an open failed since it is no regular file; empty if the error is another one.
func unopened(err error, flags int) string {
	switch {
	case errors.Is(err, unix.EISDIR):
		return "a directory"
	case errors.Is(err, unix.ENXIO):
		return "a socket or a pipe"
	case errors.Is(err, unix.ELOOP) && flags&unix.O_NOFOLLOW != 0:
		return "a link"
	}
	return ""
}

func kind(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "a directory"
	case m&fs.ModeNamedPipe != 0:
		return "a pipe"
	case m&fs.ModeSocket != 0:
		return "a socket"
	}
	return "a device"
}

// Read returns what a regular file of at most limit bytes holds, and what the file was right before it was read.
func Read(path string, limit int) ([]byte, fs.FileInfo, error) {
	f, info, err := OpenRegular(path, os.O_RDONLY)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = f.Close() }()
	content, err := readAll(f, path, limit)
	return content, info, err
}

// ReadOnce is Read for a file that may also be a pipe, which is read to its end, or a device. Where nothing comes for
// [PipeWait], nor the end, it gives up.
func ReadOnce(path string, limit int) ([]byte, fs.FileInfo, error) {
	return readOnce(path, limit, PipeWait)
}

func readOnce(path string, limit int, wait time.Duration) ([]byte, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	var from io.Reader = f
	if mode := info.Mode(); !mode.IsRegular() && !mode.IsDir() {
		from = &awaited{f, kind(mode), wait}
	}
	content, err := readAll(from, path, limit)
	return content, info, err
}

func readAll(from io.Reader, path string, limit int) ([]byte, error) {
	var b bytes.Buffer
	n, err := b.ReadFrom(io.LimitReader(from, int64(limit)+1))
	switch {
	case err != nil:
		return nil, err
	case n > int64(limit):
		return nil, fmt.Errorf("read %s: %w: more than %d bytes", path, ErrTooLarge, limit)
	}
	return b.Bytes(), nil
}

// awaited reads what is no regular file.
type awaited struct {
	*os.File
	kind string
	wait time.Duration
}

// Read waits for something to read. A pipe opened without blocking would say that it has ended while no writer has come.
func (a *awaited) Read(p []byte) (int, error) {
	raw, err := a.SyscallConn()
	if err != nil {
		return 0, err
	}
	ready, pollErr := 0, error(nil)
	give := time.Now().Add(a.wait)
	err = raw.Control(func(fd uintptr) {
		for {
			left := max(0, time.Until(give))
			ready, pollErr = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds()))
			if !errors.Is(pollErr, unix.EINTR) {
				return
			}
		}
	})
	if err = errors.Join(err, pollErr); err != nil {
		return 0, err
	}
	if ready == 0 {
		return 0, fmt.Errorf("read %s: it is %s, and nobody has written to it for %v", a.Name(), a.kind, a.wait)
	}
	return a.File.Read(p)
}

// Denied adds to an error of permission what to do about it, if the path (or what is in its way) belongs to another user.
// give is what that user would have to give away. Other errors stay as they are.
func Denied(err error, path, give string) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	at := path
	info, statErr := os.Lstat(at)
	for statErr != nil && filepath.Dir(at) != at {
		at = filepath.Dir(at)
		info, statErr = os.Lstat(at)
	}
	if statErr != nil {
		return err
	}
	me := os.Geteuid()
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(s.Uid) == me {
		return err
	}
	return fmt.Errorf("%w: %s belongs to uid %d, and this program runs as uid %d; run it as uid %d, or give that away: chown -R %d %s",
		err, at, s.Uid, me, s.Uid, me, give)
}
