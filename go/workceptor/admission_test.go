package workceptor

import (
	"context"
	"strings"
	"testing"
)

// gated is a work type whose units run until they are told to end, in the order in which they started.
type gated struct {
	started chan UnitID
	end     chan struct{}
}

func gate(t *testing.T, e *Engine, name string, limit int) gated {
	g := gated{make(chan UnitID, 100), make(chan struct{})}
	register(t, e, name, limit, func(ctx context.Context, w *Work) error {
		g.started <- w.ID
		select {
		case <-g.end:
		case <-ctx.Done():
		}
		return nil
	})
	return g
}

func (g gated) next(t *testing.T) UnitID {
	t.Helper()
	select {
	case id := <-g.started:
		return id
	case <-testContext(t).Done():
		t.Fatal("no unit was started")
		return ""
	}
}

func TestQueue(t *testing.T) {
	e := openEngine(t, t.TempDir(), noMesh{"alpha"}, func(c *Config) { c.Limits.MaxRunning = 3 })
	one, many := gate(t, e, "one", 1), gate(t, e, "many", 0)
	var ids []UnitID
	for i := range 4 {
		s, err := e.Submit(request("localhost", "one", ""))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.ReadPayload(strings.NewReader("")); err != nil {
			t.Fatal(err)
		}
		result, err := s.Start(testContext(t))
		if want := map[bool]string{true: JobStarted, false: JobSubmitted}[i == 0]; result != want || err != nil {
			t.Fatalf("unit %d: got %q, %v, want %q", i, result, err, want)
		}
		ids = append(ids, s.ID())
	}
	if got := one.next(t); got != ids[0] {
		t.Fatalf("got %s first, want %s", got, ids[0])
	}
	list := e.List()
	for i, id := range ids[1:] {
		if s := list[id]; s.State != Pending || s.Detail != "Queued" || s.QueuePosition != i+1 {
			t.Errorf("unit %d: got %v %q at %d", i+1, s.State, s.Detail, s.QueuePosition)
		}
	}
	// A queue of one type does not hold up another, but the total does.
	a, b, c := submit(t, e, request("localhost", "many", ""), ""), submit(t, e, request("localhost", "many", ""), ""), submit(t, e, request("localhost", "many", ""), "")
	started := map[UnitID]bool{many.next(t): true, many.next(t): true}
	if !started[a] || !started[b] {
		t.Errorf("got %v, want %s and %s", started, a, b)
	}
	if s, err := e.Status(c); err != nil || s.QueuePosition != 4 {
		t.Errorf("got position %d, %v", s.QueuePosition, err)
	}
	// One that is cancelled in the queue gives its place up, and is never started.
	if pending, err := e.Cancel(testContext(t), ids[1]); pending || err != nil {
		t.Errorf("cancel: %v, %v", pending, err)
	}
	wantStatus(t, wait(t, e, ids[1]), Canceled, "Canceled", 0)
	if pending, err := e.Release(testContext(t), ids[2], false); pending || err != nil {
		t.Errorf("release: %v, %v", pending, err)
	}
	if s, _ := e.Status(ids[3]); s.QueuePosition != 1 {
		t.Errorf("got position %d, want 1", s.QueuePosition)
	}
	one.end <- struct{}{}
	if got := one.next(t); got != ids[3] {
		t.Errorf("got %s next, want %s", got, ids[3])
	}
	many.end <- struct{}{}
	if got := many.next(t); got != c {
		t.Errorf("got %s next, want %s", got, c)
	}
}

// TestALimitOfATypeCountsForThoseWhoWait: when a type is offered anew with another limit, units that were submitted before start
// by that.
func TestALimitOfATypeCountsForThoseWhoWait(t *testing.T) {
	e := localEngine(t)
	one := gate(t, e, "one", 1)
	var ids []UnitID
	for range 3 {
		ids = append(ids, submit(t, e, request("localhost", "one", ""), ""))
	}
	one.next(t)
	e.Unregister("one")
	gate(t, e, "one", 2)
	if got := one.next(t); got != ids[1] {
		t.Errorf("got %s, want %s", got, ids[1])
	}
	if s, err := e.Status(ids[2]); err != nil || s.QueuePosition != 1 {
		t.Errorf("got position %d, %v", s.QueuePosition, err)
	}
}

