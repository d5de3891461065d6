package daemon

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// TestABugEndsOneServer: what a server finds is told, and the program goes on.
func TestABugEndsOneServer(t *testing.T) {
	var log bytes.Buffer
	d := &Daemon{log: slog.New(slog.NewTextHandler(&log, nil)), ctx: t.Context()}
	d.serve(func() error { panic("a bug") })
	d.wg.Wait()
	if got := log.String(); !strings.Contains(got, `msg="internal fault" in="Control service" err="a bug"`) {
		t.Errorf("the log does not name the fault:\n%s", got)
	}
}
