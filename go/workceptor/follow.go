package workceptor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"time"

	"github.com/pyreceptor/pyreceptor/go/workceptor/remote"
)

// Follow writes status and output of a unit to w, the output from offset on, as they change, in the records of "work
// follow" (package remote). It returns nil once the complete status, with all output before it, or the release of the
// unit has been written; before that with the error of w or the disk, or that of ctx.
func (e *Engine) Follow(ctx context.Context, id UnitID, offset int64, w io.Writer) error {
	j, err := e.find(id)
	if err != nil {
		return err
	}
	if offset < 0 {
		return errors.New("there is no output before the first byte")
	}
	out, err := remote.NewFollowWriter(w, id)
	if err != nil {
		return err
	}
	f := &follower{j: j, out: out, pos: offset, done: j.await()}
	defer f.close()
	beat := time.NewTimer(remote.Beat)
	defer beat.Stop()
	for {
		// Looked at before the file: what changes while it is read wakes us again.
		now := j.look()
		if now.gone {
			return out.Released()
		}
		if complete, err := f.push(ctx, now); complete || err != nil {
			return err
		}
		select {
		case <-now.changed:
			continue
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-e.ctx.Done():
			return ErrClosed
		case <-beat.C:
		}
		if err := f.quiet(); err != nil {
			return err
		}
		beat.Reset(remote.Beat)
	}
}

// follower is one session of "work follow".
type follower struct {
	j      *job
	out    *remote.FollowWriter
	pos    int64
	file   *os.File // nil until there is output.
	said   []byte   // The last status that was told, without its size.
	done   func()   // See job.await.
	ended  bool     // The end was told.
	silent bool     // Nothing was written since the last beat.
}

// push writes what is new.
func (f *follower) push(ctx context.Context, now snapshot) (complete bool, err error) {
	if !now.rec.State.Complete() {
		if err := f.tell(now); err != nil {
			return false, err
		}
		return false, f.copy(ctx, math.MaxInt64)
	}
	if err := f.copy(ctx, now.rec.StdoutSize); err != nil {
		return false, err
	}
	if now.copying { // Only the checksum is missing, or the rest of a copy that is still on its way here.
		if f.pos < now.rec.StdoutSize {
			return false, nil
		}
		f.done()
		return false, f.end(now)
	}
	text, err := json.Marshal(now.rec.Status(now.offered))
	if err != nil {
		return false, err
	}
	return true, f.out.Status(text)
}

// end writes, once, how the unit has ended.
func (f *follower) end(now snapshot) error {
	if f.ended {
		return nil
	}
	text, err := json.Marshal(now.rec.Status(now.offered))
	if err != nil {
		return err
	}
	f.ended, f.silent = true, false
	return f.out.Ended(text)
}

// tell writes the status of a unit that is not complete if it says more than how much output there is, which comes by itself.
func (f *follower) tell(now snapshot) error {
	s := f.j.statusOf(now)
	s.StdoutSize = 0
	key, err := json.Marshal(s)
	if err != nil || bytes.Equal(key, f.said) {
		return err
	}
	f.said, f.silent = key, false
	s.StdoutSize = now.rec.StdoutSize
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return f.out.Status(text)
}

// copy writes the output that there is, up to byte end.
func (f *follower) copy(ctx context.Context, end int64) error {
	if f.file == nil {
		file, err := f.j.dir.ReadStdout()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		}
		f.file = file
	}
	for f.pos < end && ctx.Err() == nil {
		n, err := f.out.Output(f.file, f.pos, end)
		switch {
		case err != nil:
			return err
		case n == 0:
			return context.Cause(ctx)
		}
		f.pos += int64(n)
		f.silent = false
	}
	return context.Cause(ctx)
}

// quiet writes that there is nothing new, if nothing was written for a while.
func (f *follower) quiet() error {
	silent := f.silent
	f.silent = true
	if !silent {
		return nil
	}
	return f.out.Quiet()
}

func (f *follower) close() {
	f.done()
	if f.file != nil {
		f.file.Close()
	}
}
