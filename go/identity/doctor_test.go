package identity

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestExamine(t *testing.T) {
	dir := t.TempDir()
	made, err := MeshFiles(dir, []Member{{Node: "hub", Hosts: []string{"hub.example", "10.0.0.1"}}, {Node: "edge ü"}}, 1024, Validity{})
	if err != nil || len(made) != 6 {
		t.Fatalf("made %v, %v", made, err)
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	other := t.TempDir()
	if _, err := MeshFiles(other, []Member{{Node: "x"}}, 1024, Validity{}); err != nil {
		t.Fatal(err)
	}
	both := append(mustRead(t, file("ca.crt")), mustRead(t, file("hub.crt"))...)
	if err := os.WriteFile(file("swapped.crt"), both, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file("open.key"), mustRead(t, file("hub.key")), 0o644); err != nil {
		t.Fatal(err)
	}
	year := time.Now().AddDate(1, 0, 0)
	for name, tc := range map[string]struct {
		x                    Examination
		good, warn, problems string // What each list contains; "" is nothing.
	}{
		"all is well":   {Examination{File: file("hub.crt"), Key: file("hub.key"), CA: file("ca.crt"), Node: "hub", Host: "hub.example"}, "it is for the node hub", "", ""},
		"by address":    {Examination{File: file("hub.crt"), Host: "10.0.0.1"}, "for the host 10.0.0.1", "", ""},
		"another node":  {Examination{File: file("hub.crt"), Node: "edge"}, "valid", "", "it is for the nodes [hub], not for edge"},
		"no node":       {Examination{File: file("ca.crt"), Node: "hub"}, "valid", "", "it carries no node ID"},
		"another host":  {Examination{File: file("hub.crt"), Host: "h"}, "valid", "", "not for h"},
		"another key":   {Examination{File: file("hub.crt"), Key: file("edge ü.key")}, "valid", "", "private key does not match public key"},
		"wrong order":   {Examination{File: file("swapped.crt"), Key: file("hub.key")}, "valid", "", "comes first"},
		"another CA":    {Examination{File: file("hub.crt"), CA: filepath.Join(other, "ca.crt")}, "valid", "", "no CA of"},
		"its own CA":    {Examination{File: file("hub.crt"), CA: file("hub.crt")}, "valid", "holds itself", ""},
		"among the CAs": {Examination{File: file("hub.crt"), CA: file("swapped.crt")}, "a CA of", "", ""},
		"expired":       {Examination{File: file("hub.crt"), Now: year.AddDate(0, 0, 2)}, "", "", "expired on"},
		"not yet":       {Examination{File: file("hub.crt"), Now: time.Now().AddDate(0, 0, -2)}, "", "", "is the clock right?"},
		"expires soon":  {Examination{File: file("hub.crt"), Now: year.AddDate(0, 0, -10)}, "", "expires in", ""},
		"a key":         {Examination{File: file("hub.key"), Key: file("hub.key")}, "belongs to it", "", ""},
		"an open key":   {Examination{File: file("open.key")}, "", "chmod 600", ""},
		"a key, signed": {Examination{File: file("hub.key"), CA: file("ca.crt")}, "", "", "only a certificate is signed"},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := Examine(tc.x)
			if err != nil {
				t.Fatal(err)
			}
			for what, l := range map[string]struct {
				texts []string
				want  string
			}{"good": {d.Good, tc.good}, "warnings": {d.Warnings, tc.warn}, "problems": {d.Problems, tc.problems}} {
				text := strings.Join(l.texts, "; ")
				if l.want == "" && what != "good" && text != "" || !strings.Contains(text, l.want) {
					t.Errorf("%s: got %q, want %q", what, text, l.want)
				}
			}
			if (d.Err() == nil) != (tc.problems == "") {
				t.Errorf("got error %v", d.Err())
			}
		})
	}
	d, err := Examine(Examination{File: file("edge ü.crt")})
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := d.Write(&text); err != nil || !strings.Contains(text.String(), "edge ü") || !strings.Contains(text.String(), "RSA (1024 bits)") {
		t.Errorf("got\n%s", &text)
	}
	if _, err := json.Marshal(d); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{file("none"), dir} {
		if _, err := Examine(Examination{File: bad}); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMeshFilesAddsNodesAndOverwritesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	if _, err := MeshFiles(dir, []Member{{Node: "a"}}, 1024, Validity{}); err != nil {
		t.Fatal(err)
	}
	ca := mustRead(t, filepath.Join(dir, "ca.crt"))
	if made, err := MeshFiles(dir, []Member{{Node: "b"}}, 1024, Validity{}); err != nil || len(made) != 2 {
		t.Errorf("made %v, %v", made, err)
	}
	if _, err := MeshFiles(dir, []Member{{Node: "c"}, {Node: "a"}}, 1024, Validity{}); !errors.Is(err, ErrExists) {
		t.Errorf("got %v, want ErrExists", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "c.crt")); err == nil {
		t.Error("half of the nodes were made")
	}
	if !bytes.Equal(ca, mustRead(t, filepath.Join(dir, "ca.crt"))) {
		t.Error("the CA was replaced")
	}
	for _, name := range []string{"ca.key", "a.key", "b.key"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := MeshFiles(dir, []Member{{Node: "d"}}, 1024, Validity{}); !errors.Is(err, ErrExists) {
		t.Errorf("a CA without its key: got %v, want ErrExists", err)
	}
}
