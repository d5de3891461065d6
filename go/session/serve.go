package session

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/daemon"
)

// Open makes a session for the program around this library and returns the program's end of its socket, a blocking
// descriptor that the caller owns. cfg is a JSON object: "abi" (1) and "environ", the program's environment as an object
// of strings, since a library does not see what the program changed in it. Open does nothing that could wait.
func Open(cfg []byte, version string) (int, error) {
	var c struct {
		ABI     int               `json:"abi"`
		Environ map[string]string `json:"environ"`
	}
	if err := json.Unmarshal(cfg, &c); err != nil {
		return -1, badRequest("configuration of the session: " + err.Error())
	}
	if c.ABI != 1 {
		return -1, badRequest(fmt.Sprintf("the program speaks ABI %d, this library ABI 1: reinstall the package", c.ABI))
	}
	environ := make([]string, 0, len(c.Environ))
	for k, v := range c.Environ {
		environ = append(environ, k+"="+v)
	}
	near, far, err := socketPair(unix.SOCK_STREAM)
	if err != nil {
		return -1, err
	}
	h := newHost(version, inProcess, environ)
	h.trust = daemon.LookupEnv(h.environ, "SSL_CERT_FILE") // What the program set since it started, Go's own look-up would not see.
	h.guard("session", func() { serve(h, near, true) })
	return far, nil
}

// ServeFD serves the one session of a sidecar, over a descriptor that it was born with, until the program closes its end
// or ctx ends; the node that the session opened has ended then. Units of work go on.
func ServeFD(ctx context.Context, fd int, version string) error {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil { // Commands must not hold it open.
		return fmt.Errorf("descriptor %d of the session: %w", fd, err)
	}
	conn, err := adopt(fd)
	if err != nil {
		return fmt.Errorf("descriptor %d of the session: %w", fd, err)
	}
	h := newHost(version, "sidecar", os.Environ())
	if h.runner, err = os.Executable(); err != nil {
		return fmt.Errorf("own executable, which runs the commands of work units: %w", err)
	}
	defer context.AfterFunc(ctx, h.stop)()
	serve(h, conn, true)
	return nil
}

// Attach serves a session of a daemon's node to a program on this machine, until the program closes its end or ctx ends.
// What the program opened and added goes with it; the node stays.
func Attach(ctx context.Context, d *daemon.Daemon, conn *net.UnixConn) {
	h := newHost(daemon.Version, "attached", os.Environ())
	h.attached, h.opening, h.opened = true, true, true
	h.adopt(d)
	defer d.TapLog(&logHandler{host: h})()
	defer context.AfterFunc(ctx, h.stop)()
	serve(h, conn, true)
}
