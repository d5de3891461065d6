package workceptor

import (
	"encoding/binary"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/workceptor/store"
)

// TestWithoutInotify: where the user's inotify instances are used up units still run, end and are read.
func TestWithoutInotify(t *testing.T) {
	e := localEngine(t)
	e.watch.mu.Lock()
	e.watch.started = true
	e.watch.wg.Go(e.watch.poll)
	e.watch.mu.Unlock()
	id := submit(t, e, request("localhost", "sh", `"cat; exit 3"`), "payload")
	if got := output(t, e, id, 0); got != "payload" {
		t.Errorf("got output %q", got)
	}
	wantStatus(t, wait(t, e, id), Failed, "exit status 3", 7)
}

// noted is a directory that counts what it is told.
type noted struct{ status, output, runner, gone int }

func (n *noted) statusChanged() { n.status++ }
func (n *noted) outputChanged() { n.output++ }
func (n *noted) runnerChanged() { n.runner++ }
func (n *noted) directoryGone() { n.gone++ }

// TestOverflow: when the kernel had to drop events, everybody is told that anything may have changed.
func TestOverflow(t *testing.T) {
	w := newWatcher(slog.New(slog.DiscardHandler), nil)
	defer w.close()
	var a, b noted
	w.byWD[1], w.watches[&a] = &a, &watch{wd: 1}
	w.unwatched[&b] = true
	event := make([]byte, unix.SizeofInotifyEvent)
	event[5] = unix.IN_Q_OVERFLOW >> 8
	w.handle(event)
	if want := (noted{1, 1, 1, 0}); a != want || b != want {
		t.Errorf("got %+v and %+v, want %+v", a, b, want)
	}
}

// TestEventsOfMuchOutputComeTogether: those of a command that writes without a pause, and of no other.
func TestEventsOfMuchOutputComeTogether(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	var f flow
	comes := func(times int, gap time.Duration, output bool) (rests int) {
		for range times {
			at = at.Add(gap)
			if f.much(at, output) {
				rests++
				at = at.Add(flowRest)
			}
			f.heard = at
		}
		return rests
	}
	const soon = flowGap / 10
	for i, c := range []struct {
		times  int
		gap    time.Duration
		output bool
		want   int
	}{
		{1, time.Second, true, 0},
		{flowFrom - 1, soon, true, 0},
		{100, soon, true, 100},
		{1, soon, false, 0}, // Something else is told at once, and those after it.
		{flowFrom - 1, soon, true, 0},
		{100, flowGap, true, 0}, // With pauses.
		{flowFrom, soon, true, 1},
	} {
		if got := comes(c.times, c.gap, c.output); got != c.want {
			t.Errorf("step %d: %d rests, want %d", i, got, c.want)
		}
	}
}

// TestWhatEventsSay: only batches of nothing but output may wait.
func TestWhatEventsSay(t *testing.T) {
	w := newWatcher(slog.New(slog.DiscardHandler), nil)
	defer w.close()
	var a noted
	w.byWD[1], w.watches[&a] = &a, &watch{wd: 1}
	event := func(mask uint32, name string) []byte {
		text := make([]byte, 16) // Names are padded with zeros.
		copy(text, name)
		b := binary.NativeEndian.AppendUint32(nil, 1)
		b = binary.NativeEndian.AppendUint32(b, mask)
		b = binary.NativeEndian.AppendUint32(b, 0)
		b = binary.NativeEndian.AppendUint32(b, uint32(len(text)))
		return append(b, text...)
	}
	ignored := slices.Concat(binary.NativeEndian.AppendUint32(nil, 9), event(unix.IN_IGNORED, "")[4:]) // Of a directory that is not watched any more.
	written, moved := event(unix.IN_MODIFY, store.StdoutFile), event(unix.IN_MOVED_TO, store.StatusFile)
	for _, c := range []struct {
		events []byte
		want   bool
	}{{written, true}, {slices.Concat(written, written), true}, {moved, false}, {ignored, false}, {slices.Concat(written, moved), false}} {
		if got := w.handle(c.events); c.want != slices.Equal(got, []watched{&a}) || !c.want && got != nil {
			t.Errorf("%x: got %v", c.events, got)
		}
	}
	if want := (noted{output: 3, status: 2}); a != want {
		t.Errorf("got %+v, want %+v", a, want)
	}
}

// TestNothingIsMissedWhileItRests: output that comes while nobody listens is told afterwards, and so is what comes then; of a unit
// that is not watched any more nothing is.
func TestNothingIsMissedWhileItRests(t *testing.T) {
	w := newWatcher(slog.New(slog.DiscardHandler), nil)
	defer w.close()
	one, two, gone := make(listener, 100), make(listener, 100), make(listener, 100)
	path := func(name string) string { return filepath.Join(t.TempDir(), name) }
	files := map[listener]string{one: path("one"), two: path("two"), gone: path("gone")}
	for l, path := range files {
		write(t, path)
		w.addFile(path, l)
	}
	w.remove(two)
	if err := os.Remove(files[gone]); err != nil {
		t.Fatal(err)
	}
	w.rest([]watched{one, two, gone})
	<-one
	if _, polled := w.unwatched[gone]; polled {
		t.Error("a file that is gone is polled")
	}
	write(t, files[two])
	write(t, files[one])
	<-one
	if len(two) > 0 {
		t.Error("it is told of what is not watched any more")
	}
	w.remove(one)
	if len(w.byWD) > 0 || len(w.watches) > 1 {
		t.Errorf("still watched: %v, %v", w.byWD, w.watches)
	}
}

// TestFileOfTheNextUnit: the watch of a file that another unit has got is that unit's.
func TestFileOfTheNextUnit(t *testing.T) {
	w := newWatcher(slog.New(slog.DiscardHandler), nil)
	defer w.close()
	path := filepath.Join(t.TempDir(), "stdout")
	write(t, path)
	first, second := make(listener, 100), make(listener, 100)
	w.addFile(path, first)
	w.addFile(path, second)
	w.remove(first)
	write(t, path)
	<-second
	if len(first) > 0 {
		t.Error("the unit before is told of it")
	}
}

// listener gets a token for every time that it is told of output.
type listener chan struct{}

func (l listener) outputChanged() { l <- struct{}{} }
func (listener) statusChanged()   {}
func (listener) runnerChanged()   {}
func (listener) directoryGone()   {}

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("output"), 0o600); err != nil {
		t.Fatal(err)
	}
}
