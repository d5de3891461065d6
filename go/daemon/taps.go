package daemon

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
)

// TapLog passes the records of the daemon's log to h as well, from now on until stop is called. h decides by its own
// Enabled which ones it takes, whatever the log's level is. It must not wait, and not log to the daemon itself. Where
// [Options].Logger has replaced the log there is nothing to tap.
func (d *Daemon) TapLog(h slog.Handler) (stop func()) {
	t, ok := d.log.Handler().(*tappedHandler)
	if !ok {
		return func() {}
	}
	t.taps.change(func(handlers []*slog.Handler) []*slog.Handler { return append(handlers, &h) })
	return func() {
		t.taps.change(func(handlers []*slog.Handler) []*slog.Handler {
			return slices.DeleteFunc(handlers, func(other *slog.Handler) bool { return other == &h })
		})
	}
}

// taps are further readers of a log.
type taps struct {
	handlers atomic.Pointer[[]*slog.Handler]
}

func (t *taps) all() []*slog.Handler {
	if handlers := t.handlers.Load(); handlers != nil {
		return *handlers
	}
	return nil
}

func (t *taps) change(f func([]*slog.Handler) []*slog.Handler) {
	for {
		old := t.handlers.Load()
		handlers := f(slices.Clone(t.all()))
		if t.handlers.CompareAndSwap(old, &handlers) {
			return
		}
	}
}

// tappedHandler is the handler of a log that has taps.
type tappedHandler struct {
	slog.Handler
	taps *taps
	with []func(slog.Handler) slog.Handler // What WithAttrs and WithGroup have added, for taps.
}

func (t *tappedHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return t.Handler.Enabled(ctx, level) ||
		slices.ContainsFunc(t.taps.all(), func(h *slog.Handler) bool { return (*h).Enabled(ctx, level) })
}

func (t *tappedHandler) Handle(ctx context.Context, r slog.Record) error {
	for _, tap := range t.taps.all() {
		if !(*tap).Enabled(ctx, r.Level) {
			continue
		}
		h := *tap
		for _, add := range t.with {
			h = add(h)
		}
		_ = h.Handle(ctx, r.Clone()) // The log itself goes on.
	}
	if !t.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return t.Handler.Handle(ctx, r)
}

func (t *tappedHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return t.derived(t.Handler.WithAttrs(attrs), func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

func (t *tappedHandler) WithGroup(name string) slog.Handler {
	return t.derived(t.Handler.WithGroup(name), func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

func (t *tappedHandler) derived(inner slog.Handler, add func(slog.Handler) slog.Handler) slog.Handler {
	return &tappedHandler{inner, t.taps, append(slices.Clip(t.with), add)}
}
