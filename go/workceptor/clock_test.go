package workceptor

import (
	"testing"
	"time"
	"unsafe"

	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// stepped is the moment at as a clock shows it that was set by d: the date moves, what has passed since does not.
func stepped(t *testing.T, at time.Time, d time.Duration) time.Time {
	t.Helper()
	moved := at
	*(*uint64)(unsafe.Pointer(&moved)) += uint64(d/time.Second) << 30 // Seconds of the date above its nanoseconds.
	if moved.Sub(at) != 0 || moved.Round(0).Sub(at.Round(0)) != d {
		t.Fatalf("a time is no longer made as this test has it: %#v, %#v", at, moved)
	}
	return moved
}

// TestSetClocksMakeNoUnitOld: what is kept for an hour is not deleted when the clock is set two hours forward.
func TestSetClocksMakeNoUnitOld(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	finished := now.Add(-time.Minute).UTC().Format(time.RFC3339Nano)
	place(t, dir, "done0001", `{"State":2,"Detail":"exit status 0","StdoutSize":0,"WorkType":"cat","ExtraData":null,"Finished":"`+finished+`"}`, "")
	e := openEngine(t, dir, noMesh{"alpha"}, func(c *Config) { c.Limits.KeepFor = time.Hour })
	for _, shown := range []time.Time{now, stepped(t, now, 2*time.Hour), stepped(t, now, -2*time.Hour)} {
		if wait := e.releaseOld(shown); wait < 50*time.Minute || wait > time.Hour {
			t.Errorf("at %v it looks again in %v, want a minute less than an hour", shown, wait)
		}
	}
	wantUnits(t, e, "done0001")
	e.releaseOld(now.Add(time.Hour))
	wantUnits(t, e)
}

// TestSetClocksEndNoTimeToLive: a unit that has half an hour is not given up when the clock is set an hour forward.
func TestSetClocksEndNoTimeToLive(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	expires := now.Add(30 * time.Minute).UTC().Format(time.RFC3339Nano)
	place(t, dir, "ttl00001", `{"State":0,"Detail":"Starting Worker","StdoutSize":0,"WorkType":"remote","ExtraData":{"RemoteNode":"beta","RemoteWorkType":"cat","RemoteParams":{},"Expiration":"`+expires+`"}}`, "")
	e := openEngine(t, dir, noMesh{"alpha"})
	releaseAll(t, e)
	j, err := e.find("ttl00001")
	if err != nil {
		t.Fatal(err)
	}
	w := j.work.(*remoteWorker)
	for shown, want := range map[time.Time]bool{
		now: false, stepped(t, now, time.Hour): false, now.Add(31 * time.Minute): true, stepped(t, now.Add(31*time.Minute), -time.Hour): true,
	} {
		if got := w.expiredAt(shown); got != want {
			t.Errorf("at %v it has expired: %v, want %v", shown, got, want)
		}
	}
}

// TestUnitsDoNotEndBeforeTheirStart: whatever the clock was set to meanwhile.
func TestUnitsDoNotEndBeforeTheirStart(t *testing.T) {
	start := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for end, want := range map[time.Time]time.Time{start.Add(-time.Hour): start, start.Add(time.Hour): start.Add(time.Hour)} {
		rec := unit.Record{State: Pending, Detail: unit.DetailStarting}
		for _, e := range []unit.Event{{Kind: unit.Run, Detail: unit.DetailRunning(5), At: start}, {Kind: unit.Succeed, Detail: "exit status 0", At: end}} {
			if !rec.Apply(e) {
				t.Fatalf("%+v was refused", e)
			}
		}
		if rec.Started != start || rec.Finished != want {
			t.Errorf("from %v to %v, want %v to %v", rec.Started, rec.Finished, start, want)
		}
	}
}
