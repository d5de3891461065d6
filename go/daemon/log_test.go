package daemon

import (
	"bytes"
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"testing"
)

func TestF041LogLines(t *testing.T) {
	for name, tc := range map[string]struct {
		log  func(l *slog.Logger)
		want string
	}{
		"message":            {func(l *slog.Logger) { l.Info("Initialization complete") }, "INFO DATE Initialization complete\n"},
		"warning":            {func(l *slog.Logger) { l.Warn("x") }, "WARNING DATE x\n"},
		"error with attrs":   {func(l *slog.Logger) { l.Error("x", "err", errors.New("no route"), "cost", 1.5) }, "ERROR DATE x err=\"no route\" cost=1.5\n"},
		"with":               {func(l *slog.Logger) { l.With("peer", "b").Info("x", "service", "echo") }, "INFO DATE x peer=b service=echo\n"},
		"groups":             {func(l *slog.Logger) { l.WithGroup("g").With("a", 1).Info("x", slog.Group("h", "b", "")) }, "INFO DATE x g.a=1 g.h.b=\"\"\n"},
		"line breaks":        {func(l *slog.Logger) { l.Info("Routing Table:\n   b via c") }, "INFO DATE Routing Table:\n   b via c\n"},
		"forged line":        {func(l *slog.Logger) { l.Info("x", "peer", "b\nERROR fake") }, "INFO DATE x peer=\"b\\nERROR fake\"\n"},
		"terminal sequences": {func(l *slog.Logger) { l.Info("hello \x1b[31m\x07", "peer", "a\x1b]0;t\x07\u0085") }, "INFO DATE hello [31m peer=a]0;t\n"},
		"below the level":    {func(l *slog.Logger) { l.Debug("x") }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			tc.log(slog.New(NewLogHandler(&b, slog.LevelInfo)))
			got := regexp.MustCompile(`(?m) \d{4}/\d\d/\d\d \d\d:\d\d:\d\d `).ReplaceAllString(b.String(), " DATE ")
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestBrokenOutputIsPassedOver(t *testing.T) {
	r := slog.New(NewLogHandler(brokenWriter{}, slog.LevelInfo))
	r.Info(strings.Repeat("x", 100_000))
	r.Info("still here")
}
