package workceptor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor/remote"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// pair is a submitter alpha and an executor beta.
func pair(t testing.TB, options ...func(*Config)) (m *testMesh, alpha, beta *Engine) {
	return pairWith(t, (*testMesh).serve, options...)
}

// pairWith is pair with an executor that pushes, or with one that is polled.
func pairWith(t testing.TB, serve serveFunc, options ...func(*Config)) (m *testMesh, alpha, beta *Engine) {
	m = newTestMesh()
	beta = openEngine(t, t.TempDir(), m.node("beta"))
	releaseAll(t, beta)
	serve(m, "beta", beta)
	return m, openEngine(t, t.TempDir(), m.node("alpha"), options...), beta
}

type serveFunc = func(*testMesh, wire.NodeID, *Engine)

// executors are the kinds of executors that a submitter meets.
var executors = map[string]serveFunc{"push": (*testMesh).serve, "poll": (*testMesh).serveBase}

// one returns the only unit of an engine.
func one(t testing.TB, e *Engine) UnitID {
	t.Helper()
	all := e.List()
	if len(all) != 1 {
		t.Fatalf("got %d units, want 1", len(all))
	}
	for id := range all {
		return id
	}
	return ""
}

func TestF173Remote(t *testing.T) {
	_, alpha, beta := pair(t)
	req := request("beta", "upper", "")
	req.Params["foo"] = "bar"
	id := submit(t, alpha, req, "hello\nworld\n")
	if got := output(t, alpha, id, 0); got != "HELLO\nWORLD\n" {
		t.Errorf("got output %q", got)
	}
	wantStatus(t, wait(t, alpha, id), Succeeded, "exit status 0", 12)
	far := one(t, beta)
	want := `{"State":2,"Detail":"exit status 0","StdoutSize":12,"WorkType":"remote","ExtraData":{"RemoteNode":"beta","RemoteWorkType":"upper","RemoteParams":{"foo":"bar"},"RemoteUnitID":"` + string(far) + `","RemoteStarted":true,"LocalCancelled":false,"LocalReleased":false,"SignWork":false,"TLSClient":"","Expiration":"0001-01-01T00:00:00Z"}}` + "\n"
	if got := base(file(t, alpha, id, "status")); got != want {
		t.Errorf("got status file %s, want %s", got, want)
	}
	if pending, err := alpha.Release(testContext(t), id, false); pending || err != nil {
		t.Errorf("release: got %v, %v", pending, err)
	}
	if len(alpha.List())+len(beta.List()) != 0 {
		t.Errorf("release left units behind: %v, %v", alpha.List(), beta.List())
	}
}

// TestOneStreamPerUnit: a unit on a node of this implementation is handed over in one session and followed in another, to the end,
// however often there is news.
func TestOneStreamPerUnit(t *testing.T) {
	m, alpha, _ := pair(t)
	gate := filepath.Join(t.TempDir(), "gate")
	if err := unix.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(gate, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	id := submit(t, alpha, request("beta", "sh", `"exec 3< `+gate+`; for i in 1 2 3 4; do echo $i; read x <&3; done"`), "")
	for lines := range 4 {
		until(t, alpha, id, "more output", func(s Status) bool { return s.StdoutSize == int64(2*lines+2) })
		if _, err := f.WriteString("\n"); err != nil {
			t.Fatal(err)
		}
	}
	wantStatus(t, wait(t, alpha, id), Succeeded, "exit status 0", 8)
	if got := output(t, alpha, id, 0); got != "1\n2\n3\n4\n" {
		t.Errorf("got output %q", got)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dials != 2 {
		t.Errorf("there were %d sessions, want 2", m.dials)
	}
}

// TestPollsAreAdaptive: others are asked often while there is news, and ever less often while there is none.
func TestPollsAreAdaptive(t *testing.T) {
	pause, polls := nextPoll(0, false, false), 1
	for ; pause < maxPoll; polls++ {
		next := nextPoll(pause, false, false)
		if next <= pause {
			t.Fatalf("a pause of %v is followed by one of %v", pause, next)
		}
		if output := nextPoll(pause, false, true); output > outputPoll || output > next {
			t.Errorf("a pause of %v is followed by one of %v although there is output", pause, output)
		}
		pause = next
	}
	if first := nextPoll(0, false, false); first != minPoll || polls < 5 {
		t.Errorf("it begins with %v and comes to a second in %d steps", first, polls)
	}
	if pause = nextPoll(maxPoll, false, false); pause != maxPoll {
		t.Errorf("the longest pause is followed by one of %v", pause)
	}
	if pause = nextPoll(maxPoll, true, false); pause != minPoll {
		t.Errorf("news of a state is followed by a pause of %v", pause)
	}
}

// script is a control service that says what a test tells it to and notes what it hears.
type script struct {
	mu    sync.Mutex
	heard []string
	// say answers one line; "" closes the stream, a text without a newline is sent as it is and the stream closed.
	say func(line string) string
	// payload, if set, takes what follows a line that was answered by a prompt.
	payload string
}

func (s *script) lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.heard...)
}

func (s *script) serve(c Stream) {
	defer c.Close()
	io.WriteString(c, "Receptor Control, node beta\n")
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		s.mu.Lock()
		s.heard = append(s.heard, line)
		answer := s.say(line)
		s.mu.Unlock()
		io.WriteString(c, answer)
		if !strings.HasSuffix(answer, "\n") {
			return
		}
		if strings.Contains(line, `"submit"`) || strings.Contains(line, `"submit-once"`) && strings.HasPrefix(answer, "Work unit created") {
			payload, err := io.ReadAll(r)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.payload = string(payload)
			s.mu.Unlock()
			io.WriteString(c, `{"result":"Job Started","unitid":"BRVFlI6d"}`+"\n")
			return
		}
	}
}

const finishedLine = `{"Detail":"exit status 0","ExtraData":null,"State":2,"StateName":"Succeeded","StdoutSize":12,"WorkType":"upper"}` + "\n"

// honest answers like a node whose unit has finished.
func honest(line string) string {
	switch {
	case strings.Contains(line, `"submit"`):
		return "Work unit created with ID BRVFlI6d. Send stdin data and EOF.\n"
	case strings.HasPrefix(line, "work status "):
		return finishedLine
	case strings.Contains(line, `"results"`):
		return "Streaming results for work unit BRVFlI6d\nHELLO\nWORLD\n."[:len("Streaming results for work unit BRVFlI6d\n")+11]
	case strings.Contains(line, `"release"`):
		return `{"released":"BRVFlI6d"}` + "\n"
	}
	return "ERROR: Unknown command\n"
}

