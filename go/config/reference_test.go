package config

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestGeneratedPages compares the pages that are made of the table of directives with those in this directory.
func TestGeneratedPages(t *testing.T) {
	for _, page := range []struct {
		file, flag string
		write      func(io.Writer) error
	}{
		{"REFERENCE.md", "--reference", func(w io.Writer) error { return WriteReference(w, "receptor") }},
		{"receptor.schema.json", "--json-schema", WriteJSONSchema},
	} {
		var b bytes.Buffer
		if err := page.write(&b); err != nil {
			t.Fatal(err)
		}
		golden, err := os.ReadFile(page.file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b.Bytes(), golden) {
			t.Errorf("%s is not what the directives say; make it again with: go run ./go/cmd/receptor %s > go/config/%s", page.file, page.flag, page.file)
		}
	}
}

// TestJSONSchemaNamesEverything looks for each directive and parameter where a file of either format would have it.
func TestJSONSchemaNamesEverything(t *testing.T) {
	var b bytes.Buffer
	if err := WriteJSONSchema(&b); err != nil {
		t.Fatal(err)
	}
	var s struct {
		OneOf []struct {
			Items      struct{ AnyOf []map[string]any }
			Properties map[string]any
		}
		Defs map[string]struct {
			Properties map[string]map[string]any
			Required   []string
		} `json:"$defs"`
	}
	if err := json.Unmarshal(b.Bytes(), &s); err != nil {
		t.Fatal(err)
	}
	for _, d := range schema() {
		def, found := s.Defs[d.name]
		if found == d.hidden {
			t.Errorf("%s: found %v, hidden %v", d.name, found, d.hidden)
		}
		if d.hidden {
			continue
		}
		if _, ok := s.OneOf[1].Properties[d.keyV2()]; !ok && d.name != "version" {
			t.Errorf("%s is not a key of version 2", d.keyV2())
		}
		for _, q := range d.params {
			if def.Properties[q.name]["description"] != q.help || slices.Contains(def.Required, q.name) != q.required {
				t.Errorf("%s %s: got %v", d.name, q.name, def.Properties[q.name])
			}
		}
	}
}

func TestF012CompletionOfValuesAndOtherShells(t *testing.T) {
	var b bytes.Buffer
	if err := WriteCompletion(&b, "rec"); err != nil {
		t.Fatal(err)
	}
	if bash, err := exec.LookPath("bash"); err == nil {
		script := write(t, "completion", b.String())
		for _, tc := range []struct {
			words []string
			want  string
		}{
			{[]string{"rec", "--log-level", "level", "="}, "error warning info debug"},
			{[]string{"rec", "--log-level", "level", "=", "d"}, "debug"},
			{[]string{"rec", "--tcp-peer", "redial", "=", ""}, "true false"},
			{[]string{"rec", "--tcp-peer", "address", "=", ""}, ""},
			{[]string{"rec", "--chec"}, "--check"},
		} {
			run := `. "$1"; shift; compopt() { :; }; COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); _rec_completion; echo "${COMPREPLY[@]}"`
			out, err := exec.Command(bash, append([]string{"-c", run, "bash", script}, tc.words...)...).CombinedOutput()
			if got := strings.TrimSpace(string(out)); err != nil || got != tc.want {
				t.Errorf("%q: got %q (%v), want %q", tc.words, got, err, tc.want)
			}
		}
	}
	for _, shell := range []struct {
		name  string
		write func(io.Writer, string) error
		wants []string
	}{
		{"zsh", WriteZshCompletion, []string{"#compdef rec\n", "'--tcp-peer:Keep a link", "tcp-peer) params=('address=:", "'--check:"}},
		{"fish", WriteFishCompletion, []string{"complete -c 'rec' -l tcp-peer -d 'Keep a link", "-a 'level=debug'", "-l config -r -F -s c", `node\'s`}},
	} {
		var b bytes.Buffer
		if err := shell.write(&b, "rec"); err != nil {
			t.Fatal(err)
		}
		for _, want := range shell.wants {
			if !strings.Contains(b.String(), want) {
				t.Errorf("%s: no %q in the script", shell.name, want)
			}
		}
		if program, err := exec.LookPath(shell.name); err == nil {
			if out, err := exec.Command(program, "-n", write(t, "script", b.String())).CombinedOutput(); err != nil {
				t.Errorf("%s does not read its script: %v\n%s", shell.name, err, out)
			}
		}
	}
}

func TestCheckAndShowConfigActions(t *testing.T) {
	for args, want := range map[string]Action{
		"--check --node a": Check, "--node a --check": Check, "--node a --Show-Config": ShowEffective, "--check": Check,
		"--reference": ShowReference, "--json-schema": ShowSchema, "--zsh-completion": ShowZsh, "--fish-completion": ShowFish,
		"--check --version": ShowVersion,
	} {
		if got := mustParse(t, strings.Fields(args)...).Action; got != want {
			t.Errorf("%s: got action %d, want %d", args, got, want)
		}
	}
	cfg, err := ParseArgs([]string{"--check", "--tcp-listener", "--tcp-peer", "h:1"})
	if err != nil || cfg.Action != Check || len(cfg.Directives) != 1 || cfg.Directives[0].Name != "tcp-peer" {
		t.Fatalf("got %+v, %v; want what can be checked further", cfg, err)
	}
	wantError(t, cfg.Wrong, "error in --tcp-listener: required parameter missing: port")
}
