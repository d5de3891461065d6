package workceptor

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// pythonEngine offers the functions of the plugin in testdata, each as a work type of its name.
func pythonEngine(t *testing.T) *Engine {
	t.Helper()
	python := os.Getenv("RECEPTOR_TEST_PYTHON")
	if python == "" {
		python = "python3"
	}
	if err := exec.Command(python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))").Run(); err != nil {
		t.Skipf("%s is no Python of version 3.11 or newer: %v", python, err)
	}
	plugin, err := filepath.Abs("testdata/plugin")
	if err != nil {
		t.Fatal(err)
	}
	path := "PYTHONPATH=" + plugin + ":" + filepath.Join(filepath.Dir(plugin), "../../../python")
	e := openEngine(t, t.TempDir(), noMesh{"alpha"}, func(c *Config) {
		c.Environ = append(os.Environ(), path, "PYTHONDONTWRITEBYTECODE=1")
	})
	releaseAll(t, e)
	for _, name := range []string{"as_bytes", "as_buffer", "as_file", "as_tape", "fails", "waits", "bears", "deaf:bears", "private", "absent", "nested", "exits", "dies", "broken:f", "nix:f", "leaves:f"} {
		plugin, function, ok := strings.Cut(name, ":")
		if !ok {
			plugin, function = "demo", name
		}
		err := e.RegisterPython(PythonType{WorkType: name, Plugin: plugin, Function: function, Config: map[string]any{"level": 3.0}, Interpreter: python})
		if err != nil {
			t.Fatal(err)
		}
	}
	return e
}

func TestF222F223F225PythonWork(t *testing.T) {
	e := pythonEngine(t)
	for _, test := range []struct{ workType, params, payload, output string }{
		{"as_bytes", "-v x", "hello", `{"payload": "hello", "config": {"level": 3, "params": "-v x"}}` + "\n" + `["\u00e9", null]` + "\n"},
		{"as_buffer", "", "one\ntwo\n", "\"one\"\n\"two\"\n"},
		{"as_file", "", "whole", "\"whole\"\n"},
	} {
		id := submit(t, e, request("localhost", test.workType, test.params), test.payload)
		s := wait(t, e, id)
		wantStatus(t, s, Succeeded, "Complete", int64(len(test.output)))
		if got := output(t, e, id, 0); got != test.output {
			t.Errorf("%s: got %q, want %q", test.workType, got, test.output)
		}
		if got := file(t, e, id, "stdin"); got != test.payload {
			t.Errorf("%s: the payload became %q", test.workType, got)
		}
		if s.Started.IsZero() || s.Finished.Before(s.Started) || len(s.SHA256) != 64 {
			t.Errorf("%s: got %+v", test.workType, s)
		}
	}
}

func TestF221F224PythonFailures(t *testing.T) {
	e := pythonEngine(t)
	for workType, want := range map[string]string{
		"as_tape":  "Error running worker: ValueError('Unknown plugin action method')",
		"fails":    "Error running worker: KeyError('no such key')",
		"exits":    "Error running worker: SystemExit(4)",
		"leaves:f": "Error loading worker: SystemExit(3)",
		"private":  "Error loading worker: ValueError('Not allowed to call non-exported private in demo')",
		"absent":   "Error loading worker: ValueError('Function absent does not exist in demo')",
		"nix:f":    "Error loading worker: ValueError('Plugin nix not found')",
		"broken:f": `Error loading worker: ModuleNotFoundError("No module named 'no_such_module'")`,
	} {
		id := submit(t, e, request("localhost", workType, ""), "")
		s := wait(t, e, id)
		if s.State != Failed || s.Detail != want || s.Reason != unit.ReasonPlugin {
			t.Errorf("%s: got %v %q, reason %q, want %q", workType, s.State, s.Detail, s.Reason, want)
		}
		if got := output(t, e, id, 0); (workType == "fails" || workType == "exits") && got != "\"before\"\n" {
			t.Errorf("got output %q", got)
		}
	}
	s := wait(t, e, submit(t, e, request("localhost", "nested", ""), ""))
	if s.Reason != unit.ReasonPlugin || !strings.HasPrefix(s.Detail, "Error running worker: RecursionError(") {
		t.Errorf("got %v %q, reason %q", s.State, s.Detail, s.Reason)
	}
	s = wait(t, e, submit(t, e, request("localhost", "dies", ""), ""))
	wantStatus(t, s, Failed, "Runner died: exit status 4", s.StdoutSize)
}

