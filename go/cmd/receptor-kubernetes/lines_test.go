package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/pyreceptor/pyreceptor/go/workceptor/store"
)

// scratch is the output of no unit.
func scratch(t testing.TB) *output {
	t.Helper()
	o, err := openOutput(store.At(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.close)
	return o
}

func (o *output) content(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile(o.dir.File(store.StdoutFile))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// since is what a cluster sends that is asked for a log from a time on, of which it knows the second.
func since(log string, at time.Time) string {
	var b strings.Builder
	for line := range strings.Lines(log) {
		stamp, _, _ := strings.Cut(line, " ")
		if when, err := time.Parse(time.RFC3339Nano, stamp); err != nil || at.IsZero() || !when.Before(at.Truncate(time.Second)) {
			b.WriteString(line)
		}
	}
	return b.String()
}

// TestF170LogIsCutAnywhere cuts a log at each byte, and the one after it too, with the same process going on or another.
func TestF170LogIsCutAnywhere(t *testing.T) {
	one := stamped(0, "one\n")
	first := one + stamped(30, "before the clock was set\n") + stamped(0.5, "late\n")
	log := first + stamped(31, "one\n") + stamped(31, "\n") + stamped(32.5, "two words\n") + stamped(32.5, "two words\n") + stamped(32.25, "late\n") +
		stamped(33, " \n") + stamped(61, "a long line that is cut\n") + stamped(61, "no end")
	var want strings.Builder
	for line := range strings.Lines(log) {
		_, body, _ := strings.Cut(line, " ")
		want.WriteString(body)
	}
	broken := errors.New("broken")
	for cut := range len(log) {
		if cut > len(one) && cut < len(first) {
			continue // A cluster that is asked for a time does not send what was said later and dated before.
		}
		for i := range 4 {
			restart, clean := i&1 != 0, i&2 != 0
			o, end := scratch(t), broken
			if clean {
				end = io.EOF
			}
			if err := o.copyLines(io.MultiReader(strings.NewReader(log[:cut]), iotest.ErrReader(end))); !clean && !errors.Is(err, broken) || clean && err != nil {
				t.Fatal(err)
			}
			if restart {
				dir := o.dir
				o.close()
				var err error
				if o, err = openOutput(dir); err != nil {
					t.Fatal(err)
				}
				o.restore()
			}
			if err := o.copyLines(iotest.OneByteReader(strings.NewReader(since(log, o.place.Since)))); err != nil {
				t.Fatal(err)
			}
			if err := o.finishLines(); err != nil {
				t.Fatal(err)
			}
			if got := o.content(t); got != want.String() {
				t.Fatalf("cut at byte %d (%q), restart %v, in good order %v: got %q, want %q", cut, log[:cut], restart, clean, got, want.String())
			}
			o.close()
		}
	}
}

// What the cluster says itself has no time, and is kept.
func TestF170WordsOfTheCluster(t *testing.T) {
	o := scratch(t)
	const words = "unable to retrieve container logs for containerd://1234"
	if err := o.copyLines(strings.NewReader(stamped(0, "one\n") + "\n" + words)); err != nil {
		t.Fatal(err)
	}
	if err := o.finishLines(); err != nil {
		t.Fatal(err)
	}
	if got := o.content(t); got != "one\n\n"+words {
		t.Errorf("got %q", got)
	}
}

// FuzzLogLines: however the pieces of a log come, the output is the same, and no longer than the log.
func FuzzLogLines(f *testing.F) {
	f.Add([]byte(stamped(0, "one\n")+stamped(0, "two\n")), byte(3))
	f.Add([]byte("no time\n\n2026-01-01T00:00:00Z"), byte(1))
	f.Add(bytes.Repeat([]byte("x"), 200), byte(70))
	f.Fuzz(func(t *testing.T, log []byte, size byte) {
		whole, pieces := scratch(t), scratch(t)
		if err := whole.copyLines(bytes.NewReader(log)); err != nil {
			t.Fatal(err)
		}
		l := &lines{out: pieces}
		for rest := log; ; {
			n := min(int(size)+1, len(rest))
			if err := l.take(rest[:n]); err != nil {
				t.Fatal(err)
			}
			if rest = rest[n:]; len(rest) == 0 {
				break
			}
		}
		pieces.head = l.head
		for _, o := range []*output{whole, pieces} {
			if err := o.finishLines(); err != nil {
				t.Fatal(err)
			}
		}
		if a, b := whole.content(t), pieces.content(t); a != b || len(a) > len(log) {
			t.Errorf("got %q in pieces of %d, and %q at once", b, size, a)
		}
		if leftovers, _ := filepath.Glob(whole.dir.File("*.tmp")); leftovers != nil {
			t.Errorf("left: %v", leftovers)
		}
	})
}
