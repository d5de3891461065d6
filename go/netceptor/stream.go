package netceptor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

// Codes and texts of stream endings, shared with existing nodes.
const (
	codeNormal      quic.ApplicationErrorCode = 0
	codeAccept      quic.ApplicationErrorCode = 500
	codeReadCancel  quic.StreamErrorCode      = 499
	reasonNormal                              = "normal close"
	reasonReset                               = "stream reset"
	reasonClosing                             = "Listener Closed"
	acceptTimeout                             = 60 * time.Second
	closeYoung                                = time.Second // How long a listener's end waits for handshakes.
	streamOpening   byte                      = 0
	handshakeIdle                             = 15 * time.Second
	streamIdle                                = 30 * time.Second
	streamKeepAlive                           = 15 * time.Second
	maxStreams                                = 100 // Of one connection; more take another.
	streamWindow                              = 6 << 20
	acceptBacklog                             = 128
	slowFrom                                  = 64 << 10              // So many bytes may take a reader longer than its idle timeout,
	slowLimit                                 = 10 * time.Minute      // and it gets this long,
	slowPlaces                                = 128                   // if there are no more such.
	drainPause                                = 20 * time.Millisecond // How long a Read waits for what can only be there already.
	closingProbes                             = 3                     // For so many probe timeouts a closed connection answers.
	maxAckDelay                               = 26 * time.Millisecond
	acceptors                                 = 16   // The QUIC library refuses what does not fit in its 32 places.
	maxHandshakes                             = 1024 // Connections of one listener that have not opened their stream yet.
	leastPacket                               = 1200 // RFC 9000, section 14.
	mostPacket                                = 1408 // What UDP links carry over Ethernet in one piece; an existing node's receive buffer holds 1452.
)

// SimulatedPacket is the largest [Config].StreamPacket with which bulk data gets through on a simulated clock. With larger
// ones the QUIC library, whose pacer counts in packets of this size, looks at the clock again and again until it has
// moved on, as clocks do.
const SimulatedPacket = 1280

// quicConfig is the configuration of the node's streams.
func (n *Node) quicConfig(dialer bool) *quic.Config {
	c := &quic.Config{
		HandshakeIdleTimeout:       handshakeIdle,
		MaxIdleTimeout:             streamIdle,
		InitialStreamReceiveWindow: 1 << 20,
		MaxStreamReceiveWindow:     streamWindow,
		MaxIncomingStreams:         maxStreams,
		// Room for every stream of a shared connection to be full: a slow reader then holds back nobody but itself.
		InitialConnectionReceiveWindow: maxStreams * streamWindow,
		MaxConnectionReceiveWindow:     maxStreams * streamWindow,
		InitialPacketSize:              n.streamPacket,
		DisablePathMTUDiscovery:        true,
	}
	if dialer {
		c.KeepAlivePeriod = streamKeepAlive
	}
	if n.qlogDir != "" {
		c.Tracer = n.traceQUIC
	}
	return c
}

// ResetError means that a stream ended before its end: one side reset it, or the path between the nodes broke. What was
// read before is good; whether more was sent is not known.
type ResetError struct {
	Peer   Addr
	Code   uint64 // The application's code if one side reset the stream on purpose.
	Remote bool   // The peer did it.
	Err    error
}

func (e *ResetError) Error() string { return fmt.Sprintf("stream with %s: %v", e.Peer, e.Err) }
func (e *ResetError) Unwrap() error { return e.Err }

// lost is an error of the QUIC library that ended a stream. That library has all of them wrap [net.ErrClosed], which in
// this package says that the caller has closed the stream.
type lost struct{ err error }

func (l lost) Error() string      { return l.err.Error() }
func (l lost) As(target any) bool { return errors.As(l.err, target) }