func scripted(t testing.TB, say func(string) string) (*testMesh, *Engine, *script) {
	m := newTestMesh()
	s := &script{say: say}
	m.handle("beta", s.serve)
	return m, openEngine(t, t.TempDir(), m.node("alpha")), s
}

// TestF173RemoteBytes holds what is sent to another node against the golden transcript of a remote unit.
func TestF173RemoteBytes(t *testing.T) {
	released := false
	_, alpha, s := scripted(t, func(line string) string {
		switch {
		case strings.Contains(line, `"results"`):
			return "Streaming results for work unit BRVFlI6d\nHELLO\nWORLD" // The last newline comes with the next stream.
		case strings.Contains(line, `"release"`):
			released = true
		case released:
			return "ERROR: unknown work unit BRVFlI6d\n"
		}
		return honest(line)
	})
	s.say = func(say func(string) string) func(string) string {
		return func(line string) string {
			if strings.Contains(line, `"startpos":11`) {
				return "Streaming results for work unit BRVFlI6d\n\n"
			}
			return say(line)
		}
	}(s.say)
	req := request("beta", "upper", "")
	req.Params["foo"] = "bar"
	id := submit(t, alpha, req, "hello\nworld\n")
	wantStatus(t, wait(t, alpha, id), Succeeded, "exit status 0", 12)
	if got := output(t, alpha, id, 0); got != "HELLO\nWORLD\n" {
		t.Errorf("got output %q", got)
	}
	if j, err := alpha.find(id); err != nil || j.hasRead() != 12 {
		t.Errorf("%v: the unit does not know how much of its output was read", err)
	}
	if _, err := alpha.Release(testContext(t), id, false); err != nil {
		t.Fatal(err)
	}
	if s.payload != "hello\nworld\n" {
		t.Errorf("got payload %q", s.payload)
	}
	heard := strings.Join(s.lines(), "")
	for _, want := range []string{
		`{"command":"work","foo":"bar","node":"beta","subcommand":"submit","tlsclient":"","worktype":"upper"}` + "\n",
		"work status BRVFlI6d\n",
		`{"command":"work","startpos":0,"subcommand":"results","unitid":"BRVFlI6d"}` + "\n",
		`{"command":"work","startpos":11,"subcommand":"results","unitid":"BRVFlI6d"}` + "\n",
		`{"command":"work","subcommand":"release","unitid":"BRVFlI6d"}` + "\nwork status BRVFlI6d\n",
	} {
		if !strings.Contains(heard, want) {
			t.Errorf("executor heard %q, want in it %q", heard, want)
		}
	}
}

func TestF173RemoteRefusal(t *testing.T) {
	_, alpha, _ := pair(t)
	s, err := alpha.Submit(request("beta", "nosuchtype", ""))
	if err != nil {
		t.Fatal(err)
	}
	s.ReadPayload(strings.NewReader(""))
	const text = "could not parse response: ERROR: unknown work type nosuchtype"
	if _, err := s.Start(testContext(t)); err == nil || err.Error() != text {
		t.Errorf("start: got %v, want %s", err, text)
	}
	wantStatus(t, wait(t, alpha, s.ID()), Failed, "Error starting worker: "+text, 0)
	if pending, err := alpha.Release(testContext(t), s.ID(), false); pending || err != nil {
		t.Errorf("release: got %v, %v", pending, err)
	}
}

// later submits to beta while it cannot be reached.
func later(t *testing.T, m *testMesh, e *Engine, req SubmitRequest, payload string) UnitID {
	t.Helper()
	m.cut("beta")
	s, err := e.Submit(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ReadPayload(strings.NewReader(payload)); err != nil {
		t.Fatal(err)
	}
	if result, err := s.Start(testContext(t)); result != JobSubmitted || err != nil {
		t.Fatalf("start: got %q, %v, want %q", result, err, JobSubmitted)
	}
	status, _ := e.Status(s.ID())
	wantStatus(t, status, Pending, "Starting Worker", 0)
	return s.ID()
}

func TestF174ReachableLater(t *testing.T) {
	m, alpha, _ := pair(t)
	id := later(t, m, alpha, request("beta", "upper", ""), "hello\n")
	m.mend("beta")
	wantStatus(t, wait(t, alpha, id), Succeeded, "exit status 0", 6)
	if got := output(t, alpha, id, 0); got != "HELLO\n" {
		t.Errorf("got output %q", got)
	}
}

func TestRemoteRefusalInBackground(t *testing.T) {
	m, alpha, _ := pair(t)
	id := later(t, m, alpha, request("beta", "nosuchtype", ""), "")
	m.mend("beta")
	wantStatus(t, wait(t, alpha, id), Failed, "Error starting worker: could not parse response: ERROR: unknown work type nosuchtype", 0)
}

func TestF175RefusedForLocalWork(t *testing.T) {
	_, alpha, _ := pair(t)
	for _, node := range []string{"alpha", "localhost"} {
		req := request(node, "cat", "")
		req.TTL = "1h"
		if _, err := alpha.Submit(req); err == nil || err.Error() != "ttl option is intended for remote work only" {
			t.Errorf("%s: got %v", node, err)
		}
	}
	for ttl, want := range map[string]string{"soon": `time: invalid duration "soon"`, "10": `time: missing unit in duration "10"`} {
		req := request("beta", "cat", "")
		req.TTL = ttl
		if _, err := alpha.Submit(req); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", ttl, err, want)
		}
	}
	if len(alpha.List()) != 0 {
		t.Error("a refused submit has left a unit behind")
	}
}

func TestF175Expires(t *testing.T) {
	m, alpha, beta := pair(t)
	req := request("beta", "upper", "")
	req.TTL = "1h"
	id := later(t, m, alpha, req, "")
	j, err := alpha.find(id)
	if err != nil {
		t.Fatal(err)
	}
	end(t, j)
	j.work.(*remoteWorker).kick(stepNone) // As its pause does at the end of the hour.
	wantExpired(t, wait(t, alpha, id))
	m.mend("beta")
	if pending, err := alpha.Release(testContext(t), id, false); pending || err != nil {
		t.Errorf("release: got %v, %v", pending, err)
	}
	if len(beta.List()) != 0 {
		t.Error("an expired unit was started")
	}
}

// end makes a unit's time to live end now.
func end(t *testing.T, j *job) {
	t.Helper()
	if err := j.update(true, edit(func(x *unit.RemoteExtra) { x.Expiration = time.Now().UTC() })); err != nil {
		t.Fatal(err)
	}
}

