package web

import (
	"net/http"
	"strings"
	"testing"
)

func TestProfiles(t *testing.T) {
	cfg := (&fake{}).config()
	cfg.Pprof = true
	url := serve(t, cfg) + "/debug/pprof/"
	const gzipped, traced = "\x1f\x8b", "go 1."
	for path, want := range map[string]string{
		"":                             "goroutine?debug=1\t",
		"heap":                         gzipped,
		"heap?gc=1&debug=1":            "heap profile: ",
		"allocs":                       gzipped,
		"goroutine?debug=2":            "goroutine ",
		"cmdline":                      "",
		"profile?seconds=0.01":         gzipped,
		"trace?seconds=0.01":           traced,
		"trace?debug=1&seconds=0.0001": traced,
	} {
		res, body := get(t, url+path)
		if start := body[:min(len(body), 200)]; res.StatusCode != http.StatusOK || !strings.Contains(start, want) || body == "" {
			t.Errorf("%s: got %d %q, want %q", path, res.StatusCode, start, want)
		}
	}
	for path, want := range map[string]int{
		"other":                http.StatusNotFound,
		"profile?seconds=x":    http.StatusBadRequest,
		"profile?seconds=-1":   http.StatusBadRequest,
		"profile?seconds=NaN":  http.StatusBadRequest,
		"trace?seconds=100000": http.StatusBadRequest,
	} {
		if res, body := get(t, url+path); res.StatusCode != want {
			t.Errorf("%s: got %d %q, want %d", path, res.StatusCode, body, want)
		}
	}
}
