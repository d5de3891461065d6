package workceptor

import (
	"encoding/binary"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/workceptor/attach"
)

// execEngine has a work type that may be attached to.
func execEngine(t *testing.T, limit int) *Engine {
	e := localEngine(t)
	if err := e.RegisterCommand(CommandType{WorkType: "exec", Command: "sh", AllowRuntimeParams: true, AllowExec: true, MaxRunning: limit}); err != nil {
		t.Fatal(err)
	}
	return e
}

func execute(t *testing.T, e *Engine, params string, terminal *attach.Size) *Interactive {
	t.Helper()
	x, err := e.Exec(ExecRequest{WorkType: "exec", Params: params, Terminal: terminal, Term: "vt100"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	return x
}

// ending is what a client has got at the end.
type ending struct {
	stdout, stderr string
	status         struct {
		Detail, Signal, Reason, StateName string
		ExitCode                          *int
	}
}

// collect reads frames to the end. each, if not nil, sees the standard output so far.
func collect(t *testing.T, x *Interactive, each func(stdout string)) ending {
	t.Helper()
	var end ending
	var status []byte
	frames := attach.NewReader(x)
	for {
		kind, content, err := frames.Next()
		switch {
		case err == io.EOF:
			if err := json.Unmarshal(status, &end.status); err != nil {
				t.Fatalf("status %q: %v", status, err)
			}
			return end
		case err != nil:
			t.Fatalf("after %q: %v", end.stdout, err)
		case kind == attach.Stdout:
			end.stdout += string(content)
			if each != nil {
				each(end.stdout)
			}
		case kind == attach.Stderr:
			end.stderr += string(content)
		case kind == attach.Exit:
			status = append(status, content...)
		case kind == attach.Taken:
		default:
			t.Fatalf("got a frame of kind %d", kind)
		}
	}
}

func send(t *testing.T, x *Interactive, frames ...[]byte) {
	t.Helper()
	for _, f := range frames {
		if _, err := x.Write(f); err != nil {
			t.Fatal(err)
		}
	}
}

func input(text string) []byte { return attach.Append(nil, attach.Input, []byte(text)) }

// wantGone: the unit is released when its client has gone.
func wantGone(t *testing.T, e *Engine, id UnitID) {
	t.Helper()
	changes := e.Subscribe(64)
	defer changes.Close()
	for ctx := testContext(t); ; {
		if _, err := e.Status(id); err != nil {
			return
		}
		select {
		case <-changes.C:
		case <-ctx.Done():
			t.Fatalf("unit %s is still listed", id)
		}
	}
}

func TestExecPipes(t *testing.T) {
	e := execEngine(t, 0)
	x := execute(t, e, `-c 'cat; echo oops >&2; exit 3'`, nil)
	if s, err := e.Status(x.ID()); err != nil || s.WorkType != "exec" {
		t.Errorf("the unit is not listed: %v, %v", s, err)
	}
	payload := strings.Repeat("0123456789abcdef", 1<<16)
	go func() {
		for rest := payload; len(rest) > 0; {
			n := min(len(rest), 50000)
			x.Write(input(rest[:n]))
			rest = rest[n:]
		}
		x.Write(input(""))
	}()
	end := collect(t, x, nil)
	if end.stdout != payload || end.stderr != "oops\n" {
		t.Errorf("got %d bytes, want %d; errors %q", len(end.stdout), len(payload), end.stderr)
	}
	if s := end.status; s.StateName != "Failed" || s.Detail != "exit status 3" || s.Reason != "exit" || s.ExitCode == nil || *s.ExitCode != 3 {
		t.Errorf("got %+v", s)
	}
	if _, err := e.Status(x.ID()); err != nil {
		t.Error("the unit is gone before its client")
	}
	x.Close()
	wantGone(t, e, x.ID())
}

func TestExecTerminal(t *testing.T) {
	t.Setenv("TERM", "dumb") // Of the node; the command has that of its client, and no other.
	e := execEngine(t, 0)
	x := execute(t, e, `-c 'stty size; env | grep ^TERM=; test -t 0 && test -t 1 && test -t 2 && echo terminal; read line; echo "got $line"; stty size; kill -9 $$'`,
		&attach.Size{Rows: 33, Cols: 132})
	said := false
	end := collect(t, x, func(stdout string) {
		if !said && strings.Contains(stdout, "terminal\r\n") {
			said = true
			send(t, x, attach.AppendResize(nil, attach.Size{Rows: 50, Cols: 99}), input("hello\r"))
		}
	})
	want := "33 132\r\nTERM=vt100\r\nterminal\r\nhello\r\ngot hello\r\n50 99\r\n"
	if end.stdout != want || end.stderr != "" {
		t.Errorf("got %q, want %q", end.stdout, want)
	}
	if s := end.status; s.Detail != "signal: killed" || s.Signal != "SIGKILL" || s.Reason != "signal" || s.ExitCode != nil {
		t.Errorf("got %+v", s)
	}
}

// TestExecKeys: the terminal turns Ctrl-C into a signal and Ctrl-D into the end of input, as frames do.
func TestExecKeys(t *testing.T) {
	e := execEngine(t, 0)
	for name, frame := range map[string][]byte{
		"key": input("\x03"), "frame": attach.Append(nil, attach.Signal, []byte("INT")),
	} {
		x := execute(t, e, `-c 'trap "echo caught; exit 5" INT; echo ready; while :; do sleep 0.05; done'`, &attach.Size{Rows: 24, Cols: 80})
		sent := false
		end := collect(t, x, func(stdout string) {
			if !sent && strings.Contains(stdout, "ready") {
				sent = true
				send(t, x, frame)
			}
		})
		if !strings.HasSuffix(end.stdout, "caught\r\n") || *end.status.ExitCode != 5 {
			t.Errorf("%s: got %q and %+v", name, end.stdout, end.status)
		}
	}
	x := execute(t, e, `-c 'cat; echo over'`, &attach.Size{Rows: 24, Cols: 80})
	send(t, x, input("text\r"), input(""))
	if end := collect(t, x, nil); end.stdout != "text\r\ntext\r\nover\r\n" {
		t.Errorf("got %q", end.stdout)
	}
}

// TestExecHangup: when the client goes, the command and all its descendants go, and the unit.
func TestExecHangup(t *testing.T) {
	e := execEngine(t, 0)
	for _, terminal := range []*attach.Size{nil, {Rows: 24, Cols: 80}} {
		x := execute(t, e, `-c 'setsid sleep 300 & sleep 301 & echo $!; wait'`, terminal)
		frames := attach.NewReader(x)
		if _, _, err := frames.Next(); err != nil {
			t.Fatal(err)
		}
		j, _ := e.find(x.ID())
		info, err := j.dir.RunnerInfo()
		if err != nil {
			t.Fatal(err)
		}
		x.Close()
		wantGone(t, e, x.ID())
		for _, pid := range []int{info.Program, info.Runner} {
			if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
				t.Errorf("process %d is left: %v", pid, err)
			}
		}
	}
}

// TestExecNodeDies: an interactive unit that a node has left behind is released by the next one, when its command has ended.
func TestExecNodeDies(t *testing.T) {
	dir, gate := t.TempDir(), filepath.Join(t.TempDir(), "gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	e := openEngine(t, dir, noMesh{"alpha"})
	if err := e.RegisterCommand(CommandType{WorkType: "exec", Command: "sh", AllowRuntimeParams: true, AllowExec: true}); err != nil {
		t.Fatal(err)
	}
	x := execute(t, e, `-c 'trap "" HUP; echo ready; cat `+gate+`'`, nil)
	if _, _, err := attach.NewReader(x).Next(); err != nil {
		t.Fatal(err)
	}
	if got := file(t, e, x.ID(), "status"); !strings.Contains(got, `"Attached":true`) {
		t.Errorf("got status file %s", got)
	}
	e.Close()
	e = openEngine(t, dir, noMesh{"alpha"})
	if s, err := e.Status(x.ID()); err != nil || s.State != Running {
		t.Errorf("got %v, %v of a command that goes on", s.State, err)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantGone(t, e, x.ID())
	e.Close()
	if entries := left(t, e); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
}

// TestExecHangupBehindInput: a client that goes is noticed although the command does not read what it has sent before.
func TestExecHangupBehindInput(t *testing.T) {
	e := execEngine(t, 0)
	for _, terminal := range []*attach.Size{nil, {Rows: 24, Cols: 80}} {
		x := execute(t, e, `-c 'stty raw; echo ready; exec sleep 300' 2>/dev/null`, terminal)
		if _, _, err := attach.NewReader(x).Next(); err != nil {
			t.Fatal(err)
		}
		frame := input(strings.Repeat("x", attach.MaxContent))
		x.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		for {
			if _, err := x.Write(frame); err != nil {
				break // All there is between the two is full.
			}
		}
		x.Close()
		wantGone(t, e, x.ID())
	}
}

// TestExecSignalOvertakesInput: what the command does not read of its input, up to the window, keeps no signal from it. The command
// gets all of the input in the end, and the client hears of every byte.
func TestExecSignalOvertakesInput(t *testing.T) {
	e := execEngine(t, 0)
	for _, terminal := range []*attach.Size{nil, {Rows: 24, Cols: 80}} {
		x := execute(t, e, `-c 'stty raw -echo; trap "trap - INT; echo caught; exec head -c 1048576 >/dev/null" INT; echo ready; while :; do sleep 0.05; done' 2>/dev/null`, terminal)
		frames := attach.NewReader(x)
		if _, _, err := frames.Next(); err != nil {
			t.Fatal(err)
		}
		for given := 0; given < attach.Window; given += 1 << 15 {
			send(t, x, input(strings.Repeat("x", 1<<15)))
		}
		send(t, x, attach.Append(nil, attach.Signal, []byte("INT")))
		taken, caught := 0, false
		for taken < attach.Window || !caught {
			kind, content, err := frames.Next()
			switch {
			case err != nil || kind == attach.Exit:
				t.Fatalf("terminal %v: the end after %d bytes of input, caught %v: %v", terminal != nil, taken, caught, err)
			case kind == attach.Taken:
				taken += int(binary.BigEndian.Uint32(content))
			case kind == attach.Stdout:
				caught = caught || strings.Contains(string(content), "caught")
			}
		}
		if taken != attach.Window {
			t.Errorf("terminal %v: %d bytes taken", terminal != nil, taken)
		}
		x.Close()
		wantGone(t, e, x.ID())
	}
}

// TestExecHangupOfWhoReadsNothing: a client that has ended its data is noticed although it takes no output and the command no input.
func TestExecHangupOfWhoReadsNothing(t *testing.T) {
	e := execEngine(t, 0)
	x := execute(t, e, `-c 'exec yes'`, nil)
	x.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	for frame := input(strings.Repeat("x", attach.MaxContent)); ; {
		if _, err := x.Write(frame); err != nil {
			break
		}
	}
	if err := x.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if s := wait(t, e, x.ID()); s.State != Failed || s.Reason != "hangup" {
		t.Errorf("got %v, %+v", s.State, s.Outcome)
	}
	x.Close()
	wantGone(t, e, x.ID())
}

func TestExecBadFrameHangsUp(t *testing.T) {
	e := execEngine(t, 0)
	for _, bad := range []string{"\x63\x00\x00", "\x02\x00\x01x", "\x03\x00\x03abc", "\x10\x00\x01x"} {
		x := execute(t, e, `-c 'exec sleep 300'`, nil)
		send(t, x, []byte(bad))
		if end := collect(t, x, nil); end.status.Reason != "hangup" || end.status.Detail != "Killed" {
			t.Errorf("%q: got %+v", bad, end.status)
		}
	}
}

func TestExecIsCancelled(t *testing.T) {
	e := execEngine(t, 0)
	x := execute(t, e, `-c 'echo ready; exec sleep 300'`, nil)
	end := collect(t, x, func(string) {
		if _, err := e.Cancel(testContext(t), x.ID()); err != nil {
			t.Error(err)
		}
	})
	if end.status.StateName != "Canceled" || end.status.Reason != "canceled" {
		t.Errorf("got %+v", end.status)
	}
}

func TestExecRefusals(t *testing.T) {
	e := execEngine(t, 1)
	size := &attach.Size{Rows: 24, Cols: 80}
	for want, req := range map[string]ExecRequest{
		"unknown work type nix":               {WorkType: "nix"},
		"work type upper does not allow exec": {WorkType: "upper"},
		`term "a=b" is no type of terminal: letters, digits, and . _ + - are expected`: {WorkType: "exec", Terminal: size, Term: "a=b"},
	} {
		if _, err := e.Exec(req); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	x := execute(t, e, `-c 'exec sleep 300'`, nil)
	if _, err := e.Exec(ExecRequest{WorkType: "exec"}); err == nil || err.Error() != "work type exec is busy: as many units run as are allowed" {
		t.Errorf("got %v", err)
	}
	x.Close()
	wantGone(t, e, x.ID())
	if entries := left(t, e); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
	end := collect(t, execute(t, e, `-c 'no-such-command'`, nil), nil)
	if *end.status.ExitCode != 127 {
		t.Errorf("got %+v", end.status)
	}
}
