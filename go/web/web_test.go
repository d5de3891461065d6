package web

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// fake is a node that counts how often its state was asked for.
type fake struct {
	states  atomic.Int64
	changes chan struct{}
}

func (f *fake) config() Config {
	return Config{
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "receptor_up 1\n") }),
		State:   func() any { return map[string]int64{"count": f.states.Add(1)} },
		Watch:   func(context.Context) <-chan struct{} { return f.changes },
		Tail: func(id string) ([]byte, error) {
			if id != "unit1" {
				return nil, fmt.Errorf("%w %s", ErrUnknownUnit, id)
			}
			return []byte("<script>alert(1)</script>\xff"), nil
		},
	}
}

func serve(t *testing.T, cfg Config) string {
	t.Helper()
	srv := httptest.NewServer(Handler(cfg))
	t.Cleanup(srv.Close)
	return srv.URL
}

func get(t *testing.T, url string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

func TestEverythingIsServed(t *testing.T) {
	url := serve(t, (&fake{}).config())
	for path, want := range map[string]string{
		"/":                 "text/html",
		"/page.js":          "javascript",
		"/page.css":         "text/css",
		"/icon.svg":         "image/svg",
		"/state":            "application/json",
		"/metrics":          "text/plain",
		"/healthz":          "text/plain",
		"/readyz":           "text/plain",
		"/units/unit1/tail": "text/plain",
	} {
		res, body := get(t, url+path)
		if res.StatusCode != http.StatusOK || !strings.Contains(res.Header.Get("Content-Type"), want) || body == "" {
			t.Errorf("%s: %d %s, %d bytes", path, res.StatusCode, res.Header.Get("Content-Type"), len(body))
		}
		if !strings.HasPrefix(res.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s may load from elsewhere: %q", path, res.Header.Get("Content-Security-Policy"))
		}
	}
}

func TestThePageNamesNothingElsewhere(t *testing.T) {
	for _, name := range []string{"index.html", "page.js", "page.css"} {
		data, err := pageFiles.ReadFile("page/" + name)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(data), "http://www.w3.org/2000/svg", "")
		if strings.Contains(text, "http://") || strings.Contains(text, "https://") || strings.Contains(text, "innerHTML") {
			t.Errorf("%s refers to another host, or sets markup", name)
		}
	}
}

func TestOutputIsOnlyEverText(t *testing.T) {
	url := serve(t, (&fake{}).config())
	res, body := get(t, url+"/units/unit1/tail")
	if res.Header.Get("Content-Type") != "text/plain; charset=utf-8" || res.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("headers %v", res.Header)
	}
	if body != "<script>alert(1)</script>\uFFFD" {
		t.Errorf("body %q", body)
	}
	if res, body := get(t, url+"/units/other/tail"); res.StatusCode != http.StatusNotFound || body != "unknown work unit other\n" {
		t.Errorf("an unknown unit: %d %q", res.StatusCode, body)
	}
}

func TestOffUnlessAskedFor(t *testing.T) {
	cfg := (&fake{}).config()
	cfg.State = nil
	url := serve(t, cfg)
	for _, path := range []string{"/", "/page.js", "/state", "/events", "/units/unit1/tail", "/debug/pprof/"} {
		if res, _ := get(t, url+path); res.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
	}
	cfg.Pprof = true
	if res, _ := get(t, serve(t, cfg)+"/debug/pprof/"); res.StatusCode != http.StatusOK {
		t.Errorf("profiles: %d", res.StatusCode)
	}
}

func TestNothingChangesTheNode(t *testing.T) {
	url := serve(t, (&fake{}).config())
	res, err := http.Post(url+"/state", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", res.StatusCode)
	}
}

func TestReadiness(t *testing.T) {
	cfg := (&fake{}).config()
	cfg.Ready = func() error { return errors.New("no link is up") }
	if res, body := get(t, serve(t, cfg)+"/readyz"); res.StatusCode != http.StatusServiceUnavailable || body != "no link is up\n" {
		t.Errorf("%d %q", res.StatusCode, body)
	}
}

func TestCredentials(t *testing.T) {
	basic, bearer := (&fake{}).config(), (&fake{}).config()
	basic.Username, basic.Password = "ops", "s3cret"
	bearer.Token = "t0ken"
	for _, c := range []struct {
		name   string
		cfg    Config
		header string
		want   int
	}{
		{"basic, none given", basic, "", 401},
		{"basic, right", basic, "Basic b3BzOnMzY3JldA==", 200},
		{"basic, wrong password", basic, "Basic b3BzOm90aGVy", 401},
		{"basic, empty token", basic, "Bearer ", 401},
		{"bearer, none given", bearer, "", 401},
		{"bearer, right", bearer, "Bearer t0ken", 200},
		{"bearer, wrong", bearer, "Bearer other", 401},
		{"bearer, empty name and password", bearer, "Basic Og==", 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			url := serve(t, c.cfg)
			for _, path := range []string{"/", "/state", "/metrics", "/units/unit1/tail"} {
				if res, _ := get(t, url+path, "Authorization", c.header); res.StatusCode != c.want {
					t.Errorf("%s: %d", path, res.StatusCode)
				}
			}
			if res, _ := get(t, url+"/healthz"); res.StatusCode != http.StatusOK {
				t.Errorf("/healthz: %d", res.StatusCode)
			}
		})
	}
}

// TestEvents follows two changes, and leaves.
func TestEvents(t *testing.T) {
	f := &fake{changes: make(chan struct{}, 1)}
	url := serve(t, f.config())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewScanner(res.Body)
	for want := range 3 {
		if want > 0 {
			f.changes <- struct{}{}
		}
		for lines.Scan() && !strings.HasPrefix(lines.Text(), "data: ") {
		}
		if got := lines.Text(); got != fmt.Sprintf(`data: {"count":%d}`, want+1) {
			t.Fatalf("event %d: %q", want, got)
		}
	}
}

// TestTooManyPages shows that watchers are bounded, and that one that leaves makes room.
func TestTooManyPages(t *testing.T) {
	s := &server{Config: (&fake{}).config(), watchers: make(chan struct{}, 1)}
	s.watchers <- struct{}{}
	answer := httptest.NewRecorder()
	s.events(answer, httptest.NewRequest(http.MethodGet, "/events", nil))
	if answer.Code != http.StatusServiceUnavailable {
		t.Fatalf("%d", answer.Code)
	}
	<-s.watchers
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	s.events(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/events", nil).WithContext(gone))
	if len(s.watchers) != 0 {
		t.Error("a page that is gone still counts")
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, (&fake{}).config()) }()
	get(t, "http://"+l.Addr().String()+"/healthz")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
