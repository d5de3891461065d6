// Package main is the C library: receptor.h says what it offers. It translates and holds no behaviour.
package main

/*
#include "receptor.h"

// Go has no const of its own: this is how an exported function gets one.
typedef const char receptor_text;

extern const char *receptor_build_version(void);
extern int receptor_sigpipe_was_ignored(void);
*/
import "C"

import (
	"errors"
	"fmt"
	"math"
	"os/signal"
	"runtime"
	"syscall"
	"unsafe"

	"github.com/pyreceptor/pyreceptor/go/session"
)

// Results of receptor_open.
const (
	badConfig int32 = -1
	noSocket  int32 = -2
	fault     int32 = -3
)

// maxConfig bounds the configuration of a session, in bytes.
const maxConfig = 16 << 20

func init() {
	// A write to a closed pipe or socket must be an error of that write. The Go runtime would otherwise end the process
	// when such a descriptor is standard output or error. A host that wants to be ended by its own writes goes on to be:
	// then the runtime's handler stays, which spares the library's threads only.
	if C.receptor_sigpipe_was_ignored() != 0 {
		signal.Ignore(syscall.SIGPIPE)
	}
}

func main() {}

//export receptor_open
func receptor_open(cfg *C.receptor_text, n C.int64_t, errBuf *C.char, errCap C.int64_t) C.int32_t {
	return C.int32_t(guard(errBuf, int64(errCap), func() (int32, error) {
		if cfg == nil || n <= 0 || n > maxConfig {
			return badConfig, fmt.Errorf("configuration of %d bytes, want 1 to %d", int64(n), maxConfig)
		}
		fd, err := session.Open(C.GoBytes(unsafe.Pointer(cfg), C.int(n)), C.GoString(C.receptor_build_version()))
		if e, ok := errors.AsType[*session.Error](err); ok && e.Code == session.BadRequest {
			return badConfig, err
		}
		if err != nil {
			return noSocket, err
		}
		return int32(fd), nil
	}))
}

//export receptor_dump
func receptor_dump(buf *C.char, size C.int64_t) C.int32_t {
	if buf == nil || size <= 0 {
		return -1
	}
	size = min(size, math.MaxInt32)
	return C.int32_t(runtime.Stack(unsafe.Slice((*byte)(unsafe.Pointer(buf)), int(size)), true))
}

// guard runs f, turns a panic into an error, and copies the error's text to the caller.
func guard(errBuf *C.char, errCap int64, f func() (int32, error)) (result int32) {
	defer func() {
		if p := recover(); p != nil {
			setError(errBuf, errCap, fmt.Sprintf("internal fault: %v", p))
			result = fault
		}
	}()
	result, err := f()
	if err != nil {
		setError(errBuf, errCap, err.Error())
	}
	return result
}

func setError(buf *C.char, size int64, text string) {
	if buf == nil || size <= 0 {
		return
	}
	dst := unsafe.Slice((*byte)(unsafe.Pointer(buf)), size)
	dst[copy(dst[:size-1], text)] = 0
}
