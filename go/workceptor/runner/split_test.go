package runner

import (
	"slices"
	"strings"
	"testing"
)

func TestF158Split(t *testing.T) {
	for text, want := range map[string][]string{
		"":                         nil,
		" \t\n ":                   nil,
		"a-z A-Z":                  {"a-z", "A-Z"},
		`-c "echo hi there"`:       {"-c", "echo hi there"},
		`zero a\ b 'c d' "e \" f"`: {"zero", "a b", "c d", `e " f`},
		"a # comment\nb":           {"a", "b"},
		"a#b '#' \\#":              {"a#b", "#", "#"},
		"#only":                    nil,
		`'' ""`:                    {"", ""},
		`a''b"c"`:                  {"abc"},
		`"a\nb" 'a\nb' a\nb`:       {`a\nb`, `a\nb`, "anb"},
		`"\\ \$x \` + "`" + `y"`:   {`\ $x ` + "`y"},
		"one\\\ntwo \"a\\\nb\"":    {"onetwo", "ab"},
		"$HOME *.go ~":             {"$HOME", "*.go", "~"},
		"grün 日本":                  {"grün", "日本"},
	} {
		if got, err := Split(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: got %q, %v, want %q", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		`-c "oops`: "EOF found when expecting closing quote",
		`'oops`:    "EOF found when expecting closing quote",
		`"oops\"`:  "EOF found when expecting closing quote",
		`"oops\`:   "EOF found when expecting closing quote",
		`oops\`:    "EOF found after escape character",
	} {
		if got, err := Split(text); err == nil || err.Error() != want {
			t.Errorf("%q: got %q, %v, want %s", text, got, err, want)
		}
	}
}

func FuzzSplit(f *testing.F) {
	f.Add(`-c "echo 'a' \"b\"" c\ d # e`)
	f.Fuzz(func(t *testing.T, text string) {
		words, err := Split(text)
		if err != nil {
			return
		}
		// Quoted, the words come back.
		var quoted []string
		for _, word := range words {
			quoted = append(quoted, "'"+strings.ReplaceAll(word, "'", `'\''`)+"'")
		}
		again, err := Split(strings.Join(quoted, " "))
		if err != nil || !slices.Equal(again, words) {
			t.Fatalf("%q: %q came back as %q, %v", text, words, again, err)
		}
	})
}
