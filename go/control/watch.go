package control

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/pyreceptor/pyreceptor/go/fault"
)

// errClientGone is the cause of contexts that end with the client.
var errClientGone = errors.New("user cancelled")

// lookAhead is how much a client may send while a command is running before nothing more is read of it.
const lookAhead = 64 << 10

// whileConnected calls f with a context that ends when the client goes away. A client that has only closed its sending
// direction is still there.
//
// Where the operating system tells a closed connection from a half-closed one (Unix sockets on Linux; TCP once the other
// end has said that nobody is listening), that is used, and nothing is read. Other connections are read ahead a little:
// an error ends the context, the end of the input does not. A connection with a method Done() <-chan struct{} tells its
// end that way as well.
func (s *session) whileConnected(f func(ctx context.Context)) {
	w := s.watchClient()
	f(w.ctx)
	w.stop()
	w.cancel(nil)
}

// watch is a look at the client while something else goes on. Its context ends with the client, until stop is called;
// then only with the session. Nothing may be read of the connection before stop has returned.
type watch struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	stop   func() // Can be called more than once.
}

func (s *session) watchClient() *watch {
	w := &watch{}
	w.ctx, w.cancel = context.WithCancelCause(s.ctx)
	if s.conn == nil { // The program itself asks.
		w.stop = func() {}
		return w
	}
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer fault.Catch(func(e *fault.Error) {
			s.noteFault(e)
			w.cancel(e)
		})
		if s.awaitLoss() {
			w.cancel(errClientGone)
		}
	})
	if done := doneOf(s.conn); done != nil {
		wg.Go(func() {
			select {
			case <-done:
				w.cancel(errClientGone)
			case <-over:
			}
		})
	}
	w.stop = sync.OnceFunc(func() {
		close(over)
		_ = s.conn.SetReadDeadline(time.Unix(1, 0)) // Wakes awaitLoss.
		wg.Wait()
		_ = s.conn.SetReadDeadline(time.Time{})
	})
	return w
}

// awaitLoss waits until the client is gone (true) or the read deadline has passed, or nothing more can be learnt (false).
func (s *session) awaitLoss() bool {
	if lost, ok := awaitHangup(s.conn); ok {
		return lost
	}
	for s.in.w-s.in.r < lookAhead && s.in.err == nil {
		s.in.fill()
		if s.in.ignoring {
			s.in.consume(s.in.w)
		}
		if ne, ok := errors.AsType[net.Error](s.in.err); ok && ne.Timeout() {
			s.in.err = nil
			return false
		}
	}
	return s.in.err != nil && s.in.err != io.EOF
}

// doneOf returns the channel that is closed when conn is gone in both directions; nil if it does not tell.
func doneOf(conn net.Conn) <-chan struct{} {
	if c, ok := conn.(interface{ Done() <-chan struct{} }); ok {
		return c.Done()
	}
	return nil
}