// TestQueuePositionsAreTold: those who watch a unit that waits hear when it moves up, also on the node that submitted it.
func TestQueuePositionsAreTold(t *testing.T) {
	m := newTestMesh()
	beta := openEngine(t, t.TempDir(), m.node("beta"), func(c *Config) { c.Limits.MaxRunning = 1 })
	releaseAll(t, beta)
	g := gate(t, beta, "one", 0)
	m.serve("beta", beta)
	alpha := openEngine(t, t.TempDir(), m.node("alpha"))
	at := func(position int) func(Status) bool {
		return func(s Status) bool { return s.Detail == "Queued" && s.QueuePosition == position }
	}
	first := submit(t, alpha, request("beta", "one", ""), "")
	g.next(t)
	second := submit(t, alpha, request("beta", "one", ""), "")
	until(t, alpha, second, "the first place", at(1))
	third := submit(t, alpha, request("beta", "one", ""), "")
	until(t, alpha, third, "the second place", at(2))
	local := submit(t, beta, request("localhost", "one", ""), "")
	until(t, beta, local, "the third place", at(3))
	if s := alpha.List()[third]; s.QueuePosition != 2 {
		t.Errorf("got position %d in the list", s.QueuePosition)
	}
	if pending, err := alpha.Cancel(testContext(t), second); pending || err != nil {
		t.Errorf("cancel: %v, %v", pending, err)
	}
	until(t, alpha, third, "the first place", at(1))
	until(t, beta, local, "the second place", at(2))
	g.end <- struct{}{}
	wait(t, alpha, first)
	g.next(t)
	until(t, beta, local, "the first place", at(1))
	if s := until(t, alpha, third, "its start", func(s Status) bool { return s.State == Running }); s.QueuePosition != 0 {
		t.Errorf("got position %d of a unit that runs", s.QueuePosition)
	}
}

// TestQueueSurvivesRestart: units whose payload is complete and that nothing was started for go on waiting, in order.
func TestQueueSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	one := func(c *Config) { c.Limits.MaxRunning = 1 }
	e := openEngine(t, dir, noMesh{"alpha"}, one)
	var ids []UnitID
	for range 4 {
		ids = append(ids, submit(t, e, request("localhost", "shraw", `-c "cat; exec sleep 300"`), "payload"))
	}
	until(t, e, ids[0], "its output", func(s Status) bool { return s.StdoutSize == 7 })
	e.Close()

	e = openEngine(t, dir, noMesh{"alpha"}, one)
	releaseAll(t, e)
	for i, id := range ids {
		if s, err := e.Status(id); err != nil || s.QueuePosition != i || (s.State == Running) != (i == 0) {
			t.Errorf("unit %d: got %v %q at %d, %v", i, s.State, s.Detail, s.QueuePosition, err)
		}
	}
	for i, id := range ids[:3] {
		if _, err := e.Cancel(testContext(t), id); err != nil {
			t.Fatal(err)
		}
		wait(t, e, id)
		s := until(t, e, ids[i+1], "its start", func(s Status) bool { return s.State == Running && s.StdoutSize == 7 })
		if s.QueuePosition != 0 {
			t.Errorf("got position %d", s.QueuePosition)
		}
	}
}

func TestLimitsAreChecked(t *testing.T) {
	e := localEngine(t)
	if err := e.RegisterCommand(CommandType{WorkType: "x", Command: "x", MaxRunning: -1}); err == nil {
		t.Error("a limit of -1 was taken")
	}
	if _, err := New(Config{Mesh: noMesh{"alpha"}, DataDir: t.TempDir(), Limits: Limits{MaxRunning: -1}}); err == nil {
		t.Error("a total of -1 was taken")
	}
}
