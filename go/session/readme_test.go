package session

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// readme is the part of README.md under a heading.
func readme(t *testing.T, heading string) string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, part, found := strings.Cut(string(text), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("README.md has no heading %q", heading)
	}
	part, _, _ = strings.Cut(part, "\n## ")
	return part
}

// rows are the cells of the lines of a table whose first cell is a name.
func rows(text string) (found [][]string) {
	for line := range strings.Lines(text) {
		if cells := strings.Split(strings.Trim(line, "|\n"), "|"); strings.HasPrefix(line, "| `") {
			found = append(found, cells)
		}
	}
	return found
}

var quoted = regexp.MustCompile("`([a-z_.]+)`")

// names are what is quoted in a text and looks like a key.
func names(text string) (found []string) {
	for _, m := range quoted.FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	return found
}

// required are the keys that a request needs: those before the first bracket, and behind those that close.
func required(keys string) []string {
	aside := regexp.MustCompile(`\([^()]*\)`)
	for _, pattern := range []*regexp.Regexp{aside, regexp.MustCompile(`\[[^][]*\]`), regexp.MustCompile(`: .*`)} {
		for old := ""; old != keys; {
			old, keys = keys, pattern.ReplaceAllString(keys, "")
		}
	}
	return names(keys)
}

// jsonKeys are the keys that a type is read from.
func jsonKeys(t reflect.Type) (keys []string) {
	for f := range t.Fields() {
		if f.Anonymous {
			keys = append(keys, jsonKeys(f.Type)...)
		} else {
			keys = append(keys, f.Tag.Get("json"))
		}
	}
	return keys
}

func wantSame(t *testing.T, what string, described, known []string) {
	t.Helper()
	described, known = slices.Sorted(slices.Values(described)), slices.Sorted(slices.Values(known))
	if described, known = slices.Compact(described), slices.Compact(known); !slices.Equal(described, known) {
		t.Errorf("%s: README.md has\n%q, the code\n%q", what, described, known)
	}
}

// TestDescribed: README.md has what there is in the code, and nothing else.
func TestDescribed(t *testing.T) {
	var ops []string
	for op := range operations {
		if !strings.HasPrefix(op, "test.") {
			ops = append(ops, op)
		}
	}
	var described, keys []string
	table, config, _ := strings.Cut(readme(t, "Operations"), "\n`config` of `open`:\n")
	for _, r := range rows(table) {
		described = append(described, names(r[0])...)
	}
	wantSame(t, "operations", described, ops)

	for _, k := range jsonKeys(reflect.TypeFor[request]()) {
		if k != "id" && k != "op" && k != "target" && !strings.Contains(table, "`"+k+"`") {
			t.Errorf("README.md does not name the key %q of requests", k)
		}
	}
	for _, k := range jsonKeys(reflect.TypeFor[tlsFiles]()) {
		if !strings.Contains(table, "`"+k+"`") {
			t.Errorf("README.md does not name the key %q of TLS profiles", k)
		}
	}
	config, events, _ := strings.Cut(config, "\nEvents: ")
	for _, r := range rows(config) {
		keys = append(keys, names(r[0])...)
	}
	wantSame(t, "keys of config", keys, jsonKeys(reflect.TypeFor[openConfig]()))

	described = nil
	for _, m := range regexp.MustCompile(`\{"ev": "([a-z]+)"`).FindAllStringSubmatch(events, -1) {
		described = append(described, m[1])
	}
	wantSame(t, "events", described, append([]string{"lost", "closed"}, eventKinds...))

	described = nil
	for _, r := range rows(readme(t, "Error codes")) {
		described = append(described, names(r[0])...)
	}
	wantSame(t, "error codes", described, constants(t, "Code"))
}

// constants are the values of the package's string constants of a type.
func constants(t *testing.T, typeName string) (values []string) {
	t.Helper()
	files, err := fs.Glob(os.DirFS("."), "*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) == 0 {
				return true
			}
			if kind, named := spec.Type.(*ast.Ident); named && kind.Name == typeName {
				value, _ := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
				values = append(values, value)
			}
			return true
		})
	}
	return values
}

// TestKeysThatAreMissing: whoever leaves out a key that README.md gives without brackets is told which.
func TestKeysThatAreMissing(t *testing.T) {
	p := open(t)
	p.must("open", "config", map[string]any{"node": "p", "work_commands": []any{map[string]any{"worktype": "cat", "command": "cat"}}})
	given := map[string]any{
		"node": "p", "service": "x", "address": "tcp://127.0.0.1:0", "worktype": "cat", "unit": "nonesuch", "kinds": []string{},
	}
	optional := map[string][]string{"stream.listen": {"service"}} // Which may be empty.
	table, _, _ := strings.Cut(readme(t, "Operations"), "\n`config` of `open`:\n")
	checked := 0
	for _, r := range rows(table) {
		op := names(r[0])[0]
		for _, missing := range required(r[1]) {
			if slices.Contains(optional[op], missing) || op == "open" {
				continue
			}
			request := maps.Clone(given)
			delete(request, missing)
			request["op"] = op
			e, code, _ := p.reply(p.send(request))
			if code != string(BadRequest) || !strings.Contains(fmt.Sprint(e["msg"]), fmt.Sprintf("key %q", missing)) {
				t.Errorf("%s without %s was answered %q: %v", op, missing, code, e["msg"])
			}
			checked++
		}
	}
	if checked < 20 {
		t.Errorf("%d keys were left out, want 20 or more: what has become of the table?", checked)
	}
}
