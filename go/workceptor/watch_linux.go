package workceptor

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/workceptor/store"
)

// watched is what learns of changes in a unit directory. The methods are called from one goroutine and must be quick.
type watched interface {
	statusChanged()
	outputChanged()
	runnerChanged() // Somebody who could write the runner's lock file has closed it, by dying for instance.
	directoryGone()
}

// rescanEvery is how often directories are looked at that the kernel would not watch for us.
const rescanEvery = time.Second

// Of a command that writes without a pause nobody needs to hear at every write.
const (
	flowGap  = time.Millisecond     // What comes within this time of the last is without a pause.
	flowFrom = 16                   // So many times in a row are much.
	flowRest = 2 * time.Millisecond // How long nothing is heard then, of other units either.
)

// watcher turns changes of unit directories into calls: one inotify instance and one goroutine for all of them, made
// when the first directory is to be watched.
type watcher struct {
	log    *slog.Logger
	caught func(*fault.Error) // See Config.OnPanic.
	wg     sync.WaitGroup
	closed chan struct{}

	mu        sync.Mutex
	started   bool
	file      *os.File // nil if the user's inotify instances are used up: everything is polled then.
	byWD      map[int32]watched
	watches   map[watched]*watch
	unwatched map[watched]bool // Polled, because the kernel would not watch it for us.
}

// watch is one of a directory, or of an output file.
type watch struct {
	path string
	mask uint32
	wd   int32 // Negative while it rests.
}

const (
	resting = -1

	watchMask = unix.IN_MOVED_TO | unix.IN_CLOSE_WRITE | unix.IN_CREATE | unix.IN_MODIFY | unix.IN_DELETE_SELF |
		unix.IN_MOVE_SELF | unix.IN_ONLYDIR | unix.IN_DONT_FOLLOW
	fileMask = unix.IN_MODIFY | unix.IN_DONT_FOLLOW
)

func newWatcher(log *slog.Logger, caught func(*fault.Error)) *watcher {
	return &watcher{
		log: log, caught: caught, closed: make(chan struct{}),
		byWD: map[int32]watched{}, watches: map[watched]*watch{}, unwatched: map[watched]bool{},
	}
}

// close ends all watching and waits for the goroutine. It is called once.
func (w *watcher) close() {
	w.mu.Lock()
	close(w.closed)
	w.started = true
	if w.file != nil {
		w.file.Close()
	}
	w.mu.Unlock()
	w.wg.Wait()
}

func (w *watcher) startLocked() {
	if w.started {
		return
	}
	w.started = true
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		w.log.Warn("units are polled because inotify is not available; raise fs.inotify.max_user_instances", "err", err)
		w.goLocked(w.poll)
		return
	}
	w.file = os.NewFile(uintptr(fd), "inotify")
	w.goLocked(func() { w.run(w.file) })
}

func (w *watcher) goLocked(f func()) {
	w.wg.Go(func() {
		defer fault.Catch(w.caught)
		f()
	})
}

// poll looks at all directories once in a while: there is nothing that would tell us.
func (w *watcher) poll() {
	tick := time.NewTicker(rescanEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			w.rescan(true)
		case <-w.closed:
			return
		}
	}
}

// add begins to watch path for t. What changed before is not told. If the kernel refuses, the directory is polled.
func (w *watcher) add(path string, t watched) { w.begin(t, &watch{path: path, mask: watchMask}) }

// addFile is add for an output file, of which nothing but new output is told.
func (w *watcher) addFile(path string, t watched) { w.begin(t, &watch{path: path, mask: fileMask}) }

func (w *watcher) begin(t watched, what *watch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.startLocked()
	if w.file == nil {
		w.unwatched[t] = true
		return
	}
	if err := w.listenLocked(t, what); err != nil {
		w.pollLocked(t, what, err)
	}
}

// listenLocked has the kernel tell of what happens.
func (w *watcher) listenLocked(t watched, what *watch) error {
	wd := resting
	err := w.control(func(fd int) (err error) {
		wd, err = unix.InotifyAddWatch(fd, what.path, what.mask)
		return err
	})
	if err == nil {
		what.wd = int32(wd)
		w.byWD[what.wd], w.watches[t] = t, what
	}
	return err
}

func (w *watcher) pollLocked(t watched, what *watch, err error) {
	delete(w.watches, t)
	w.log.Warn("unit is polled because it cannot be watched; raise fs.inotify.max_user_watches", "path", what.path, "err", err)
	w.unwatched[t] = true
	w.file.SetReadDeadline(time.Now().Add(rescanEvery))
}

// remove ends the watch. A call that is under way may still come through.
func (w *watcher) remove(t watched) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.unwatched, t)
	if old := w.watches[t]; old != nil {
		delete(w.watches, t)
		w.ignoreLocked(t, old)
	}
}

func (w *watcher) ignoreLocked(t watched, old *watch) {
	if w.byWD[old.wd] != t { // It rests, or the file has become another unit's.
		return
	}
	delete(w.byWD, old.wd)
	// An error means that what was watched is gone and the watch with it.
	w.control(func(fd int) error { _, err := unix.InotifyRmWatch(fd, uint32(old.wd)); return err })
	old.wd = resting
}