// TestF224PythonIsCancelled: and one whose process dies is failed.
func TestF224PythonIsCancelled(t *testing.T) {
	e := pythonEngine(t)
	waiting := func() UnitID {
		id := submit(t, e, request("localhost", "waits", ""), "")
		until(t, e, id, "its first result", func(s Status) bool { return s.State == Running && s.StdoutSize == 10 })
		return id
	}
	id := waiting()
	if pending, err := e.Cancel(testContext(t), id); pending || err != nil {
		t.Errorf("cancel: %v, %v", pending, err)
	}
	wantStatus(t, wait(t, e, id), Canceled, "Canceled", 10)
	id = waiting()
	j, _ := e.find(id)
	info, err := j.dir.RunnerInfo()
	if err != nil {
		t.Fatal(err)
	}
	process, err := os.FindProcess(info.Runner)
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Kill(); err != nil {
		t.Fatal(err)
	}
	s := wait(t, e, id)
	wantStatus(t, s, Failed, "Runner died: signal: killed", 10)
	if s.Reason != unit.ReasonRunnerDied {
		t.Errorf("got reason %q", s.Reason)
	}
}

// TestF225InterpreterWithoutWorker: an interpreter that cannot run the worker is named, with how it ended.
func TestF225InterpreterWithoutWorker(t *testing.T) {
	e := localEngine(t)
	if err := e.RegisterPython(PythonType{WorkType: "py", Plugin: "demo", Function: "f", Interpreter: "false"}); err != nil {
		t.Fatal(err)
	}
	s := wait(t, e, submit(t, e, request("localhost", "py", ""), ""))
	if s.State != Failed || s.Reason != unit.ReasonPlugin || !strings.HasPrefix(s.Detail, "Error loading worker: false ended with exit status 1 before it began. ") {
		t.Errorf("got %v %q, reason %q", s.State, s.Detail, s.Reason)
	}
	if err := e.RegisterPython(PythonType{WorkType: "none", Plugin: "demo", Function: "f", Interpreter: "no-such-python"}); err != nil {
		t.Fatal(err)
	}
	p, err := e.Submit(request("localhost", "none", ""))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.ReadPayload(strings.NewReader("")); err != nil {
		t.Fatal(err)
	}
	const want = `exec: "no-such-python": executable file not found in $PATH`
	if _, err := p.Start(testContext(t)); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	wantStatus(t, wait(t, e, p.ID()), Failed, "Failed to start command runner: "+want, 0)
}

// TestF151PythonWholeTree: work that does not hear SIGINT is killed, and in any case what it has started in other sessions.
func TestF151PythonWholeTree(t *testing.T) {
	e := pythonEngine(t)
	e.stubborn = 0
	for _, workType := range []string{"deaf:bears", "bears", "bears, taken back"} {
		workType, takenBack := strings.CutSuffix(workType, ", taken back")
		id := submit(t, e, request("localhost", workType, ""), "")
		until(t, e, id, "the children", func(s Status) bool { return s.State == Running && s.StdoutSize > 0 })
		var pids []int
		if err := json.Unmarshal([]byte(file(t, e, id, "stdout")), &pids); err != nil {
			t.Fatal(err)
		}
		if takenBack {
			e.Unregister(workType)
		}
		if _, err := e.Cancel(testContext(t), id); err != nil {
			t.Errorf("%s: cancel: %v", workType, err)
		}
		if s := wait(t, e, id); s.State != Canceled {
			t.Errorf("%s: got %v %q, want Canceled", workType, s.State, s.Detail)
		}
		wantDead(t, pids)
	}
}
