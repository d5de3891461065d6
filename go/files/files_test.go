package files

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func pipe(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadTakesRegularFilesOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if content, info, err := Read(path, 5); err != nil || string(content) != "12345" || info.Size() != 5 {
		t.Errorf("got %q, %v, %v", content, info, err)
	}
	if content, _, err := Read(path, 4); !errors.Is(err, ErrTooLarge) || content != nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a file over the limit: %q, %v", content, err)
	}
	for path, kind := range map[string]string{pipe(t): "a pipe", "/dev/zero": "a device", t.TempDir(): "a directory"} {
		if content, _, err := Read(path, 5); !errors.Is(err, ErrNotRegular) || content != nil ||
			!strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), kind) {
			t.Errorf("%s: %q, %v; want that it is %s", path, content, err, kind)
		}
	}
	if _, _, err := Read(path+"2", 5); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// TestOpenRegularSaysWhatLiesThere, where opening fails for it.
func TestOpenRegularSaysWhatLiesThere(t *testing.T) {
	dir := t.TempDir()
	link, socket := filepath.Join(dir, "link"), filepath.Join(dir, "socket")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Symlink("/dev/zero", link); err != nil {
		t.Fatal(err)
	}
	for path, kind := range map[string]string{pipe(t): "a socket or a pipe", socket: "a socket or a pipe", link: "a link", dir: "a directory"} {
		f, _, err := OpenRegular(path, os.O_WRONLY|unix.O_NOFOLLOW)
		if want := "open " + path + ": " + kind + ", not a regular file"; f != nil || !errors.Is(err, ErrNotRegular) || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// TestReadOnceWaitsForAWriter: what comes by a named pipe may come late and in pieces.
func TestReadOnceWaitsForAWriter(t *testing.T) {
	path := pipe(t)
	type result struct {
		content []byte
		err     error
	}
	got := make(chan result)
	go func() {
		content, _, err := readOnce(path, 1<<20, time.Minute)
		got <- result{content, err}
	}()
	w, err := os.OpenFile(path, os.O_WRONLY, 0) // It waits for the reader.
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for i := 0; i < len(want); i += 1 << 15 {
		if _, err := w.Write(want[i : i+1<<15]); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.Close()
	if r := <-got; r.err != nil || !bytes.Equal(r.content, want) {
		t.Errorf("got %d bytes, %v; want %d", len(r.content), r.err, len(want))
	}
}

// TestReadOnceTakesWhatAShellSubstitutes: a pipe whose writer may be gone before it is opened.
func TestReadOnceTakesWhatAShellSubstitutes(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	path := fmt.Sprintf("/dev/fd/%d", r.Fd())
	_, _ = w.WriteString("words")
	_ = w.Close()
	for _, want := range []string{"words", ""} {
		if content, _, err := readOnce(path, 5, time.Minute); err != nil || string(content) != want {
			t.Errorf("got %q, %v; want %q", content, err, want)
		}
	}
}

func TestReadOnceGivesUp(t *testing.T) {
	path := pipe(t)
	if _, _, err := readOnce(path, 5, time.Millisecond); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "nobody has written to it for 1ms") {
		t.Errorf("a pipe that nobody writes to: %v", err)
	}
	keep, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer keep.Close()
	_, _ = keep.WriteString("abc")
	if _, _, err := readOnce(path, 5, time.Millisecond); err == nil || !strings.Contains(err.Error(), "nobody has written to it") {
		t.Errorf("a pipe whose writer stops: %v", err)
	}
	_, _ = keep.WriteString("abcdef")
	if _, _, err := readOnce(path, 5, time.Minute); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a pipe that holds too much: %v", err)
	}
	if _, _, err := readOnce("/dev/zero", 5, time.Minute); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a device without end: %v", err)
	}
	if content, _, err := readOnce("/dev/null", 5, time.Minute); err != nil || len(content) != 0 {
		t.Errorf("an empty device: %q, %v", content, err)
	}
	if _, _, err := readOnce(t.TempDir(), 5, time.Minute); err == nil {
		t.Error("a directory was read")
	}
}

// TestDeniedSaysWhoseItIs: and nothing where the owner is not what is in the way.
func TestDeniedSaysWhoseItIs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none", "file")
	for _, err := range []error{nil, fs.ErrNotExist, fs.ErrPermission} {
		if got := Denied(err, path, "/give"); got != err {
			t.Errorf("%v became %v", err, got)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can make files of another user")
	}
	if err := os.Chown(filepath.Dir(filepath.Dir(path)), 12345, -1); err != nil {
		t.Fatal(err)
	}
	err := Denied(fs.ErrPermission, path, "/give")
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "belongs to uid 12345, and this program runs as uid 0; run it as uid 12345, or give that away: chown -R 0 /give") {
		t.Errorf("got %v", err)
	}
}
