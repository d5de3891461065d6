package workceptor

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// begin submits a unit to the executor whose payload is what is written to w; came has the outcome of that.
func (c *cutting) begin(t *testing.T) (s *Submission, w *io.PipeWriter, came chan error) {
	t.Helper()
	s, err := c.alpha.Submit(request("beta", "noted", ""))
	if err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	came = make(chan error, 1)
	go func() { came <- s.ReadPayload(r) }()
	return s, w, came
}

// setOut writes the beginning of a payload and waits until the executor has named its unit.
func setOut(t *testing.T, s *Submission, w io.Writer, part string) UnitID {
	t.Helper()
	if _, err := io.WriteString(w, part); err != nil {
		t.Fatal(err)
	}
	// All of it was read, and so all but the last piece was stored: the payload has set out.
	p := s.j.work.(*remoteWorker).held()
	if p == nil {
		t.Fatal("the payload has not set out")
	}
	select {
	case <-p.named:
		return p.id
	case <-p.done:
		t.Fatalf("the payload was not sent early: %v", p.err)
	case <-testContext(t).Done():
		t.Fatal("the executor has named no unit")
	}
	return ""
}

func (w *remoteWorker) held() *early {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.early
}

// TestPayloadSetsOutEarly: the executor has its unit while the payload is still coming, and runs it when all is there; or, if it
// does not know the names of submissions, from then on.
func TestPayloadSetsOutEarly(t *testing.T) {
	for name, serve := range executors {
		t.Run(name, func(t *testing.T) {
			c := newCutting(t, serve, name == "push")
			s, w, came := c.begin(t)
			part := strings.Repeat("0123456789abcdef", (earlyFrom+pieceSize)/16)
			var id UnitID
			if c.named {
				if id = setOut(t, s, w, part); id != one(t, c.beta) || c.runs.Load() != 0 {
					t.Errorf("got unit %s, which ran %d times", id, c.runs.Load())
				}
			} else if _, err := io.WriteString(w, part); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(w, part+"end"); err != nil {
				t.Fatal(err)
			}
			w.Close()
			if err := <-came; err != nil {
				t.Fatal(err)
			}
			if result, err := s.Start(testContext(t)); result != JobStarted || err != nil {
				t.Fatalf("got %q, %v", result, err)
			}
			if got := one(t, c.beta); c.named && got != id {
				t.Errorf("the payload was sent to unit %s, then to %s", id, got)
			}
			wait(t, c.alpha, s.ID())
			if got := output(t, c.alpha, s.ID(), 0); got != part+part+"end" || c.runs.Load() != 1 {
				t.Errorf("got %d bytes after %d runs", len(got), c.runs.Load())
			}
		})
	}
}

// TestEarlyPayloadThatNeverEnds: nothing runs, and nothing is left on the executor, when a payload breaks off that has set out.
func TestEarlyPayloadThatNeverEnds(t *testing.T) {
	broken := errors.New("broken off")
	for name, end := range map[string]func(c *cutting, id UnitID, w *io.PipeWriter) error{
		"the client breaks off": func(_ *cutting, _ UnitID, w *io.PipeWriter) error { return w.CloseWithError(broken) },
		"cancelled": func(c *cutting, id UnitID, _ *io.PipeWriter) error {
			_, err := c.alpha.Cancel(testContext(t), id)
			return err
		},
		"released": func(c *cutting, id UnitID, _ *io.PipeWriter) error {
			_, err := c.alpha.Release(testContext(t), id, false)
			return err
		},
		"the node ends": func(c *cutting, _ UnitID, _ *io.PipeWriter) error { return c.alpha.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCutting(t, (*testMesh).serve, true)
			s, w, came := c.begin(t)
			setOut(t, s, w, strings.Repeat("x", earlyFrom+pieceSize))
			if err := end(c, s.ID(), w); err != nil {
				t.Error(err)
			}
			if err := c.noneLeft(testContext(t)); err != nil {
				t.Error(err)
			}
			w.CloseWithError(broken)
			if err := <-came; err == nil {
				t.Error("half a payload was taken")
			}
			if n := c.runs.Load(); n != 0 {
				t.Errorf("the work ran %d times", n)
			}
			if now, err := c.alpha.Status(s.ID()); name == "the client breaks off" && (err != nil || now.Reason != unit.ReasonPayload) {
				t.Errorf("got %+v, %v", now, err)
			}
		})
	}
}

