package workceptor

import (
	"context"
	"maps"
	"slices"
	"testing"
	"time"
)

// wantUnits waits until exactly these units are left.
func wantUnits(t *testing.T, e *Engine, want ...UnitID) {
	t.Helper()
	changes := e.Subscribe(64)
	defer changes.Close()
	slices.Sort(want)
	for ctx := testContext(t); ; {
		got := slices.Sorted(maps.Keys(e.List()))
		if slices.Equal(got, want) {
			return
		}
		select {
		case <-changes.C:
		case <-ctx.Done():
			t.Fatalf("got %v, want %v", got, want)
		}
	}
}

// TestRetention: complete units beyond a number, or an age, are released; others never.
func TestRetention(t *testing.T) {
	e := localEngine(t)
	register(t, e, "quick", 0, func(context.Context, *Work) error { return nil })
	slow := gate(t, e, "slow", 0)
	running := submit(t, e, request("localhost", "slow", ""), "")
	slow.next(t)
	ids := []UnitID{running}
	for range 5 {
		id := submit(t, e, request("localhost", "quick", ""), "")
		wait(t, e, id)
		ids = append(ids, id)
	}
	wantUnits(t, e, slices.Clone(ids)...)
	if err := e.SetLimits(Limits{KeepUnits: 2}); err != nil {
		t.Fatal(err)
	}
	wantUnits(t, e, running, ids[4], ids[5])
	last := submit(t, e, request("localhost", "quick", ""), "")
	wantUnits(t, e, running, ids[5], last)
	if err := e.SetLimits(Limits{KeepFor: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	wantUnits(t, e, running)
	if err := e.SetLimits(Limits{KeepFor: -1}); err == nil {
		t.Error("a negative age was taken")
	}
}

// TestRetentionWakes: nothing but the time makes a unit old.
func TestRetentionWakes(t *testing.T) {
	e := openEngine(t, t.TempDir(), noMesh{"alpha"}, func(c *Config) { c.Limits.KeepFor = 50 * time.Millisecond })
	register(t, e, "quick", 0, func(context.Context, *Work) error { return nil })
	submit(t, e, request("localhost", "quick", ""), "")
	wantUnits(t, e)
}

// TestRetentionOfTheFuture: a unit that ended by a clock that was far ahead is not old.
func TestRetentionOfTheFuture(t *testing.T) {
	dir := t.TempDir()
	place(t, dir, "ahead001", `{"State":2,"Detail":"exit status 0","StdoutSize":0,"WorkType":"cat","ExtraData":null,"Finished":"2600-01-01T00:00:00Z"}`, "")
	e := openEngine(t, dir, noMesh{"alpha"})
	if err := e.SetLimits(Limits{KeepFor: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if wait := e.releaseOld(time.Now()); wait < time.Hour {
		t.Errorf("looks again in %v", wait)
	}
	wantUnits(t, e, "ahead001")
}
