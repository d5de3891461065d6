package workceptor

import (
	"os/signal"
	"syscall"
	"testing"
	"time"
)

// TestCancelUnderAHostThatIgnoresInterrupts cancels units whose runners do not listen yet, in a node that was started as a
// shell script starts what runs in the background.
func TestCancelUnderAHostThatIgnoresInterrupts(t *testing.T) {
	signal.Ignore(syscall.SIGINT, syscall.SIGQUIT)
	defer signal.Reset(syscall.SIGINT, syscall.SIGQUIT)
	e := openEngine(t, t.TempDir(), noMesh{"alpha"})
	e.hungRunner = time.Hour // A signal that is lost is not made good by the kill.
	for range 5 {
		id := submit(t, e, request("localhost", "sh", `"exec sleep 300"`), "")
		if pending, err := e.Cancel(testContext(t), id); err != nil {
			t.Fatalf("cancel: got pending %v, %v", pending, err)
		}
		wantStatus(t, wait(t, e, id), Canceled, "Canceled", 0)
	}
}