func wantExpired(t *testing.T, s Status) {
	t.Helper()
	wantStatus(t, s, Failed, unit.DetailExpired(s.Extra.(*unit.RemoteExtra).Expiration), 0)
	if s.Reason != unit.ReasonExpired {
		t.Errorf("got reason %q", s.Reason)
	}
}

// TestF175ExpiresDuringThePayload: a unit whose time ends while its payload comes, a little or much of it, ends then and there,
// and its client is told so.
func TestF175ExpiresDuringThePayload(t *testing.T) {
	_, alpha, beta := pair(t)
	req := request("beta", "cat", "")
	req.TTL = "20ms"
	s, err := alpha.Submit(req)
	if err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	came := make(chan error, 1)
	go func() { came <- s.ReadPayload(r) }()
	wantExpired(t, wait(t, alpha, s.ID())) // Nothing has come yet, and nothing ends.
	w.Write([]byte("too late"))
	w.Close()
	_, startErr := s.Start(testContext(t))
	for _, err := range []error{<-came, startErr} {
		if _, expired := errors.AsType[*ExpiredError](err); !expired {
			t.Errorf("got %v", err)
		}
	}
	if len(beta.List()) != 0 {
		t.Error("an expired unit was started")
	}
}

// TestF175ExpiresWithTheFirstAttempt: the client of a unit whose time ends before its first attempt does, or even begins, is not
// told that the unit was submitted.
func TestF175ExpiresWithTheFirstAttempt(t *testing.T) {
	for name, size := range map[string]int{"small": 1, "sent early": earlyFrom + pieceSize} {
		t.Run(name, func(t *testing.T) {
			c := newCutting(t, (*testMesh).serve, true)
			s, w, came := c.begin(t)
			part := strings.Repeat("x", size)
			if size < earlyFrom {
				io.WriteString(w, part)
			} else {
				setOut(t, s, w, part)
			}
			w.Close()
			if err := <-came; err != nil {
				t.Fatal(err)
			}
			end(t, s.j)
			result, err := s.Start(testContext(t))
			if _, expired := errors.AsType[*ExpiredError](err); !expired {
				t.Errorf("got %q, %v", result, err)
			}
			wantExpired(t, wait(t, c.alpha, s.ID()))
			if err := c.noneLeft(testContext(t)); err != nil || c.runs.Load() != 0 {
				t.Errorf("the work ran %d times, error %v", c.runs.Load(), err)
			}
		})
	}
	t.Run("no answer", func(t *testing.T) {
		e := openEngine(t, t.TempDir(), silent{noMesh{"alpha"}})
		req := request("beta", "cat", "")
		req.TTL = "20ms"
		s, err := e.Submit(req)
		if err != nil {
			t.Fatal(err)
		}
		err = s.ReadPayload(strings.NewReader("abc"))
		if err == nil {
			_, err = s.Start(testContext(t))
		}
		if _, expired := errors.AsType[*ExpiredError](err); !expired {
			t.Errorf("got %v", err)
		}
		wantExpired(t, wait(t, e, s.ID()))
	})
}

