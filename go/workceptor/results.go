package workceptor

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
)

// Results returns the output of a unit from offset on. Reading waits for more output until the unit is complete and
// all of it has been read, or is released; then it ends with io.EOF. An offset past the end waits likewise; a negative
// one reads nothing. The end of ctx, of the engine and Close end a waiting read with an error. Any number of readers
// may read one unit.
func (e *Engine) Results(ctx context.Context, id UnitID, offset int64) (io.ReadCloser, error) {
	j, err := e.find(id)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancelCause(ctx)
	unlink := context.AfterFunc(e.ctx, func() { stop(ErrClosed) })
	return &results{j: j, ctx: ctx, stop: func() { unlink(); stop(os.ErrClosed) }, pos: offset, done: j.await()}, nil
}

// results is read by one goroutine; Close may come from any.
type results struct {
	j    *job
	ctx  context.Context
	stop func()
	pos  int64
	done func() // See job.await.

	mu   sync.Mutex
	file *os.File // nil until there is output.
}

// Read implements io.Reader.
func (r *results) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	var n int
	err := r.follow(func() (int64, error) {
		var err error
		n, err = r.file.ReadAt(p, r.pos)
		return int64(n), err
	}, func(got int64) bool { return got > 0 })
	if n > 0 {
		return n, nil
	}
	return 0, err
}

// WriteTo implements io.WriterTo; the kernel copies where it can.
func (r *results) WriteTo(w io.Writer) (int64, error) {
	start := r.pos
	err := r.follow(func() (int64, error) {
		if _, err := r.file.Seek(r.pos, io.SeekStart); err != nil {
			return 0, err
		}
		r.j.fetching.Store(r.file)
		defer r.j.fetching.CompareAndSwap(r.file, nil)
		return io.Copy(w, r.file)
	}, func(int64) bool { return false })
	if err == io.EOF {
		err = nil
	}
	return max(r.pos-start, 0), err
}

// follow calls copy, which takes what the file has from r.pos on, until enough says so or the output has ended.
func (r *results) follow(copy func() (int64, error), enough func(got int64) bool) (err error) {
	defer func() {
		if err != nil {
			r.done()
		}
	}()
	for {
		if r.ctx.Err() != nil {
			return context.Cause(r.ctx)
		}
		// Looked at before the file: what changes while it is read wakes us again.
		now := r.j.look()
		if r.pos < 0 || now.gone {
			return io.EOF
		}
		err := r.open()
		if err == nil && r.file != nil {
			var n int64
			n, err = copy()
			r.pos += n
			r.j.fetched.Store(r.pos)
			if err != nil && err != io.EOF {
				return err
			}
			if enough(n) {
				return nil
			}
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if now.rec.State.Complete() && (!now.copying || r.pos >= now.rec.StdoutSize) {
			return io.EOF
		}
		select {
		case <-now.changed:
		case <-r.ctx.Done():
		}
	}
}

// hasRead is how much of the output the last who read some has by now.
func (j *job) hasRead() int64 {
	// A copy has no end for long where output grows as fast as it is read; it moves the position of the file.
	if f := j.fetching.Load(); f != nil {
		if at, err := f.Seek(0, io.SeekCurrent); err == nil {
			return at
		}
	}
	return j.fetched.Load()
}

func (r *results) open() (err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil && r.ctx.Err() == nil {
		r.file, err = r.j.dir.ReadStdout()
	}
	return err
}

// Close ends the stream, also a read that waits. It may be called twice.
func (r *results) Close() error {
	r.stop()
	r.done()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// Wait returns the status of a unit once it is complete. A unit that is released meanwhile is unknown.
func (e *Engine) Wait(ctx context.Context, id UnitID) (Status, error) {
	j, err := e.find(id)
	if err != nil {
		return Status{}, err
	}
	for {
		now := j.look()
		if now.rec.State.Complete() && !now.copying {
			return now.rec.Status(j.configured), nil
		}
		if now.gone {
			return now.rec.Status(j.configured), &UnknownUnitError{id}
		}
		select {
		case <-now.changed:
		case <-ctx.Done():
			return now.rec.Status(j.configured), context.Cause(ctx)
		case <-e.ctx.Done():
			return now.rec.Status(j.configured), ErrClosed
		}
	}
}