// Stream is an encrypted, ordered byte stream to a service of a node. It implements net.Conn. One goroutine may read
// while another writes.
type Stream struct {
	node          *Node
	qc            *quic.Conn
	qs            *quic.Stream
	mux           *mux          // nil: the stream has the connection for itself,
	socket        *streamSocket // and this is under it.
	local, remote Addr
	done          chan struct{} // Closed by markDone.
	doneOnce      sync.Once

	writeMu sync.Mutex // Held while writing, and to send the FIN.
	sent    atomic.Uint64

	draining atomic.Bool // See drain.

	mu        sync.Mutex
	readDone  bool // Read to the end, or given up.
	writeDone bool // FIN or reset sent.
	closed    bool // By Close or Abort.
	finishing bool
	aborted   *quic.ApplicationErrorCode // Set by Abort.
	broken    error                      // Why this side ended the connection early.
}

// LocalAddr returns this end's [Addr].
func (s *Stream) LocalAddr() net.Addr { return s.local }

// RemoteAddr returns the other end's [Addr].
func (s *Stream) RemoteAddr() net.Addr { return s.remote }

// Read implements net.Conn. io.EOF is a clean end of the peer's data; [ResetError] is not.
func (s *Stream) Read(p []byte) (int, error) {
	if s.draining.Load() {
		_ = s.qs.SetReadDeadline(time.Now().Add(drainPause))
	}
	n, err := s.qs.Read(p)
	if err != nil {
		err = s.failure("read", err, true)
	}
	if errors.Is(err, io.EOF) {
		s.mu.Lock()
		s.readDone = true
		s.finishLocked()
		s.mu.Unlock()
	}
	return n, err
}

// Write implements net.Conn. It waits while the peer does not read.
func (s *Stream) Write(p []byte) (int, error) {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	n, err := s.qs.Write(p)
	s.sent.Add(uint64(n))
	if err != nil {
		err = s.failure("write", err, false)
	}
	return n, err
}

// failure turns an error of the QUIC library into one of ours.
func (s *Stream) failure(op string, err error, reading bool) error {
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	s.mu.Lock()
	closed, broken := s.closed, s.broken
	s.mu.Unlock()
	if s.mux != nil && broken == nil {
		broken = s.mux.broken()
	}
	if closed && broken == nil {
		return &net.OpError{Op: op, Net: "receptor", Source: s.local, Addr: s.remote, Err: net.ErrClosed}
	}
	reset := &ResetError{Peer: s.remote, Err: lost{err}}
	if broken != nil {
		reset.Err = broken
		return reset
	}
	if app, ok := errors.AsType[*quic.ApplicationError](err); ok {
		reset.Code, reset.Remote = uint64(app.ErrorCode), app.Remote
		if reading && app.Remote && s.mux == nil && strings.HasSuffix(app.Error(), reasonNormal) {
			return io.EOF // How existing nodes end a stream that they have no more use for.
		}
		reset.Err = fmt.Errorf("connection ended by %s: %s (code %d)", side(app.Remote), app.ErrorMessage, reset.Code)
		return reset
	}
	if te, ok := errors.AsType[*quic.TransportError](err); ok && te.Remote && te.ErrorCode == quic.ConnectionRefused {
		reset.Code, reset.Remote, reset.Err = uint64(codeAccept), true, fmt.Errorf("%w: %w", ErrServiceClosing, lost{err})
		return reset
	}
	if stream, ok := errors.AsType[*quic.StreamError](err); ok {
		reset.Code, reset.Remote = uint64(stream.ErrorCode), stream.Remote
		why := ""
		if s.mux != nil && stream.ErrorCode == codeEnds {
			why = ", as of a node that ends"
		}
		reset.Err = fmt.Errorf("reset by %s (code %d%s)", side(stream.Remote), reset.Code, why)
		return reset
	}
	if _, ok := errors.AsType[*quic.IdleTimeoutError](err); ok {
		reset.Err = fmt.Errorf("%w: %w", ErrTimeout, lost{err})
		return reset
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return err // A deadline of the caller's; the stream is as it was.
	}
	return reset
}

func side(remote bool) string {
	if remote {
		return "the peer"
	}
	return "this side"
}

// CloseWrite tells the peer that there is no more data. Reading goes on.
func (s *Stream) CloseWrite() error {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	s.mu.Lock()
	done := s.writeDone
	s.writeDone = true
	s.mu.Unlock()
	if done {
		return nil
	}
	err := s.qs.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finishLocked()
	return err
}

