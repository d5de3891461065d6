package runner

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pyreceptor/pyreceptor/go/workceptor/proc"
	"github.com/pyreceptor/pyreceptor/go/workceptor/store"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// A runner with the argument serve=FD does one unit after another for the node at the other end of that descriptor, a
// SOCK_SEQPACKET socket: a message is a packet, its first byte the kind.
const (
	msgRun     = 'R' // To the runner: command, NUL, unit directory. The parameters are in the status file.
	msgCancel  = 'C' // To the runner: the directory of the unit to stop. Of no effect if it does another one.
	msgUnread  = 'U' // To the runner: the directory of a unit that has ended. Nobody waits for more of its output.
	msgRelease = 'D' // To the runner: the directory of a unit that has ended, and is released.
	msgRunning = 'S' // To the node: the command's process ID and when it was started, in nanoseconds of Unix time.
	msgFinal   = 'F' // To the node: the final status file; its checksum, and what makes it durable, follow.
	msgEnded   = 'E' // To the node: the final status file, or nothing if that is too long. The runner waits for a unit.
	msgLast    = 'L' // The same, but the runner ends.

	// MaxMessage is the most bytes that a message has.
	MaxMessage = 16 << 10
)

const serveArgument = "serve="

// ServeArguments returns the arguments, program name left out, of a runner that serves on file descriptor fd.
func ServeArguments(logLevel string, fd int) []string {
	return []string{"--node", "id=worker", "--log-level", logLevel, directive, serveArgument + strconv.Itoa(fd)}
}

// RunMessage asks for a unit; too long, it is nil.
func RunMessage(command, unitDir string) []byte { return message(msgRun, command+"\x00"+unitDir) }

// CancelMessage asks for the end of that unit.
func CancelMessage(unitDir string) []byte { return message(msgCancel, unitDir) }

// UnreadMessage says that nobody waits for more output of that unit, which has ended: its checksum keeps nobody waiting now.
func UnreadMessage(unitDir string) []byte { return message(msgUnread, unitDir) }

// ReleaseMessage says that nobody wants that unit, which has ended, any more: its checksum need not be computed.
func ReleaseMessage(unitDir string) []byte { return message(msgRelease, unitDir) }

func message(kind byte, text string) []byte {
	if len(text) >= MaxMessage {
		return nil
	}
	return append([]byte{kind}, text...)
}

// Report is a message of the runner.
type Report struct {
	Program int       // The command runs with this process ID; 0 if the message says something else.
	Began   time.Time // When it was started.
	Ended   bool      // The unit has ended.
	Last    bool      // The runner takes no other unit.
	Status  []byte    // The final status file; empty if the message had no room for it.
}

// ParseReport reads a message of a runner.
func ParseReport(msg []byte) (Report, error) {
	if len(msg) == 0 {
		return Report{}, errReport
	}
	switch kind, text := msg[0], msg[1:]; kind {
	case msgRunning:
		var pid int
		var began int64
		if _, err := fmt.Sscan(string(text), &pid, &began); err != nil || pid <= 1 {
			return Report{}, errReport
		}
		return Report{Program: pid, Began: time.Unix(0, began).UTC()}, nil
	case msgFinal:
		return Report{Status: text}, nil
	case msgEnded, msgLast:
		return Report{Ended: true, Last: kind == msgLast, Status: text}, nil
	}
	return Report{}, errReport
}

var errReport = fmt.Errorf("%s: unknown message of a runner", directive)

// node is the node that a runner serves. A nil one is nobody.
type node struct {
	conn    *os.File
	runs    chan string // Content of msgRun.
	cancels chan string
	unread  chan string
	release chan string
	gone    chan struct{} // Closed when the node has closed its end, or died.
}

func (n *node) read() {
	defer close(n.gone)
	buf := make([]byte, MaxMessage)
	for {
		size, err := n.conn.Read(buf)
		if err != nil || size == 0 {
			return
		}
		switch text := string(buf[1:size]); buf[0] {
		case msgRun:
			n.runs <- text // Taken as soon as the runner has no unit, and the node sends one only then.
		case msgCancel:
			offer(n.cancels, text)
		case msgUnread:
			offer(n.unread, text)
		case msgRelease:
			offer(n.release, text)
		default:
			return
		}
	}
}

