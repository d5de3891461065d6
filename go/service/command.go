package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/fault"
)

// The terminal of a command.
const (
	terminalRows, terminalColumns = 24, 80
	endOfFile                     = 4               // Control-D: what a terminal takes for the end of input.
	hangupGrace                   = 5 * time.Second // Between the hang-up and the end by force.
	lastOutput                    = time.Second     // How long children that stay behind may go on writing.
)

// Command is a service in the mesh that starts a command on a terminal of its own for each stream.
type Command struct {
	Service string
	Args    []string // Program and parameters, at least the program. It is not run by a shell.
}

// StartCommand offers the service.
func StartCommand(m Mesh, cfg Command, log *slog.Logger) (*Proxy, error) {
	if len(cfg.Args) == 0 {
		return nil, errors.New("command is empty")
	}
	l, err := m.ListenStream(cfg.Service, map[string]string{"type": "Command Service"})
	if err != nil {
		return nil, fmt.Errorf("error listening on Receptor network: %w", err)
	}
	log = log.With("service", cfg.Service)
	run := func(ctx context.Context, s Stream) error { return runCommand(ctx, s, cfg.Args, log) }
	return start(&Proxy{listener: l, serve: run}, "Error running command", log), nil
}

// runCommand runs a command on a new terminal whose other end is s, and closes s when the command has ended and its
// output is sent. The end of input is typed as end-of-file. If the client is gone, or ctx ends, the terminal is hung up, and
// the command killed if it stays. An error means that the command could not be started.
func runCommand(ctx context.Context, s Stream, args []string, log *slog.Logger) error {
	cmd := exec.Command(args[0], args[1:]...)
	terminal, err := startOnTerminal(cmd)
	if err != nil {
		Reset(s)
		return err
	}
	stop := context.AfterFunc(ctx, func() {
		fault.Log(log, fault.Try(func() error { Reset(s); return nil }), "command")
	})
	defer stop()
	ended := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { hangUp(s, terminal, cmd.Process.Pid, ended) })
	wg.Go(func() {
		if _, readErr, writeErr := transfer(terminal, s); readErr == nil && writeErr == nil {
			_, _ = terminal.Write([]byte{endOfFile})
		}
	})
	written := make(chan error, 1)
	wg.Go(func() {
		_, _, err := transfer(s, terminalOutput{terminal})
		written <- err
	})
	err = cmd.Wait()
	close(ended)
	_ = terminal.SetReadDeadline(time.Now().Add(lastOutput))
	if <-written == nil {
		_ = s.CloseWrite()
	}
	if c, ok := s.(interface{ CloseRead() error }); ok {
		_ = c.CloseRead() // Nobody takes input any more: the copying of it ends.
	}
	wg.Wait()
	_ = terminal.Close()
	_ = s.Close()
	log.Debug("Command ended", "command", args[0], "pid", cmd.Process.Pid, "result", result(err))
	return nil
}

// startOnTerminal starts cmd as the leader of a session with a terminal, and returns the terminal's other end as a file
// whose reads can be ended by a deadline or by closing it.
func startOnTerminal(cmd *exec.Cmd) (*os.File, error) {
	blocking, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: terminalRows, Cols: terminalColumns})
	if err != nil {
		return nil, err
	}
	defer func() { _ = blocking.Close() }()
	fd, err := unix.FcntlInt(blocking.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, fmt.Errorf("terminal: %w", err)
	}
	return os.NewFile(uintptr(fd), blocking.Name()), nil
}

func result(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// hangUp takes the terminal away when the client has gone, which the kernel tells everything on it, and kills the command
// if it does not mind.
func hangUp(s Stream, terminal *os.File, pid int, ended <-chan struct{}) {
	var gone <-chan struct{}
	if c, ok := s.(interface{ WriteClosed() <-chan struct{} }); ok {
		gone = c.WriteClosed()
	}
	select {
	case <-ended:
		return
	case <-gone:
	}
	_ = terminal.Close()
	grace := time.NewTimer(hangupGrace)
	defer grace.Stop()
	select {
	case <-ended:
	case <-grace.C:
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
}

// terminalOutput reads what the processes on a terminal write. When the last of them has gone, Linux says EIO;
// the deadline is for those that stay behind.
type terminalOutput struct{ terminal *os.File }

func (t terminalOutput) Read(p []byte) (int, error) {
	n, err := t.terminal.Read(p)
	if errors.Is(err, syscall.EIO) || errors.Is(err, os.ErrDeadlineExceeded) {
		err = io.EOF
	}
	return n, err
}