// TestRemoteUnitWhoseDirectoryIsTakenAway: a unit ends, and so do its results, when its work has ended on the other node and there is
// no room for the output any more.
func TestRemoteUnitWhoseDirectoryIsTakenAway(t *testing.T) {
	for name, serve := range executors {
		t.Run(name, func(t *testing.T) {
			_, alpha, beta := pairWith(t, serve)
			gate := filepath.Join(t.TempDir(), "gate")
			if err := syscall.Mkfifo(gate, 0o600); err != nil {
				t.Fatal(err)
			}
			id := submit(t, alpha, request("beta", "sh", "'echo output; cat "+gate+"'"), "")
			r, err := alpha.Results(testContext(t), id, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			first := make([]byte, len("output\n"))
			if _, err := io.ReadFull(r, first); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(filepath.Join(alpha.root.Path(), string(id))); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(gate, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
			if s := wait(t, alpha, id); s.State != Failed || s.Reason != unit.ReasonDirectory || s.Detail != unit.DetailDirectoryGone {
				t.Errorf("got %v %q, %s", s.State, s.Detail, s.Reason)
			}
			if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
				t.Errorf("results went on with %q, %v", rest, err)
			}
			if pending, err := alpha.Release(testContext(t), id, false); pending || err != nil {
				t.Errorf("release: %v, %v", pending, err)
			}
			if left := len(alpha.List()) + len(beta.List()); left != 0 {
				t.Errorf("%d units are left", left)
			}
		})
	}
}

// silent is a mesh whose nodes do not answer.
type silent struct{ noMesh }

func (silent) DialStream(ctx context.Context, _ wire.NodeID, _, _ string) (Stream, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func TestRemoteNotStartedIsCancelledAndReleased(t *testing.T) {
	m, alpha, beta := pair(t)
	for _, release := range []bool{false, true} {
		id := later(t, m, alpha, request("beta", "upper", ""), "")
		if !release {
			if pending, err := alpha.Cancel(testContext(t), id); pending || err != nil {
				t.Errorf("cancel: got %v, %v, want done", pending, err)
			}
			wantStatus(t, wait(t, alpha, id), Failed, "Locally Cancelled", 0)
		}
		if pending, err := alpha.Release(testContext(t), id, false); pending || err != nil {
			t.Errorf("release: got %v, %v, want done", pending, err)
		}
		if _, err := alpha.Status(id); !errors.Is(err, ErrUnknownUnit) {
			t.Errorf("after release: got %v", err)
		}
		m.mend("beta")
	}
	if len(beta.List()) != 0 {
		t.Error("a cancelled unit was started")
	}
}

func TestRemoteCancelledWhileWaitingForPayload(t *testing.T) {
	_, alpha, _ := pair(t)
	s, err := alpha.Submit(request("beta", "cat", ""))
	if err != nil {
		t.Fatal(err)
	}
	if pending, err := alpha.Cancel(testContext(t), s.ID()); pending || err != nil {
		t.Fatalf("cancel: got %v, %v", pending, err)
	}
	if err := s.ReadPayload(strings.NewReader("abc")); !errors.Is(err, ErrCancelled) {
		t.Errorf("payload: got %v", err)
	}
	if pending, err := alpha.Release(testContext(t), s.ID(), false); pending || err != nil {
		t.Fatalf("release: got %v, %v", pending, err)
	}
}

const sleeper = `"echo a; exec sleep 60"`

func startSleeper(t *testing.T, alpha *Engine) UnitID {
	t.Helper()
	id := submit(t, alpha, request("beta", "sh", sleeper), "")
	until(t, alpha, id, "output", func(s Status) bool { return s.State == Running && s.StdoutSize == 2 })
	return id
}

func TestF177RemoteCancel(t *testing.T) {
	_, alpha, beta := pair(t)
	id := startSleeper(t, alpha)
	if pending, err := alpha.Cancel(testContext(t), id); pending || err != nil {
		t.Fatalf("cancel: got %v, %v", pending, err)
	}
	wantStatus(t, wait(t, alpha, id), Canceled, "Canceled", 2)
	if got := output(t, alpha, id, 0); got != "a\n" {
		t.Errorf("got output %q", got)
	}
	s, _ := beta.Status(one(t, beta))
	wantStatus(t, s, Canceled, "Canceled", 2)
}

func TestF177CancelAndReleasePending(t *testing.T) {
	m, alpha, beta := pair(t)
	id := startSleeper(t, alpha)
	m.cut("beta")
	if pending, err := alpha.Cancel(testContext(t), id); !pending || err != nil {
		t.Errorf("cancel: got %v, %v, want pending", pending, err)
	}
	m.mend("beta")
	wantStatus(t, wait(t, alpha, id), Canceled, "Canceled", 2)
	m.cut("beta")
	for range 2 {
		if pending, err := alpha.Release(testContext(t), id, false); !pending || err != nil {
			t.Errorf("release: got %v, %v, want pending", pending, err)
		}
	}
	changes := alpha.Subscribe(64)
	m.mend("beta")
	for c := range changes.C {
		if c.Released {
			break
		}
	}
	changes.Close()
	if len(beta.List()) != 0 {
		t.Error("the executor still has the unit")
	}
}

func TestF177ForceRelease(t *testing.T) {
	m, alpha, beta := pair(t)
	id := startSleeper(t, alpha)
	m.cut("beta")
	if pending, err := alpha.Release(testContext(t), id, true); pending || err != nil {
		t.Errorf("force-release: got %v, %v, want done", pending, err)
	}
	if len(alpha.List()) != 0 {
		t.Error("the unit is still listed")
	}
	if s, _ := beta.Status(one(t, beta)); s.State != Running {
		t.Errorf("the executor's unit is %v, want it left alone", s.State)
	}
}

func TestRemoteUnitIsGone(t *testing.T) {
	m, alpha, _ := pair(t)
	id := startSleeper(t, alpha)
	m.serve("beta", openEngine(t, t.TempDir(), m.node("beta"))) // Its data is lost.
	m.cut("beta")
	m.mend("beta")
	gone := wait(t, alpha, id)
	wantStatus(t, gone, Failed, "Remote work unit is gone", 2)
	if gone.Reason != unit.ReasonGone {
		t.Errorf("got reason %q", gone.Reason)
	}
	if got := output(t, alpha, id, 0); got != "a\n" {
		t.Errorf("got output %q", got)
	}
	if pending, err := alpha.Cancel(testContext(t), id); pending || err != nil {
		t.Errorf("cancel: got %v, %v, want done", pending, err)
	}
	if pending, err := alpha.Release(testContext(t), id, false); pending || err != nil {
		t.Errorf("release: got %v, %v, want done", pending, err)
	}
}

func TestF176SecretsAndTLS(t *testing.T) {
	m, alpha, _ := pair(t, func(c *Config) { c.HasTLSClient = func(name string) bool { return name == "cli" } })
	req := request("beta", "cat", "")
	req.TLSClient = "cli"
	req.Params = map[string]string{"secret_token": "hunter2", "Secret_B": "b", "plain": "p"}
	id := later(t, m, alpha, req, "data")
	s, _ := alpha.Status(id)
	text, _ := s.MarshalJSON()
	if !strings.Contains(string(text), `"RemoteParams":{"plain":"p"}`) {
		t.Errorf("status shows %s", text)
	}
	if disk := file(t, alpha, id, "status"); !strings.Contains(disk, `{"Secret_B":"b","plain":"p","secret_token":"hunter2"}`) {
		t.Errorf("file holds %s", disk)
	}
	m.mu.Lock()
	m.dialErr["beta"] = errors.New("dial beta:control: CRYPTO_ERROR 0x12a (local): x509: certificate signed by unknown authority")
	m.mu.Unlock()
	m.mend("beta")
	wantStatus(t, wait(t, alpha, id), Failed, "TLS error connecting to remote service: CRYPTO_ERROR 0x12a (local): x509: certificate signed by unknown authority", 0)
	for _, name := range m.tls {
		if name != "cli" {
			t.Errorf("dialled with profile %q, want cli", name)
		}
	}
	if disk := file(t, alpha, id, "status"); strings.Contains(disk, "hunter2") || !strings.Contains(disk, `"RemoteParams":{"plain":"p"}`) {
		t.Errorf("the file of a unit that has failed holds %s", disk)
	}
}

// TestF156SecretsGoWithTheUnit: once the executor has the unit its secret parameters are not on this node's disk any more, and
// never on the executor's.
func TestF156SecretsGoWithTheUnit(t *testing.T) {
	_, alpha, beta := pair(t, func(c *Config) { c.HasTLSClient = func(string) bool { return true } })
	given := make(chan string, 1)
	register(t, beta, "trusted", 0, func(ctx context.Context, w *Work) error {
		given <- w.Params["secret_token"]
		<-ctx.Done()
		return nil
	})
	req := request("beta", "trusted", "")
	req.TLSClient, req.Params = "cli", map[string]string{"secret_token": "hunter2", "plain": "p"}
	id := submit(t, alpha, req, "")
	if got := <-given; got != "hunter2" {
		t.Errorf("the work got %q", got)
	}
	until(t, alpha, id, "Running", running)
	for e, id := range map[*Engine]UnitID{alpha: id, beta: one(t, beta)} {
		if disk := file(t, e, id, "status"); strings.Contains(disk, "hunter2") {
			t.Errorf("node %s has on its disk %s", e.cfg.Mesh.ID(), disk)
		}
	}
}

func TestF179RemoteSignature(t *testing.T) {
	_, alpha, _ := pair(t)
	req := request("beta", "cat", "")
	req.SignWork = true
	s, err := alpha.Submit(req)
	if err != nil {
		t.Fatal(err)
	}
	s.ReadPayload(strings.NewReader(""))
	if _, err := s.Start(testContext(t)); err == nil || err.Error() != "cannot sign work: signing key is empty" {
		t.Errorf("start: got %v", err)
	}
	wantStatus(t, wait(t, alpha, s.ID()), Failed, "Error starting worker: cannot sign work: signing key is empty", 0)
	if err := alpha.VerifyUnit(s.ID(), "", false); err == nil {
		t.Error("a signed unit can be cancelled without signature")
	}
}

// TestF179SignatureRefusedWhileRunning: the unit says why it is not followed any more, cancel and release are answered with that, and
// it goes on when signatures are taken again, although it has ended meanwhile. So it is when there is no key to sign with.
func TestF179SignatureRefusedWhileRunning(t *testing.T) {
	for _, base := range []bool{false, true} {
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprintf("base %v, key lost %v", base, lost), func(t *testing.T) { signatureRefused(t, base, lost) })
		}
	}
}

