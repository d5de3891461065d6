package unit

import (
	"fmt"
	"testing"
	"time"
)

var states = []State{Pending, Running, Succeeded, Failed, Canceled, 77, -1}

func events() []Event {
	var all []Event
	for kind := range Kinds {
		for _, size := range []int64{KeepSize, 0, 5} {
			if kind != Mirror {
				all = append(all, Event{Kind: kind, Detail: kind.String(), Size: size})
				continue
			}
			for _, to := range states {
				all = append(all, Event{Kind: kind, To: to, Detail: "mirror", Size: size})
			}
		}
	}
	return append(all, Event{Kind: Fail, Detail: DetailKilled, Size: KeepSize}, Event{Kind: Kinds, Detail: "no such kind"})
}

// TestEveryPath walks every sequence of events up to a depth from every state and checks the rules at every step.
func TestEveryPath(t *testing.T) {
	all := events()
	var walk func(r Record, path []Event, depth int)
	walk = func(r Record, path []Event, depth int) {
		for _, e := range all {
			next := r
			accepted := next.Apply(e)
			here := append(path, e)
			checkStep(t, here, r, e, next, accepted)
			if depth > 1 && accepted {
				walk(next, here, depth-1)
			}
		}
	}
	for _, s := range states {
		walk(Record{State: s, Detail: "start", StdoutSize: 3}, nil, 3)
	}
}

func checkStep(t *testing.T, path []Event, before Record, e Event, after Record, accepted bool) {
	t.Helper()
	here := lazy(path)
	killed := before.State == Failed && before.Detail == DetailKilled && e.Kind == Cancel
	switch {
	case !accepted && (after.State != before.State || after.Detail != before.Detail || after.StdoutSize != before.StdoutSize):
		t.Fatalf("%s: a refused event changed the record to %+v", here, after)
	case before.State.Complete() && accepted && !killed:
		t.Fatalf("%s: a finished unit went on to %v", here, after.State)
	case killed && after.State != Canceled:
		t.Fatalf("%s: got %v, want Canceled", here, after.State)
	case accepted && e.Size >= 0 && after.StdoutSize != e.Size, accepted && e.Size < 0 && after.StdoutSize != before.StdoutSize:
		t.Fatalf("%s: got size %d", here, after.StdoutSize)
	case accepted && e.Kind != Grow && after.Detail != e.Detail:
		t.Fatalf("%s: got detail %q", here, after.Detail)
	}
}

// lazy prints a path only when a test fails.
type lazy []Event

func (l lazy) String() string { return fmt.Sprint([]Event(l)) }

func TestStep(t *testing.T) {
	want := map[State]map[Kind]State{
		Pending: {Prepare: Pending, Run: Running, Grow: Pending, Succeed: Succeeded, Fail: Failed, Cancel: Canceled},
		Running: {Run: Running, Grow: Running, Succeed: Succeeded, Fail: Failed, Cancel: Canceled},
		77:      {Prepare: Pending, Run: Running, Grow: 77, Succeed: Succeeded, Fail: Failed, Cancel: Canceled},
	}
	for _, from := range states {
		for kind := range Mirror {
			next, accepted := Step(from, "", Event{Kind: kind})
			to, allowed := want[from][kind]
			if from == -1 {
				to, allowed = want[77][kind], true
				if kind == Grow {
					to = -1
				}
			}
			if accepted != allowed || accepted && next != to {
				t.Errorf("%v and %v: got %v, %v, want %v, %v", from, kind, next, accepted, to, allowed)
			}
		}
		for _, to := range states {
			want := to // The executor knows, unless the unit has ended.
			if from.Complete() {
				want = from
			}
			if next, accepted := Step(from, "", Event{Kind: Mirror, To: to}); next != want || accepted == from.Complete() {
				t.Errorf("%v, mirrored to %v: got %v, %v", from, to, next, accepted)
			}
		}
	}
}

func TestDetails(t *testing.T) {
	if got := DetailRunning(4603); got != "Running: PID 4603" {
		t.Errorf("got %q", got)
	}
	at := time.Date(2026, 11, 21, 21, 8, 9, 198425376, time.Local)
	if got := DetailExpired(at.UTC()); got != "Work unit expired on Sat Nov 21 21:08:09" {
		t.Errorf("got %q", got)
	}
	for detail, want := range map[string]int{"exit status 0": 0, "exit status 37": 37, "signal: killed": -1, "Killed": -1} {
		code, ok := Record{State: Failed, Detail: detail}.ExitCode()
		if ok != (want >= 0) || ok && code != want {
			t.Errorf("%q: got %d, %v", detail, code, ok)
		}
	}
}

