package session

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
)

const (
	defaultBacklog = 64
	maxBacklog     = 1024
	// announceBytes is about what the kernel charges for the two messages of a stream that the program has not accepted yet.
	announceBytes = 2048
)

func opStreamListen(ctx context.Context, s *session, req *request) (reply, error) {
	conf, err := s.host.acceptTLS(req.TLS)
	if err != nil {
		return failed(err)
	}
	ln, err := take(ctx, s.host, name{service: req.Service}, func() (*netceptor.StreamListener, error) {
		return s.host.built().Node.ListenStream(req.Service, advert(req, true), conf)
	})
	if err != nil {
		return failed(err)
	}
	near, far, err := socketPair(unix.SOCK_SEQPACKET)
	if err != nil {
		_ = ln.Close()
		return failed(err)
	}
	backlog := min(max(req.Backlog, 0), maxBacklog)
	if backlog == 0 {
		backlog = defaultBacklog
	}
	_ = near.SetWriteBuffer(backlog * announceBytes)
	h := s.host
	free := h.hold(name{service: ln.Service()}, near)
	l := &listener{host: h, mesh: ln, program: near, confirmed: req.Confirm}
	h.spawn("listener", func() {
		defer free()
		l.run(h.ctx)
	})
	return reply{ok: map[string]any{"service": ln.Service()}, fd: far}, nil
}

// listener announces the streams of a service to the program.
type listener struct {
	host      *host
	mesh      *netceptor.StreamListener
	program   *net.UnixConn
	confirmed bool // The program says what it has accepted.

	mu      sync.Mutex
	waiting []*waiting // What is announced and not confirmed.
	over    bool       // The program confirms nothing more.
}

// waiting is a stream that the program is to accept. nil stands for one that counts as accepted.
type waiting struct {
	id    uint64        // The stream's.
	known chan struct{} // Closed once it is known
	ok    bool          // whether the program has accepted it.
}

// accepted waits until it is known.
func (w *waiting) accepted() bool {
	if w == nil {
		return true
	}
	<-w.known
	return w.ok
}

func (w *waiting) settle(ok bool) {
	w.ok = ok
	close(w.known)
}

var errNotAccepted = errors.New("the program has closed its listener without accepting the stream")

// run goes on until the program closes its end, the mesh listener ends or ctx does.
func (l *listener) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer l.mesh.Close() //nolint:errcheck // Ends the goroutine below.
	end := func() { _ = l.program.Close() }
	defer end()
	defer context.AfterFunc(ctx, end)()
	wg.Go(func() {
		defer fault.Catch(l.host.faulted("listener", end))
		l.accept()
	})
	l.confirm()
}

// confirm takes what the program says until it closes its end: one message for each stream, + and its number if it is
// accepted, - and its number if it has been lost on its way to the program.
func (l *listener) confirm() {
	eachMessage(l.program, func(message []byte) {
		number, accepted := bytes.CutPrefix(message, []byte("+"))
		id, err := strconv.ParseUint(string(bytes.TrimPrefix(number, []byte("-"))), 10, 64)
		if err != nil {
			return
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if i := slices.IndexFunc(l.waiting, func(w *waiting) bool { return w.id == id }); i >= 0 {
			l.waiting[i].settle(accepted)
			l.waiting = slices.Delete(l.waiting, i, i+1)
		}
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	for _, w := range l.waiting {
		w.settle(false)
	}
	l.waiting = nil
}

// expect notes a stream that is about to be announced.
func (l *listener) expect(id uint64) *waiting {
	if !l.confirmed {
		return nil
	}
	w := &waiting{id: id, known: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		w.settle(false)
	} else {
		l.waiting = append(l.waiting, w)
	}
	return w
}

// forget takes back what was noted of a stream that could not be announced.
func (l *listener) forget(w *waiting) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.waiting, w); i >= 0 {
		l.waiting = slices.Delete(l.waiting, i, i+1)
		w.settle(false)
	}
}

// accept announces every stream to the program. It waits while the backlog is full, and so does the mesh.
func (l *listener) accept() {
	for {
		remote, err := l.mesh.Accept()
		if err != nil {
			_ = l.program.Close() // The program learns of it.
			return
		}
		st, fd, err := l.host.bridge(remote, l.expect)
		if err != nil {
			l.host.log.Error("stream refused: no socket for the program", "service", l.mesh.Service(), "err", err)
			continue
		}
		err = announce(l.program, fd, st, addrReply(remote.RemoteAddr().(netceptor.Addr)))
		if err == nil {
			continue
		}
		l.forget(st.local.offer)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
			return // What the program confirmed before is still to be read.
		}
		l.host.log.Error("stream refused: it cannot be handed to the program", "service", l.mesh.Service(), "err", err)
	}
}

// announcement is what a program learns of a stream that it may accept.
type announcement struct {
	Stream uint64  `json:"stream"`
	Peer   address `json:"peer"`
}

// announce sends a stream's descriptor with a message of one byte, and what it is once our copy of the descriptor is
// gone: a child that the program forks when it knows of the stream inherits none that keeps the stream open. A stream
// that cannot be sent is reset while there still is that copy, whose end would pass for the program's.
func announce(to *net.UnixConn, fd int, s *stream, peer address) error {
	msg, err := json.Marshal(announcement{s.id, peer})
	if err == nil {
		_, _, err = to.WriteMsgUnix([]byte{'+'}, unix.UnixRights(fd), nil)
	}
	if err != nil {
		s.abort(0)
	}
	closeFD(fd)
	if err != nil {
		return err
	}
	_, err = to.Write(msg)
	return err
}

// eachMessage calls f for every message of a few bytes until the program has closed a socket on which it sends such, if
// anything.
func eachMessage(conn *net.UnixConn, f func(message []byte)) {
	var b [32]byte
	for {
		n, err := readMessage(conn, b[:])
		if err != nil || n == 0 {
			return
		}
		f(b[:n])
	}
}

// readMessage reads the next message that a program has sent on a SOCK_SEQPACKET. If the program closed its end with
// something unread, the kernel tells that first, once, and then what the program had sent before.
func readMessage(conn *net.UnixConn, b []byte) (int, error) {
	n, err := conn.Read(b)
	if errors.Is(err, unix.ECONNRESET) {
		n, err = conn.Read(b)
	}
	return n, err
}
