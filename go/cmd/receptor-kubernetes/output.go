package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"os"
	"time"

	"github.com/pyreceptor/pyreceptor/go/workceptor/store"
)

const (
	reportEvery = 250 * time.Millisecond
	placeFile   = "pod.log" // In the unit's directory: how far its log has been read.
)

// output is the unit's output.
type output struct {
	dir   *store.Dir
	file  *os.File
	size  int64
	hash  hash.Hash
	skip  int64 // So many bytes of what comes are in the file already.
	place place
	head  []byte // The beginning of a line whose time was not complete when the log ended.
	grown func() // Called now and then.
	told  time.Time
}

// place is how far a log has been read.
type place struct {
	Since   time.Time // The latest second that a line has begun in; zero if there is none, or lines have no times.
	Lines   int       // How many whole lines have been written since then,
	Bytes   int64     // and how much of the one after them.
	Written int64     // Size of the output.
}

// openOutput takes up what there is of the output.
func openOutput(dir *store.Dir) (*output, error) {
	o := &output{dir: dir, hash: sha256.New(), grown: func() {}}
	var err error
	if o.file, err = dir.OpenStdout(); err != nil {
		return nil, err
	}
	before, err := dir.ReadStdout()
	if err == nil {
		o.size, err = io.Copy(o.hash, before)
		before.Close()
	}
	if err != nil {
		o.file.Close()
		return nil, err
	}
	return o, nil
}

// restore finds the place in the log up to which the output goes, or one before it.
func (o *output) restore() {
	o.skip = o.size
	text, err := os.ReadFile(o.dir.File(placeFile))
	if err != nil {
		return
	}
	var p place
	if json.Unmarshal(text, &p) == nil && p.Written >= 0 && p.Written <= o.size && p.Lines >= 0 && p.Bytes >= 0 {
		o.place, o.skip = p, o.size-p.Written
	}
}

// Write adds what is not there yet.
func (o *output) Write(p []byte) (int, error) {
	known := int(min(o.skip, int64(len(p))))
	o.skip -= int64(known)
	n, err := o.file.Write(p[known:])
	o.size += int64(n)
	o.hash.Write(p[known : known+n])
	return known + n, err
}

// progress tells of what was written, unless it did so a moment ago.
func (o *output) progress() {
	now := time.Now()
	if now.Sub(o.told) < reportEvery {
		return
	}
	o.told = now
	o.keepPlace()
	o.grown()
}

// keepPlace notes how far the log has been read.
func (o *output) keepPlace() {
	if o.skip > 0 || o.place.Since.IsZero() {
		return
	}
	o.place.Written = o.size
	text, err := json.Marshal(o.place)
	if err == nil {
		path := o.dir.File(placeFile)
		if err = os.WriteFile(path+".tmp", text, 0o600); err == nil {
			err = os.Rename(path+".tmp", path)
		}
	}
	if err != nil {
		complain(err)
	}
}

// copyFrom writes all that r brings.
func (o *output) copyFrom(r io.Reader) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if _, err := o.Write(buf[:n]); err != nil {
				return err
			}
			o.progress()
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (o *output) sync() error { return store.SyncLarge(o.file) }

func (o *output) sum() string { return hex.EncodeToString(o.hash.Sum(nil)) }

func (o *output) close() { o.file.Close() }
