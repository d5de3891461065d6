//go:build unix

package control

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestUnixSocketFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for _, mode := range []fs.FileMode{0o600, 0o660, 0o666} {
		l, err := ListenUnix(path, mode)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode() != fs.ModeSocket|mode {
			t.Errorf("mode %v, %v; want %v", info.Mode(), err, mode)
		}
		if info, err := os.Stat(path + ".lock"); err != nil || info.Mode() != 0o600 {
			t.Errorf("lock file: %v, %v", info, err)
		}
		if _, err := ListenUnix(path, mode); !errors.Is(err, ErrLocked) ||
			err.Error() != "could not acquire lock on socket file: fslock is already locked" {
			t.Errorf("a second listener: %v", err)
		}
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		accepted, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := accepted.(*net.UnixConn); !ok {
			t.Errorf("accepted a %T", accepted)
		}
		accepted.Close()
		c.Close()
		if err := errors.Join(l.Close(), l.Close()); err != nil {
			t.Errorf("close: %v", err)
		}
		for _, name := range []string{path, path + ".lock"} {
			if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is left behind: %v", name, err)
			}
		}
	}
}

// TestUnixSocketOfTwo: the files stay until the last of the listeners on one socket is closed.
func TestUnixSocketOfTwo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first, err := ListenUnix(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	second, err := first.(*unixListener).Duplicate()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(first.Close(), first.Close()); err != nil {
		t.Error(err)
	}
	if _, err := ListenUnix(path, 0o600); !errors.Is(err, ErrLocked) {
		t.Errorf("another listener: got %v, want that it is locked", err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	accepted, err := second.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	for _, name := range []string{path, path + ".lock"} {
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left behind: %v", name, err)
		}
	}
}

// TestUnixSocketUmask: the umask takes nothing away.
func TestUnixSocketUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o777))
	path := filepath.Join(t.TempDir(), "s")
	os.Chmod(filepath.Dir(path), 0o700)
	l, err := ListenUnix(path, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// TestUnixSocketStale replaces what a process left that was killed: socket and lock file, without a lock.
// TestUnixSocketIsThereWhenItListens: the first that a client finds at the path takes connections.
func TestUnixSocketIsThereWhenItListens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for range 300 {
		found := make(chan error)
		go func() {
			for {
				conn, err := net.Dial("unix", path)
				if err == nil {
					_ = conn.Close()
				}
				if !errors.Is(err, fs.ErrNotExist) {
					found <- err
					return
				}
			}
		}()
		l, err := ListenUnix(path, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if err := <-found; err != nil {
			t.Errorf("a client that finds the socket is told %v", err)
		}
		if l.Addr().String() != path {
			t.Errorf("it listens on %s, want %s", l.Addr(), path)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}

// TestUnixSocketWithALongName: a path of the greatest length is served too, and what was left of a start in the midst of it
// is replaced.
func TestUnixSocketWithALongName(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "s")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for _, length := range []int{maxSocketPath, maxSocketPath - 3, maxSocketPath - 4, maxSocketPath - 5} {
		path := filepath.Join(dir, strings.Repeat("x", length-len(dir)-1))
		if first := path + ".new"; len(first) <= maxSocketPath {
			abandoned, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: first})
			if err != nil {
				t.Fatal(err)
			}
			abandoned.SetUnlinkOnClose(false)
			_ = abandoned.Close()
		}
		l, err := ListenUnix(path, 0o600)
		if err != nil {
			t.Errorf("a path of %d bytes: %v", length, err)
			continue
		}
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Errorf("a path of %d bytes: %v", length, err)
		} else {
			_ = conn.Close()
		}
		_ = l.Close()
	}
}

func TestUnixSocketStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	if l, err := ListenUnix(path, 0o600); err == nil || !strings.Contains(err.Error(), "another program listens on") {
		t.Errorf("a socket in use: %v, %v", l, err)
	}
	old.SetUnlinkOnClose(false)
	old.Close()
	if err := os.WriteFile(path+".lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := ListenUnix(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestUnixSocketRefuses(t *testing.T) {
	dir := t.TempDir()
	file, sub, link := filepath.Join(dir, "file"), filepath.Join(dir, "dir"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(file, []byte("precious"), 0o600), os.Mkdir(sub, 0o700), os.Symlink(file, link)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		file: "is not a socket", sub: "is not a socket", link: "is not a socket",
		filepath.Join(dir, "no", "such", "dir"):      "no such file or directory",
		filepath.Join(dir, strings.Repeat("x", 200)): "a socket's may have",
	} {
		if l, err := ListenUnix(path, 0o600); err == nil || l != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
		if _, err := os.Lstat(path + ".lock"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s.lock is left behind: %v", path, err)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("the file that was there: %q, %v", b, err)
	}
}

// TestUnixSocketReplaced: what somebody else put in the socket's place is not ours to remove.
func TestUnixSocketReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := ListenUnix(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(path), os.WriteFile(path, []byte("mine"), 0o600)); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if b, err := os.ReadFile(path); err != nil || string(b) != "mine" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestUnixSocketLock has many listeners want one file at once: one gets it at a time.
func TestUnixSocketLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	results := make(chan error, 8)
	for range cap(results) {
		go func() {
			for range 100 {
				l, err := ListenUnix(path, 0o600)
				if errors.Is(err, ErrLocked) {
					continue
				}
				if err != nil {
					results <- err
					return
				}
				c, err := net.Dial("unix", path)
				if err != nil {
					results <- err
					return
				}
				c.Close()
				if a, err := l.Accept(); err != nil {
					results <- err
					return
				} else if _, err := io.ReadAll(a); err != nil {
					results <- err
					return
				}
				l.Close()
			}
			results <- nil
		}()
	}
	for range cap(results) {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}