func signatureRefused(t *testing.T, base, lost bool) {
	var broken atomic.Bool
	refusal, answer := "could not verify signature: crypto/rsa: verification error", "error cancelling remote unit:  "
	verify := func(string) error {
		if broken.Load() && !lost {
			return errors.New(refusal)
		}
		return nil
	}
	if lost {
		refusal, answer = "cannot sign work: no such file", ""
	}
	m := newTestMesh()
	beta := openEngine(t, t.TempDir(), m.node("beta"))
	releaseAll(t, beta)
	m.handle("beta", (&controlServer{id: "beta", e: beta, base: base, verify: verify}).serve)
	alpha := openEngine(t, t.TempDir(), m.node("alpha"), func(c *Config) {
		c.Sign = func(wire.NodeID) (string, error) {
			if broken.Load() && lost {
				return "", errors.New("no such file")
			}
			return "good", nil
		}
	})
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	req := request("beta", "sh", fmt.Sprintf(`"echo a; cat %s"`, fifo))
	req.SignWork = true
	id := submit(t, alpha, req, "")
	until(t, alpha, id, "output", func(s Status) bool { return s.State == Running && s.StdoutSize == 2 })
	broken.Store(true)
	m.cut("beta")
	m.mend("beta")
	refused := func(s Status) bool { return s.State == Running && s.Detail == "Error following remote unit: "+refusal }
	until(t, alpha, id, "the refusal", refused)
	if _, err := alpha.Cancel(testContext(t), id); err == nil || err.Error() != answer+refusal {
		t.Errorf("cancel: got %v, want %s", err, answer+refusal)
	}
	if _, err := alpha.Release(testContext(t), id, false); err == nil || err.Error() != answer+refusal {
		t.Errorf("release: got %v, want %s", err, answer+refusal)
	}
	if err := os.WriteFile(fifo, []byte("b\n"), 0); err != nil {
		t.Fatal(err)
	}
	wait(t, beta, one(t, beta))
	until(t, alpha, id, "the refusal after the end", refused)
	broken.Store(false)
	wantStatus(t, wait(t, alpha, id), Succeeded, "exit status 0", 4)
	if got := output(t, alpha, id, 0); got != "a\nb\n" {
		t.Errorf("got output %q", got)
	}
	if pending, err := alpha.Release(testContext(t), id, false); pending || err != nil || len(beta.List()) != 0 {
		t.Errorf("release: got %v, %v, %d units on the executor", pending, err, len(beta.List()))
	}
}

// TestF177ForceReleaseWithoutSignature: what the executor does not let go of is deleted here all the same.
func TestF177ForceReleaseWithoutSignature(t *testing.T) {
	m := newTestMesh()
	beta := openEngine(t, t.TempDir(), m.node("beta"))
	releaseAll(t, beta)
	verify := func(string) error { return errors.New("could not verify signature: token is expired") }
	m.handle("beta", (&controlServer{id: "beta", e: beta, verify: verify}).serve)
	alpha := openEngine(t, t.TempDir(), m.node("alpha"))
	id := submit(t, alpha, request("beta", "sh", sleeper), "")
	until(t, alpha, id, "the refusal", func(s Status) bool {
		return s.State == Running && s.Detail == "Error following remote unit: could not verify signature: token is expired"
	})
	if pending, err := alpha.Release(testContext(t), id, true); pending || err != nil || len(alpha.List()) != 0 {
		t.Errorf("force-release: got %v, %v, %d units left", pending, err, len(alpha.List()))
	}
	if s, _ := beta.Status(one(t, beta)); s.State != Running {
		t.Errorf("the executor's unit is %v, want it left alone", s.State)
	}
}

// numbers is a command whose output tells every byte's place.
const numbers = `"for i in $(seq 1 400); do echo $i; done; exit 5"`

func wantNumbers(t *testing.T, e *Engine, id UnitID) {
	t.Helper()
	var want strings.Builder
	for i := 1; i <= 400; i++ {
		fmt.Fprintln(&want, i)
	}
	wantStatus(t, wait(t, e, id), Failed, "exit status 5", int64(want.Len()))
	if got := output(t, e, id, 0); got != want.String() {
		t.Errorf("output differs: got %d bytes, want %d: %.80q", len(got), want.Len(), got)
	}
}

// TestF174LinkLoss breaks the link after every so many bytes, in the submit, the payload, the status and the output.
func TestF174LinkLoss(t *testing.T) {
	bothUpTo(t, 0, 61, func(t *testing.T, serve serveFunc, budget int) {
		m, alpha, _ := pairWith(t, serve)
		s, err := alpha.Submit(request("beta", "sh", numbers))
		if err != nil {
			t.Fatal(err)
		}
		s.ReadPayload(strings.NewReader(strings.Repeat("payload ", 50)))
		m.breakAfter("beta", budget)
		if _, err := s.Start(testContext(t)); err != nil {
			t.Fatalf("start: %v", err)
		}
		m.mend("beta")
		wantNumbers(t, alpha, s.ID())
		if pending, err := alpha.Release(testContext(t), s.ID(), false); err != nil || pending {
			t.Errorf("release: got %v, %v", pending, err)
		}
	})
}

// bothUpTo runs a test for both kinds of executors with links that break after first, first+step... bytes.
func bothUpTo(t *testing.T, first, step int, f func(t *testing.T, serve serveFunc, budget int)) {
	for name, serve := range executors {
		for budget := first; budget < 4000; budget += step {
			t.Run(fmt.Sprintf("%s %d", name, budget), func(t *testing.T) {
				t.Parallel()
				f(t, serve, budget)
			})
		}
	}
}

