package workceptor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// TestSubmitIsCutAtEveryByte breaks the link to the executor after every byte of a submit, greeting and answers included:
// the work is done once, and when it is released nothing is left on either node. On a node of another implementation one
// unit may be left that has failed for want of its payload: nobody has heard of its ID.
func TestSubmitIsCutAtEveryByte(t *testing.T) {
	const atOnce = 16 // Most of the time is spent waiting for the next attempt.
	for name, serve := range executors {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var next, spared atomic.Int64
			var wg sync.WaitGroup
			for range atOnce {
				c := newCutting(t, serve, name == "push")
				wg.Go(func() {
					for spared.Load() == 0 && !t.Failed() {
						budget := next.Add(1) - 1
						whole, err := c.try(t.Context(), int(budget))
						if err != nil {
							t.Errorf("link cut after %d bytes: %v", budget, err)
						}
						if whole {
							spared.Add(1)
						}
					}
				})
			}
			wg.Wait()
			if n := next.Load(); n < 200 {
				t.Errorf("the exchange had less than %d bytes", n)
			}
		})
	}
}

// cutting is a submitter and an executor whose units each note that they ran.
type cutting struct {
	m           *testMesh
	alpha, beta *Engine
	runs        atomic.Int64
	named       bool // The executor knows names of submissions.
	payload     string
}

func newCutting(t *testing.T, serve serveFunc, named bool) *cutting {
	m, alpha, beta := pairWith(t, serve)
	c := &cutting{m: m, alpha: alpha, beta: beta, named: named, payload: "payload"}
	register(t, beta, "noted", 0, func(_ context.Context, w *Work) error {
		c.runs.Add(1)
		_, err := io.Copy(w.Stdout, w.Stdin)
		return err
	})
	return c
}

// try submits a unit over a link that breaks after so many bytes, and is mended. whole: it did not break before the
// executor had accepted the unit.
func (c *cutting) try(ctx context.Context, budget int) (whole bool, err error) {
	c.runs.Store(0)
	s, err := c.alpha.Submit(request("beta", "noted", ""))
	if err != nil {
		return false, err
	}
	c.m.breakAfter("beta", budget)
	if err := s.ReadPayload(strings.NewReader(c.payload)); err != nil {
		return false, err
	}
	result, err := s.Start(ctx)
	if err != nil {
		return false, fmt.Errorf("start: %w", err)
	}
	c.m.mend("beta")
	status, err := c.alpha.Wait(ctx, s.ID())
	if err != nil || status.State != Succeeded || status.StdoutSize != int64(len(c.payload)) || c.runs.Load() != 1 {
		return false, fmt.Errorf("got %v %q with %d bytes after %d runs, error %v", status.State, status.Detail, status.StdoutSize, c.runs.Load(), err)
	}
	if pending, err := c.alpha.Release(ctx, s.ID(), false); pending || err != nil {
		return false, fmt.Errorf("release: pending %v, %w", pending, err)
	}
	return result == JobStarted, c.noneLeft(ctx)
}

// noneLeft waits until the executor has no unit, or none but failed ones of submitters that do not name submissions, which
// it then releases.
func (c *cutting) noneLeft(ctx context.Context) error {
	changes := c.beta.Subscribe(64)
	defer changes.Close()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		left := c.beta.List()
		for id, s := range left {
			if !c.named && s.State == Failed && s.Reason == unit.ReasonPayload {
				if _, err := c.beta.Release(ctx, id, false); err != nil {
					return err
				}
				delete(left, id)
			}
		}
		if len(left) == 0 {
			return nil
		}
		select {
		case <-changes.C:
		case <-ctx.Done():
			return fmt.Errorf("the executor is left with %v", left)
		}
	}
}

// TestRepeatedSubmission: a second submission of a name ends the first, whose session nobody has missed yet, and finds the
// unit that has its payload.
func TestRepeatedSubmission(t *testing.T) {
	e := localEngine(t)
	req := request("localhost", "cat", "")
	req.Submission = "Name1"
	first, err := e.Submit(req)
	if err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- first.ReadPayload(r) }()
	if _, err := io.WriteString(w, "half"); err != nil {
		t.Fatal(err)
	}
	second := submit(t, e, req, "whole")
	w.Close() // All the same too late.
	if err := <-ended; !errors.Is(err, ErrCancelled) {
		t.Errorf("a payload that came too late: got %v", err)
	}
	wantStatus(t, wait(t, e, second), Succeeded, "exit status 0", 5)
	_, err = e.Submit(req)
	if begun, ok := errors.AsType[*BegunError](err); !ok || begun.ID != second {
		t.Errorf("got %v, want unit %s", err, second)
	}
	if id := one(t, e); id != second {
		t.Errorf("got unit %s, want %s", id, second)
	}
	if _, err := e.Release(testContext(t), second, false); err != nil {
		t.Fatal(err)
	}
	third := submit(t, e, req, "again")
	wantStatus(t, wait(t, e, third), Succeeded, "exit status 0", 5)
	for _, bad := range []string{"../x", "a b", strings.Repeat("x", MaxSubmission+1)} {
		req.Submission = bad
		if _, err := e.Submit(req); err == nil {
			t.Errorf("%q was accepted as a name", bad)
		}
	}
}

// TestHalfUnitsOfNamedSubmissions are deleted when their payload breaks off, and at the next start.
func TestHalfUnitsOfNamedSubmissions(t *testing.T) {
	dir := t.TempDir()
	e := openEngine(t, dir, noMesh{"alpha"})
	req := request("localhost", "cat", "")
	req.Submission = "Name1"
	s, err := e.Submit(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ReadPayload(io.MultiReader(strings.NewReader("half"), brokenReader{})); err == nil {
		t.Error("half a payload was accepted")
	}
	if _, err := e.Status(s.ID()); err == nil {
		t.Error("the unit is kept")
	}
	if s, err = e.Submit(req); err != nil {
		t.Fatal(err)
	}
	s.stdin.Close()
	e.Close()
	e = openEngine(t, dir, noMesh{"alpha"})
	if list := e.List(); len(list) != 0 {
		t.Errorf("got %v after a restart", list)
	}
	if units := left(t, e); len(units) != 0 {
		t.Errorf("got %v on disk", units)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
