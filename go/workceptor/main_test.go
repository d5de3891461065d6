package workceptor

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor/runner"
	"github.com/pyreceptor/pyreceptor/go/workceptor/store"
)

// The test binary is its own command runner.
func TestMain(m *testing.M) {
	if runner.IsRunner(os.Args[1:]) {
		os.Exit(runner.Main(os.Args[1:]))
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0") // A runner with the race detector would take a second to end.
	os.Exit(m.Run())
}

// patience is how long a test waits for an event before it is a failure; never a part of what is tested.
const patience = time.Minute

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// types are the work types of the golden transcripts.
var types = []CommandType{
	{WorkType: "upper", Command: "tr", Params: "a-z A-Z"},
	{WorkType: "cat", Command: "cat"},
	{WorkType: "sh", Command: "bash", Params: "-c", AllowRuntimeParams: true},
	{WorkType: "shraw", Command: "bash", AllowRuntimeParams: true},
	{WorkType: "nosuch", Command: "/nonexistent/program"},
	{WorkType: "nopath", Command: "no-such-program-anywhere"},
	{WorkType: "secure", Command: "cat", VerifySignature: true},
}

type noMesh struct{ id wire.NodeID }

func (m noMesh) ID() wire.NodeID { return m.id }
func (noMesh) DialStream(context.Context, wire.NodeID, string, string) (Stream, error) {
	return nil, errors.New("no route to node")
}
func (noMesh) WaitRoute(ctx context.Context, _ wire.NodeID) error { <-ctx.Done(); return ctx.Err() }

func openEngine(t testing.TB, dir string, mesh Mesh, options ...func(*Config)) *Engine {
	t.Helper()
	cfg := Config{Mesh: mesh, DataDir: dir, Runner: os.Args[0], Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil))}
	for _, option := range options {
		option(&cfg)
	}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, ct := range types {
		if err := e.RegisterCommand(ct); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Log(strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

func localEngine(t testing.TB) *Engine {
	e := openEngine(t, t.TempDir(), noMesh{"alpha"})
	releaseAll(t, e)
	return e
}

// releaseAll leaves no process behind when the test ends.
func releaseAll(t testing.TB, e *Engine) {
	t.Cleanup(func() {
		for id := range e.List() {
			e.Release(context.Background(), id, true)
		}
	})
}

func request(node, workType, params string) SubmitRequest {
	req := SubmitRequest{Node: wire.NodeID(node), WorkType: workType, Params: map[string]string{}}
	if params != "" {
		req.Params["params"] = params
	}
	return req
}

func submit(t testing.TB, e *Engine, req SubmitRequest, payload string) UnitID {
	t.Helper()
	s, err := e.Submit(req)
	if err != nil {
		t.Fatalf("submit: %v", err)
	}
	if err := s.ReadPayload(strings.NewReader(payload)); err != nil {
		t.Fatalf("payload: %v", err)
	}
	if _, err := s.Start(testContext(t)); err != nil {
		t.Fatalf("start: %v", err)
	}
	return s.ID()
}

func wait(t testing.TB, e *Engine, id UnitID) Status {
	t.Helper()
	s, err := e.Wait(testContext(t), id)
	if err != nil {
		t.Fatalf("unit %s: got %v in %v %q, want it to complete", id, err, s.State, s.Detail)
	}
	return s
}

// until waits for a status that ok accepts.
func until(t testing.TB, e *Engine, id UnitID, what string, ok func(Status) bool) Status {
	t.Helper()
	changes := e.Subscribe(64)
	defer changes.Close()
	ctx := testContext(t)
	for {
		s, err := e.Status(id)
		if err != nil {
			t.Fatalf("waiting for %s: %v", what, err)
		}
		if ok(s) {
			return s
		}
		select {
		case <-changes.C:
		case <-ctx.Done():
			t.Fatalf("unit %s: got %v %q, want %s", id, s.State, s.Detail, what)
		}
	}
}

func output(t testing.TB, e *Engine, id UnitID, offset int64) string {
	t.Helper()
	r, err := e.Results(testContext(t), id, offset)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("results of %s: got %v after %q, want the end", id, err, text)
	}
	return string(text)
}

func wantStatus(t testing.TB, s Status, state State, detail string, size int64) {
	t.Helper()
	if s.State != state || s.Detail != detail || s.StdoutSize != size {
		t.Errorf("got %v %q with %d bytes, want %v %q with %d", s.State, s.Detail, s.StdoutSize, state, detail, size)
	}
}

func file(t testing.TB, e *Engine, id UnitID, name string) string {
	t.Helper()
	j, err := e.find(id)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(j.dir.File(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var ownKeys = regexp.MustCompile(`"(Created|Started|Finished|Signal|Reason|StdoutSHA256|Submission)":"[^"]*",?|"ExitCode":\d+,?`)

// base is a status file or reply without the keys that other implementations do not write.
func base(text string) string {
	return strings.ReplaceAll(ownKeys.ReplaceAllString(text, ""), ",}", "}")
}

// left is what is in the data directory of the node when nothing is being deleted any more, but for the claim to it, the journal of new
// units, and empty directories for them.
func left(t *testing.T, e *Engine) []os.DirEntry {
	t.Helper()
	for range deleters {
		e.deleting <- struct{}{}
	}
	entries, err := os.ReadDir(e.root.Path())
	for range deleters {
		<-e.deleting
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	return slices.DeleteFunc(entries, func(entry os.DirEntry) bool {
		if !strings.HasPrefix(entry.Name(), ".released-") {
			return entry.Name() == store.JournalFile || entry.Name() == store.ClaimFile
		}
		return isEmpty(filepath.Join(e.root.Path(), entry.Name()))
	})
}

// isEmpty reports whether a directory has nothing but what the next unit may have of it: empty files.
func isEmpty(path string) bool {
	files, err := os.ReadDir(path)
	for _, f := range files {
		info, gone := f.Info()
		if gone != nil || !info.Mode().IsRegular() || info.Size() > 0 {
			return false
		}
	}
	return err == nil
}
