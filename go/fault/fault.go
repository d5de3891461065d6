// Package fault keeps a bug of ours that somebody's bytes have found from ending the whole program: what the goroutine
// belongs to, a link, a connection, a node inside a program, ends instead.
//
// Both [Catch] and [Into] are deferred themselves, since only so they stop a panic:
//
//	defer fault.Into(&err)
//
// They are for code whose state ends with it or is left whole by deferred unlocks.
package fault

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
)

// Error is a panic as an error.
type Error struct {
	Value any // What panic was called with.
	Stack []byte
}

func (e *Error) Error() string { return fmt.Sprintf("internal fault: %v", e.Value) }

// Unwrap returns the error that the panic was called with, if it was one.
func (e *Error) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Catch, deferred, stops a panic and tells of it, on the stack of the panic still. With a nil tell the panic goes on.
func Catch(tell func(*Error)) {
	if tell == nil {
		return
	}
	if p := recover(); p != nil {
		tell(&Error{p, debug.Stack()})
	}
}

// Into, deferred, makes a panic the error that a function returns.
func Into(err *error) {
	if p := recover(); p != nil {
		*err = &Error{p, debug.Stack()}
	}
}

// Try runs f, and makes a panic the error that it returns.
func Try(f func() error) (err error) {
	defer Into(&err)
	return f()
}

// Log logs the fault in err, if there is one, with its stack and what it was in.
func Log(log *slog.Logger, err error, in string, args ...any) {
	if e, ok := errors.AsType[*Error](err); ok {
		log.Error("internal fault", append([]any{"in", in, "err", fmt.Sprint(e.Value), "stack", string(e.Stack)}, args...)...)
	}
}
