package session

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// publish queues an event for every session that asked for its kind; an empty kind is for all.
func (h *host) publish(kind string, event any) {
	h.mu.Lock()
	var to []*session
	for s := range h.sessions {
		if kind == "" || s.wants(kind) {
			to = append(to, s)
		}
	}
	h.mu.Unlock()
	for _, s := range to {
		s.events.put(event)
	}
}

// wanted reports whether any session asked for events of a kind.
func (h *host) wanted(kind string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.sessions {
		if s.wants(kind) {
			return true
		}
	}
	return false
}

// relayNode passes the node's events on until it ends, and tells its end.
func (h *host) relayNode(n *netceptor.Node) {
	defer fault.Catch(h.faulted("node events", h.stop)) // Nobody would hear of the node's end any more.
	sub := n.Subscribe(eventBacklog)
	defer sub.Close()
	defer context.AfterFunc(h.ctx, sub.Close)()
	for e := range sub.C {
		if lost := sub.Lost(); lost > 0 {
			h.publish("", map[string]any{"ev": "lost", "n": lost})
		}
		switch e.Kind {
		case netceptor.PeerUp:
			h.publish("peer", map[string]any{"ev": "peer", "kind": "up", "node": e.Node, "cost": e.Cost})
		case netceptor.PeerDown:
			h.publish("peer", map[string]any{"ev": "peer", "kind": "down", "node": e.Node, "cost": e.Cost, "reason": fmt.Sprint(e.Err)})
		case netceptor.RoutesChanged:
			if h.wanted("route") { // In a large mesh the table is large.
				h.publish("route", map[string]any{"ev": "route", "table": n.Status().RoutingTable})
			}
		case netceptor.ServiceSeen, netceptor.ServiceGone:
			kind := map[bool]string{true: "seen", false: "gone"}[e.Kind == netceptor.ServiceSeen]
			h.publish("service", map[string]any{"ev": "service", "kind": kind, "node": e.Node, "service": e.Service})
		}
	}
	if d := h.built(); d == nil || d.Node != n || h.ctx.Err() != nil {
		return
	}
	ended := map[string]any{"ev": "closed"}
	if err := n.Err(); err != nil && err != netceptor.ErrClosed { //nolint:errorlint // One that says more is told.
		ended["err"] = toError(err, Closed)
	}
	h.publish("", ended)
	h.stopAfterEnd()
}

// broken gives the node up after a fault of its own, and tells that: the program around it lives on. It waits for nothing,
// as the node may hold its locks for ever.
func (h *host) broken(e *fault.Error) {
	fault.Log(h.log, e, "node")
	h.publish("", map[string]any{"ev": "closed", "err": &Error{Code: Internal, Msg: e.Error()}})
	h.stopAfterEnd()
}

// stopAfterEnd ends the sessions of a node that ended by itself; one that is being closed answers its close first.
func (h *host) stopAfterEnd() {
	if !h.isClosing() {
		h.stop()
	}
}

func (h *host) relayWork(e *workceptor.Engine) {
	defer fault.Catch(h.faulted("work events", h.stop))
	sub := e.Subscribe(eventBacklog)
	defer sub.Close()
	for {
		select {
		case c, ok := <-sub.C:
			if !ok {
				return
			}
			event := map[string]any{"ev": "work", "unit": c.Unit, "status": c.Status}
			if c.Released {
				event["released"] = true
			}
			h.publish("work", event)
		case <-h.ctx.Done():
			return
		}
	}
}

// logHandler turns log records into events. Nothing is written anywhere else: the host program decides.
type logHandler struct {
	host  *host
	attrs []slog.Attr
	group string
}

func (l *logHandler) Enabled(_ context.Context, level slog.Level) bool {
	if level < l.host.level.Level() {
		return false
	}
	return l.host.wanted("log")
}

func (l *logHandler) Handle(_ context.Context, r slog.Record) error {
	attrs := map[string]any{}
	add := func(a slog.Attr) bool {
		v := a.Value.Resolve().Any()
		switch v.(type) {
		case string, bool, int64, uint64, float64:
		default:
			v = fmt.Sprint(v)
		}
		attrs[l.group+a.Key] = v
		return true
	}
	for _, a := range l.attrs {
		add(a)
	}
	r.Attrs(add)
	l.host.publish("log", map[string]any{
		"ev": "log", "level": levelName(r.Level), "time": r.Time.Format(time.RFC3339Nano), "msg": r.Message, "attrs": attrs,
	})
	return nil
}

var levels = map[string]slog.Level{
	"error": slog.LevelError, "warning": slog.LevelWarn, "info": slog.LevelInfo, "debug": slog.LevelDebug,
}

func logLevel(name string) (slog.Level, error) {
	level, ok := levels[name]
	if !ok {
		return 0, badRequest(fmt.Sprintf("key \"log_level\": %q is not error, warning, info or debug", name))
	}
	return level, nil
}

func levelName(level slog.Level) string {
	switch {
	case level >= slog.LevelError:
		return "error"
	case level >= slog.LevelWarn:
		return "warning"
	case level >= slog.LevelInfo:
		return "info"
	default:
		return "debug"
	}
}

func (l *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *l
	c.attrs = append(c.attrs[:len(c.attrs):len(c.attrs)], attrs...)
	return &c
}

func (l *logHandler) WithGroup(name string) slog.Handler {
	c := *l
	c.group += name + "."
	return &c
}
