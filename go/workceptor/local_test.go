package workceptor

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

func TestF148F157F160LocalOutcomes(t *testing.T) {
	tests := []struct {
		name, workType, params, payload string
		state                           State
		detail, out                     string
	}{
		{"filter", "upper", "", "hello wörld\nline 2\n", Succeeded, "exit status 0", "HELLO WöRLD\nLINE 2\n"},
		{"runtime parameters", "shraw", `-c "echo hi there"`, "", Succeeded, "exit status 0", "hi there\n"},
		{"argument zero is the command", "shraw", `-c "echo $0"`, "", Succeeded, "exit status 0", "bash\n"},
		{"exit code and both streams", "sh", `"echo out; echo err >&2; exit 3"`, "", Failed, "exit status 3", "out\nerr\n"},
		{"terminated", "sh", `"kill -TERM $$"`, "", Failed, "signal: terminated", ""},
		{"killed", "sh", `"kill -9 $$"`, "", Failed, "signal: killed", ""},
		{"no program", "nosuch", "", "", Failed, "fork/exec /nonexistent/program: no such file or directory", ""},
		{"not in path", "nopath", "", "", Failed, `exec: "no-such-program-anywhere": executable file not found in $PATH`, ""},
		{"open quote", "shraw", `-c "oops`, "", Failed, "EOF found when expecting closing quote", ""},
		{"program from payload", "shraw", "", "echo from stdin\n", Succeeded, "exit status 0", "from stdin\n"},
		{"no output", "sh", "true", "", Succeeded, "exit status 0", ""},
		{"splitting", "shraw", `-c 'printf "%s|" "$@"' zero a\ b 'c d' "e \" f" # comment`, "", Succeeded, "exit status 0", `a b|c d|e " f|`},
		{"own process group", "sh", `'read -r a b c d pgrp rest < /proc/$$/stat; [ $pgrp = $$ ] && echo yes'`, "", Succeeded, "exit status 0", "yes\n"},
		{"empty signal mask", "sh", `'grep SigBlk /proc/self/status'`, "", Succeeded, "exit status 0", "SigBlk:\t0000000000000000\n"},
		{"no other files", "shraw", `-c 'exec ls /proc/self/fd'`, "", Succeeded, "exit status 0", "0\n1\n2\n3\n"}, // 3 is ls's own.
	}
	var bytes []byte
	for i := range 1 << 16 {
		bytes = append(bytes, byte(i), byte(i>>8))
	}
	binary := tests[0]
	binary.name, binary.workType, binary.payload, binary.out = "binary", "cat", string(bytes), string(bytes)
	e := localEngine(t)
	for _, test := range append(tests, binary) {
		t.Run(test.name, func(t *testing.T) {
			id := submit(t, e, request("LocalHost", test.workType, test.params), test.payload)
			if got := output(t, e, id, 0); got != test.out {
				t.Errorf("got output %q, want %q", got, test.out)
			}
			wantStatus(t, wait(t, e, id), test.state, test.detail, int64(len(test.out)))
		})
	}
}

