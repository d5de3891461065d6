package daemon

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

func TestMetricsListener(t *testing.T) {
	folder := t.TempDir()
	password := filepath.Join(folder, "password")
	if err := os.WriteFile(password, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	log := newOutput()
	d, err := Build(t.Context(), parse(t, "--node", "id=alpha", "datadir="+folder, "--local-only",
		"--work-command", "worktype=echo", "command=echo", "params=hello",
		"--metrics-listener", "port=0", "page=true", "username=ops", "passwordfile="+password), Options{Stdout: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	found := regexp.MustCompile(`Serving metrics on (\S+)`).FindStringSubmatch(log.String())
	if found == nil {
		t.Fatalf("no address in the log:\n%s", log.String())
	}
	client := &http.Client{Timeout: time.Minute}
	get := func(path string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+found[1]+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("ops", "s3cret")
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(body)
	}
	if code, body := get("/metrics"); code != http.StatusOK || !strings.Contains(body, `node="alpha"`) {
		t.Errorf("/metrics: %d\n%s", code, body)
	} else if problems, err := promlint.New(strings.NewReader(body)).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("/metrics, to Prometheus: %v %v\n%s", problems, err, body)
	}
	if code, body := get("/readyz"); code != http.StatusOK {
		t.Errorf("/readyz: %d %s", code, body)
	}
	code, body := get("/state")
	var state struct {
		Version  struct{ Node string }
		Topology struct{ Nodes []struct{ Node string } }
		Links    struct{ Links []any }
		Units    []any
	}
	if err := json.Unmarshal([]byte(body), &state); err != nil || code != http.StatusOK {
		t.Fatalf("/state: %d %v\n%s", code, err, body)
	}
	if state.Version.Node != "alpha" || len(state.Topology.Nodes) != 1 || state.Links.Links == nil || state.Units == nil {
		t.Errorf("/state: %s", body)
	}
	if code, _ := get("/units/none/tail"); code != http.StatusNotFound {
		t.Errorf("an unknown unit: %d", code)
	}
}

func TestSecretFiles(t *testing.T) {
	folder := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if got, err := secretFile(write("good", " t0ken\n", 0o640)); err != nil || got != "t0ken" {
		t.Errorf("got %q, %v", got, err)
	}
	for path, want := range map[string]string{
		write("open", "x", 0o644):                       "can be used by everybody",
		write("empty", " \n", 0o600):                    "holds no secret",
		write("long", strings.Repeat("x", 5000), 0o600): "more than",
		filepath.Join(folder, "missing"):                "no such file",
	} {
		if _, err := secretFile(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
