package workceptor

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// register adds a work type that f serves.
func register(t testing.TB, e *Engine, name string, limit int, f HandlerFunc) {
	t.Helper()
	if err := e.RegisterFunction(FunctionType{WorkType: name, Handler: f, MaxRunning: limit}); err != nil {
		t.Fatal(err)
	}
}

func TestF235FunctionWork(t *testing.T) {
	e := localEngine(t)
	register(t, e, "upper-go", 0, func(_ context.Context, w *Work) error {
		text, err := io.ReadAll(w.Stdin)
		if err == nil {
			_, err = w.Stdout.WriteString(strings.ToUpper(string(text)) + w.Params["suffix"])
		}
		return err
	})
	req := request("localhost", "upper-go", "")
	req.Params = map[string]string{"suffix": "!", "secret_token": "hunter2"}
	id := submit(t, e, req, "hello")
	if got := output(t, e, id, 0); got != "HELLO!" {
		t.Errorf("got %q", got)
	}
	s := wait(t, e, id)
	wantStatus(t, s, Succeeded, "exit status 0", 6)

	if code, ok := s.ExitCode(); !ok || code != 0 || s.Reason != "" || len(s.SHA256) != 64 || s.Created.IsZero() || s.Started.Before(s.Created) || s.Finished.Before(s.Started) {
		t.Errorf("got %+v", s)
	}
	if text := file(t, e, id, "status"); strings.Contains(text, "hunter2") {
		t.Errorf("a secret is stored: %s", text)
	}
}

func TestFunctionFailures(t *testing.T) {
	e := localEngine(t)
	register(t, e, "bad", 0, func(_ context.Context, w *Work) error {
		switch w.Params["params"] {
		case "exit":
			return &ExitError{Code: 7}
		case "panic":
			panic("out of cheese")
		}
		w.Stdout.WriteString("so far")
		return errors.New("no such thing")
	})
	for _, test := range []struct {
		params, detail string
		reason         unit.Reason
		code           int
		output         string
	}{
		{"exit", "exit status 7", unit.ReasonExit, 7, ""},
		{"panic", "panic: out of cheese", unit.ReasonPanic, -1, "panic: out of cheese\n\ngoroutine "},
		{"", "no such thing", unit.ReasonFunction, -1, "so far"},
	} {
		id := submit(t, e, request("localhost", "bad", test.params), "")
		s := wait(t, e, id)
		code, ok := s.ExitCode()
		if s.State != Failed || s.Detail != test.detail || s.Reason != test.reason || ok != (test.code >= 0) || ok && code != test.code {
			t.Errorf("%s: got %v %q, reason %q, exit code %d", test.params, s.State, s.Detail, s.Reason, code)
		}
		if got := output(t, e, id, 0); !strings.HasPrefix(got, test.output) {
			t.Errorf("%s: got output %q", test.params, got)
		}
	}
}

func TestFunctionIsCancelled(t *testing.T) {
	e := localEngine(t)
	register(t, e, "wait", 0, func(ctx context.Context, w *Work) error {
		w.Stdout.WriteString("waiting\n")
		<-ctx.Done()
		return context.Cause(ctx)
	})
	id := submit(t, e, request("localhost", "wait", ""), "")
	until(t, e, id, "its first output", func(s Status) bool { return s.State == Running && s.StdoutSize == 8 })
	if pending, err := e.Cancel(testContext(t), id); pending || err != nil {
		t.Fatalf("got %v, %v", pending, err)
	}
	s := wait(t, e, id)
	wantStatus(t, s, Canceled, "Canceled", 8)
	if s.Reason != unit.ReasonCanceled {
		t.Errorf("got reason %q", s.Reason)
	}
	if pending, err := e.Release(testContext(t), id, false); pending || err != nil {
		t.Errorf("release: got %v, %v", pending, err)
	}
}

// TestFunctionRecordSurvives: a unit whose program has ended is told as Failed by the next one, whether that still
// offers the type or not.
func TestFunctionRecordSurvives(t *testing.T) {
	dir := t.TempDir()
	e := openEngine(t, dir, noMesh{"alpha"})
	running := make(chan struct{})
	register(t, e, "wait", 0, func(ctx context.Context, w *Work) error {
		w.Stdout.WriteString("half")
		close(running)
		<-ctx.Done()
		return ctx.Err()
	})
	id := submit(t, e, request("localhost", "wait", ""), "")
	<-running
	crashed := file(t, e, id, "status")
	path := e.units[id].dir.File("status")
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	closed, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(closed), `"Reason":"restart"`) {
		t.Errorf("after Close: %s, %v", closed, err)
	}
	if err := os.WriteFile(path, []byte(crashed), 0o600); err != nil { // As a crash would have left it.
		t.Fatal(err)
	}
	s, err := openEngine(t, dir, noMesh{"alpha"}).Status(id)
	if err != nil || s.State != Failed || s.Reason != unit.ReasonRestart || s.StdoutSize != 4 || !strings.HasPrefix(s.Detail, "Failed to restart: ") {
		t.Errorf("got %+v, %v", s, err)
	}
}

func TestWorkTypesComeAndGo(t *testing.T) {
	e := localEngine(t)
	register(t, e, "later", 0, func(context.Context, *Work) error { return nil })
	if err := e.RegisterFunction(FunctionType{WorkType: "later", Handler: HandlerFunc(nil)}); err == nil || err.Error() != "work type later already registered" {
		t.Errorf("got %v", err)
	}
	id := submit(t, e, request("localhost", "later", ""), "")
	wait(t, e, id)
	e.Unregister("later")
	if _, err := e.Submit(request("localhost", "later", "")); err == nil || err.Error() != "unknown work type later" {
		t.Errorf("got %v", err)
	}
	if s, _ := e.Status(id); s.Configured {
		t.Error("the type is still offered")
	}
	register(t, e, "later", 0, func(context.Context, *Work) error { return nil })
	if s, _ := e.Status(id); !s.Configured {
		t.Error("the type is not offered again")
	}
}
