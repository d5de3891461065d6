package workceptor

import (
	"log/slog"
	"testing"

	"golang.org/x/sys/unix"
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
	w := newWatcher(slog.New(slog.DiscardHandler))
	defer w.close()
	var a, b noted
	w.byWD[1], w.wds[&a] = &a, 1
	w.unwatched[&b] = true
	event := make([]byte, unix.SizeofInotifyEvent)
	event[5] = unix.IN_Q_OVERFLOW >> 8
	w.handle(event)
	if want := (noted{1, 1, 1, 0}); a != want || b != want {
		t.Errorf("got %+v and %+v, want %+v", a, b, want)
	}
}