func TestF145F146F147F149F152LocalUnitOnDisk(t *testing.T) {
	e := localEngine(t)
	s, err := e.Submit(request("alpha", "upper", ""))
	if err != nil {
		t.Fatal(err)
	}
	const waiting = `{"State":0,"Detail":"Waiting for Input Data","StdoutSize":0,"WorkType":"upper","ExtraData":{"Pid":0,"Params":"a-z A-Z"}}` + "\n"
	if got := base(file(t, e, s.ID(), "status")); got != waiting {
		t.Errorf("got status file %q, want %q", got, waiting)
	}
	if err := s.ReadPayload(strings.NewReader("hello wörld\nline 2\n")); err != nil {
		t.Fatal(err)
	}
	if result, err := s.Start(t.Context()); result != JobStarted || err != nil {
		t.Fatalf("start: got %q, %v, want %q", result, err, JobStarted)
	}
	until(t, e, s.ID(), "no ExtraData", func(s Status) bool { return s.Extra == nil })
	if now, err := e.Status(s.ID()); err != nil || now.Created.IsZero() || now.Started.Before(now.Created) || now.Finished.Before(now.Started) {
		t.Errorf("got %+v, %v", now.Times, err)
	}
	reply, err := json.Marshal(e.List())
	if want := `{"` + string(s.ID()) + `":{"Detail":"exit status 0","ExtraData":null,"State":2,"StateName":"Succeeded","StdoutSize":20,"WorkType":"upper"}}`; err != nil || base(string(reply)) != want {
		t.Errorf("got list %s, %v, want %s", reply, err, want)
	}
	const ended = `{"State":2,"Detail":"exit status 0","StdoutSize":20,"WorkType":"upper","ExtraData":null}` + "\n"
	if got := base(file(t, e, s.ID(), "status")); got != ended {
		t.Errorf("got status file %q, want %q", got, ended)
	}
	j, _ := e.find(s.ID())
	for _, name := range []string{".", "status", "status.lock", "stdin", "stdout"} {
		info, err := os.Lstat(filepath.Join(j.dir.Path(), name))
		want := fs.FileMode(0o600)
		if name == "." {
			want = 0o700
		}
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: got %v, %v, want mode %v", name, info, err, want)
		}
	}
	for offset, want := range map[int64]string{6: "WöRLD\nLINE 2\n", 20: "", 1000: "", -5: ""} {
		if got := output(t, e, s.ID(), offset); got != want {
			t.Errorf("results from %d: got %q, want %q", offset, got, want)
		}
	}
	if pending, err := e.Cancel(t.Context(), s.ID()); pending || err != nil {
		t.Errorf("cancel of a finished unit: got %v, %v, want done", pending, err)
	}
	if pending, err := e.Release(t.Context(), s.ID(), false); pending || err != nil {
		t.Errorf("release: got %v, %v, want done", pending, err)
	}
	if _, err := e.Release(t.Context(), s.ID(), false); !errors.Is(err, ErrUnknownUnit) || err.Error() != "unknown work unit "+string(s.ID()) {
		t.Errorf("second release: got %v, want unknown work unit", err)
	}
	if entries := left(t, e); len(entries) != 0 {
		t.Errorf("release left %v behind", entries)
	}
}

func TestF155F156F159RefusedSubmitsLeaveNothing(t *testing.T) {
	e := localEngine(t)
	secret := request("beta", "cat", "")
	secret.Params["Secret_x"] = "abc"
	ttl := func(node, ttl string) SubmitRequest { r := request(node, "cat", ""); r.TTL = ttl; return r }
	tls := request("beta", "cat", "")
	tls.TLSClient = "nosuchtls"
	for _, test := range []struct {
		req  SubmitRequest
		want string
	}{
		{request("localhost", "nosuchtype", ""), "unknown work type nosuchtype"},
		{request("localhost", "remote", ""), "unknown work type remote"},
		{request("alpha", "cat", "-n"), "extra params provided but not allowed"},
		{ttl("alpha", "10s"), "ttl option is intended for remote work only"},
		{tls, "unknown TLS config nosuchtls"},
		{secret, "cannot send secrets over a non-TLS connection"},
		{ttl("beta", "soon"), `time: invalid duration "soon"`},
		{ttl("beta", "10"), `time: missing unit in duration "10"`},
	} {
		if _, err := e.Submit(test.req); err == nil || err.Error() != test.want {
			t.Errorf("got %v, want %s", err, test.want)
		}
	}
	if entries := left(t, e); len(entries) != 0 || len(e.List()) != 0 {
		t.Errorf("refused submits left %v behind", entries)
	}
}

func TestSignatureRules(t *testing.T) {
	e := localEngine(t)
	for _, test := range []struct {
		workType, signature string
		trusted             bool
		want                string
	}{
		{"cat", "", false, ""},
		{"cat", "abc", true, "work type did not expect a signature"},
		{"unheard-of", "abc", false, "work type did not expect a signature"},
		{"secure", "", true, ""},
		{"secure", "", false, "could not verify signature: signature is empty"},
		{"secure", "abc", false, "could not verify signature: verifying key not specified"},
	} {
		got := ""
		if err := e.VerifySubmit(test.workType, test.signature, test.trusted); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%s %q %v: got %q, want %q", test.workType, test.signature, test.trusted, got, test.want)
		}
	}
}

