package control

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
)

// TestABugEndsOneSession: the client is disconnected, the log says why, and others go on.
func TestABugEndsOneSession(t *testing.T) {
	var log bytes.Buffer
	r := newRig(t, func(cfg *Config) { cfg.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	if err := r.Handle("break", func(context.Context, *Request) (any, error) { panic("a bug") }); err != nil {
		t.Fatal(err)
	}
	other := r.dialUnix(t)
	spared := bufio.NewReader(other)
	wantLine(t, spared, "Receptor Control, node alpha")
	c := r.dialUnix(t)
	in := bufio.NewReader(c)
	wantLine(t, in, "Receptor Control, node alpha")
	fmt.Fprintln(c, "break")
	if rest, err := io.ReadAll(in); len(rest) > 0 || err != nil {
		t.Errorf("the client got %q and %v, want the end", rest, err)
	}
	fmt.Fprintln(other, "ping")
	wantLine(t, spared, "ERROR: no ping target")
	r.Close()
	if got := log.String(); !strings.Contains(got, `msg="internal fault" in="control session" err="a bug"`) || !strings.Contains(got, "stack=") {
		t.Errorf("the log does not name the fault:\n%s", got)
	}
}
