package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
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

func TestLogFormsAreasAndRepeats(t *testing.T) {
	out := newOutput()
	opts, err := Options{Stdout: out, Runner: "r"}.withDefaults(parse(t, "--node", "a", "--log-level", "level=warning", "areas=mesh=debug", "areas=work=error"))
	if err != nil {
		t.Fatal(err)
	}
	log := opts.Logger
	log.Info("quiet")
	log.Warn("daemon speaks")
	log.With(areaKey, "mesh").Debug("mesh speaks", "peer", "b")
	log.With(areaKey, "work").Warn("quiet too")
	if got := regexp.MustCompile(`\d{4}/\d\d/\d\d \d\d:\d\d:\d\d`).ReplaceAllString(out.String(), "T"); got != "WARNING T daemon speaks\nDEBUG T mesh speaks peer=b\n" {
		t.Errorf("got\n%s", got)
	}
	opts.setLog(parse(t, "--node", "a", "--log-level", "level=info", "format=json").Log())
	log.With(areaKey, "mesh").Info("as JSON", "peer", "b")
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var record map[string]any
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &record); err != nil || record["msg"] != "as JSON" || record["peer"] != "b" || record["area"] != "mesh" || record["level"] != "INFO" {
		t.Errorf("got %v, %v", record, err)
	}
}

func TestLogLimitsRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := newOutput()
		log := slog.New(NewLogHandler(out, slog.LevelDebug))
		for range 100 {
			log.Warn("link lost", "peer", "b")
			log.Debug("loud")
		}
		log.Warn("link lost", "peer", "c")
		if got := strings.Count(out.String(), "link lost peer=b"); got != repeatBurst {
			t.Errorf("got %d lines, want %d", got, repeatBurst)
		}
		if strings.Count(out.String(), "link lost peer=c") != 1 || strings.Count(out.String(), "loud") != 100 {
			t.Errorf("others were left out:\n%s", out)
		}
		time.Sleep(repeatWindow)
		log.Warn("link lost", "peer", "b")
		if got := out.String(); !strings.Contains(got, "link lost peer=b (said 90 times more)\n") || strings.Count(got, "link lost peer=b") != repeatBurst+2 {
			t.Errorf("got\n%s", got)
		}
	})
}

func TestFileWatch(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	put := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(path, "1")
	put(other, "1")
	files := []string{path, other}
	w := newFileWatch(files, time.Now().Add(time.Hour))
	look := func(want ...string) {
		t.Helper()
		if got := w.look(files); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	look()
	put(path, "22")
	look() // It may still be written.
	put(path, "333")
	look()
	look(path)
	look()
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	look()
	look() // An editor that replaces files.
	put(other, "new")
	look()
	look(other)
	if got := newFileWatch(files, time.Now()).settled[other]; got != (stamp{}) {
		t.Errorf("written as it was read: got %v, want nothing settled", got)
	}
}
