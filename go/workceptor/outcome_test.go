package workceptor

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/workceptor/store"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// TestOutcomes: every end has its reason, and what is known of exit status, signal, times and output.
func TestOutcomes(t *testing.T) {
	e := localEngine(t)
	for _, test := range []struct {
		workType, params string
		state            State
		detail, signal   string
		reason           unit.Reason
		code             int // -1: none.
		output           string
	}{
		{"shraw", `-c "printf 'a\0b\377'"`, Succeeded, "exit status 0", "", "", 0, "a\x00b\xff"},
		{"shraw", `-c "exit 37"`, Failed, "exit status 37", "", unit.ReasonExit, 37, ""},
		{"shraw", `-c "echo x; kill -TERM $$"`, Failed, "signal: terminated", "SIGTERM", unit.ReasonSignal, -1, "x\n"},
		{"shraw", `-c "open`, Failed, "EOF found when expecting closing quote", "", unit.ReasonParams, -1, ""},
		{"nosuch", "", Failed, "fork/exec /nonexistent/program: no such file or directory", "", unit.ReasonNotFound, -1, ""},
		{"nopath", "", Failed, `exec: "no-such-program-anywhere": executable file not found in $PATH`, "", unit.ReasonNotFound, -1, ""},
	} {
		id := submit(t, e, request("localhost", test.workType, test.params), "")
		s := wait(t, e, id)
		wantStatus(t, s, test.state, test.detail, int64(len(test.output)))
		code, known := s.ExitCode()
		if s.Reason != test.reason || s.Signal != test.signal || known != (test.code >= 0) || known && code != test.code {
			t.Errorf("%s: got reason %q, signal %q, exit code %d, %v", test.params, s.Reason, s.Signal, code, known)
		}
		if s.Created.IsZero() || s.Finished.Before(s.Created) || s.SHA256 != "" && s.SHA256 != sum(test.output) || s.SHA256 == "" && test.state == Succeeded {
			t.Errorf("%s: got %+v %+v", test.params, s.Times, s.Outcome)
		}
		if got := output(t, e, id, 0); got != test.output {
			t.Errorf("%s: got output %q", test.params, got)
		}
	}
}

func sum(text string) string {
	s := sha256.Sum256([]byte(text))
	return hex.EncodeToString(s[:])
}

// TestF151WholeTree: a cancel ends descendants that have made sessions of their own and whose parents have gone.
func TestF151WholeTree(t *testing.T) {
	if _, err := exec.LookPath("setsid"); err != nil {
		t.Skip(err)
	}
	e := localEngine(t)
	pids := tree(t, e)
	for id := range e.List() {
		if pending, err := e.Cancel(testContext(t), id); pending || err != nil {
			t.Fatalf("cancel: got pending %v, %v", pending, err)
		}
		wantStatus(t, wait(t, e, id), Canceled, "Canceled", int64(len(output(t, e, id, 0))))
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
			t.Errorf("process %d is left: %v", pid, err)
		}
	}
}

// tree runs a command with a child, a child in a session of its own, and an orphan in one; all ignore SIGTERM, and all but the
// command itself SIGINT.
func tree(t *testing.T, e *Engine) (pids []int) {
	t.Helper()
	script := `trap "" TERM; sleep 300 & echo $!; setsid sh -c "echo \$\$; exec sleep 301" & ` +
		`(setsid sh -c "echo \$\$; exec sleep 302" &) ; echo ready; exec sleep 303`
	id := submit(t, e, request("localhost", "shraw", `-c '`+script+`'`), "")
	until(t, e, id, "three process IDs", func(s Status) bool {
		return s.State == Running && s.StdoutSize > 0 && strings.Count(file(t, e, id, "stdout"), "\n") == 4
	})
	for _, word := range strings.Fields(file(t, e, id, "stdout")) {
		if word == "ready" { // A shell that waits for a child that does not mind SIGINT does not mind it either.
			continue
		}
		pid, err := strconv.Atoi(word)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// TestRunnerKilledTakesTheTree: even what escaped the process group dies with the runner, by the cgroup of the command, or
// by its environment where no cgroups may be made.
func TestRunnerKilledTakesTheTree(t *testing.T) {
	for name, cgroup := range map[string]bool{"with a cgroup": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			e := localEngine(t)
			pids := tree(t, e)
			for id := range e.List() {
				j, _ := e.find(id)
				info, err := j.dir.RunnerInfo()
				if err != nil {
					t.Fatal(err)
				}
				if cgroup && info.Cgroup == "" {
					t.Skip("this process may not make cgroups")
				}
				if !cgroup {
					forgetCgroup(t, j)
				}
				syscall.Kill(info.Runner, syscall.SIGKILL)
				s := wait(t, e, id)
				if s.Detail != "Runner died" || s.Reason != unit.ReasonRunnerDied || s.SHA256 != sum(output(t, e, id, 0)) {
					t.Errorf("got %q, %+v", s.Detail, s.Outcome)
				}
			}
			wantDead(t, pids)
		})
	}
}