// TestF178SubmitterRestarts ends the submitter's engine after every so many bytes and opens a new one on its
// directory.
func TestF178SubmitterRestarts(t *testing.T) {
	bothUpTo(t, 100, 131, func(t *testing.T, serve serveFunc, budget int) {
		m := newTestMesh()
		beta := openEngine(t, t.TempDir(), m.node("beta"))
		releaseAll(t, beta)
		serve(m, "beta", beta)
		dir := t.TempDir()
		alpha := openEngine(t, dir, m.node("alpha"))
		s, err := alpha.Submit(request("beta", "sh", numbers))
		if err != nil {
			t.Fatal(err)
		}
		s.ReadPayload(strings.NewReader(strings.Repeat("payload ", 50)))
		m.breakAfter("beta", budget)
		if _, err := s.Start(testContext(t)); err != nil {
			t.Fatalf("start: %v", err)
		}
		alpha.Close()
		m.mend("beta")
		again := openEngine(t, dir, m.node("alpha"))
		wantNumbers(t, again, s.ID())
	})
}

func TestRemoteFlagsSurviveRestart(t *testing.T) {
	m := newTestMesh()
	beta := openEngine(t, t.TempDir(), m.node("beta"))
	releaseAll(t, beta)
	m.serve("beta", beta)
	dir := t.TempDir()
	alpha := openEngine(t, dir, m.node("alpha"))
	id := startSleeper(t, alpha)
	m.cut("beta")
	alpha.Cancel(testContext(t), id)
	alpha.Close()
	alpha = openEngine(t, dir, m.node("alpha"))
	m.mend("beta")
	wantStatus(t, wait(t, alpha, id), Canceled, "Canceled", 2)
	m.cut("beta")
	alpha.Release(testContext(t), id, false)
	alpha.Close()
	m.mend("beta")
	alpha = openEngine(t, dir, m.node("alpha"))
	if s, err := alpha.Wait(testContext(t), id); err == nil && s.State != Canceled {
		t.Errorf("got %v", s)
	}
	changes := beta.Subscribe(1000)
	defer changes.Close()
	for len(beta.List()) > 0 {
		<-changes.C
	}
}

// TestStatusFileThatIsBehind: what the node writes a moment after it has told of it is there when the node ends, and found out again
// if the node dies before.
func TestStatusFileThatIsBehind(t *testing.T) {
	m, alpha, beta := pair(t)
	id := startSleeper(t, alpha)
	far := one(t, beta)
	alpha.Close()
	j, err := alpha.find(id)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := j.dir.Read()
	if err != nil {
		t.Fatal(err)
	}
	if x := rec.Remote(); !x.RemoteStarted || rec.State != Running {
		t.Errorf("node has ended and the file says %v, started: %v", rec.State, x.RemoteStarted)
	}
	dir := t.TempDir()
	place(t, dir, "behind01", `{"State":0,"Detail":"Starting Worker","StdoutSize":0,"WorkType":"remote","ExtraData":{"RemoteNode":"beta",`+
		`"RemoteWorkType":"sh","RemoteParams":{},"RemoteUnitID":"`+string(far)+`","RemoteStarted":false,"LocalCancelled":false,`+
		`"LocalReleased":false,"SignWork":false,"TLSClient":"","Expiration":"0001-01-01T00:00:00Z"}}`, "")
	again := openEngine(t, dir, m.node("alpha"))
	if _, err := beta.Cancel(testContext(t), far); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, wait(t, again, "behind01"), Canceled, "Canceled", 2)
	one(t, beta)
}

// hostile executors: whatever they say, the submitter ends the unit or keeps trying, can release it, and does not grow.
func TestHostileExecutors(t *testing.T) {
	endless := strings.Repeat("x", 3<<20)
	tests := []struct {
		name string
		say  func(line string) string
		want func(Status) bool // nil: the unit is released in whatever state it is.
	}{
		{"garbage prompt", func(string) string { return "hello\n" },
			func(s Status) bool {
				return s.Detail == "Error starting worker: could not parse response: hello"
			}},
		{"unit ID with path", func(string) string { return "Work unit created with ID ../x. Send stdin data and EOF.\n" },
			func(s Status) bool { return s.State == Failed }},
		{"endless line", func(string) string { return endless }, nil},
		{"silence", func(string) string { return "" }, nil},
		{"bad status", func(line string) string {
			if strings.HasPrefix(line, "work status") {
				return `{"State":12.5,"Detail":[],"StdoutSize":"x"}` + "\n"
			}
			return honest(line)
		}, nil},
		{"error as status", func(line string) string {
			if strings.HasPrefix(line, "work status") {
				return "ERROR: out of order\n"
			}
			return honest(line)
		}, nil},
		{"negative size", func(line string) string {
			return strings.Replace(honest(line), `"StdoutSize":12`, `"StdoutSize":-12`, 1)
		}, nil},
		{"absurd size", func(line string) string {
			return strings.Replace(honest(line), `"StdoutSize":12`, `"StdoutSize":9223372036854775807`, 1)
		}, nil},
		{"less output than said", func(line string) string {
			if strings.Contains(line, `"results"`) && !strings.Contains(line, `"startpos":0`) {
				return "Streaming results for work unit BRVFlI6d\n"[:40] + "\n"
			}
			return honest(line)
		}, nil},
		{"more output than said", func(line string) string {
			if strings.Contains(line, `"results"`) {
				return "Streaming results for work unit BRVFlI6d\nHELLO\nWORLD\nand more and more"
			}
			return honest(line)
		}, func(s Status) bool { return s.State == Succeeded && s.StdoutSize == 12 }},
		{"short answers", func(line string) string { return "{}\n" }, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, alpha, _ := scripted(t, test.say)
			s, err := alpha.Submit(request("beta", "upper", ""))
			if err != nil {
				t.Fatal(err)
			}
			s.ReadPayload(strings.NewReader(""))
			s.Start(testContext(t))
			if test.want != nil {
				until(t, alpha, s.ID(), "the end", func(s Status) bool { return s.State.Complete() && test.want(s) })
			}
			if _, err := alpha.Release(testContext(t), s.ID(), true); err != nil {
				t.Errorf("force-release: %v", err)
			}
			if entries := left(t, alpha); len(entries) != 0 {
				t.Errorf("%v is left", entries)
			}
		})
	}
}

// TestOutputAfterTheEnd: an executor that has told the end of a unit does not change it.
func TestOutputAfterTheEnd(t *testing.T) {
	const follow, status = "Following work unit BRVFlI6d\n", `{"Detail":"exit status 0","State":2,"StdoutSize":%d}`
	ended := follow + `{"Output":12}` + "\nHELLO\nWORLD\n" + `{"Ended":` + fmt.Sprintf(status, 12) + "}\n"
	for name, more := range map[string]string{
		"output":      `{"Output":4}` + "\nmore",
		"another end": `{"Ended":` + fmt.Sprintf(status, 5) + "}\n",
		"a size":      `{"Status":` + fmt.Sprintf(status, 5) + "}\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, alpha, _ := scripted(t, func(line string) string {
				switch {
				case strings.Contains(line, `"submit-once"`):
					return "Work unit created with ID BRVFlI6d. Send stdin data and EOF.\n"
				case !strings.Contains(line, `"follow"`):
					return honest(line)
				case strings.Contains(line, `"startpos":12`):
					return follow + `{"Status":` + fmt.Sprintf(status, 12) + "}\n"
				}
				return ended + more
			})
			id := submit(t, alpha, request("beta", "upper", ""), "")
			wantStatus(t, wait(t, alpha, id), Succeeded, "exit status 0", 12)
			if got := output(t, alpha, id, 0); got != "HELLO\nWORLD\n" {
				t.Errorf("got output %q", got)
			}
		})
	}
}