// TestF180UnitsAndSignatures: what signed submissions have made wants signatures for everything else, also on the node that has
// signed, and also when the type of work is not offered any more.
func TestF180UnitsAndSignatures(t *testing.T) {
	verify := func(c *Config) {
		c.Verify = func(signature string) error {
			if signature != "good" {
				return errors.New("could not verify signature: forged")
			}
			return nil
		}
	}
	dir := t.TempDir()
	e := openEngine(t, dir, noMesh{"alpha"}, verify)
	for name, secure := range map[string]bool{"old": true, "plain": false} {
		if err := e.RegisterCommand(CommandType{WorkType: name, Command: "cat", VerifySignature: secure}); err != nil {
			t.Fatal(err)
		}
	}
	signed := request("beta", "cat", "")
	signed.SignWork = true
	ids := map[string]UnitID{}
	for name, req := range map[string]SubmitRequest{
		"secure": request("localhost", "old", ""), "plain": request("localhost", "plain", ""),
		"remote, signed": signed, "remote": request("beta", "cat", ""),
	} {
		s, err := e.Submit(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.ReadPayload(strings.NewReader("")); err != nil {
			t.Fatal(err)
		}
		if ids[name] = s.ID(); !strings.HasPrefix(name, "remote") {
			if _, err := s.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			wait(t, e, s.ID())
		}
	}
	check := func(when string, e *Engine) {
		const empty, forged, unexpected = "could not verify signature: signature is empty", "could not verify signature: forged", "work type did not expect a signature"
		for name, want := range map[string][4]string{ // For no, a bad and a good signature, and for a client on a Unix socket.
			"secure": {empty, forged, "", ""}, "remote, signed": {empty, forged, "", ""},
			"plain": {"", unexpected, unexpected, ""}, "remote": {"", unexpected, unexpected, ""},
		} {
			for i, signature := range []string{"", "bad", "good", ""} {
				got := ""
				if err := e.VerifyUnit(ids[name], signature, i == 3); err != nil {
					got = err.Error()
				}
				if got != want[i] {
					t.Errorf("%s, %s unit, signature %q, trusted %v: got %q, want %q", when, name, signature, i == 3, got, want[i])
				}
			}
		}
	}
	check("offered", e)
	e.Unregister("old")
	e.Unregister("plain")
	check("taken back", e)
	e.Close()
	e = openEngine(t, dir, noMesh{"alpha"}, verify)
	releaseAll(t, e)
	check("after a restart", e)
}

func running(s Status) bool { return s.State == Running }

func TestF150ResultsFollowTheOutput(t *testing.T) {
	gate := filepath.Join(t.TempDir(), "gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	e := localEngine(t)
	s, err := e.Submit(request("localhost", "sh", `"echo one; cat `+gate+`; echo three"`))
	if err != nil {
		t.Fatal(err)
	}
	r, err := e.Results(testContext(t), s.ID(), 0) // Before there is any output file.
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := s.ReadPayload(strings.NewReader("")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 4)
	if _, err := io.ReadFull(r, first); err != nil || string(first) != "one\n" {
		t.Fatalf("got %q, %v, want the first line while the command runs", first, err)
	}
	if err := os.WriteFile(gate, []byte("two\n"), 0); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(r)
	if err != nil || string(rest) != "two\nthree\n" {
		t.Errorf("got %q, %v, want the rest", rest, err)
	}
	wantStatus(t, wait(t, e, s.ID()), Succeeded, "exit status 0", 14)
}

func TestPayloadErrorFailsTheUnit(t *testing.T) {
	e := localEngine(t)
	s, err := e.Submit(request("localhost", "cat", ""))
	if err != nil {
		t.Fatal(err)
	}
	broken := io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(errors.New("connection reset by peer")))
	if err := s.ReadPayload(broken); err == nil {
		t.Error("broken payload was accepted")
	}
	wantStatus(t, wait(t, e, s.ID()), Failed, "Error reading input data: connection reset by peer", 0)
	if _, err := s.Start(t.Context()); !errors.Is(err, ErrCancelled) {
		t.Errorf("start: got %v, want a refusal", err)
	}
}

func TestCancelWhileWaitingForPayload(t *testing.T) {
	e := localEngine(t)
	s, err := e.Submit(request("localhost", "cat", ""))
	if err != nil {
		t.Fatal(err)
	}
	if pending, err := e.Cancel(t.Context(), s.ID()); pending || err != nil {
		t.Fatalf("cancel: got %v, %v", pending, err)
	}
	wantStatus(t, wait(t, e, s.ID()), Canceled, "Canceled", 0)
	if err := s.ReadPayload(strings.NewReader("abc")); !errors.Is(err, ErrCancelled) {
		t.Errorf("payload: got %v, want ErrCancelled", err)
	}
	if _, err := s.Start(t.Context()); !errors.Is(err, ErrCancelled) {
		t.Errorf("start: got %v, want ErrCancelled", err)
	}
	if got := output(t, e, s.ID(), 0); got != "" {
		t.Errorf("got output %q of a unit that never ran", got)
	}
}

func TestReleaseWhileWaitingForPayload(t *testing.T) {
	e := localEngine(t)
	s, err := e.Submit(request("localhost", "cat", ""))
	if err != nil {
		t.Fatal(err)
	}
	if pending, err := e.Release(t.Context(), s.ID(), false); pending || err != nil {
		t.Fatalf("release: got %v, %v", pending, err)
	}
	if err := s.ReadPayload(strings.NewReader("abc")); !errors.Is(err, ErrCancelled) {
		t.Errorf("payload: got %v, want ErrCancelled", err)
	}
}

func TestF151CancelRunning(t *testing.T) {
	for name, command := range map[string]string{
		"sleeps":              `"echo a; exec sleep 60"`,
		"cleans up":           `"trap 'exit 0' INT; echo a; while :; do sleep 0.2; done"`,
		"background children": `"sleep 97 & echo a; exec sleep 98"`,
	} {
		t.Run(name, func(t *testing.T) {
			e := localEngine(t)
			id := submit(t, e, request("localhost", "sh", command), "")
			until(t, e, id, "output", func(s Status) bool { return s.State == Running && s.StdoutSize == 2 })
			j, _ := e.find(id)
			info, err := j.dir.RunnerInfo()
			if err != nil {
				t.Fatal(err)
			}
			seen := e.Subscribe(100)
			if pending, err := e.Cancel(testContext(t), id); pending || err != nil {
				t.Fatalf("cancel: got pending %v, %v", pending, err)
			}
			wantStatus(t, wait(t, e, id), Canceled, "Canceled", 2)
			if got := output(t, e, id, 0); got != "a\n" {
				t.Errorf("got output %q", got)
			}
			if err := syscall.Kill(-info.Program, 0); err != syscall.ESRCH {
				t.Errorf("processes of the command are left: %v", err)
			}
			seen.Close()
			for c := range seen.C {
				if c.Status.State == Failed {
					t.Errorf("the runner's Failed %q was seen", c.Status.Detail)
				}
			}
			if got := base(file(t, e, id, "status")); !strings.Contains(got, `{"State":4,"Detail":"Canceled","StdoutSize":2,"WorkType":"sh","ExtraData":null}`) {
				t.Errorf("got status file %s", got)
			}
		})
	}
}

func TestReleaseRunningEndsResults(t *testing.T) {
	e := localEngine(t)
	id := submit(t, e, request("localhost", "sh", `"echo a; exec sleep 60"`), "")
	r, err := e.Results(testContext(t), id, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	first := make([]byte, 2)
	if _, err := io.ReadFull(r, first); err != nil {
		t.Fatal(err)
	}
	if pending, err := e.Release(testContext(t), id, false); pending || err != nil {
		t.Fatalf("release: got %v, %v", pending, err)
	}
	if rest, err := io.ReadAll(r); len(rest) != 0 || err != nil {
		t.Errorf("got %q, %v, want the end of the stream", rest, err)
	}
	if entries := left(t, e); len(entries) != 0 {
		t.Errorf("release left %v behind", entries)
	}
}

func TestRunnerIsKilled(t *testing.T) {
	e := localEngine(t)
	id := submit(t, e, request("localhost", "sh", `"echo a; exec sleep 60"`), "")
	s := until(t, e, id, "output", func(s Status) bool { return s.State == Running && s.StdoutSize == 2 })
	j, _ := e.find(id)
	info, _ := j.dir.RunnerInfo()
	if pid := s.Extra.(*unit.CommandExtra).Pid; pid != info.Runner {
		t.Errorf("Pid is %d, want the runner %d", pid, info.Runner)
	}
	syscall.Kill(info.Runner, syscall.SIGKILL)
	wantStatus(t, wait(t, e, id), Failed, "Runner died", 2)
	gone(t, info.Program)
}

// gone waits until a process has ended, through a pidfd.
func gone(t testing.TB, pid int) {
	t.Helper()
	exit, err := openExit(pid)
	if err != nil {
		return
	}
	if err := awaitExit(testContext(t), exit); err != nil {
		t.Errorf("process %d is still there: %v", pid, err)
	}
}

func TestRunnerIsTerminated(t *testing.T) {
	e := localEngine(t)
	id := submit(t, e, request("localhost", "sh", `"exec sleep 60"`), "")
	until(t, e, id, "Running", running)
	j, _ := e.find(id)
	info, _ := j.dir.RunnerInfo()
	syscall.Kill(info.Runner, syscall.SIGTERM)
	wantStatus(t, wait(t, e, id), Failed, "Killed", 0)
}

func TestDirectoryTakenAway(t *testing.T) {
	e := localEngine(t)
	id := submit(t, e, request("localhost", "sh", `"echo a; exec sleep 60"`), "")
	until(t, e, id, "Running", running)
	j, _ := e.find(id)
	if err := os.Rename(j.dir.Path(), filepath.Join(t.TempDir(), "elsewhere")); err != nil {
		t.Fatal(err)
	}
	if s := wait(t, e, id); s.State != Failed || s.Detail != unit.DetailDirectoryGone {
		t.Errorf("got %v %q, want Failed %q", s.State, s.Detail, unit.DetailDirectoryGone)
	}
	if pending, err := e.Release(testContext(t), id, false); pending || err != nil {
		t.Errorf("release: got %v, %v", pending, err)
	}
}

func TestUnitIDsNeverReachTheDisk(t *testing.T) {
	e := localEngine(t)
	for _, id := range []UnitID{"..", ".", "", "a/b", "../alpha", "XXXXXXXX"} {
		if _, err := e.Status(id); !errors.Is(err, ErrUnknownUnit) {
			t.Errorf("%q: got %v, want unknown work unit", id, err)
		}
	}
}

// TestF151StubbornProgram takes the ten seconds after which a program that ignores SIGINT gets SIGTERM, and SIGKILL if it ignores that,
// too.
func TestF151StubbornProgram(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	t.Parallel()
	for ignored, want := range map[string]string{"INT": "a\nasked again\n", "INT TERM": "a\n"} {
		t.Run(ignored, func(t *testing.T) {
			t.Parallel()
			e := localEngine(t)
			id := submit(t, e, request("localhost", "sh", `"exec 2>/dev/null; trap 'echo asked again; exit 0' TERM; trap '' `+ignored+`; echo a; while :; do sleep 0.2; done"`), "")
			until(t, e, id, "output", func(s Status) bool { return s.State == Running && s.StdoutSize == 2 })
			if pending, err := e.Cancel(testContext(t), id); !pending || err != nil {
				t.Errorf("cancel: got %v, %v, want pending", pending, err)
			}
			wantStatus(t, wait(t, e, id), Canceled, "Canceled", int64(len(want)))
			if got := output(t, e, id, 0); got != want {
				t.Errorf("got output %q, want %q", got, want)
			}
		})
	}
}

// BenchmarkOutput measures how fast bulk output reaches a reader.
func BenchmarkOutput(b *testing.B) {
	const size = 256 << 20
	e := localEngine(b)
	b.SetBytes(size)
	for b.Loop() {
		id := submit(b, e, request("localhost", "shraw", `-c "head -c `+strconv.Itoa(size)+` /dev/zero"`), "")
		r, err := e.Results(b.Context(), id, 0)
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, r); n != size || err != nil {
			b.Fatalf("got %d bytes, %v", n, err)
		}
		r.Close()
		e.Release(b.Context(), id, true)
	}
}

// TestABugLocksNothing: a unit whose change or status file has found a bug can still be changed, looked at and released.
func TestABugLocksNothing(t *testing.T) {
	e := localEngine(t)
	s, err := e.Submit(request("localhost", "cat", ""))
	if err != nil {
		t.Fatal(err)
	}
	j := s.j
	for name, find := range map[string]func(){
		"change": func() { j.later(func(*unit.Record) bool { panic("a bug") }) },
		"status file": func() {
			dir := j.dir
			defer func() { j.dir = dir }()
			j.dir = nil // So it cannot be read.
			j.statusChanged()
		},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no bug was found", name)
				}
			}()
			find()
		}()
		if !j.files.TryLock() {
			t.Fatalf("%s: the files are locked", name)
		}
		j.files.Unlock()
	}
	if _, err := e.Release(testContext(t), s.ID(), false); err != nil {
		t.Error(err)
	}
}