// offer leaves out what was asked for often enough.
func offer(to chan<- string, text string) {
	select {
	case to <- text:
	default:
	}
}

// lost reports whether there is no node, or not any more.
func (n *node) lost() bool {
	if n == nil {
		return true
	}
	select {
	case <-n.gone:
		return true
	default:
		return false
	}
}

func (n *node) stops() <-chan string {
	if n == nil {
		return nil
	}
	return n.cancels
}

func (n *node) send(kind byte, text string) (sent bool) {
	if n.lost() {
		return false
	}
	_, err := n.conn.Write(append([]byte{kind}, text...))
	return err == nil
}

// serve does units until the node has gone, a signal comes, or a unit has left something behind.
func serve(fd int) int {
	syscall.CloseOnExec(fd)
	if err := syscall.SetNonblock(fd, true); err != nil {
		return complain(fmt.Errorf("connection to the node: %w", err))
	}
	n := &node{
		conn: os.NewFile(uintptr(fd), "node"), runs: make(chan string), cancels: make(chan string, 4), unread: make(chan string, 4),
		release: make(chan string, 4), gone: make(chan struct{}),
	}
	go n.read() // Ends with the process at the latest.
	stops := make(chan os.Signal, 4)
	signal.Notify(stops, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	adoptOrphans()
	// It waits most of the time, and more threads would only wake each other; but its first unit does not wait for that.
	time.AfterFunc(firstTick, func() { runtime.GOMAXPROCS(1) })
	for {
		select {
		case <-stops:
			return exitError
		case <-n.gone:
			return 0
		case <-n.cancels: // Of a unit that has ended already.
		case <-n.unread:
		case <-n.release:
		case text := <-n.runs:
			command, unitDir, _ := strings.Cut(text, "\x00")
			r := &runner{options: options{command: command, unitDir: unitDir}, dir: store.At(unitDir), stops: stops, node: n}
			if !r.serveOne() {
				return 0
			}
		}
	}
}

// serveOne does one unit and reports whether the runner may do another one.
func (r *runner) serveOne() (more bool) {
	code := r.serveUnit()
	kind := byte(msgEnded)
	if code == exitError && r.final == nil || r.stopped != "" || !childless() {
		kind = msgLast // What the command has left behind is not for the next unit to end.
	}
	r.release() // Before the node hears of the end: a unit that is released has no room on the disk any more.
	sent := r.node.send(kind, r.finalText())
	if !sent && r.final != nil { // The node has gone.
		r.settle()
	}
	return sent && kind == msgEnded
}

// settle makes the result durable, and the directory, which the node may have had no time for.
func (r *runner) settle() {
	var err error
	if !r.late {
		err = r.dir.SyncResult()
	}
	if err = errors.Join(err, r.dir.SyncEntry()); err != nil {
		r.complain(err)
	}
}

// finalText is the final status file if it has room in a message.
func (r *runner) finalText() string {
	if len(r.final) >= MaxMessage {
		return ""
	}
	return string(r.final)
}

func (r *runner) serveUnit() int {
	if err := r.take(); err != nil {
		return complain(err)
	}
	rec, err := r.dir.Look()
	if err != nil {
		return complain(err)
	}
	extra := rec.Command()
	if rec.State != unit.Pending || extra == nil {
		return complain(fmt.Errorf("unit in %s has been started or has ended already", r.unitDir))
	}
	r.params, r.known = extra.Params, &rec
	if err := r.start(); err != nil {
		return r.finish(unit.Fail, err.Error(), startOutcome(err), exitError)
	}
	return r.watch()
}

// take makes the process the unit's runner.
func (r *runner) take() (err error) {
	var before store.RunnerInfo
	if r.lock, before, err = r.dir.LockRunner(); err != nil {
		return err
	}
	if before.Runner != 0 {
		return fmt.Errorf("unit in %s has had a runner already", r.unitDir)
	}
	r.info = store.RunnerInfo{Boot: proc.BootID(), Runner: os.Getpid(), RunnerStart: ownStart()}
	return r.lock.Write(r.info)
}

// release closes what was opened for the unit.
func (r *runner) release() {
	if r.stdout != nil {
		r.stdout.Close()
	}
	r.digest.close()
	if r.lock != nil {
		r.lock.Close()
	}
}
