package daemon

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestTappedLog(t *testing.T) {
	var own, tapped bytes.Buffer
	log := slog.New(&tappedHandler{Handler: NewLogHandler(&own, slog.LevelWarn), taps: new(taps)})
	d := &Daemon{log: log}
	part := log.With("node", "hub")
	part.Info("before")
	stop := d.TapLog(slog.NewTextHandler(&tapped, &slog.HandlerOptions{Level: slog.LevelDebug}))
	stopOther := d.TapLog(slog.DiscardHandler)
	part.Debug("between", "peer", "edge")
	part.Warn("for both")
	stopOther()
	part.Debug("still")
	stop()
	part.Warn("after")
	for _, want := range []string{"msg=between node=hub peer=edge", `msg="for both" node=hub`, "msg=still"} {
		if !strings.Contains(tapped.String(), want) {
			t.Errorf("tap has %q, want %q in it", tapped.String(), want)
		}
	}
	for _, no := range []string{"before", "after"} {
		if strings.Contains(tapped.String(), no) {
			t.Errorf("tap has %q, want no %q in it", tapped.String(), no)
		}
	}
	if text := own.String(); !strings.Contains(text, "for both") || !strings.Contains(text, "after") || strings.Contains(text, "between") {
		t.Errorf("log has %q, want the two warnings only", text)
	}
}

func TestTapOfAForeignLogger(t *testing.T) {
	(&Daemon{log: slog.New(slog.DiscardHandler)}).TapLog(slog.DiscardHandler)()
}