func TestIDs(t *testing.T) {
	seen := map[ID]bool{}
	for range 1000 {
		id := NewID()
		if len(id) != 8 || !id.Valid() || seen[id] {
			t.Fatalf("bad ID %q", id)
		}
		seen[id] = true
	}
	for _, id := range []ID{"", "..", "a/b", "a.b", "a b", "ä", "a\x00", "a\n", ID(make([]byte, 65))} {
		if id.Valid() {
			t.Errorf("%q is taken for an ID", id)
		}
	}
}

// TestOutcomeIsFrozen: the end of a unit sets when and how, and nothing changes that afterwards.
func TestOutcomeIsFrozen(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0).UTC() }
	var r Record
	r.Apply(Event{Kind: Run, Detail: "Running: PID 7", At: at(1)})
	r.Apply(Event{Kind: Run, Detail: "Running: PID 7", Size: 3, At: at(2)})
	r.Apply(Event{Kind: Fail, Detail: "exit status 3", Size: 9, At: at(3), Outcome: Exit(3)})
	r.Apply(Event{Kind: Fail, Detail: DetailRunnerDied, At: at(4), Outcome: Because(ReasonRunnerDied)})
	r.Apply(Event{Kind: Cancel, Detail: DetailCanceled, At: at(5), Outcome: Because(ReasonCanceled)})
	if code, ok := r.ExitCode(); r.Started != at(1) || r.Finished != at(3) || r.Reason != ReasonExit || code != 3 || !ok || r.StdoutSize != 9 {
		t.Errorf("got %+v", r)
	}
	r = Record{}
	r.Apply(Event{Kind: Fail, Detail: "Killed by signal 2", At: at(3), Outcome: Outcome{Reason: ReasonKilled, Signal: "SIGINT", SHA256: "x"}})
	if !r.Apply(Event{Kind: Cancel, Detail: DetailCanceled, Size: KeepSize, At: at(5), Outcome: Because(ReasonCanceled)}) {
		t.Error("a unit that was killed because of a cancel is not Canceled")
	}
	if r.State != Canceled || r.Reason != ReasonCanceled || r.Signal != "SIGINT" || r.SHA256 != "x" || r.Finished != at(3) {
		t.Errorf("got %+v", r)
	}
	r = Record{}
	r.Apply(Event{Kind: Mirror, To: Failed, Detail: "exit status 4", At: at(1)}) // An executor that tells no more.
	if code, ok := r.ExitCode(); code != 4 || !ok || r.Finished != at(1) {
		t.Errorf("got %+v", r)
	}
}

// TestKeysOnDisk: what other implementations do not write stands behind what they do, and comes back.
func TestKeysOnDisk(t *testing.T) {
	code := 3
	r := Record{
		State: Failed, Detail: "exit status 3", WorkType: "sh",
		Times:   Times{Created: time.Unix(1, 5).UTC(), Started: time.Unix(2, 0).UTC(), Finished: time.Unix(3, 0).UTC()},
		Outcome: Outcome{Code: &code, Signal: "SIGKILL", Reason: ReasonExit, SHA256: "ab"},
	}
	const want = `{"State":3,"Detail":"exit status 3","StdoutSize":0,"WorkType":"sh","ExtraData":null,"Created":"1970-01-01T00:00:01.000000005Z","Started":"1970-01-01T00:00:02Z","Finished":"1970-01-01T00:00:03Z","ExitCode":3,"Signal":"SIGKILL","Reason":"exit","StdoutSHA256":"ab"}` + "\n"
	text := r.Append(nil)
	if string(text) != want {
		t.Errorf("got %s, want %s", text, want)
	}
	again, err := Parse(text)
	if err != nil || string(again.Append(nil)) != want {
		t.Errorf("got %s, %v", again.Append(nil), err)
	}
	reply, err := again.Status(true).MarshalJSON()
	const shown = `{"Created":"1970-01-01T00:00:01.000000005Z","Detail":"exit status 3","ExitCode":3,"ExtraData":null,"Finished":"1970-01-01T00:00:03Z","Reason":"exit","Signal":"SIGKILL","Started":"1970-01-01T00:00:02Z","State":3,"StateName":"Failed","StdoutSHA256":"ab","StdoutSize":0,"WorkType":"sh"}`
	if err != nil || string(reply) != shown {
		t.Errorf("got %s, %v, want %s", reply, err, shown)
	}
	odd, err := Parse([]byte(`{"Created":7,"ExitCode":"x"}`))
	if err != nil || !odd.Created.IsZero() || odd.Code != nil {
		t.Errorf("got %+v, %v", odd, err)
	}
}