// CloseRead tells the peer that its data is not wanted any more.
func (s *Stream) CloseRead() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.readDone {
		s.readDone = true
		s.qs.CancelRead(codeReadCancel)
		s.finishLocked()
	}
	return nil
}

// Close ends both directions. What was written before is still delivered, in the background; a Write that is waiting at
// this moment is cut off, which the peer sees as a reset.
func (s *Stream) Close() error {
	s.mu.Lock()
	again := s.closed
	s.closed = true
	s.mu.Unlock()
	if again {
		return nil
	}
	if s.writeMu.TryLock() {
		s.writeMu.Unlock()
		_ = s.CloseWrite()
	} else {
		s.mu.Lock()
		s.writeDone = true
		s.mu.Unlock()
		s.qs.CancelWrite(quic.StreamErrorCode(codeNormal))
	}
	return s.CloseRead()
}

// MaxErrorCode is the largest code of a reset: as many bits as QUIC writes (RFC 9000, section 16).
const MaxErrorCode = 1<<62 - 1

// Abort resets both directions with an application's code, at once; a larger one than [MaxErrorCode] is taken for that. The
// peer's reads and writes fail.
func (s *Stream) Abort(code uint64) error {
	s.abort(quic.StreamErrorCode(min(code, MaxErrorCode)))
	return nil
}

func (s *Stream) abort(code quic.StreamErrorCode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.aborted == nil {
		ending := quic.ApplicationErrorCode(code)
		s.aborted = &ending
	}
	if !s.writeDone {
		s.qs.CancelWrite(code)
	}
	if !s.readDone {
		s.qs.CancelRead(code)
	}
	s.readDone, s.writeDone = true, true
	s.finishLocked()
}

// Delivered waits until the peer has all that was sent to it, a reset among it, or ctx ends.
func (s *Stream) Delivered(ctx context.Context) { awaitDelivery(s.qc, ctx.Done(), nil) }

// fail ends the stream because the peer is known to be gone.
func (s *Stream) fail(cause error) {
	s.mu.Lock()
	if s.broken == nil {
		s.broken = cause
	}
	s.mu.Unlock()
	switch {
	case s.mux != nil:
		s.abort(codeRefused)
	case leavesData(cause):
		s.drain()
	default:
		_ = s.qc.CloseWithError(codeAccept, cause.Error())
	}
}

// leavesData reports whether what has arrived from a peer can be read although the path to it has ended, which is the case
// if nobody wanted that.
func leavesData(cause error) bool {
	return errors.Is(cause, errPathLost) || errors.Is(cause, errPeerGone) || errors.Is(cause, errPeerRestarted)
}

// drain ends a stream whose path has ended, the cause of which is known, but lets what has arrived be read, since the QUIC
// library discards that with the connection. The end of it is its error, or the peer's end of the data if that has arrived.
func (s *Stream) drain() {
	s.draining.Store(true)
	s.qs.CancelWrite(codeEnds)
	_ = s.qs.SetReadDeadline(time.Now().Add(drainPause)) // For a Read that waits.
	s.markDone()
}

// Done is closed when the stream is finished in both directions or its connection is gone, so that one who neither reads
// nor writes learns of it.
func (s *Stream) Done() <-chan struct{} { return s.done }

// WriteClosed is closed when nothing that is written can reach the peer any more: it has said that it wants no more, or
// this direction has ended. One who has nothing to write yet learns by it that nobody will read.
func (s *Stream) WriteClosed() <-chan struct{} { return s.qs.Context().Done() }

func (s *Stream) markDone() { s.doneOnce.Do(func() { close(s.done) }) }

// SetDeadline implements net.Conn.
func (s *Stream) SetDeadline(t time.Time) error { return s.qs.SetDeadline(t) }

