// Package web shows a node over HTTP: metrics, health, and a page for people. It only reads; nothing here changes a node.
//
//	GET /metrics           what [Config].Metrics serves
//	GET /healthz           200 while the process answers
//	GET /readyz            200 when Config.Ready returns nil, else 503 and why
//	GET /                  the page: topology, links, units, services, certificates
//	GET /state             what the page shows, as JSON
//	GET /events            the same as server-sent events of the type "state": one at once, then one after each change
//	GET /units/ID/tail     the last bytes of a unit's output, as text
//	GET /debug/pprof/      the profiles of runtime/pprof: go tool pprof reads them
//
// The page and the profiles are there only if they are asked for; the page needs nothing from elsewhere. With
// credentials, everything but the two health checks wants them: HTTP basic authentication or a bearer token.
package web

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"
)

// Sizes and times of the server.
const (
	headerTimeout = 10 * time.Second // A client that is slower than this with its request is let go.
	writeTimeout  = 10 * time.Second // So is one that does not read an event.
	idleTimeout   = 2 * time.Minute
	maxHeader     = 16 << 10
	maxWatchers   = 64                     // Pages open at the same time; more are refused with 503.
	eventPause    = 500 * time.Millisecond // The least time between two states for one page.
	eventPulse    = 5 * time.Second        // A state is sent at least this often: ages and rates move.
)

// ErrUnknownUnit is what [Config].Tail returns for a unit that does not exist.
var ErrUnknownUnit = errors.New("unknown work unit")

// Config says what to show. Metrics is required; the page is off without State.
type Config struct {
	Metrics http.Handler
	// Ready says why the node is not ready; nil is always ready.
	Ready func() error
	// State is what the page shows; page.js knows its shape. It must marshal to JSON.
	State func() any
	// Watch returns a channel that has a value after each change until ctx ends; changes in quick succession may be one.
	Watch func(ctx context.Context) <-chan struct{}
	// Tail returns the last bytes of a unit's output, or ErrUnknownUnit.
	Tail func(id string) ([]byte, error)
	// Pprof serves profiles.
	Pprof bool
	// Username and Password let in a client by basic authentication, Token by "Authorization: Bearer". If all are empty
	// nobody is asked.
	Username, Password, Token string
	// Log hears, at level debug, of connections that failed before there was a request; nil is nobody.
	Log *slog.Logger
}

//go:embed page
var pageFiles embed.FS

// Handler serves cfg.
func Handler(cfg Config) http.Handler {
	s := &server{Config: cfg, watchers: make(chan struct{}, maxWatchers)}
	open, closed := http.NewServeMux(), http.NewServeMux()
	open.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok") })
	open.HandleFunc("GET /readyz", s.ready)
	closed.Handle("GET /metrics", cfg.Metrics)
	if cfg.State != nil {
		files, err := fs.Sub(pageFiles, "page")
		if err != nil {
			panic(err) // The folder is part of the program.
		}
		closed.Handle("GET /", http.FileServerFS(files))
		closed.HandleFunc("GET /state", s.state)
		closed.HandleFunc("GET /events", s.events)
		closed.HandleFunc("GET /units/{id}/tail", s.tail)
	}
	if cfg.Pprof {
		closed.HandleFunc("GET /debug/pprof/{$}", profiles)
		closed.HandleFunc("GET /debug/pprof/{name}", profile)
	}
	open.Handle("/", s.guard(closed))
	return headers(open)
}

// Serve answers on l until ctx ends, and closes l. It returns nil then.
func Serve(ctx context.Context, l net.Listener, cfg Config) error {
	said := slog.DiscardHandler
	if cfg.Log != nil {
		said = cfg.Log.Handler()
	}
	srv := &http.Server{
		Handler:           Handler(cfg),
		ErrorLog:          slog.NewLogLogger(said, slog.LevelDebug),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	err := srv.Serve(l)
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("serving %s: %w", l.Addr(), err)
}

type server struct {
	Config

	watchers chan struct{} // Holds a value for each open stream of events.
}

// headers tells browsers to load nothing from elsewhere and to show the page nowhere but in its own window.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// guard lets through who has the credentials.
func (s *server) guard(next http.Handler) http.Handler {
	if s.Token == "" && s.Username == "" && s.Password == "" {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.admits(r) {
			if s.Username != "" || s.Password != "" {
				w.Header().Set("WWW-Authenticate", `Basic realm="receptor", charset="UTF-8"`)
			} else {
				w.Header().Set("WWW-Authenticate", `Bearer realm="receptor"`)
			}
			plain(w, http.StatusUnauthorized, "credentials are needed, as metrics-listener says in the node's configuration")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *server) admits(r *http.Request) bool {
	if user, password, ok := r.BasicAuth(); ok && (s.Username != "" || s.Password != "") {
		return same(user, s.Username)&same(password, s.Password) == 1
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return ok && s.Token != "" && same(token, s.Token) == 1
}

// same compares in a time that tells nothing about where, or in length, the two differ.
func same(a, b string) int {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:])
}

func (s *server) ready(w http.ResponseWriter, _ *http.Request) {
	if s.Ready != nil {
		if err := s.Ready(); err != nil {
			plain(w, http.StatusServiceUnavailable, err.Error())
			return
		}
	}
	plain(w, http.StatusOK, "ok")
}

func (s *server) state(w http.ResponseWriter, _ *http.Request) {
	data, err := json.Marshal(s.State())
	if err != nil {
		plain(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(data, '\n'))
}

// tail sends text as text, whatever the unit wrote: a browser must never take it for a page.
func (s *server) tail(w http.ResponseWriter, r *http.Request) {
	data, err := s.Tail(r.PathValue("id"))
	switch {
	case errors.Is(err, ErrUnknownUnit):
		plain(w, http.StatusNotFound, err.Error())
	case err != nil:
		plain(w, http.StatusInternalServerError, err.Error())
	default:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte(strings.ToValidUTF8(string(data), "\uFFFD")))
	}
}

// events sends the state now, after changes, and every few seconds, until the client or the node goes.
func (s *server) events(w http.ResponseWriter, r *http.Request) {
	select {
	case s.watchers <- struct{}{}:
		defer func() { <-s.watchers }()
	default:
		plain(w, http.StatusServiceUnavailable, fmt.Sprintf("%d pages are open already", maxWatchers))
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	changes := s.Watch(r.Context())
	pulse := time.NewTicker(eventPulse)
	defer pulse.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select { // Two states are never closer than the pause.
		case <-r.Context().Done():
			return
		case <-pause.C:
		}
		data, err := json.Marshal(s.State())
		if err != nil {
			return
		}
		_ = out.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := fmt.Fprintf(w, "event: state\nretry: 1000\ndata: %s\n\n", data); err != nil {
			return
		}
		if out.Flush() != nil {
			return
		}
		pause.Reset(eventPause)
		select {
		case <-r.Context().Done():
			return
		case <-changes:
		case <-pulse.C:
		}
	}
}

func plain(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = fmt.Fprintln(w, text)
}
