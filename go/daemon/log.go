package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/pyreceptor/pyreceptor/go/config"
)

// NewLogHandler returns a handler that writes one line per record to w in a single Write:
//
//	INFO 2026/01/02 15:04:05 Connection established with hub cost=1
//
// Control characters are taken out, so that a peer cannot forge lines or drive a terminal; a message may have line
// breaks of its own. Errors of w are passed over: a broken output must not stop a node.
//
// The attribute area of a logger names the part of the node that it belongs to; the text form does not show it. What is
// said more than repeatBurst times in repeatWindow is left out, and its number is told later, with the next line.
func NewLogHandler(w io.Writer, level slog.Leveler) slog.Handler {
	out := &logOutput{w: w, repeats: make(map[string]*repeat)}
	return &logHandler{out: out, level: level, json: slog.NewJSONHandler(lockedWriter{out}, &slog.HandlerOptions{Level: slog.LevelDebug})}
}

// areaKey is the attribute that names a part of the node, one of config.LogAreas.
const areaKey = "area"

// Bounds of what the log says again and again.
const (
	repeatBurst  = 10
	repeatWindow = 10 * time.Second
	maxRepeats   = 512
)

type logOutput struct {
	form atomic.Pointer[logForm]

	mu      sync.Mutex
	w       io.Writer
	buf     []byte
	repeats map[string]*repeat // By text.
	swept   time.Time          // When old ones were last looked for.
}

// logForm is what a configuration says about the log beside its level.
type logForm struct {
	json  bool
	areas map[string]slog.Level
}

// repeat counts one text.
type repeat struct {
	since  time.Time
	level  slog.Level
	text   string // Without level and time.
	count  int
	hidden int
}

// lockedWriter is for the JSON handler, which calls it with the output locked.
type lockedWriter struct{ out *logOutput }

func (w lockedWriter) Write(p []byte) (int, error) { return w.out.w.Write(p) }

type logHandler struct {
	out    *logOutput
	level  slog.Leveler
	json   slog.Handler // The same attributes.
	area   string
	attrs  string // Of With, rendered.
	prefix string // Of WithGroup, with its dots.
}

// configure applies what a configuration says.
func (h *logHandler) configure(l config.LogLevel) {
	form := &logForm{json: l.Format == "json", areas: make(map[string]slog.Level)}
	for area, level := range l.Areas {
		form.areas[area] = slogLevels[level]
	}
	h.out.form.Store(form)
}

func (h *logHandler) Enabled(_ context.Context, l slog.Level) bool {
	if form := h.out.form.Load(); form != nil && h.area != "" {
		if level, ok := form.areas[h.area]; ok {
			return l >= level
		}
	}
	return l >= h.level.Level()
}

func (h *logHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Time.IsZero() {
		r.Time = time.Now()
	}
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	b := append(h.out.buf[:0], strings.Map(printableOrBreak, r.Message)...)
	b = append(b, h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		b = appendAttr(b, h.prefix, a)
		return true
	})
	if cap(b) <= 64<<10 {
		h.out.buf = b
	}
	if !h.admit(ctx, r.Level, r.Time, b) {
		return nil
	}
	h.write(ctx, r, string(b))
	return nil
}

// write writes one record, whose text form is text.
func (h *logHandler) write(ctx context.Context, r slog.Record, text string) {
	if form := h.out.form.Load(); form != nil && form.json {
		_ = h.json.Handle(ctx, r)
		return
	}
	b := append([]byte(nil), levelName(r.Level)...)
	b = r.Time.Local().AppendFormat(b, " 2006/01/02 15:04:05 ")
	b = append(append(b, text...), '\n')
	_, _ = h.out.w.Write(b)
}

// admit reports whether a text is not said too often. What was left out in windows that are over is told first.
func (h *logHandler) admit(ctx context.Context, level slog.Level, now time.Time, text []byte) bool {
	full := len(h.out.repeats) >= maxRepeats
	for key, old := range h.out.repeats {
		if !full && now.Sub(h.out.swept) < time.Second {
			break
		}
		if !full && now.Sub(old.since) < repeatWindow {
			continue
		}
		delete(h.out.repeats, key)
		if old.hidden > 0 {
			said := fmt.Sprintf("%s (said %d times more)", old.text, old.hidden)
			h.write(ctx, slog.NewRecord(now, old.level, said, 0), said)
		}
	}
	if full || now.Sub(h.out.swept) >= time.Second {
		h.out.swept = now
	}
	if level < slog.LevelInfo {
		return true
	}
	key := string(text)
	r := h.out.repeats[key]
	if r == nil {
		r = &repeat{since: now, level: level, text: key}
		h.out.repeats[key] = r
	}
	r.count++
	if r.count > repeatBurst {
		r.hidden++
	}
	return r.count <= repeatBurst
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.json = h.json.WithAttrs(attrs)
	b := []byte(h.attrs)
	for _, a := range attrs {
		if a.Key == areaKey && h.prefix == "" {
			c.area = a.Value.String()
			continue
		}
		b = appendAttr(b, h.prefix, a)
	}
	c.attrs = string(b)
	return &c
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	c := *h
	c.json = h.json.WithGroup(name)
	c.prefix += name + "."
	return &c
}

func levelName(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "ERROR"
	case l >= slog.LevelWarn:
		return "WARNING"
	case l >= slog.LevelInfo:
		return "INFO"
	}
	return "DEBUG"
}

func appendAttr(b []byte, prefix string, a slog.Attr) []byte {
	v := a.Value.Resolve()
	if a.Equal(slog.Attr{}) {
		return b
	}
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, member := range v.Group() {
			b = appendAttr(b, prefix, member)
		}
		return b
	}
	b = append(b, ' ')
	b = append(b, strings.Map(printable, prefix+a.Key)...)
	b = append(b, '=')
	return append(b, attrText(v)...)
}

// attrText is a value as one word: quoted if it has blanks, quotes or line breaks.
func attrText(v slog.Value) string {
	text := v.String()
	if v.Kind() == slog.KindAny {
		text = fmt.Sprint(v.Any())
	}
	text = strings.Map(printableOrBreak, text)
	if text == "" || strings.ContainsAny(text, " \t\n\"=") {
		return strconv.Quote(text)
	}
	return text
}

func printable(r rune) rune {
	if unicode.IsControl(r) || r == unicode.ReplacementChar || r == '\u2028' || r == '\u2029' {
		return -1
	}
	return r
}

func printableOrBreak(r rune) rune {
	if r == '\n' || r == '\t' {
		return r
	}
	return printable(r)
}