// forgetCgroup takes the cgroup out of what the runner has told of itself.
func forgetCgroup(t *testing.T, j *job) {
	t.Helper()
	path := j.dir.File(store.RunnerFile)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	kept, _, _ := strings.Cut(string(text), "cgroup ")
	if err := os.WriteFile(path, []byte(kept), 0o600); err != nil {
		t.Fatal(err)
	}
}

func wantDead(t *testing.T, pids []int) {
	t.Helper()
	for _, pid := range pids {
		for ctx := testContext(t); ; { // Nobody tells us when it has died.
			state, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
			if err != nil || strings.Contains(string(state), ") Z ") {
				break
			}
			if ctx.Err() != nil {
				t.Fatalf("process %d is left", pid)
			}
		}
	}
}

// TestRunnerKilledWhileTheNodeIsDown: the same at the next start.
func TestRunnerKilledWhileTheNodeIsDown(t *testing.T) {
	dir := t.TempDir()
	e := openEngine(t, dir, noMesh{"alpha"})
	pids := tree(t, e)
	var id UnitID
	for id = range e.List() {
	}
	j, _ := e.find(id)
	info, err := j.dir.RunnerInfo()
	if err != nil {
		t.Fatal(err)
	}
	e.Close()
	forgetCgroup(t, j)
	syscall.Kill(info.Runner, syscall.SIGKILL)
	wantDead(t, []int{info.Runner})
	e = openEngine(t, dir, noMesh{"alpha"})
	releaseAll(t, e)
	if s := wait(t, e, id); s.State != Failed || s.Reason != unit.ReasonRunnerDied {
		t.Errorf("got %v %q, %+v", s.State, s.Detail, s.Outcome)
	}
	wantDead(t, pids)
}

// TestHungRunner: a runner that does not do what a cancel asks of it does not keep its unit.
func TestHungRunner(t *testing.T) {
	e := localEngine(t)
	e.hungRunner = 0
	pids := tree(t, e)
	for id := range e.List() {
		j, _ := e.find(id)
		info, err := j.dir.RunnerInfo()
		if err != nil {
			t.Fatal(err)
		}
		syscall.Kill(info.Runner, syscall.SIGSTOP)
		if _, err := e.Cancel(testContext(t), id); err != nil {
			t.Errorf("cancel: %v", err)
		}
		if s := wait(t, e, id); s.State != Canceled {
			t.Errorf("got %v %q, want Canceled", s.State, s.Detail)
		}
	}
	wantDead(t, pids)
}

func TestF162DuplicateType(t *testing.T) {
	e := localEngine(t)
	for _, name := range []string{"cat", "remote"} {
		if err := e.RegisterCommand(CommandType{WorkType: name, Command: "cat"}); err == nil || err.Error() != "work type "+name+" already registered" {
			t.Errorf("got %v", err)
		}
	}
}

// TestF153ForceRelease: nothing that goes wrong keeps the unit listed.
func TestF153ForceRelease(t *testing.T) {
	e := localEngine(t)
	id := submit(t, e, request("localhost", "sh", `"echo a; exec sleep 300"`), "")
	until(t, e, id, "output", func(s Status) bool { return s.StdoutSize == 2 })
	if pending, err := e.Release(testContext(t), id, true); pending || err != nil {
		t.Errorf("got %v, %v", pending, err)
	}
	if _, err := e.Status(id); err == nil {
		t.Error("the unit is still listed")
	}
}