// SetReadDeadline implements net.Conn.
func (s *Stream) SetReadDeadline(t time.Time) error { return s.qs.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn.
func (s *Stream) SetWriteDeadline(t time.Time) error { return s.qs.SetWriteDeadline(t) }

// finishLocked closes the connection in the background once both directions are done.
func (s *Stream) finishLocked() {
	if !s.readDone || !s.writeDone || s.finishing {
		return
	}
	s.finishing = true
	if s.mux != nil { // The connection goes on, and with it the delivery of what was written.
		s.mux.leave(s)
		return
	}
	s.node.tails.add()
	s.node.wg.Go(func() {
		defer s.node.tails.done()
		aborted, broken := s.ending()
		switch closing := s.node.tails.hurry(); {
		case broken != nil: // Nobody is there.
			_ = s.qc.CloseWithError(codeAccept, broken.Error())
			return
		case aborted != nil: // A node that ends does not wait for a reset to arrive.
			awaitDelivery(s.qc, closing, nil)
		default:
			awaitDelivery(s.qc, nil, closing)
			aborted, _ = s.ending()
		}
		if aborted != nil { // Whoever learns of it only by this must not take it for a clean end.
			_ = s.qc.CloseWithError(*aborted, reasonReset)
			return
		}
		s.letGo()
	})
}

func (s *Stream) ending() (aborted *quic.ApplicationErrorCode, broken error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.aborted, s.broken
}

// letGo ends the connection of a stream whose last bytes have arrived. The peer's program may not have read them yet, and a
// QUIC library that is told of the end of a connection discards what was not read, which existing nodes take for the end
// of the data. So the peer is told only if there is nothing to read for it. Else it keeps its end, and its program can read,
// until it has heard nothing for half a minute, its idle timeout; behind much data this end is kept for a slow reader before.
func (s *Stream) letGo() {
	if sent := s.sent.Load(); sent > 0 {
		s.node.dropStream(s)
		s.markDone()
		if sent >= slowFrom {
			s.awaitReader()
		}
		s.socket.quic.hushConn(s.qc)
	}
	_ = s.qc.CloseWithError(codeNormal, reasonNormal)
}

// awaitReader keeps the connection for a peer that may still read, as long as it lives and while those kept are not too many.
func (s *Stream) awaitReader() {
	select {
	case s.node.slow <- struct{}{}:
	default:
		return
	}
	defer func() { <-s.node.slow }()
	timer := time.NewTimer(slowLimit)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.node.tails.hurry():
	case <-s.qc.Context().Done():
	}
}

// awaitDelivery waits until the peer has all that was sent: closing the connection would discard the rest. The QUIC
// library does not say when a FIN is acknowledged, but it repeats what is not, at times p, 3p, 7p, 15p ... after it
// was sent (p is the probe time-out). So if nothing at all was sent between t and 3t, for a t of at least 2p,
// everything has arrived. Where the machine is so busy that this wakes far too late, the library may be late, too, and the
// time does not count. It returns early when give is closed, and takes shorter steps once hurry is.
func awaitDelivery(qc *quic.Conn, give, hurry <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	var wait time.Duration
	last := ^uint64(0)
	for settling := give == nil; ; settling, wait = false, 2*wait {
		stats := qc.ConnectionStats()
		if stats.PacketsSent == last {
			return
		}
		if !settling {
			last = stats.PacketsSent
		}
		probe := stats.SmoothedRTT + max(4*stats.MeanDeviation, time.Millisecond) + maxAckDelay
		wait = max(wait, 2*probe)
		timer.Reset(wait)
		due := time.Now().Add(wait)
		select {
		case <-timer.C:
			if time.Since(due) > wait {
				wait, last = probe, ^uint64(0)
			}
		case <-hurry:
			hurry, wait, last = nil, probe, ^uint64(0)
		case <-give:
			return
		case <-qc.Context().Done():
			return
		}
	}
}

// tails counts the streams whose last bytes are on their way.
type tails struct {
	tally
	closing chan struct{} // Closed when the node wants to end.
}

func (t *tails) hurry() <-chan struct{} { return t.closing }

// wait asks the tails to hurry and waits for them, at most for limit.
func (t *tails) wait(limit time.Duration) {
	close(t.closing)
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-t.none():
	case <-timer.C:
	}
}
