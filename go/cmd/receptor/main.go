// The runtime would look once a second whether the limits of the processor have changed, which costs an idle daemon more
// than what it does for the mesh. The limits at the start count.
//go:debug updatemaxprocs=0

// Receptor runs a node of a Receptor mesh. `receptor --help` tells how.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/daemon"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/session"
	"github.com/pyreceptor/pyreceptor/go/workceptor/runner"
)

func main() {
	if runner.IsRunner(os.Args) {
		os.Exit(runner.Main(os.Args))
	}
	err := run()
	if err != nil && !errors.Is(err, daemon.ErrNothingToDo) && !readerLeft(err) {
		fmt.Fprintln(os.Stderr, "Error:", err)
	}
	switch {
	case errors.Is(err, netceptor.ErrDuplicateNode):
		os.Exit(exitDuplicate)
	case err != nil:
		os.Exit(1)
	}
}

// readerLeft reports whether who was to read standard output has read enough, as head does: nothing to complain about.
func readerLeft(err error) bool {
	failed, ok := errors.AsType[*fs.PathError](err)
	return ok && failed.Path == os.Stdout.Name() && errors.Is(err, syscall.EPIPE)
}

// exitDuplicate is the exit code of a node that found another one with its ID in the mesh: a service manager that starts
// it again helps nobody.
const exitDuplicate = 3

func run() error {
	// With a handler for SIGPIPE a write to a closed standard output is an error like any other. Ignoring the signal
	// would do the same but be inherited by work commands.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	if fd, ok := sessionFD(os.Args); ok {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		return session.ServeFD(ctx, fd, daemon.Version)
	}
	cfg, err := config.ParseArgs(os.Args[1:])
	if err != nil {
		return err
	}
	ctx, stop := untilSignal(os.Interrupt, syscall.SIGTERM)
	defer stop()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	return daemon.Run(ctx, cfg, daemon.Options{
		Program: filepath.Base(os.Args[0]), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Session: session.Attach, Hangup: hangup,
	})
}

// untilSignal returns a context that ends with the first of the signals. The second one, however soon it comes, ends the
// program at once.
func untilSignal(which ...os.Signal) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, which...)
	go func() { // Ends with the context.
		select {
		case <-signals:
		case <-ctx.Done():
		}
		signal.Stop(signals)
		cancel()
		select {
		case second := <-signals:
			_ = syscall.Kill(os.Getpid(), second.(syscall.Signal))
		default:
		}
	}()
	return ctx, cancel
}

// sessionFD is N of `receptor --session-fd N`: the program is the sidecar of another one, which drives it through the
// session protocol on that descriptor.
func sessionFD(args []string) (fd int, ok bool) {
	if len(args) != 3 || args[1] != "--session-fd" {
		return 0, false
	}
	fd, err := strconv.Atoi(args[2])
	return fd, err == nil && fd > 2
}
