//go:build unix

package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrLocked means that another process, or another listener of this one, serves the socket file.
var ErrLocked = errors.New("could not acquire lock on socket file: fslock is already locked")

const maxSocketPath = len(unix.RawSockaddrUnix{}.Path) - 1

// ListenUnix listens on a Unix socket file that can be opened by whom mode says: at no moment by anybody else, whatever
// the umask of the process is. It holds the lock file path.lock for as long as it listens, so no two processes serve one
// file; who is second gets [ErrLocked]. A socket that an ended process has left is replaced. Anything else at path, or a
// socket that somebody still serves without the lock, is an error and stays as it is.
//
// The file is there from when connections are taken until they are not, never without: it is made as path.new, which is the
// name that the kernel lists the socket by. A path that has no room for that is bound as it is.
//
// Close removes the socket and the lock file.
func ListenUnix(path string, mode fs.FileMode) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("%s: the path has %d bytes, a socket's may have %d", path, len(path), maxSocketPath)
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	l, err := bindUnix(path, mode)
	if err != nil {
		_ = os.Remove(lock.Name())
		_ = lock.Close()
		return nil, err
	}
	l.files.lock = lock
	return l, nil // Not a nil *unixListener in an interface.
}

// lockFile takes an exclusive lock on a file that it makes if it must. A file that its last owner removed while we were
// waiting for the lock protects nothing, so it does not count.
func lockFile(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("could not acquire lock on socket file: %w", err)
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && isFile(f, path) {
			return f, nil
		}
		_ = f.Close()
		switch {
		case errors.Is(err, unix.EWOULDBLOCK):
			return nil, ErrLocked
		case err != nil:
			return nil, fmt.Errorf("could not acquire lock on socket file: %w", err)
		}
	}
}

// Served reports whether somebody listens on a Unix socket file and holds its lock.
func Served(path string) bool {
	lock, err := os.Open(path + ".lock")
	if err != nil {
		return false
	}
	defer lock.Close()
	return errors.Is(unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// isFile reports whether path still names the open file f.
func isFile(f *os.File, path string) bool {
	open, err1 := f.Stat()
	named, err2 := os.Lstat(path)
	return err1 == nil && err2 == nil && os.SameFile(open, named)
}

// makeWay removes a socket that nobody listens on.
func makeWay(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s exists and is not a socket; remove it, or configure another file name", path)
	}
	if conn, err := net.Dial("unix", path); err == nil || errors.Is(err, unix.EAGAIN) {
		if conn != nil {
			_ = conn.Close()
		}
		return fmt.Errorf("another program listens on %s; stop it, or configure another file name", path)
	}
	return os.Remove(path)
}

// bindUnix sets the mode between bind and listen: until then nobody can connect, whatever the mode.
func bindUnix(path string, mode fs.FileMode) (*unixListener, error) {
	if err := makeWay(path); err != nil {
		return nil, err
	}
	first := path + ".new"
	if len(first) > maxSocketPath {
		first = path
	} else if err := makeWay(first); err != nil { // Of one who had the lock before us, and has ended just then.
		return nil, err
	}
	syscall.ForkLock.RLock()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close() // The listener has a duplicate.
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: first}); err != nil {
		return nil, fmt.Errorf("listen unix %s: bind: %w", path, err)
	}
	l, err := startListening(file, first, path, mode)
	if err != nil {
		_ = os.Remove(first)
		return nil, err
	}
	return l, nil
}

// startListening has a bound socket listen and gives it its name.
func startListening(file *os.File, first, path string, mode fs.FileMode) (*unixListener, error) {
	if err := os.Chmod(first, mode.Perm()); err != nil {
		return nil, err
	}
	info, err := os.Lstat(first)
	if err != nil {
		return nil, err
	}
	if err := unix.Listen(int(file.Fd()), unix.SOMAXCONN); err != nil {
		return nil, fmt.Errorf("listen unix %s: %w", path, err)
	}
	nl, err := net.FileListener(file)
	if err != nil {
		return nil, err
	}
	if err := os.Rename(first, path); err != nil {
		_ = nl.Close()
		return nil, err
	}
	files := &socketFiles{path: path, info: info}
	files.users.Store(1)
	return &unixListener{Listener: nl, files: files}, nil
}

// unixListener is one of those that listen on a socket. The last one that is closed removes the files.
type unixListener struct {
	net.Listener
	files *socketFiles
	once  sync.Once
	err   error
}

// socketFiles are the socket and its lock file.
type socketFiles struct {
	path  string
	info  fs.FileInfo
	lock  *os.File
	users atomic.Int32
}

// Addr returns the path that clients know.
func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Net: "unix", Name: l.files.path} }

// Duplicate returns another listener on the same socket: each connection goes to one of the two. It is not for a listener
// that is being closed.
func (l *unixListener) Duplicate() (net.Listener, error) {
	file, err := l.Listener.(*net.UnixListener).File()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	nl, err := net.FileListener(file)
	if err != nil {
		return nil, err
	}
	l.files.users.Add(1)
	return &unixListener{Listener: nl, files: l.files}, nil
}

// Close stops listening. With the last listener on the socket go the socket, unless somebody has put another one in its place,
// and the lock file.
func (l *unixListener) Close() error {
	l.once.Do(func() {
		last := l.files.users.Add(-1) == 0
		if last {
			l.files.removeSocket()
		}
		l.err = l.Listener.Close()
		if last {
			l.files.unlock()
		}
	})
	return l.err
}

func (f *socketFiles) removeSocket() {
	if info, err := os.Lstat(f.path); err == nil && os.SameFile(info, f.info) {
		_ = os.Remove(f.path)
	}
}

func (f *socketFiles) unlock() {
	_ = os.Remove(f.lock.Name())
	_ = f.lock.Close()
}