func (w *watcher) control(f func(fd int) error) error {
	raw, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	return errors.Join(raw.Control(func(fd uintptr) { inner = f(int(fd)) }), inner)
}

// flow knows whether a command writes without a pause. It is pure.
type flow struct {
	heard time.Time // When the last events had been told of,
	times int       // and how many times in a row they came at once and said no more than that there is output.
}

// much notes what has come and reports whether it is worth a rest.
func (f *flow) much(at time.Time, output bool) bool {
	if !output || at.Sub(f.heard) >= flowGap {
		f.times = 0
		return false
	}
	f.times++
	return f.times >= flowFrom
}

// rest lets the events of much output come together: every one that is waited for costs the command that writes it more
// than the writing does. Output files are not watched meanwhile: that every write is noted costs it, too.
func (w *watcher) rest(busy []watched) {
	w.mu.Lock()
	for _, t := range busy {
		if of := w.watches[t]; of != nil && of.mask == fileMask {
			w.ignoreLocked(t, of)
		}
	}
	w.mu.Unlock()
	timer := time.NewTimer(flowRest)
	defer timer.Stop()
	select {
	case <-timer.C:
		w.resume(busy)
	case <-w.closed:
	}
}

// resume watches again what rested, and tells of the output that may have come meanwhile.
func (w *watcher) resume(busy []watched) {
	var again []watched
	w.mu.Lock()
	for _, t := range busy {
		of := w.watches[t]
		if of == nil || of.wd != resting {
			continue
		}
		again = append(again, t)
		if err := w.listenLocked(t, of); err != nil && !errors.Is(err, fs.ErrNotExist) { // Else it is being released.
			w.pollLocked(t, of, err)
		}
	}
	w.mu.Unlock()
	for _, t := range again {
		t.outputChanged()
	}
}

func (w *watcher) run(file *os.File) {
	buf := make([]byte, 64<<10)
	var f flow
	for {
		n, err := file.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			w.rescan(false)
		case err != nil:
			return // Closed.
		default:
			at := time.Now()
			if busy := w.handle(buf[:n]); f.much(at, len(busy) > 0) {
				w.rest(busy)
			}
			f.heard = time.Now()
		}
	}
}

// what a batch of events says about one directory.
type news struct{ status, output, runner, gone bool }

// handle tells of events. If they are of output and nothing else, it returns whose.
func (w *watcher) handle(events []byte) (busy []watched) {
	seen := map[watched]*news{}
	var order []watched
	overflow := false
	w.mu.Lock()
	for len(events) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(events))
		mask := binary.NativeEndian.Uint32(events[4:])
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(events[12:]))
		name := strings.TrimRight(string(events[unix.SizeofInotifyEvent:end]), "\x00")
		events = events[end:]
		overflow = overflow || mask&unix.IN_Q_OVERFLOW != 0
		if t := w.byWD[wd]; t != nil {
			if seen[t] == nil {
				seen[t] = new(news)
				order = append(order, t)
			}
			seen[t].note(mask, name)
		}
	}
	w.mu.Unlock()
	output := !overflow
	for _, t := range order {
		output = output && *seen[t] == news{output: true}
		seen[t].tell(t)
	}
	if overflow {
		w.rescan(true)
	}
	if !output {
		return nil
	}
	return order
}

func (n *news) note(mask uint32, name string) {
	switch {
	case mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF) != 0:
		n.gone = true
	case name == "" && mask&unix.IN_MODIFY != 0: // Of a watched output file.
		n.output = true
	case name == store.StatusFile && mask&(unix.IN_MOVED_TO|unix.IN_CLOSE_WRITE) != 0:
		n.status = true
	case name == store.StdoutFile && mask&(unix.IN_CREATE|unix.IN_MODIFY|unix.IN_MOVED_TO) != 0:
		n.output = true
	case name == store.RunnerFile && mask&unix.IN_CLOSE_WRITE != 0:
		n.runner = true
	}
}

func (n *news) tell(t watched) {
	if n.output {
		t.outputChanged()
	}
	if n.status {
		t.statusChanged()
	}
	if n.runner {
		t.runnerChanged()
	}
	if n.gone {
		t.directoryGone()
	}
}

// rescan tells everybody, or those who are polled, that anything may have changed.
func (w *watcher) rescan(all bool) {
	w.mu.Lock()
	var targets []watched
	for t := range w.unwatched {
		targets = append(targets, t)
	}
	if all {
		for t := range w.watches {
			targets = append(targets, t)
		}
	}
	var next time.Time
	if len(w.unwatched) > 0 {
		next = time.Now().Add(rescanEvery)
	}
	if w.file != nil {
		w.file.SetReadDeadline(next)
	}
	w.mu.Unlock()
	for _, t := range targets {
		(&news{status: true, output: true, runner: true}).tell(t)
	}
}
