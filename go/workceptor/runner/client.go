package runner

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/workceptor/attach"
)

const (
	clientFD = 3
	pipes    = "pipes"

	// drainWait is how long the end of a command waits for output that its children keep open, or the client does not take.
	drainWait = time.Second
	endOfFile = 4 // Ctrl-D, unless the terminal has another.
)

// AttachPipes and AttachTerminal are the values of attach= in [InteractiveArguments].
const AttachPipes = pipes

// AttachTerminal is the value for a terminal of that size and type.
func AttachTerminal(size attach.Size, term string) string {
	return fmt.Sprintf("%d:%d:%s", size.Rows, size.Cols, term)
}

// client is who is attached to an interactive command. A nil one is nobody.
type client struct {
	conn *os.File // A socket.
	term string
	tty  *os.File // The terminal's near end; nil if there is none.

	input   *os.File    // Where Input goes; closed at its end.
	queue   *inputQueue // What the command has not taken of it.
	outputs []*os.File  // What is read, in the order of kinds.
	lost    chan struct{}
	once    sync.Once
	sending sync.Mutex
	copying sync.WaitGroup
	pid     int
}

// attachClient connects to the client and makes what the command gets as standard files.
func attachClient(how string) (c *client, files []*os.File, err error) {
	syscall.CloseOnExec(clientFD)
	if err := syscall.SetNonblock(clientFD, true); err != nil {
		return nil, nil, fmt.Errorf("connection to the client: %w", err)
	}
	c = &client{conn: os.NewFile(clientFD, "client"), lost: make(chan struct{}), queue: newInputQueue()}
	if how == pipes {
		files, err = c.makePipes()
	} else {
		files, err = c.makeTerminal(how)
	}
	return c, files, err
}

func (c *client) makePipes() (files []*os.File, err error) {
	inFar, inNear, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	outNear, outFar, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	errNear, errFar, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c.input, c.outputs = inNear, []*os.File{outNear, errNear}
	return []*os.File{inFar, outFar, errFar}, nil
}

var errTerminal = errors.New("attach= wants pipes, or ROWS:COLS:TERM")

func (c *client) makeTerminal(how string) (files []*os.File, err error) {
	words := strings.SplitN(how, ":", 3)
	if len(words) != 3 {
		return nil, errTerminal
	}
	rows, err1 := strconv.ParseUint(words[0], 10, 16)
	cols, err2 := strconv.ParseUint(words[1], 10, 16)
	if err1 != nil || err2 != nil {
		return nil, errTerminal
	}
	near, far, err := pty.Open()
	if err != nil {
		return nil, fmt.Errorf("terminal: %w", err)
	}
	if near, err = withDeadlines(near); err != nil {
		return nil, fmt.Errorf("terminal: %w", err)
	}
	c.tty, c.term, c.input, c.outputs = near, words[2], near, []*os.File{near}
	if err := c.setSize(attach.Size{Rows: uint16(rows), Cols: uint16(cols)}); err != nil {
		return nil, fmt.Errorf("size of the terminal: %w", err)
	}
	return []*os.File{far, far, far}, nil
}

// withDeadlines replaces a file that package pty has made, which blocks.
func withDeadlines(f *os.File) (*os.File, error) {
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// setSize tells the terminal how large it is. That of package pty would make the file block.
func (c *client) setSize(size attach.Size) error {
	raw, err := c.tty.SyscallConn()
	if err != nil {
		return err
	}
	controlErr := raw.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Cols})
	})
	return errors.Join(err, controlErr)
}

func (c *client) hasTerminal() bool { return c != nil && c.tty != nil }

// gone is closed when the client has hung up.
func (c *client) gone() <-chan struct{} {
	if c == nil {
		return nil
	}
	return c.lost
}

func (c *client) lose() { c.once.Do(func() { close(c.lost) }) }

// begin copies between the client and the command. The goroutines end with the process: what they read from may be kept
// open by processes that outlive the command.
func (c *client) begin(pid int) {
	if c == nil {
		return
	}
	c.pid = pid
	go c.feed()
	go c.take()
	go c.awaitHangup()
	for i, f := range c.outputs {
		c.copying.Go(func() { c.give(attach.Stdout+attach.Kind(i), f) })
	}
}

// give sends what the command writes.
func (c *client) give(kind attach.Kind, from *os.File) {
	buf := make([]byte, 32<<10)
	frame := make([]byte, 0, len(buf)+8)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			frame = attach.Append(frame[:0], kind, buf[:n])
			c.sending.Lock()
			_, sendErr := c.conn.Write(frame)
			c.sending.Unlock()
			if sendErr != nil {
				c.lose()
				return
			}
		}
		if err != nil { // io.EOF; EIO from a terminal that nobody has open.
			return
		}
	}
}

// take does what the client sends until it hangs up.
func (c *client) take() {
	defer c.lose()
	frames := attach.NewReader(c.conn)
	for {
		kind, content, err := frames.Next()
		if err != nil {
			c.queue.drain()
			return
		}
		if c.do(kind, content) != nil {
			return
		}
	}
}

// feed passes input on. A command that has closed its standard input misses it, as in a pipe of a shell.
func (c *client) feed() {
	buf := make([]byte, 32<<10)
	for {
		n := c.queue.next(buf)
		if n == 0 {
			c.input.Close()
			return
		}
		c.input.Write(buf[:n])
		c.queue.taken(n)
		c.sending.Lock()
		c.conn.Write(attach.AppendTaken(nil, n)) // Who does not hear it is noticed by who reads.
		c.sending.Unlock()
	}
}

// awaitHangup sees to it that the end of the client is noticed although the command does not take its input: it has a moment for
// that, and then misses the rest.
func (c *client) awaitHangup() {
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: clientFD, Events: unix.POLLRDHUP}}, -1)
		if err != unix.EINTR {
			break
		}
	}
	c.input.SetWriteDeadline(time.Now().Add(drainWait))
	time.AfterFunc(drainWait, c.queue.abandon)
}

func (c *client) do(kind attach.Kind, content []byte) error {
	switch kind {
	case attach.Input:
		if len(content) == 0 && c.tty != nil {
			content = []byte{endOfFile}
		}
		c.queue.add(content)
	case attach.Resize:
		size, err := attach.ParseResize(content)
		if err != nil {
			return err
		}
		if c.tty != nil {
			c.setSize(size)
		}
	case attach.Signal:
		sig, err := attach.SignalOf(content)
		if err != nil {
			return err
		}
		c.signal(sig)
	default:
		return attach.ErrFrame
	}
	return nil
}

// signal reaches the foreground of the terminal, or the command's process group.
func (c *client) signal(sig syscall.Signal) {
	group := c.pid
	if c.tty != nil {
		if raw, err := c.tty.SyscallConn(); err == nil {
			raw.Control(func(fd uintptr) {
				if fg, err := unix.IoctlGetInt(int(fd), unix.TIOCGPGRP); err == nil && fg > 1 {
					group = fg
				}
			})
		}
	}
	syscall.Kill(-group, sig)
}

// drain waits until all output was sent, unless that takes too long.
func (c *client) drain() {
	if c == nil {
		return
	}
	done := make(chan struct{})
	go func() { c.copying.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(drainWait):
	}
}
