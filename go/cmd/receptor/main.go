// Receptor runs a node of a Receptor mesh. `receptor --help` tells how.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/daemon"
	"github.com/pyreceptor/pyreceptor/go/workceptor/runner"
)

func main() {
	if runner.IsRunner(os.Args) {
		os.Exit(runner.Main(os.Args))
	}
	err := run()
	if err != nil && !errors.Is(err, daemon.ErrNothingToDo) {
		fmt.Fprintln(os.Stderr, "Error:", err)
	}
	if err != nil {
		os.Exit(1)
	}
}

func run() error {
	// With a handler for SIGPIPE a write to a closed standard output is an error like any other. Ignoring the signal
	// would do the same but be inherited by work commands.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	cfg, err := config.ParseArgs(os.Args[1:])
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // A second signal ends the program at once.
	return daemon.Run(ctx, cfg, daemon.Options{Program: filepath.Base(os.Args[0]), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr})
}
