package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/service"
)

// streamBuffer is the socket buffer asked for between a program and a stream. It halves the cost of a byte against the
// kernel's default; the kernel uses memory only for what waits.
const streamBuffer = 1 << 20

// socketPair makes a pair of connected local sockets: this side's as a connection that the runtime's poller serves, the
// program's as a blocking descriptor. If both were non-blocking, a program that trusts its default would fail at once.
func socketPair(kind int) (near *net.UnixConn, far int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, fmt.Errorf("no socket for the program: %w", err)
	}
	near, err = adopt(fds[0])
	if err != nil {
		_ = unix.Close(fds[1])
		if errno, ok := errors.AsType[unix.Errno](err); ok {
			err = errno // Where it happened on the way is nothing to the program.
		}
		return nil, -1, fmt.Errorf("no socket for the program: %w", err)
	}
	return near, fds[1], nil
}

// adopt makes a connection of a local socket descriptor, which it owns from then on.
func adopt(fd int) (*net.UnixConn, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "session")
	defer f.Close() //nolint:errcheck // FileConn has duplicated it.
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		_ = conn.Close()
		return nil, fmt.Errorf("descriptor %d is not a local socket", fd)
	}
	return uc, nil
}

// awaitHangup waits until the program has closed its end of a socket whose sending direction it shut down before: both
// look the same to a read, but not to poll. It also returns when conn is closed here.
func awaitHangup(conn *net.UnixConn) {
	rc, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = rc.Read(func(fd uintptr) bool { return hungUp(int(fd)) })
}

func hungUp(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP}}
	_, err := unix.Poll(p, 0)
	return err == nil && p[0].Revents&unix.POLLHUP != 0
}

// isHungUp reports whether the program has closed its end altogether.
func isHungUp(conn *net.UnixConn) bool {
	rc, err := conn.SyscallConn()
	if err != nil {
		return true
	}
	gone := true
	if err := rc.Control(func(fd uintptr) { gone = hungUp(int(fd)) }); err != nil {
		return true
	}
	return gone
}

// meshStream is the mesh end of a stream: a netceptor stream, or the output of a unit.
type meshStream = service.Stream

// stream is one mesh stream, or the output of a unit, and the socket that a program uses it through.
type stream struct {
	*outcome
	host   *host
	id     uint64
	local  *localEnd
	remote meshStream
	gone   atomic.Bool // The program has closed its end: what the mesh still sends is for nobody, and its end no failure.

	done chan struct{} // Closed when both directions have ended.
}

// outcome is how a stream stands. It is kept when the stream is over, and nothing else is.
type outcome struct {
	in, out atomic.Int64 // Bytes from and to the mesh.

	mu    sync.Mutex
	state string // "open", "closed", "reset".
	err   *Error
}

