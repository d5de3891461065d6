package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
)

// NewLogHandler returns a handler that writes one line per record to w in a single Write:
//
//	INFO 2026/01/02 15:04:05 Connection established with hub cost=1
//
// Control characters are taken out, so that a peer cannot forge lines or drive a terminal; a message may have line
// breaks of its own. Errors of w are passed over: a broken output must not stop a node.
func NewLogHandler(w io.Writer, level slog.Leveler) slog.Handler {
	return &logHandler{out: &logOutput{w: w}, level: level}
}

type logOutput struct {
	mu  sync.Mutex
	w   io.Writer
	buf []byte
}

type logHandler struct {
	out    *logOutput
	level  slog.Leveler
	attrs  string // Of With, rendered.
	prefix string // Of WithGroup, with its dots.
}

func (h *logHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	when := r.Time
	if when.IsZero() {
		when = time.Now()
	}
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	b := append(h.out.buf[:0], levelName(r.Level)...)
	b = when.Local().AppendFormat(b, " 2006/01/02 15:04:05 ")
	b = append(b, strings.Map(printableOrBreak, r.Message)...)
	b = append(b, h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		b = appendAttr(b, h.prefix, a)
		return true
	})
	b = append(b, '\n')
	_, _ = h.out.w.Write(b)
	if cap(b) <= 64<<10 {
		h.out.buf = b
	}
	return nil
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	b := []byte(h.attrs)
	for _, a := range attrs {
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