// TestDamagedStatusOfARunningUnit: a unit whose status file is spoilt, or taken away, while its command runs ends as its command does, and
// is found so by the next node.
func TestDamagedStatusOfARunningUnit(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"empty":   func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"garbage": func(path string) error { return os.WriteFile(path, []byte("garbage"), 0o600) },
		"gone":    os.Remove,
		"a link": func(path string) error { // At once: the runner may be about to write that the command runs.
			return errors.Join(os.Symlink("/dev/zero", path+".link"), os.Rename(path+".link", path))
		},
		"a pipe": func(path string) error {
			return errors.Join(syscall.Mkfifo(path+".pipe", 0o600), os.Rename(path+".pipe", path))
		},
		"a directory": func(path string) error {
			return errors.Join(os.MkdirAll(path+".dir/full", 0o700), unix.Renameat2(unix.AT_FDCWD, path+".dir", unix.AT_FDCWD, path, unix.RENAME_EXCHANGE))
		},
		"a pipe where it is written": func(path string) error {
			return errors.Join(syscall.Mkfifo(path+".pipe", 0o600), os.Rename(path+".pipe", path+".tmp"))
		},
		"a tebibyte": func(path string) error { return os.Truncate(path, 1<<40) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			e := openEngine(t, dir, noMesh{"alpha"})
			gate := filepath.Join(t.TempDir(), "gate")
			if err := syscall.Mkfifo(gate, 0o600); err != nil {
				t.Fatal(err)
			}
			id := submit(t, e, request("localhost", "sh", "'cat "+gate+"'"), "")
			f, err := os.OpenFile(gate, os.O_WRONLY, 0) // The command has begun when this returns.
			if err != nil {
				t.Fatal(err)
			}
			until(t, e, id, "a command that runs", func(s Status) bool { return s.State == Running })
			if err := damage(filepath.Join(dir, "alpha", string(id), "status")); err != nil {
				t.Fatal(err)
			}
			io.WriteString(f, "output")
			f.Close()
			wantStatus(t, wait(t, e, id), Succeeded, "exit status 0", 6)
			e.Close()
			e = openEngine(t, dir, noMesh{"alpha"})
			now, err := e.Status(id)
			if err != nil {
				t.Fatal(err)
			}
			wantStatus(t, now, Succeeded, "exit status 0", 6)
			if now.SHA256 != sum("output") {
				t.Errorf("got checksum %q", now.SHA256)
			}
		})
	}
}
