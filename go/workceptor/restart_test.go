package workceptor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/workceptor/proc"
	"github.com/pyreceptor/pyreceptor/go/workceptor/store"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// TestF154F161Restart closes an engine with units in every state and opens another one on its directory.
func TestF154F161Restart(t *testing.T) {
	dir := t.TempDir()
	gate := filepath.Join(dir, "gate")
	e := openEngine(t, dir, noMesh{"alpha"})
	pending, err := e.Submit(request("localhost", "upper", ""))
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(pending, "half a payl")
	across := submit(t, e, request("localhost", "sh", `"echo one; until [ -e `+gate+` ]; do sleep 0.02; done; echo two; exit 7"`), "")
	long := submit(t, e, request("localhost", "sh", `"echo long; exec sleep 300"`), "")
	ended := submit(t, e, request("localhost", "cat", ""), "done\n")
	cancelled := submit(t, e, request("localhost", "sh", `"exec sleep 300"`), "")
	until(t, e, across, "output", func(s Status) bool { return s.State == Running && s.StdoutSize == 4 })
	until(t, e, long, "output", func(s Status) bool { return s.State == Running && s.StdoutSize == 5 })
	e.Cancel(testContext(t), cancelled)
	until(t, e, ended, "no ExtraData", func(s Status) bool { return s.State == Succeeded && s.Extra == nil })
	endedFile := file(t, e, ended, "status")
	e.Close()

	e = openEngine(t, dir, noMesh{"alpha"})
	releaseAll(t, e)
	wantStatus(t, wait(t, e, pending.ID()), Failed, "Pending at restart", 0)
	wantStatus(t, wait(t, e, ended), Succeeded, "exit status 0", 5)
	wantStatus(t, wait(t, e, cancelled), Canceled, "Canceled", 0)
	if got := file(t, e, ended, "status"); got != endedFile {
		t.Errorf("a finished unit's file was changed from %q to %q", endedFile, got)
	}
	r, err := e.Results(testContext(t), across, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	os.WriteFile(gate, nil, 0o600)
	if got, err := io.ReadAll(r); string(got) != "one\ntwo\n" || err != nil {
		t.Errorf("results across the restart: got %q, %v", got, err)
	}
	wantStatus(t, wait(t, e, across), Failed, "exit status 7", 8)
	if pending, err := e.Cancel(testContext(t), long); pending || err != nil {
		t.Errorf("cancel after the restart: got %v, %v", pending, err)
	}
	wantStatus(t, wait(t, e, long), Canceled, "Canceled", 5)
	if got := file(t, e, long, "status"); !strings.HasPrefix(got, `{"State":4,"Detail":"Canceled"`) {
		t.Errorf("the file says %s", got)
	}
}

func TestRestartAfterTheEnd(t *testing.T) {
	dir := t.TempDir()
	gate := filepath.Join(dir, "gate")
	e := openEngine(t, dir, noMesh{"alpha"})
	id := submit(t, e, request("localhost", "sh", `"until [ -e `+gate+` ]; do sleep 0.02; done; echo end"`), "")
	until(t, e, id, "Running", running)
	j, _ := e.find(id)
	info, _ := j.dir.RunnerInfo()
	e.Close()
	os.WriteFile(gate, nil, 0o600)
	gone(t, info.Runner)
	e = openEngine(t, dir, noMesh{"alpha"})
	wantStatus(t, wait(t, e, id), Succeeded, "exit status 0", 4)
	if s, _ := e.Status(id); s.Extra == nil {
		t.Error("ExtraData is lost")
	}
}

func TestRunnerKilledWhileDown(t *testing.T) {
	dir := t.TempDir()
	e := openEngine(t, dir, noMesh{"alpha"})
	id := submit(t, e, request("localhost", "sh", `"echo a; exec sleep 300"`), "")
	until(t, e, id, "output", func(s Status) bool { return s.State == Running && s.StdoutSize == 2 })
	j, _ := e.find(id)
	info, _ := j.dir.RunnerInfo()
	e.Close()
	syscall.Kill(info.Runner, syscall.SIGKILL)
	gone(t, info.Runner)
	if syscall.Kill(info.Program, 0) != nil {
		t.Fatal("the command should outlive its runner until somebody looks")
	}
	e = openEngine(t, dir, noMesh{"alpha"})
	wantStatus(t, wait(t, e, id), Failed, "Runner died", 2)
	gone(t, info.Program)
}

// place puts a status file, and output if there is any, where a node finds it.
func place(t *testing.T, dir, id, status, stdout string) {
	t.Helper()
	path := filepath.Join(dir, "alpha", id)
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, "status"), []byte(status), 0o600); err != nil {
		t.Fatal(err)
	}
	if stdout != "" {
		if err := os.WriteFile(filepath.Join(path, "stdout"), []byte(stdout), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestF147F154ExistingFiles opens the status files of other nodes as they are after their runners have gone.
func TestF147F154ExistingFiles(t *testing.T) {
	for name, want := range map[string]struct {
		state  State
		detail string
	}{
		"local-cancelled":                     {Canceled, "Canceled"},
		"local-failed-exit3":                  {Failed, "exit status 3"},
		"local-finished-while-daemon-down":    {Succeeded, "exit status 0"},
		"local-pending-at-restart":            {Failed, "Pending at restart"},
		"local-pending-stdin":                 {Failed, "Pending at restart"},
		"local-runner-killed":                 {Failed, "Runner died"},
		"local-running":                       {Failed, "Runner died"},
		"local-succeeded":                     {Succeeded, "exit status 0"},
		"remote-expired":                      {Failed, "Work unit expired on Sat Nov 21 21:08:19"},
		"remote-failed-to-restart":            {Failed, "Failed to restart: remote work had not previously started"},
		"remote-not-started-secret":           {Pending, "Starting Worker"},
		"remote-release-pending":              {Running, "Running: PID 18535"},
		"remote-running-while-submitter-down": {Running, "Running: PID 14312"},
		"remote-succeeded":                    {Succeeded, "exit status 0"},
		"kubernetes-succeeded":                {Succeeded, "Finished"},
		"torn-then-restarted":                 {Failed, "Failed to restart: unexpected end of JSON input"},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("unit/testdata/status-files", name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			place(t, dir, "Unit0001", string(text), "HELLO\nWORLD\n")
			e := openEngine(t, dir, noMesh{"alpha"})
			s, err := e.Status("Unit0001")
			if err != nil {
				t.Fatal(err)
			}
			if s.State != want.state || s.Detail != want.detail {
				t.Errorf("got %v %q, want %v %q", s.State, s.Detail, want.state, want.detail)
			}
			reply, err := json.Marshal(s)
			if err != nil || bytes.Contains(reply, []byte("hunter2")) || bytes.Contains(reply, []byte("sometoken")) {
				t.Errorf("reply: %s, %v", reply, err)
			}
			if want.state.Complete() {
				output(t, e, "Unit0001", 0) // Ends.
			}
			if _, err := e.Release(testContext(t), "Unit0001", true); err != nil {
				t.Errorf("force-release: %v", err)
			}
		})
	}
}

// TestDamagedDirectories: nothing that lies in the data directory keeps a node from starting and answering.
func TestDamagedDirectories(t *testing.T) {
	dir := t.TempDir()
	place(t, dir, "empty001", "", "")
	place(t, dir, "torn0001", `{"State":1,"Detail":"Runn`, "abc")
	place(t, dir, "null0001", "null\n", "")
	place(t, dir, "list0001", "[]\n", "")
	place(t, dir, "size0001", `{"State":2,"StdoutSize":-1}`, "")
	place(t, dir, "type0001", `{"State":"2"}`, "")
	place(t, dir, "huge0001", strings.Repeat(" ", unit.MaxRecord+1), "")
	place(t, dir, "path0001", `{"State":1,"WorkType":"remote","ExtraData":{"RemoteNode":"b","RemoteUnitID":"../x"}}`, "")
	place(t, dir, "bare0001", `{"State":1,"WorkType":"remote"}`, "")
	place(t, dir, "odd00001", `{"State":77,"Detail":"?","WorkType":"cat","ExtraData":[1]}`, "")
	os.MkdirAll(filepath.Join(dir, "alpha", "nostatus"), 0o700)
	os.MkdirAll(filepath.Join(dir, "alpha", "no-unit"), 0o700)
	os.WriteFile(filepath.Join(dir, "alpha", "file0001"), nil, 0o600)
	elsewhere := t.TempDir()
	place(t, elsewhere, "unit0001", `{"State":2,"Detail":"exit status 0","WorkType":"cat","ExtraData":null}`, "")
	os.Symlink(filepath.Join(elsewhere, "alpha", "unit0001"), filepath.Join(dir, "alpha", "unit0001"))
	os.MkdirAll(filepath.Join(dir, "alpha", "dir00001", "status"), 0o700)
	for _, kind := range []string{"fifo0001/status", "lock0001/status.lock"} {
		os.MkdirAll(filepath.Join(dir, "alpha", filepath.Dir(kind)), 0o700)
		if err := syscall.Mkfifo(filepath.Join(dir, "alpha", kind), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	os.WriteFile(filepath.Join(dir, "alpha", "lock0001", "status"), []byte(`{"State":2,"Detail":"exit status 0"}`), 0o600)
	os.MkdirAll(filepath.Join(dir, "alpha", "link0001"), 0o700)
	os.Symlink("/etc/passwd", filepath.Join(dir, "alpha", "link0001", "status"))

	var log bytes.Buffer
	e := openEngine(t, dir, noMesh{"alpha"}, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	all := e.List()
	for id, detail := range map[UnitID]string{
		"empty001": "Failed to restart: unexpected end of JSON input",
		"torn0001": "Failed to restart: unexpected end of JSON input",
		"null0001": "Failed to restart: status is not a JSON object",
	} {
		if s, ok := all[id]; !ok || s.State != Failed || s.Detail != detail {
			t.Errorf("%s: got %v %q, want Failed %q", id, s.State, s.Detail, detail)
		}
	}
	if got := output(t, e, "torn0001", 0); got != "abc" {
		t.Errorf("output of a torn unit: got %q", got)
	}
	for id, s := range all {
		if _, err := json.Marshal(s); err != nil {
			t.Errorf("%s: %v", id, err)
		}
		if _, err := e.Release(testContext(t), id, false); err != nil {
			t.Errorf("release of %s: %v", id, err)
		}
	}
	for _, id := range []UnitID{"nostatus", "no-unit", "file0001", "unit0001"} {
		if _, ok := all[id]; ok {
			t.Errorf("%s is listed", id)
		}
	}
	if text, err := os.ReadFile("/etc/passwd"); err != nil || len(text) == 0 {
		t.Fatal("a link was followed")
	}
	e.Close()
	said := log.String()
	for _, name := range []string{
		"empty001", "torn0001", "null0001", "list0001", "size0001", "type0001", "huge0001", "path0001", "fifo0001", "link0001", "dir00001", "nostatus", "file0001", "unit0001",
	} {
		if !strings.Contains(said, "unit="+name) {
			t.Errorf("%s is not reported:\n%s", name, said)
		}
	}
	if path := "path=" + filepath.Join(dir, "alpha", "torn0001"); !strings.Contains(said, path) {
		t.Errorf("the log does not say %s:\n%s", path, said)
	}
}

// TestF154UnitWithoutWorkType: a unit whose type is not offered any more is shown as such, and is still watched, cancelled
// and released.
func TestF154UnitWithoutWorkType(t *testing.T) {
	dir := t.TempDir()
	e := openEngine(t, dir, noMesh{"alpha"})
	if err := e.RegisterCommand(CommandType{WorkType: "old", Command: "sleep", Params: "300"}); err != nil {
		t.Fatal(err)
	}
	id := submit(t, e, request("localhost", "old", ""), "")
	until(t, e, id, "Running", running)
	e.Close()
	e = openEngine(t, dir, noMesh{"alpha"})
	s, _ := e.Status(id)
	if reply, _ := json.Marshal(s); !strings.Contains(string(reply), `"ExtraData":"Unknown WorkType"`) {
		t.Errorf("got %s", reply)
	}
	if pending, err := e.Cancel(testContext(t), id); pending || err != nil {
		t.Errorf("cancel: got %v, %v", pending, err)
	}
	wantStatus(t, wait(t, e, id), Canceled, "Canceled", 0)
	if pending, err := e.Release(testContext(t), id, false); pending || err != nil {
		t.Errorf("release: got %v, %v", pending, err)
	}
}

// TestUnitsNobodyGoesOnWith: a unit of a kind or a type that is unknown here does not stay Pending or Running for ever.
func TestUnitsNobodyGoesOnWith(t *testing.T) {
	const pod = `{"Image":"i","Command":"","Params":"","KubeNamespace":"ns","KubeConfig":"sometoken","KubePod":"","PodName":"pod-abc"}`
	const kind = "Failed to restart: this node cannot go on with work of this kind"
	for name, tc := range map[string]struct {
		state       State
		extra, want string
		reason      unit.Reason
	}{
		"pod running":  {Running, pod, kind, unit.ReasonRestart},
		"pod pending":  {Pending, pod, kind, unit.ReasonRestart},
		"no object":    {Running, `[7]`, kind, unit.ReasonRestart},
		"null running": {Running, `null`, unit.DetailRunnerDied, unit.ReasonRunnerDied},
		"null pending": {Pending, `null`, unit.DetailPendingAtRestart, unit.ReasonRestart},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			place(t, dir, "Unit0001", fmt.Sprintf(`{"State":%d,"Detail":"x","StdoutSize":1,"WorkType":"stranger","ExtraData":%s}`, tc.state, tc.extra), "abc")
			e := openEngine(t, dir, noMesh{"alpha"})
			s := wait(t, e, "Unit0001")
			wantStatus(t, s, Failed, tc.want, s.StdoutSize)
			if s.Reason != tc.reason {
				t.Errorf("got reason %q, want %q", s.Reason, tc.reason)
			}
			if tc.state == Running {
				if got := output(t, e, "Unit0001", 0); got != "abc" {
					t.Errorf("got output %q, want all of it", got)
				}
			}
			if reply, err := json.Marshal(s); err != nil || strings.Contains(string(reply), "sometoken") {
				t.Errorf("got %s, %v", reply, err)
			}
			if _, err := e.Release(testContext(t), "Unit0001", false); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestStrangerHasThePid: a process that happens to have the number of a runner of long ago is left alone.
func TestStrangerHasThePid(t *testing.T) {
	dir := t.TempDir()
	stranger, err := os.StartProcess("/bin/sleep", []string{"sleep", "300"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { stranger.Kill(); stranger.Wait() }()
	rec := unit.Record{State: unit.Running, Detail: "Running: PID 1", WorkType: "cat"}
	rec.SetPid(stranger.Pid)
	place(t, dir, "Unit0001", string(rec.Append(nil)), "")
	e := openEngine(t, dir, noMesh{"alpha"})
	wantStatus(t, wait(t, e, "Unit0001"), Failed, "Runner died", 0)
	if _, err := e.Release(testContext(t), "Unit0001", false); err != nil {
		t.Error(err)
	}
	if err := stranger.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the stranger: %v", err)
	}
}

// TestLaunchIsMadeUpFor: a unit whose node ended between the last word about its payload and its runner runs after the
// restart, once; unless the machine was started anew, which may have cost the payload.
func TestLaunchIsMadeUpFor(t *testing.T) {
	for boot, reason := range map[string]unit.Reason{proc.BootID(): "", "01234567-89ab-cdef-0123-456789abcdef": unit.ReasonRebooted} {
		dir := t.TempDir()
		e := openEngine(t, dir, noMesh{"alpha"})
		req := request("alpha", "upper", "")
		req.Submission = "Name1" // Such a unit would be deleted if it looked half.
		s, err := e.Submit(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.ReadPayload(strings.NewReader("hello\n")); err != nil {
			t.Fatal(err)
		}
		j, err := e.find(s.ID())
		if err != nil {
			t.Fatal(err)
		}
		if err := j.dir.MarkLaunched(boot); err != nil {
			t.Fatal(err)
		}
		e.Close()
		e = openEngine(t, dir, noMesh{"alpha"})
		releaseAll(t, e)
		status, want := wait(t, e, s.ID()), "HELLO\n"
		if reason == "" {
			wantStatus(t, status, Succeeded, "exit status 0", 6)
		} else {
			wantStatus(t, status, Failed, "Pending at restart", 0)
			want = ""
		}
		if got := output(t, e, s.ID(), 0); got != want || status.Reason != reason {
			t.Errorf("got output %q, reason %q", got, status.Reason)
		}
	}
}

// TestPowerLossBeforeSettled takes away the directories of units that were made a moment ago: those that are not released are there
// after the start, and none of the others.
func TestPowerLossBeforeSettled(t *testing.T) {
	dir := t.TempDir()
	e := openEngine(t, dir, noMesh{"alpha"})
	waiting, err := e.Submit(request("localhost", "cat", ""))
	if err != nil {
		t.Fatal(err)
	}
	released, err := e.Submit(request("localhost", "cat", ""))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Release(testContext(t), released.ID(), false); err != nil {
		t.Fatal(err)
	}
	lost := filepath.Join(t.TempDir(), "lost")
	if err := os.Rename(filepath.Join(dir, "alpha", string(waiting.ID())), lost); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "alpha", store.ClaimFile)); err != nil { // As the first one does not end in truth.
		t.Fatal(err)
	}
	next := openEngine(t, dir, noMesh{"alpha"})
	releaseAll(t, next)
	if all := next.List(); len(all) != 1 {
		t.Errorf("got %v, want the unit that was not released", all)
	}
	wantStatus(t, wait(t, next, waiting.ID()), Failed, "Pending at restart", 0)
}

// TestUnitsAreSettled: a unit of which more than the first record is to be durable is in the journal no longer, and none is when the
// engine is closed.
func TestUnitsAreSettled(t *testing.T) {
	dir := t.TempDir()
	e := openEngine(t, dir, noMesh{"alpha"}, func(c *Config) { c.Limits.MaxRunning = 1 })
	e.settled.after, e.results.after = time.Hour, time.Hour
	path := filepath.Join(dir, "alpha", store.JournalFile)
	wantEntries := func(when string, want ...UnitID) {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var got []UnitID
		for _, m := range regexp.MustCompile(`([0-9A-Za-z]{8}) \d+ [0-9a-f]{8}\n{`).FindAllSubmatch(text, -1) {
			got = append(got, UnitID(m[1]))
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v in the journal, want %v", when, got, want)
		}
	}
	runs := submit(t, e, request("localhost", "sh", `"exec sleep 300"`), "")
	wantEntries("while one runs", runs)
	submit(t, e, request("localhost", "cat", ""), "waits")
	wantEntries("while another one waits", runs)
	s, err := e.Submit(request("localhost", "cat", ""))
	if err != nil {
		t.Fatal(err)
	}
	wantEntries("while a third one has no payload", runs, s.ID())
	if _, err := e.Cancel(testContext(t), s.ID()); err != nil {
		t.Fatal(err)
	}
	wantEntries("after its cancel", runs)
	e.Close()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("journal of a closed engine: %v", err)
	}
	releaseAll(t, openEngine(t, dir, noMesh{"alpha"}))
}

// TestSecondNode: one that is started while the first one goes on, by mistake for instance, takes nothing from it.
func TestSecondNode(t *testing.T) {
	dir := t.TempDir()
	first := openEngine(t, dir, noMesh{"alpha"})
	releaseAll(t, first)
	s, err := first.Submit(request("localhost", "cat", ""))
	if err != nil {
		t.Fatal(err)
	}
	second := openEngine(t, dir, noMesh{"alpha"})
	if all := second.List(); len(all) != 0 {
		t.Errorf("the second node has %v", all)
	}
	if _, err := second.Submit(request("localhost", "cat", "")); !errors.Is(err, store.ErrInUse) {
		t.Errorf("got %v, want ErrInUse", err)
	}
	second.Close()
	if err := s.ReadPayload(strings.NewReader("whole")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, wait(t, first, s.ID()), Succeeded, "exit status 0", 5)
}
