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
