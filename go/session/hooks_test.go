package session

import (
	"context"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
)

// What breaks on demand. Tests of the library in a Python process build it with this file as a part of the package.

// brokenStream panics when it is read.
type brokenStream struct{ outputStream }

func (brokenStream) Read([]byte) (int, error) { panic("a pump") }
func (brokenStream) Close() error             { return nil }
func (brokenStream) CloseWrite() error        { return nil }
func (brokenStream) CloseRead() error         { return nil }
func (brokenStream) LocalAddr() net.Addr      { return unitAddr("x") }

// brokenDialer panics when it dials.
type brokenDialer struct{}

func (brokenDialer) Dial(context.Context) (link.Conn, error) { panic("a link") }
func (brokenDialer) String() string                          { return "broken" }

func init() { // Before there is a session that looks for operations.
	hook := func(name string, run func(*session) (reply, error)) {
		operations["test."+name] = operation{run: func(_ context.Context, s *session, _ *request) (reply, error) { return run(s) }}
	}
	hook("panic", func(*session) (reply, error) { panic("an operation") })
	hook("nil", func(*session) (reply, error) {
		var nobody *session
		return plain(nobody.owner)
	})
	hook("stream", func(s *session) (reply, error) {
		st, fd, err := s.host.bridge(&brokenStream{}, nil)
		if err != nil {
			return failed(err)
		}
		return reply{ok: map[string]any{"stream": st.id}, fd: fd}, nil
	})
	hook("link", func(s *session) (reply, error) {
		_, err := s.host.built().Node.Dial(brokenDialer{}, netceptor.LinkOptions{Cost: 1})
		if err != nil {
			return failed(err)
		}
		return plain(empty)
	})
	var notice func()
	hook("take back", func(s *session) (reply, error) { // The program has closed the offer of cat, and the node has not looked yet.
		near, far, err := socketPair(unix.SOCK_SEQPACKET)
		if err != nil {
			return failed(err)
		}
		closeFD(far)
		free := s.host.hold(name{workType: "cat"}, near)
		notice = func() { s.host.built().Work.Unregister("cat"); free() }
		return plain(empty)
	})
	hook("notice", func(*session) (reply, error) {
		notice()
		return plain(empty)
	})
	hook("goroutine", func(s *session) (reply, error) {
		s.host.spawn("test", func() { panic("a goroutine") })
		return plain(empty)
	})
	hook("print", func(*session) (reply, error) {
		_, err := fmt.Fprintln(os.Stderr, "from the library")
		return plain(map[string]any{"err": fmt.Sprint(err)})
	})
}
