package workceptor

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// runnerOf is the process that did the unit.
func runnerOf(t *testing.T, e *Engine, id UnitID) int {
	t.Helper()
	j, err := e.find(id)
	if err != nil {
		t.Fatal(err)
	}
	info, err := j.dir.RunnerInfo()
	if err != nil {
		t.Fatal(err)
	}
	return info.Runner
}

// TestRunnerIsUsedAgain: one process does many units, and nothing of one is seen by the next.
func TestRunnerIsUsedAgain(t *testing.T) {
	e := localEngine(t)
	first := ""
	runners := map[int]bool{}
	for range 20 {
		script := `"umask; ulimit -n; trap; ls /proc/self/fd | wc -l; env | grep -v -e RECEPTOR_UNIT_DIR -e ^_= | sort; exit 3"`
		id := submit(t, e, request("localhost", "sh", script), "")
		wantStatus(t, wait(t, e, id), Failed, "exit status 3", int64(len(output(t, e, id, 0))))
		if got := output(t, e, id, 0); first == "" {
			first = got
		} else if got != first {
			t.Fatalf("got %s\nthe first command had %s", got, first)
		}
		runners[runnerOf(t, e, id)] = true
	}
	if len(runners) > 4 {
		t.Errorf("20 units one after another had %d runners", len(runners))
	}
}

// TestRunnerKilledWhileItWaits: its death is no harm to the next unit.
func TestRunnerKilledWhileItWaits(t *testing.T) {
	e := localEngine(t)
	for range 5 {
		id := submit(t, e, request("localhost", "cat", ""), "x")
		wantStatus(t, wait(t, e, id), Succeeded, "exit status 0", 1)
		pid := runnerOf(t, e, id)
		e.runners.mu.Lock()
		for _, r := range e.runners.idle {
			r.process.Kill()
		}
		e.runners.mu.Unlock()
		for alive := true; alive; { // Until it is a zombie, which has no command line.
			line, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
			alive = err == nil && len(line) > 0
		}
	}
}

// TestLeftoversEndTheRunner: what a command leaves behind goes on, whatever happens to later units.
func TestLeftoversEndTheRunner(t *testing.T) {
	e := localEngine(t)
	id := submit(t, e, request("localhost", "sh", `"setsid sleep 300 </dev/null >/dev/null 2>&1 & echo $!"`), "")
	wantStatus(t, wait(t, e, id), Succeeded, "exit status 0", int64(len(output(t, e, id, 0))))
	left := atoi(t, strings.TrimSpace(output(t, e, id, 0)))
	defer syscall.Kill(left, syscall.SIGKILL)
	gone(t, runnerOf(t, e, id))
	next := submit(t, e, request("localhost", "sh", `"exec sleep 300"`), "")
	until(t, e, next, "Running", running)
	if pending, err := e.Cancel(testContext(t), next); pending || err != nil {
		t.Errorf("cancel: got pending %v, %v", pending, err)
	}
	if err := syscall.Kill(left, 0); err != nil {
		t.Errorf("what the first command left behind has ended with the second: %v", err)
	}
}

// TestCloseEndsWaitingRunners: nothing of an engine without running units is left.
func TestCloseEndsWaitingRunners(t *testing.T) {
	e := openEngine(t, t.TempDir(), noMesh{"alpha"})
	id := submit(t, e, request("localhost", "cat", ""), "x")
	wait(t, e, id)
	pid := runnerOf(t, e, id)
	e.Close()
	gone(t, pid)
}

// TestChangedProcessGetsNewRunners: a runner that was started under another umask does not serve any more.
func TestChangedProcessGetsNewRunners(t *testing.T) {
	e := localEngine(t)
	for _, umask := range []int{0o022, 0o077} {
		before := syscall.Umask(umask)
		id := submit(t, e, request("localhost", "sh", `"umask"`), "")
		wait(t, e, id)
		syscall.Umask(before)
		if got := atoi(t, strings.TrimSpace(output(t, e, id, 0))); got != map[int]int{0o022: 22, 0o077: 77}[umask] {
			t.Errorf("umask %o: the command had %d", umask, got)
		}
	}
}

func atoi(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// slowRunner is a runner that starts when the file at ready exists.
func slowRunner(t *testing.T, name string) (program, ready string) {
	t.Helper()
	dir := t.TempDir()
	program, ready = filepath.Join(dir, name), filepath.Join(dir, "ready")
	script := fmt.Sprintf("#!/bin/sh\nuntil test -e %s || ! test -d %s; do sleep 0.01; done\nexec %s \"$@\"\n", ready, dir, os.Args[0])
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return program, ready
}

func touch(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestUnitOfASlowRunner: an engine that ends does not leave a unit to a runner that has not begun with it.
func TestUnitOfASlowRunner(t *testing.T) {
	units := t.TempDir()
	slow, ready := slowRunner(t, "slow")
	e := openEngine(t, units, noMesh{"alpha"}, func(cfg *Config) { cfg.Runner = slow })
	id := submit(t, e, request("localhost", "cat", ""), "payload")
	closed := make(chan error)
	go func() { closed <- e.Close() }()
	<-e.ctx.Done()
	touch(t, ready)
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	e = openEngine(t, units, noMesh{"alpha"})
	releaseAll(t, e)
	wantStatus(t, wait(t, e, id), Succeeded, "exit status 0", 7)
}

// TestTwoRunnersOnTheirWay: a node that was killed in that moment has another runner do the unit, and the one that is first
// does it.
func TestTwoRunnersOnTheirWay(t *testing.T) {
	for _, first := range []int{0, 1} {
		t.Run(strconv.Itoa(first), func(t *testing.T) {
			units := t.TempDir()
			gate := filepath.Join(units, "gate")
			if err := syscall.Mkfifo(gate, 0o600); err != nil {
				t.Fatal(err)
			}
			var ready [2]string
			var e *Engine
			var id UnitID
			for i := range ready {
				var program string
				program, ready[i] = slowRunner(t, strconv.Itoa(i))
				e = openEngine(t, units, noMesh{"alpha"}, func(cfg *Config) { cfg.Runner = program })
				if i == 0 {
					id = submit(t, e, request("localhost", "sh", `"cat; cat `+gate+`"`), "payload")
					e.beginLimit = 0
					e.Close()
				}
			}
			releaseAll(t, e)
			touch(t, ready[first])
			begun, err := os.OpenFile(gate, os.O_WRONLY, 0) // Waits for the command.
			if err != nil {
				t.Fatal(err)
			}
			touch(t, ready[1-first])
			until(t, e, id, "news of the runner", func(s Status) bool { return s.State == Running })
			begun.Close()
			wantStatus(t, wait(t, e, id), Succeeded, "exit status 0", 7)
		})
	}
}