// run copies both ways until both ends are done.
func (s *stream) run(ctx context.Context) {
	defer close(s.done)
	done := service.Bridge(ctx, s.local, remoteEnd{Stream: s.remote, s: s})
	if e, is := errors.AsType[*fault.Error](done.Err); is {
		_ = s.broken(e)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == "open" {
		s.state = "closed"
	}
}

// localEnd is the program's side of a stream.
type localEnd struct {
	*net.UnixConn
	direct net.Conn // The same socket.
	s      *stream
	far    programEnd
	offer  *waiting // Whether the program has accepted the stream; nil for one that it opened.
	once   sync.Once

	reset   atomic.Bool // Abort was called.
	reading sync.Mutex  // Held by a Read that looks at the socket, and by Abort.
	closed  bool        // By Abort.
}

func (l *localEnd) Write(p []byte) (int, error) { return l.direct.Write(p) }

// Abort closes the socket. Where the program can be made to see that as a reset, it does.
func (l *localEnd) Abort(uint64) error {
	l.reset.Store(true)
	_ = l.SetReadDeadline(time.Unix(1, 0)) // A Read that waits lets go of the socket.
	l.reading.Lock()
	defer l.reading.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	if l.far.inode != 0 {
		defer l.s.host.ends.spoil(l.far)()
	}
	return l.UnixConn.Close()
}

// receive is Read without the meaning of errors.
func (l *localEnd) receive(p []byte) (int, error) {
	l.reading.Lock()
	defer l.reading.Unlock()
	if l.reset.Load() {
		return 0, net.ErrClosed
	}
	return l.direct.Read(p)
}

// Read reports the end of the program's data. A program that closes with output unread has still sent what it sent; one
// that never accepted the stream has ended nothing. From the end on, the socket is watched for being closed altogether:
// then nobody reads what the mesh still sends.
func (l *localEnd) Read(p []byte) (int, error) {
	n, err := l.receive(p)
	if err == nil {
		return n, nil
	}
	if l.reset.Load() {
		return 0, net.ErrClosed
	}
	if !l.offer.accepted() {
		return 0, errNotAccepted
	}
	l.once.Do(func() {
		l.s.host.guard("watch socket", func() {
			awaitHangup(l.UnixConn)
			if l.reset.Load() {
				return
			}
			l.s.gone.Store(true)
			if c, ok := l.s.remote.(interface{ CloseRead() error }); ok {
				_ = c.CloseRead()
			}
		})
	})
	return n, io.EOF
}

// remoteEnd is the mesh side: it counts, and records a failure before the program can see its effect.
type remoteEnd struct {
	service.Stream
	s *stream
}

func (r remoteEnd) Read(p []byte) (n int, err error) {
	defer fault.Catch(r.faulted(&err))
	n, err = r.Stream.Read(p)
	r.s.in.Add(int64(n))
	if err != nil && r.s.gone.Load() {
		return n, io.EOF // Of our own making: what the program sent before it closed is still to arrive whole.
	}
	if err != nil && !errors.Is(err, io.EOF) {
		r.s.fail(err)
	}
	return n, err
}

func (r remoteEnd) Write(p []byte) (n int, err error) {
	defer fault.Catch(r.faulted(&err))
	n, err = r.Stream.Write(p)
	r.s.out.Add(int64(n))
	if err != nil {
		r.s.fail(err)
	}
	return n, err
}

// faulted makes a panic of the mesh side an error of this stream: the program around a library lives on.
func (r remoteEnd) faulted(err *error) func(*fault.Error) {
	return func(e *fault.Error) { *err = r.s.broken(e) }
}

// broken tells of a bug that was found in one of the ends, and returns what it is to the program.
func (s *stream) broken(e *fault.Error) error {
	fault.Log(s.host.log, e, "stream")
	err := &Error{Code: Internal, Msg: e.Error()}
	s.fail(err)
	return err
}

// Abort resets the mesh stream where it can be.
func (r remoteEnd) Abort(code uint64) error {
	if a, ok := r.Stream.(interface{ Abort(uint64) error }); ok {
		return a.Abort(code)
	}
	return r.Close()
}

// CloseRead tells the peer to stop where it can be told.
func (r remoteEnd) CloseRead() error {
	if c, ok := r.Stream.(interface{ CloseRead() error }); ok {
		return c.CloseRead()
	}
	return nil
}

// fail records why the stream broke. A stream that this side closed did not break.
func (o *outcome) fail(err error) {
	if errors.Is(err, net.ErrClosed) {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.state == "open" {
		o.state, o.err = "reset", toError(err, Reset)
	}
}

func (s *stream) abort(code uint64) {
	s.mu.Lock()
	if s.state == "open" {
		remote := false
		s.state, s.err = "reset", &Error{Code: Reset, Msg: "stream was aborted here", Remote: &remote, ErrorCode: code}
	}
	s.mu.Unlock()
	_ = remoteEnd{Stream: s.remote, s: s}.Abort(code)
	_ = s.local.Abort(code)
}

type streamStatus struct {
	State    string `json:"state"`
	Err      *Error `json:"err,omitempty"`
	BytesIn  int64  `json:"bytes_in"`
	BytesOut int64  `json:"bytes_out"`
}

func (o *outcome) status() streamStatus {
	o.mu.Lock()
	defer o.mu.Unlock()
	return streamStatus{State: o.state, Err: o.err, BytesIn: o.in.Load(), BytesOut: o.out.Load()}
}

func closeFD(fd int) { _ = unix.Close(fd) }
