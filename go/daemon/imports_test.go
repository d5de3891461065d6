package daemon

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/pyreceptor/pyreceptor/"

// floors orders the rooms of the engine: imports go from higher floors to lower ones.
var floors = map[string]int{
	"go/wire": 0, "go/socket": 0, "go/fault": 0, "go/files": 0,
	"go/topology": 1, "go/policy": 1, "go/identity": 1, "go/web": 1,
	"go/link":       2,
	"go/netceptor":  3,
	"go/workceptor": 4, "go/simulation": 4,
	"go/control": 5, "go/service": 5, "go/config": 5, "go/metrics": 5,
	"go/daemon":  6,
	"go/session": 7,
	"go/cmd":     8, "capi": 8, "examples": 8,
}

// only lists imports that belong to some rooms; the path or what it begins with.
var only = map[string][]string{
	"C":                      {"capi"},
	"os/signal":              {"go/cmd", "go/workceptor/runner", "capi"}, // See TestLibraryLeavesSignalsAlone.
	"gopkg.in/yaml.v3":       {"go/config"},
	"github.com/gorilla/":    {"go/link"},
	"github.com/golang-jwt/": {"go/workceptor/signing"},
	"github.com/prometheus/": {}, // Tests only: see go/metrics.
	"google.golang.org/":     {},
	"k8s.io/":                {"go/cmd/receptor-kubernetes"},
	module + "go/session":    {"go/cmd", "capi", "go/session"},
}

// goList runs go list on the whole module.
func goList(t *testing.T, args ...string) []string {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("no go command")
	}
	cmd := exec.Command("go", append([]string{"list", "-e"}, args...)...)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// room is the part of the house that a package (its path within the module) is in.
func room(path string) string {
	for name := range floors {
		if within(path, name) {
			return name
		}
	}
	return ""
}

func within(path, parent string) bool {
	return path == strings.TrimSuffix(parent, "/") || strings.HasPrefix(path, strings.TrimSuffix(parent, "/")+"/")
}

func TestImportsPointDown(t *testing.T) {
	for _, line := range goList(t, "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...") {
		imports := strings.Fields(strings.ReplaceAll(line, module, ""))
		pkg, imports := imports[0], imports[1:]
		from := room(pkg)
		if from == "" {
			t.Errorf("%s is on no floor: add its room to the table", pkg)
			continue
		}
		for _, imported := range imports {
			to := room(imported)
			if to != "" && to != from && floors[to] >= floors[from] {
				t.Errorf("%s (floor %d) imports %s (floor %d): imports point down", pkg, floors[from], imported, floors[to])
			}
			if from == "go/config" && to != "" && to != "go/config" && to != "go/wire" && to != "go/policy" && to != "go/files" {
				t.Errorf("%s imports %s: configuration holds data and needs wire, the rules of policy and a way to read files at most", pkg, imported)
			}
			for what, users := range only {
				what = strings.TrimPrefix(what, module)
				if within(imported, what) && !slices.ContainsFunc(users, func(u string) bool { return within(pkg, u) }) {
					t.Errorf("%s imports %s: only %v may", pkg, imported, users)
				}
			}
		}
	}
}

// The C library is loaded into programs whose signals it must not take: nothing that it is built of asks for any, its own
// C side and other people's modules included. The runner may: it is a process of its own.
func TestLibraryLeavesSignalsAlone(t *testing.T) {
	const files = `{{$p := .}}{{range .GoFiles}}{{$p.ImportPath}} {{$p.Dir}}/{{.}}{{"\n"}}{{end}}{{range .CgoFiles}}{{$p.ImportPath}} {{$p.Dir}}/{{.}}{{"\n"}}{{end}}`
	whole := []string{"os/signal", "runtime", "runtime/pprof"} // Where it is defined or only spoken of.
	seen := map[string]bool{}
	for _, line := range goList(t, "-deps", "-f", files, "./capi") {
		pkg, file, ok := strings.Cut(line, " ")
		pkg = strings.TrimPrefix(pkg, module)
		seen[pkg] = true
		if !ok || slices.Contains(whole, pkg) || pkg == "go/workceptor/runner" {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(source), "signal.Notify") {
			t.Errorf("%s handles signals: only commands may", file)
		}
	}
	for _, pkg := range []string{"capi", "go/session", "go/netceptor", "github.com/quic-go/quic-go"} {
		if !seen[pkg] {
			t.Errorf("%s was not looked at", pkg)
		}
	}
}