// TestEarlyPayloadOverALinkThatIsBack: a payload whose session has broken is sent anew at once when it is complete.
func TestEarlyPayloadOverALinkThatIsBack(t *testing.T) {
	c := newCutting(t, (*testMesh).serve, true)
	s, w, came := c.begin(t)
	part := strings.Repeat("x", earlyFrom+pieceSize)
	setOut(t, s, w, part)
	p := s.j.work.(*remoteWorker).held()
	c.m.cut("beta")
	if _, err := io.WriteString(w, part); err != nil {
		t.Fatal(err)
	}
	<-p.done
	c.m.mend("beta")
	w.Close()
	if err := <-came; err != nil {
		t.Fatal(err)
	}
	if result, err := s.Start(testContext(t)); result != JobStarted || err != nil {
		t.Fatalf("got %q, %v", result, err)
	}
	if now := wait(t, c.alpha, s.ID()); now.StdoutSize != int64(2*len(part)) || c.runs.Load() != 1 {
		t.Errorf("got %+v after %d runs", now, c.runs.Load())
	}
	one(t, c.beta)
}

// faulty is a mesh with a bug that what its sessions carry finds once: the first large write, or the first read of output.
type faulty struct {
	Mesh
	found    *atomic.Bool
	inOutput bool
}

type faultyStream struct {
	Stream
	faulty
	asked bool // For output.
}

func (m faulty) DialStream(ctx context.Context, to wire.NodeID, service, tls string) (Stream, error) {
	s, err := m.Mesh.DialStream(ctx, to, service, tls)
	return &faultyStream{Stream: s, faulty: m}, err
}

func (s *faultyStream) Write(p []byte) (int, error) {
	s.asked = s.asked || bytes.Contains(p, []byte(`"results"`))
	s.fail(!s.inOutput && len(p) > pieceSize/4)
	return s.Stream.Write(p)
}

func (s *faultyStream) Read(p []byte) (int, error) {
	s.fail(s.inOutput && s.asked)
	return s.Stream.Read(p)
}

func (m faulty) fail(here bool) {
	if here && m.found.CompareAndSwap(false, true) {
		panic("a bug")
	}
}

// TestABugIsNoAcceptance: a payload that has set out and met a bug here is not taken for accepted; it is sent anew.
func TestABugIsNoAcceptance(t *testing.T) {
	found := make(chan *fault.Error, 1)
	_, alpha, beta := pair(t, func(c *Config) {
		c.Mesh = faulty{Mesh: c.Mesh, found: new(atomic.Bool)}
		c.OnPanic = func(e *fault.Error) { found <- e }
	})
	s, err := alpha.Submit(request("beta", "cat", ""))
	if err != nil {
		t.Fatal(err)
	}
	payload := strings.Repeat("x", 2*earlyFrom)
	if err := s.ReadPayload(strings.NewReader(payload)); err != nil {
		t.Fatal(err)
	}
	if e := <-found; e.Value != "a bug" {
		t.Errorf("found %v", e)
	}
	if result, err := s.Start(testContext(t)); result != JobStarted || err != nil {
		t.Fatalf("got %q, %v", result, err)
	}
	wait(t, alpha, s.ID())
	if got := output(t, alpha, s.ID(), 0); got != payload {
		t.Errorf("got %d bytes of %d", len(got), len(payload))
	}
	one(t, beta)
}

// TestEarlyPayloadIsCut breaks the link after so many bytes of a payload that sets out early, and near its end after every few:
// the work is done once, and nothing is left when it is released.
func TestEarlyPayloadIsCut(t *testing.T) {
	const size = earlyFrom + pieceSize
	budgets := make(chan int)
	go func() { // Ends with the last of the budgets.
		defer close(budgets)
		for n := 0; n < size; n += size / 20 {
			budgets <- n
		}
		for n := size; n < size+500; n += 9 {
			budgets <- n
		}
	}()
	for range 8 {
		c := newCutting(t, (*testMesh).serve, true)
		c.payload = strings.Repeat("x", size)
		t.Run("", func(t *testing.T) {
			t.Parallel()
			for budget := range budgets {
				if _, err := c.try(t.Context(), budget); err != nil {
					t.Errorf("link cut after %d bytes: %v", budget, err)
				}
			}
		})
	}
}