// TestResultsThatNeverEnd: a stream that goes on after the unit has finished does not keep it from ending.
func TestResultsThatNeverEnd(t *testing.T) {
	m := newTestMesh()
	s := &script{say: honest}
	closed := make(chan struct{})
	var once sync.Once
	m.handle("beta", func(c Stream) {
		tap := &tapped{Stream: c}
		tap.write = func(p []byte) {
			if strings.HasPrefix(string(p), "Streaming") {
				c.Write([]byte(honest(`"results"`)))
				for { // For ever.
					if _, err := c.Write([]byte("noise")); err != nil {
						once.Do(func() { close(closed) })
						return
					}
				}
			}
			c.Write(p)
		}
		s.serve(tap)
	})
	alpha := openEngine(t, t.TempDir(), m.node("alpha"))
	id := submit(t, alpha, request("beta", "upper", ""), "")
	status := wait(t, alpha, id)
	if status.State != Succeeded {
		t.Errorf("got %v", status.State)
	}
	select {
	case <-closed:
	case <-testContext(t).Done():
		t.Error("the stream is still read")
	}
}

type tapped struct {
	Stream
	write func([]byte)
}

func (s *tapped) Write(p []byte) (int, error)       { s.write(p); return len(p), nil }
func (s *tapped) WriteString(p string) (int, error) { return s.Write([]byte(p)) }

