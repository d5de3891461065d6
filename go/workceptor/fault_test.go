package workceptor

import (
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// faultyEngine is an engine that tells of its faults.
func faultyEngine(t *testing.T) (*Engine, <-chan *fault.Error) {
	t.Helper()
	found := make(chan *fault.Error, 1)
	e := openEngine(t, t.TempDir(), noMesh{"alpha"}, func(c *Config) { c.OnPanic = func(e *fault.Error) { found <- e } })
	releaseAll(t, e)
	return e, found
}

// brokenUnit finds a bug when its directory changes.
type brokenUnit struct{ noted }

func (*brokenUnit) statusChanged() { panic("a bug") }

// TestABugInAWatcher: what is found while files change is told, and the program goes on.
func TestABugInAWatcher(t *testing.T) {
	e, found := faultyEngine(t)
	dir := t.TempDir()
	e.watch.add(dir, &brokenUnit{})
	if err := os.WriteFile(dir+"/status", []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := <-found; got.Value != "a bug" {
		t.Errorf("found %v", got)
	}
}

// TestABugInATimer: the like for what is done in time.
func TestABugInATimer(t *testing.T) {
	for name, start := range map[string]func(e *Engine) (stop func()){
		"runners that wait": func(e *Engine) func() {
			p := &runnerPool{e: e}
			p.put(&warmRunner{}) // It has no process.
			return func() { p.timer.Stop() }
		},
		"a unit's time to live": func(e *Engine) func() {
			j := &job{e: e} // It has no directory.
			j.rec = unit.Record{State: unit.Pending}
			j.rec.Extra = &unit.RemoteExtra{Expiration: time.Now().Add(time.Second)}
			return (&remoteWorker{j: j}).expireInTime()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				found := make(chan *fault.Error, 1)
				stop := start(&Engine{cfg: Config{OnPanic: func(e *fault.Error) { found <- e }}})
				<-found
				stop()
			})
		})
	}
}
