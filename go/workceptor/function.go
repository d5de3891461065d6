package workceptor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// Handler does the work of units inside this program: it is what a custom work type consists of. Run may be called by
// several goroutines at once, and returns when the unit has ended: nil for success; an [*ExitError] for an exit status as of
// a command; any other error fails the unit, with its text as Detail. A panic fails the unit too, and its stack is
// added to the output. Run must return soon after ctx has ended, which it does when the unit is cancelled or the engine
// is closed.
type Handler interface {
	Run(ctx context.Context, w *Work) error
}

// HandlerFunc is a function as a [Handler].
type HandlerFunc func(ctx context.Context, w *Work) error

// Run implements Handler.
func (f HandlerFunc) Run(ctx context.Context, w *Work) error { return f(ctx, w) }

// Work is one unit as its [Handler] sees it. It is good until Run returns.
type Work struct {
	ID       UnitID
	WorkType string
	Params   map[string]string // As the client gave them, secrets included. They are not stored.
	Stdin    *os.File          // The whole payload, a regular file opened for reading.
	Stdout   *os.File          // The output, a regular file opened for appending: what is written is seen by clients at once.

	job *job
}

// Progress says how far the work is, in words: it becomes the unit's Detail while it runs.
func (w *Work) Progress(text string) {
	w.job.apply(false, unit.Event{Kind: unit.Run, Detail: text, Size: unit.KeepSize, At: time.Now().UTC()})
}

// FunctionType is a work type that a function of this program serves.
type FunctionType struct {
	WorkType        string // Unique on the node; "remote" is taken.
	Handler         Handler
	VerifySignature bool // Clients that are not on a Unix socket must sign.
	MaxRunning      int  // Units that run at once; others wait in order. 0 is any number.
	// Check refuses a request before a unit is made of it, by its parameters; nil refuses none.
	Check func(params map[string]string) error
}

// ExitError is the answer of a [Handler] that has an exit status, as a command has. Code 0 is success.
type ExitError struct{ Code int }

func (e *ExitError) Error() string { return fmt.Sprintf("exit status %d", e.Code) }

// functionWorker is a unit whose work a function of this program does.
type functionWorker struct {
	j      *job
	params map[string]string

	mu    sync.Mutex
	stop  context.CancelCauseFunc // nil: the function does not run.
	over  bool                    // It will not run any more.
	ended chan struct{}
}

func (w *functionWorker) start(context.Context) (string, error) {
	t, ok := w.j.e.workType(w.j.look().rec.WorkType)
	if !ok || t.handler == nil {
		return "", fmt.Errorf("%w %s", ErrUnknownType, w.j.look().rec.WorkType)
	}
	return w.j.admit(t, func() error { return w.launch(t.handler) })
}

func (w *functionWorker) launch(h Handler) error {
	ctx, stop := context.WithCancelCause(w.j.e.ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		stop(nil)
		return ErrCancelled
	}
	if !w.j.e.begin(func() { w.run(ctx, h) }) {
		stop(nil)
		return ErrClosed
	}
	w.stop = stop
	return nil
}

// run calls the function and settles the unit.
func (w *functionWorker) run(ctx context.Context, h Handler) {
	j := w.j
	j.e.watch.add(j.dir.Path(), j)
	err := w.call(ctx, h)
	e := unit.Event{Kind: unit.Succeed, Detail: "exit status 0", Size: j.dir.StdoutSize(), At: time.Now().UTC(), Outcome: unit.Exit(0)}
	if exit, ok := errors.AsType[*ExitError](err); ok {
		e.Detail, e.Outcome = exit.Error(), unit.Exit(exit.Code)
		if exit.Code != 0 {
			e.Kind = unit.Fail
		}
	} else if err != nil {
		e.Kind, e.Detail, e.Outcome = unit.Fail, err.Error(), unit.Because(unit.ReasonFunction)
		if panicked, ok := errors.AsType[*panicError](err); ok {
			e.Detail, e.Outcome.Reason = panicked.Error(), unit.ReasonPanic
		}
	}
	switch cause := context.Cause(ctx); {
	case err == nil || cause == nil:
	case errors.Is(cause, ErrCancelled):
		e.Kind, e.Detail, e.Outcome = unit.Cancel, unit.DetailCanceled, unit.Because(unit.ReasonCanceled)
	default:
		e.Kind, e.Detail, e.Outcome = unit.Fail, unit.DetailKilled, unit.Because(unit.ReasonRestart)
	}
	e.Outcome.SHA256 = digest(j, e.Size)
	j.apply(true, e)
	j.e.watch.remove(j)
	w.mu.Lock()
	w.over = true
	w.stop(nil)
	w.mu.Unlock()
	close(w.ended)
	j.e.gate.leave(j)
}

// digest is the checksum of the first size bytes of a unit's output; "" if they cannot be read.
func digest(j *job, size int64) string {
	sum := sha256.New()
	if size > 0 {
		f, err := j.dir.ReadStdout()
		if err != nil {
			return ""
		}
		defer f.Close()
		if n, err := io.Copy(sum, io.LimitReader(f, size)); n != size || err != nil {
			return ""
		}
	}
	return hex.EncodeToString(sum.Sum(nil))
}

type panicError struct{ value any }

func (p *panicError) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// call opens the files of the unit and calls the function. What it wrote is durable afterwards.
func (w *functionWorker) call(ctx context.Context, h Handler) (err error) {
	j := w.j
	stdin, err := j.dir.ReadStdin()
	if err != nil {
		return err
	}
	defer stdin.Close()
	stdout, err := j.dir.OpenStdout()
	if err != nil {
		return err
	}
	defer stdout.Close()
	running := unit.Event{Kind: unit.Run, Detail: unit.DetailRunningFunction, Size: unit.KeepSize, At: time.Now().UTC()}
	if !j.apply(false, running) {
		return ErrCancelled
	}
	defer func() {
		if value := recover(); value != nil {
			err = &panicError{value}
			fmt.Fprintf(stdout, "panic: %v\n\n%s", value, debug.Stack())
		}
		if syncErr := stdout.Sync(); err == nil {
			err = syncErr
		}
	}()
	return h.Run(ctx, &Work{ID: j.id, WorkType: j.look().rec.WorkType, Params: w.params, Stdin: stdin, Stdout: stdout, job: j})
}

// resume settles a unit that was found on disk: the program that did its work is no more.
func (w *functionWorker) resume() {
	switch w.j.look().rec.State {
	case Pending:
		w.j.failBecause(unit.DetailPendingAtRestart, unit.ReasonRestart)
	case Succeeded, Failed, Canceled:
	default:
		w.j.abandon("Failed to restart: the program that did the work has ended", unit.ReasonRestart)
	}
	w.mu.Lock()
	w.over = true
	w.mu.Unlock()
	close(w.ended)
}

func (w *functionWorker) cancel(ctx context.Context) (pending bool, err error) {
	w.mu.Lock()
	stop, over := w.stop, w.over
	if stop == nil {
		w.over = true
	}
	w.mu.Unlock()
	switch {
	case over:
		return false, nil
	case stop == nil:
		w.j.cancelUnstarted()
		return false, nil
	}
	stop(ErrCancelled)
	return w.j.awaitEnd(ctx, w.ended), nil
}

func (w *functionWorker) release(ctx context.Context, force bool) (pending bool, err error) {
	if !w.j.complete() {
		pending, _ = w.cancel(ctx)
	}
	return w.j.removeAfter(ctx, w.running(), w.ended, pending, force)
}

func (w *functionWorker) running() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stop != nil
}