// TestLateAnswer: a session that hangs because the link was lost is given up when the link is back, long before the
// answer's own deadline.
func TestLateAnswer(t *testing.T) {
	m := newTestMesh()
	asked := make(chan struct{})
	m.handle("beta", func(c Stream) { // Says nothing more than hello.
		io.WriteString(c, "Receptor Control, node beta\n")
		bufio.NewReader(c).ReadString('\n')
		close(asked)
		io.Copy(io.Discard, c)
	})
	alpha := openEngine(t, t.TempDir(), m.node("alpha"))
	s, err := alpha.Submit(request("beta", "cat", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer s.ReadPayload(strings.NewReader(""))
	j, _ := alpha.find(s.ID())
	mirror := &mirror{w: j.work.(*remoteWorker), j: j, id: "BRVFlI6d"}
	conn, err := mirror.w.dial(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	waiting := make(chan struct{})
	m.waiting = func() { close(waiting) }
	m.mu.Lock()
	m.down["beta"] = true // The streams hang.
	m.mu.Unlock()
	answer := make(chan error)
	go func() {
		_, err := mirror.ask(testContext(t), conn)
		answer <- err
	}()
	<-asked
	<-waiting
	stop := time.NewTimer(2 * sameRoute)
	<-stop.C // An outage shorter than this is none.
	m.mend("beta")
	if err := <-answer; err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want the session to be given up", err)
	}
}

// TestF178ExecutorRestarts closes the executor's engine while its unit runs.
func TestF178ExecutorRestarts(t *testing.T) {
	m := newTestMesh()
	dir := t.TempDir()
	beta := openEngine(t, dir, m.node("beta"))
	m.serve("beta", beta)
	alpha := openEngine(t, t.TempDir(), m.node("alpha"))
	gate := t.TempDir() + "/gate"
	id := submit(t, alpha, request("beta", "sh", `"echo one; while [ ! -e `+gate+` ]; do sleep 0.02; done; echo two"`), "")
	until(t, alpha, id, "output", func(s Status) bool { return s.State == Running && s.StdoutSize == 4 })
	m.cut("beta")
	beta.Close()
	beta = openEngine(t, dir, m.node("beta"))
	releaseAll(t, beta)
	m.serve("beta", beta)
	os.WriteFile(gate, nil, 0o600)
	m.mend("beta")
	wantStatus(t, wait(t, alpha, id), Succeeded, "exit status 0", 8)
	if got := output(t, alpha, id, 0); got != "one\ntwo\n" {
		t.Errorf("got %q", got)
	}
}

// TestOutcomeTravels: what the executor knows of the end of its unit is known here, and what an existing executor says in
// words is understood.
func TestOutcomeTravels(t *testing.T) {
	for name, serve := range executors {
		t.Run(name, func(t *testing.T) {
			_, alpha, beta := pairWith(t, serve)
			id := submit(t, alpha, request("beta", "sh", `"echo a; exit 3"`), "")
			got := wait(t, alpha, id)
			want, err := beta.Status(one(t, beta))
			if err != nil {
				t.Fatal(err)
			}
			code, _ := got.ExitCode()
			if code != 3 || got.Reason != unit.ReasonExit || got.SHA256 != want.SHA256 || got.SHA256 == "" || !got.Finished.Equal(want.Finished) {
				t.Errorf("got %+v %+v, want %+v %+v", got.Outcome, got.Times, want.Outcome, want.Times)
			}
		})
	}
	t.Run("of a runner that was killed", func(t *testing.T) {
		_, alpha, beta := pair(t)
		id := submit(t, alpha, request("beta", "sh", `"echo a; exec sleep 300"`), "")
		far := one(t, beta)
		until(t, beta, far, "output", func(s Status) bool { return s.State == Running && s.StdoutSize == 2 })
		if err := syscall.Kill(runnerOf(t, beta, far), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		got := wait(t, alpha, id)
		wantStatus(t, got, Failed, "Runner died", 2)
		if got.Reason != unit.ReasonRunnerDied {
			t.Errorf("got reason %q", got.Reason)
		}
	})
	for detail, want := range map[string]unit.Reason{
		"exit status 3": unit.ReasonExit, "signal: killed": unit.ReasonSignal, "Killed": unit.ReasonKilled, "Pending at restart": unit.ReasonRestart,
	} {
		if got := outcome(&remote.Status{State: Failed, Detail: detail}).Reason; got != want {
			t.Errorf("%s: got %q, want %q", detail, got, want)
		}
	}
}

// TestOutputThatWasLostIsCopiedAnew zeroes what was copied, as a loss of power may, between two lives of the submitter.
func TestOutputThatWasLostIsCopiedAnew(t *testing.T) {
	for name, serve := range executors {
		t.Run(name, func(t *testing.T) {
			m := newTestMesh()
			beta := openEngine(t, t.TempDir(), m.node("beta"))
			releaseAll(t, beta)
			serve(m, "beta", beta)
			dir := t.TempDir()
			alpha := openEngine(t, dir, m.node("alpha"))
			gate := t.TempDir() + "/gate"
			id := submit(t, alpha, request("beta", "sh", `"echo one; while [ ! -e `+gate+` ]; do sleep 0.02; done; echo two"`), "")
			until(t, alpha, id, "output", func(s Status) bool { return s.StdoutSize == 4 && file(t, alpha, id, "stdout") == "one\n" })
			path := func() string { j, _ := alpha.find(id); return j.dir.File("stdout") }()
			alpha.Close()
			if err := os.WriteFile(path, make([]byte, 4), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(gate, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			alpha = openEngine(t, dir, m.node("alpha"))
			wantStatus(t, wait(t, alpha, id), Succeeded, "exit status 0", 8)
			if got := output(t, alpha, id, 0); got != "one\ntwo\n" {
				t.Errorf("got %q", got)
			}
		})
	}
}

// TestOldNodeIsAskedOnce: a node that does not push, nor know names of submissions, is remembered, until a session with it breaks.
func TestOldNodeIsAskedOnce(t *testing.T) {
	asked := 0
	_, alpha, s := scripted(t, nil)
	s.say = func(line string) string {
		if strings.Contains(line, `"submit-once"`) || strings.Contains(line, `"follow"`) {
			asked++
			return "ERROR: bad command\n"
		}
		return honest(line)
	}
	run := func() {
		wantStatus(t, wait(t, alpha, submit(t, alpha, request("beta", "upper", ""), "")), Succeeded, "exit status 0", 12)
	}
	run()
	run()
	s.mu.Lock()
	if asked != 1 {
		t.Errorf("asked %d times, want once", asked)
	}
	broken := false
	say := s.say
	s.say = func(line string) string {
		if strings.HasPrefix(line, "work status") && !broken {
			broken = true
			return ""
		}
		return say(line)
	}
	s.mu.Unlock()
	run()
	s.mu.Lock()
	defer s.mu.Unlock()
	if asked != 2 {
		t.Errorf("asked %d times after a session broke, want twice", asked)
	}
}

// TestExecutorThatEndedBeforeTheStart: a unit that its executor, restarted, has surely never started is handed over again;
// one that it may have started is not.
func TestExecutorThatEndedBeforeTheStart(t *testing.T) {
	for reason, want := range map[string]int{`,"Reason":"restart"`: 2, `,"Reason":"runner_died"`: 1, "": 1} {
		submits, broken := 0, false
		_, alpha, s := scripted(t, nil)
		s.say = func(line string) string {
			switch {
			case strings.Contains(line, `"submit"`):
				submits++
			case strings.HasPrefix(line, "work status") && !broken:
				broken = true
				return `{"Detail":"Pending at restart","ExtraData":null,"State":3,"StateName":"Failed","StdoutSize":0,"WorkType":"upper"` + reason + "}\n"
			case strings.HasPrefix(line, "work status") && want == 1:
				return `{"Detail":"Pending at restart","ExtraData":null,"State":3,"StateName":"Failed","StdoutSize":0,"WorkType":"upper"` + reason + "}\n"
			}
			return honest(line)
		}
		sub, err := alpha.Submit(request("beta", "upper", ""))
		if err != nil {
			t.Fatal(err)
		}
		if err := sub.ReadPayload(strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
		j, err := alpha.find(sub.ID())
		if err != nil {
			t.Fatal(err)
		}
		// As after a first attempt that broke off behind the payload.
		if err := j.work.(*remoteWorker).setRemoteID("BRVFlI6d"); err != nil {
			t.Fatal(err)
		}
		submits = 1
		if _, err := sub.Start(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if got, state := wait(t, alpha, sub.ID()), Succeeded; want == 1 && got.State != Failed || want == 2 && got.State != state {
			t.Errorf("%s: got %v %q", reason, got.State, got.Detail)
		}
		s.mu.Lock()
		if submits != want {
			t.Errorf("%s: submitted %d times, want %d", reason, submits, want)
		}
		s.mu.Unlock()
	}
}

// noService is a mesh in which nobody listens.
type noService struct{ noMesh }

func (noService) DialStream(context.Context, wire.NodeID, string, string) (Stream, error) {
	return nil, reasoned{errors.New("context canceled")}
}

type reasoned struct{ error }

func (reasoned) Reason() string { return "service unknown" }

// TestTroubleIsForPeople: it is not told in the words that clients of existing nodes know.
func TestTroubleIsForPeople(t *testing.T) {
	e := openEngine(t, t.TempDir(), noService{noMesh{"alpha"}})
	id := submit(t, e, request("beta", "cat", ""), "")
	if s := until(t, e, id, "trouble", func(s Status) bool { return s.Trouble != "" }); s.Trouble != "service unknown" {
		t.Errorf("got %q", s.Trouble)
	}
}

// TestARemoteUnitSaysWhatKeepsItFromItsNode: its state and detail stay those of existing nodes, and clients that know it see why
// it does not get on.
func TestARemoteUnitSaysWhatKeepsItFromItsNode(t *testing.T) {
	e := openEngine(t, t.TempDir(), noMesh{"alpha"})
	id := submit(t, e, request("beta", "cat", ""), "")
	s := until(t, e, id, "trouble", func(s Status) bool { return s.Trouble != "" })
	if s.Trouble != "no route to node" || s.State != Pending || s.Detail != unit.DetailStarting {
		t.Errorf("got %v %q, trouble %q", s.State, s.Detail, s.Trouble)
	}
	if s.TroubleSince.Before(s.Created) || s.TroubleSince.After(time.Now()) {
		t.Errorf("the trouble is from %v", s.TroubleSince)
	}
	if reply, err := s.MarshalJSON(); err != nil || !strings.Contains(string(reply), `"Trouble":"no route to node","TroubleSince":"2`) {
		t.Errorf("the reply is %s, %v", reply, err)
	}
	if _, err := e.Cancel(testContext(t), id); err != nil {
		t.Fatal(err)
	}
	if s := wait(t, e, id); s.Trouble != "" || !s.TroubleSince.IsZero() {
		t.Errorf("a unit that is over is in trouble: %q", s.Trouble)
	}
}
