package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/pyreceptor/pyreceptor/go/files"
)

const (
	// maxFile is the largest file of certificates or keys, in bytes: the bundles of operating systems have some 250 KB.
	maxFile = 16 << 20
	// settled is how old a file must be for its times to tell whether it changed: file systems are no more exact than
	// this, and a younger one is read again.
	settled = 2 * time.Second
)

// file is the state of one file when it was read.
type file struct {
	path    string
	info    fs.FileInfo // nil: to be read again.
	content []byte
}

// read loads a file.
func read(path string) (file, error) {
	content, info, err := files.ReadOnce(path, maxFile) // A change while it is read makes the file look changed later.
	switch {
	case errors.Is(err, files.ErrTooLarge):
		return file{}, fmt.Errorf("%s: larger than %d bytes, so it does not hold certificates or keys", path, maxFile)
	case err != nil:
		return file{}, err
	case info.Mode().IsRegular() && time.Since(info.ModTime()) < settled:
		info = nil
	}
	return file{path, info, content}, nil
}

// unchanged reports whether the file is surely the one that was read. Pipes are read once only.
func (f *file) unchanged() bool {
	if f.info == nil {
		return false
	}
	if !f.info.Mode().IsRegular() {
		return true
	}
	now, err := os.Stat(f.path)
	return err == nil && os.SameFile(f.info, now) && f.info.Size() == now.Size() && f.info.ModTime().Equal(now.ModTime())
}

// watched is a value made of files, which is made anew after they have changed. Nothing runs in between: whoever needs
// the value asks, and that costs one stat per file. Files that cannot be used leave the value as it was.
type watched[T any] struct {
	paths []string
	parse func(contents [][]byte) (T, error)
	log   *slog.Logger

	mu       sync.Mutex
	files    []file
	value    T
	parseErr error // What was wrong with the contents of files.
	err      error // Why value is not what the files hold now.
}

// watch loads the files for the first time.
func watch[T any](log *slog.Logger, parse func([][]byte) (T, error), paths ...string) (*watched[T], error) {
	w := &watched[T]{paths: paths, parse: parse, log: log}
	files, contents, err := w.readAll()
	if err == nil {
		w.value, err = parse(contents)
	}
	w.files = files
	return w, err
}

func (w *watched[T]) readAll() (files []file, contents [][]byte, err error) {
	for _, path := range w.paths {
		f, problem := read(path)
		err = errors.Join(err, problem)
		files, contents = append(files, f), append(contents, f.content)
	}
	if err != nil {
		return nil, nil, err
	}
	return files, contents, nil
}

// get returns the value of the files as they are now.
func (w *watched[T]) get() T {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.unchangedLocked() {
		w.reloadLocked()
	}
	return w.value
}

func (w *watched[T]) unchangedLocked() bool {
	for i := range w.files {
		if !w.files[i].unchanged() {
			return false
		}
	}
	return len(w.files) > 0
}

func (w *watched[T]) reloadLocked() {
	files, contents, err := w.readAll()
	if err != nil {
		w.noteLocked(err)
		return
	}
	same := len(files) == len(w.files)
	for i := range files {
		same = same && bytes.Equal(files[i].content, w.files[i].content)
	}
	w.files = files
	if !same {
		var value T
		if value, w.parseErr = w.parse(contents); w.parseErr == nil {
			w.value = value
			w.log.Info("TLS files read again", "files", w.paths)
		}
	}
	w.noteLocked(w.parseErr)
}

// noteLocked logs a failure when it begins or changes.
func (w *watched[T]) noteLocked(err error) {
	if err != nil && (w.err == nil || w.err.Error() != err.Error()) {
		w.log.Error("Changed TLS files cannot be used, the earlier ones stay in use", "files", w.paths, "err", err)
	}
	w.err = err
}

// failure returns why the value is not what the files hold, as far as the last get found out.
func (w *watched[T]) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}
