package netceptor

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/pyreceptor/pyreceptor/go/policy"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

var (
	errPeerGone      = errors.New("the other end is gone: its node does not know the stream's service any more")
	errPeerRestarted = errors.New("the other node has been restarted")
)

// streamSocket is the datagram socket under streams: that of one dialled stream, or of a service and all the streams it
// has accepted. It ends when nobody uses it.
type streamSocket struct {
	node *Node
	pc   *PacketConn
	quic meshSocket
	tr   *quic.Transport

	dialing   atomic.Pointer[dialing] // nil: no dial goes on.
	attending atomic.Bool             // Somebody reads the notices.

	// Guarded by node.streamsMu.
	users     int
	listening bool
}

// dialing is a dial that goes on, which notices about the service may end.
type dialing struct {
	to   Addr
	stop context.CancelCauseFunc
}

func (n *Node) newStreamSocket(pc *PacketConn) *streamSocket {
	socket := newQUICSocket(pc)
	s := &streamSocket{node: n, pc: pc, quic: socket, tr: &quic.Transport{Conn: socket, ConnectionIDLength: 4}, users: 1}
	noticed := s.noticed
	pc.noticed.Store(&noticed)
	return s
}

// release gives up one use.
func (s *streamSocket) release() {
	n := s.node
	n.streamsMu.Lock()
	s.users--
	last := s.users == 0
	if last {
		if n.streamSockets[s.pc.Service()] == s {
			delete(n.streamSockets, s.pc.Service())
		}
		_ = s.pc.Close() // Before anybody finds the service free: its name has to be, too.
	}
	n.streamsMu.Unlock()
	if last {
		_ = s.tr.Close()
	}
}

// stopListening makes the socket refuse new connections while its streams go on, and returns what it advertised.
func (s *streamSocket) stopListening(l *StreamListener) *advertised {
	s.node.streamsMu.Lock()
	defer s.node.streamsMu.Unlock()
	if s.node.listeners[s.pc.Service()] == l {
		delete(s.node.listeners, s.pc.Service())
	}
	refuses := opensConnection
	s.pc.refuses.Store(&refuses)
	return s.pc.ad
}

// listenAgain lets the next listener have the socket, which the QUIC library gives to one at a time.
func (s *streamSocket) listenAgain() {
	s.node.streamsMu.Lock()
	defer s.node.streamsMu.Unlock()
	s.listening = false
}

// noticed sees to it that the notices are read. A socket that gets none has no goroutine for them.
func (s *streamSocket) noticed() {
	if s.attending.CompareAndSwap(false, true) {
		s.node.wg.Go(s.readNotices)
	}
}

func (s *streamSocket) readNotices() {
	for {
		select {
		case notice := <-s.pc.notices:
			s.heed(notice)
			continue
		default:
		}
		s.attending.Store(false)
		if len(s.pc.notices) == 0 || !s.attending.CompareAndSwap(false, true) {
			return
		}
	}
}

// heed ends dials and streams whose other end does not exist, or not any more, or whose packets a firewall rejects.
func (s *streamSocket) heed(notice Notice) {
	peer, cause := Addr{notice.ToNode, notice.ToService}, problemError(notice.Problem)
	if !errors.Is(cause, ErrServiceUnknown) && !errors.Is(cause, ErrFirewall) {
		return
	}
	if d := s.dialing.Load(); d != nil && d.to == peer {
		d.stop(cause)
		return
	}
	if errors.Is(cause, ErrServiceUnknown) {
		cause = errPeerGone
	}
	s.node.failStreams(cause, func(st *Stream) bool {
		return st.mux == nil && st.remote == peer && st.local.Service == notice.FromService
	})
	s.node.failMuxes(cause, func(m *mux) bool { return m.socket == s && m.remote == peer })
}

// adopt makes a stream of a connection, registers it, and frees what it holds when the connection ends. The caller has
// taken a use of the socket for it.
func (s *streamSocket) adopt(qc *quic.Conn, qs *quic.Stream, remote Addr) *Stream {
	st := &Stream{node: s.node, qc: qc, qs: qs, socket: s, local: s.pc.LocalAddr().(Addr), remote: remote, done: make(chan struct{})}
	s.node.addStream(st)
	s.node.wg.After(qc.Context(), func() {
		s.node.dropStream(st)
		st.markDone()
		s.release()
	})
	return st
}

func (n *Node) addStream(s *Stream) {
	n.streamsMu.Lock()
	defer n.streamsMu.Unlock()
	n.streams[s] = struct{}{}
}

func (n *Node) dropStream(s *Stream) {
	n.streamsMu.Lock()
	defer n.streamsMu.Unlock()
	delete(n.streams, s)
}

func (n *Node) failStreams(cause error, which func(*Stream) bool) {
	n.streamsMu.Lock()
	var hit []*Stream
	for st := range n.streams {
		if which(st) {
			hit = append(hit, st)
		}
	}
	n.streamsMu.Unlock()
	for _, st := range hit {
		st.fail(cause)
	}
}

// farewell is how long new firewall rules wait for the streams that they end to say so to their peers, which they could
// not do any more afterwards.
const farewell = 100 * time.Millisecond

// endRejected ends the streams of this node whose packets p rejects, in either direction.
func (n *Node) endRejected(p *policy.Policy) {
	rejected := func(local, remote Addr) bool {
		near, _ := wire.Service(local.Service)
		far, _ := wire.Service(remote.Service)
		return p.Foresee(local.Node, remote.Node, near, far) == policy.Reject ||
			p.Foresee(remote.Node, local.Node, far, near) == policy.Reject
	}
	var ends []func()
	n.streamsMu.Lock()
	for m := range n.muxes {
		if rejected(m.local, m.remote) {
			ends = append(ends, func() { m.giveUp(ErrFirewall) })
		}
	}
	for s := range n.streams {
		if s.mux == nil && rejected(s.local, s.remote) {
			ends = append(ends, func() { s.fail(ErrFirewall) })
		}
	}
	n.streamsMu.Unlock()
	if len(ends) == 0 {
		return
	}
	said := make(chan struct{})
	n.wg.Go(func() {
		defer close(said)
		var all sync.WaitGroup
		for _, end := range ends {
			all.Go(func() { n.wg.guard(end) })
		}
		all.Wait()
	})
	timer := time.NewTimer(farewell)
	defer timer.Stop()
	select {
	case <-said:
	case <-timer.C:
	}
}

// DialStream opens a stream to a service. conf is the client side of a TLS profile, for a service that has one; nil is
// for a service without. The stream's protocol is set here, and no server name is sent with a profile: it checks node
// IDs. DialStream gives up when ctx ends, when the service's node says that it does not
// exist, or after 15 seconds without an answer. Errors are of type [DialError].
func (n *Node) DialStream(ctx context.Context, node wire.NodeID, service string, conf *tls.Config) (*Stream, error) {
	to := Addr{node.At(n.id), service}
	if _, err := wire.Service(service); err != nil {
		return nil, &DialError{Addr: to, Text: "INTERNAL_ERROR (local): service name too long", Err: err}
	}
	if d := n.table.Load().byName(to.Node); d == nil || d.next == nil && !d.self {
		return nil, &DialError{Addr: to, Text: "INTERNAL_ERROR (local): " + ErrNoRoute.Error(), Err: ErrNoRoute}
	}
	key := muxKey{to.Node, service, conf}
	for {
		m, ends := n.muxTo(ctx, key)
		if m == nil {
			st, err := n.dialNew(ctx, to, key)
			ends()
			if err != nil {
				return nil, dialError(to, err)
			}
			return st, nil
		}
		st, err := m.open(ctx, to)
		switch {
		case err == nil:
			return st, nil
		case errors.Is(err, errMuxBroken), errors.Is(err, errMuxFull), errors.Is(err, errOtherMux):
			n.unshare(m)
		default:
			return nil, dialError(to, err)
		}
	}
}

// dialNew opens a stream over a connection of its own, which later streams share if the other node can do that.
func (n *Node) dialNew(ctx context.Context, to Addr, key muxKey) (*Stream, error) {
	pc, err := n.ListenPacket("", nil)
	if err != nil {
		return nil, err
	}
	socket := n.newStreamSocket(pc)
	qc, err := socket.dial(ctx, to, n.clientTLS(key.conf))
	if err != nil {
		_ = pc.Close()
		_ = socket.tr.Close()
		return nil, err
	}
	socket.quic.followConn(qc)
	if qc.ConnectionState().TLS.NegotiatedProtocol != muxALPN {
		return socket.openOnly(ctx, qc, to)
	}
	m := n.newMux(qc, socket, to)
	m.dialer, m.key = true, key
	m.start()
	st, err := m.open(ctx, to)
	if err == nil {
		n.share(m)
		return st, nil
	}
	if cause := context.Cause(qc.Context()); errors.Is(err, errMuxBroken) && cause != nil {
		err = cause // The service has judged this side's certificate, say: not a path that others might find better.
	}
	m.giveUp(err)
	return nil, err
}

func dialError(to Addr, err error) error {
	if se, ok := errors.AsType[*quic.StreamError](err); ok && se.Remote && se.ErrorCode == codeRefused {
		return &DialError{Addr: to, Text: reasonClosing, Err: fmt.Errorf("%w: %w", ErrServiceClosing, err)}
	}
	if te, ok := errors.AsType[*quic.TransportError](err); ok && te.Remote && te.ErrorCode == quic.ConnectionRefused {
		// How the QUIC library of the service ends a handshake that its end interrupts.
		return &DialError{Addr: to, Text: reasonClosing, Err: fmt.Errorf("%w: %w", ErrServiceClosing, err)}
	}
	if app, ok := errors.AsType[*quic.ApplicationError](err); ok && app.Remote && app.ErrorMessage == reasonClosing {
		return &DialError{Addr: to, Text: err.Error(), Err: fmt.Errorf("%w: %w", ErrServiceClosing, err)}
	}
	if errors.Is(err, ErrServiceUnknown) {
		return &DialError{Addr: to, Text: "context canceled", Err: err}
	}
	if _, ok := errors.AsType[*quic.IdleTimeoutError](err); ok {
		return &DialError{Addr: to, Text: err.Error(), Err: errNoAnswer}
	}
	if _, ok := errors.AsType[*quic.HandshakeTimeoutError](err); ok {
		return &DialError{Addr: to, Text: err.Error(), Err: errNoAnswer}
	}
	return &DialError{Addr: to, Text: err.Error(), Err: err}
}

// dial makes a connection and gives up early on a notice that it cannot be made.
func (s *streamSocket) dial(ctx context.Context, to Addr, conf *tls.Config) (*quic.Conn, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.node.ctx, func() { cancel(ErrClosed) })()
	s.dialing.Store(&dialing{to, cancel})
	defer s.dialing.Store(nil)
	qc, err := s.tr.Dial(ctx, quicAddrOf(to), conf, s.node.quicConfig(true))
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return qc, err
}

// openOnly opens the one stream of a connection to an existing node.
func (s *streamSocket) openOnly(ctx context.Context, qc *quic.Conn, to Addr) (*Stream, error) {
	qs, err := qc.OpenStreamSync(ctx)
	if err == nil {
		_, err = qs.Write([]byte{streamOpening})
	}
	if err != nil {
		_ = qc.CloseWithError(codeNormal, reasonNormal)
		s.release()
		return nil, err
	}
	return s.adopt(qc, qs, to), nil
}

// StreamListener accepts streams to a service of this node.
type StreamListener struct {
	socket *streamSocket
	conf   *tls.Config // As it was given; nil for a service without a profile.
	ln     *quic.Listener
	accept chan *Stream
	places chan struct{} // One token for each stream of a shared connection in accept.
	ctx    context.Context
	stop   context.CancelFunc
	slots  chan struct{}
	young  tails // Connections in the handshake.
	wg     sync.WaitGroup
	once   sync.Once

	acceptors sync.WaitGroup
}

// ListenStream accepts streams on a service name of up to eight bytes; an empty name takes a free ephemeral one. With an
// ad, the mesh is told. conf is the server side of a TLS profile; nil is for a service without. Its callbacks find the
// dialling node with [PeerOf]. Errors as [Node.ListenPacket].
func (n *Node) ListenStream(service string, ad *ServiceAd, conf *tls.Config) (*StreamListener, error) {
	kind := wire.ConnStream
	if conf != nil {
		kind = wire.ConnStreamTLS
	}
	server, err := n.serverTLS(conf)
	if err != nil {
		return nil, err
	}
	socket, err := n.listeningSocket(service, ad, kind)
	if err != nil {
		return nil, err
	}
	return newStreamListener(socket, conf, server)
}

// listeningSocket makes the socket of a service, or takes the one that streams of an earlier listener still use.
func (n *Node) listeningSocket(service string, ad *ServiceAd, kind wire.ConnType) (*streamSocket, error) {
	n.streamsMu.Lock()
	defer n.streamsMu.Unlock()
	if s := n.streamSockets[service]; s != nil && !s.listening {
		s.listening = true
		s.pc.refuses.Store(nil)
		s.users++
		if ad != nil {
			s.pc.ad = n.advertise(service, kind, ad.Tags)
		}
		return s, nil
	}
	pc, err := n.listenPacket(service, ad, kind)
	if err != nil {
		return nil, err
	}
	s := n.newStreamSocket(pc)
	s.tr.ConnContext = s.begins
	s.listening = true
	n.streamSockets[pc.Service()] = s
	return s, nil
}

func newStreamListener(socket *streamSocket, conf, server *tls.Config) (*StreamListener, error) {
	ln, err := socket.tr.Listen(server, socket.node.quicConfig(false))
	if err != nil {
		socket.release()
		return nil, err
	}
	l := &StreamListener{
		socket: socket, conf: conf, ln: ln,
		accept: make(chan *Stream, acceptBacklog), places: make(chan struct{}, acceptBacklog), slots: make(chan struct{}, maxHandshakes),
	}
	l.young.closing = make(chan struct{})
	l.ctx, l.stop = context.WithCancel(socket.pc.ctx)
	n := socket.node
	n.streamsMu.Lock()
	n.listeners[l.Service()] = l
	n.streamsMu.Unlock()
	for range acceptors {
		l.acceptors.Go(func() { n.wg.guard(l.acceptConns) })
	}
	return l, nil
}

// Service returns the service name.
func (l *StreamListener) Service() string { return l.socket.pc.Service() }

// Addr returns the listener's address, an [Addr].
func (l *StreamListener) Addr() net.Addr { return l.socket.pc.LocalAddr() }

// Accept waits for a stream. After Close it returns an error that wraps net.ErrClosed.
func (l *StreamListener) Accept() (*Stream, error) {
	select {
	case s := <-l.accept:
		l.leave(s)
		return s, nil
	case <-l.ctx.Done():
		return nil, &net.OpError{Op: "accept", Net: "receptor", Source: l.Addr(), Err: net.ErrClosed}
	}
}

// reserve takes a place among the streams that wait to be accepted. It waits for one while the connection lives, up to
// muxBacklog: a burst is no reason to refuse a stream.
func (l *StreamListener) reserve(conn context.Context) bool {
	select {
	case l.places <- struct{}{}:
		return true
	default:
	}
	timer := time.NewTimer(muxBacklog)
	defer timer.Stop()
	select {
	case l.places <- struct{}{}:
		return true
	case <-timer.C:
	case <-l.ctx.Done():
	case <-conn.Done():
	}
	return false
}

// leave gives the place of a stream free that waits no longer.
func (l *StreamListener) leave(s *Stream) {
	if s.mux != nil {
		<-l.places
	}
}

// Close stops accepting and refuses what was not accepted; connections that are being made get up to a second to hear of
// it. Streams accepted before live on.
func (l *StreamListener) Close() error {
	l.once.Do(func() {
		l.stop()
		ad := l.socket.stopListening(l) // From here on acceptConns counts nothing new in wg.
		l.young.wait(closeYoung)
		_ = l.ln.Close()
		l.socket.listenAgain()
		l.acceptors.Wait()
		l.wg.Wait()
		l.refuseWaiting()
		n := l.socket.node
		if ad != nil {
			n.withdraw(ad)
		}
		l.socket.release()
	})
	return nil
}

// youngKey finds the handshake that a connection's context belongs to.
type youngKey struct{}

// begins counts a connection of the socket that begins its handshake, until acceptConns has it or it fails.
func (s *streamSocket) begins(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
	s.node.streamsMu.Lock()
	l := s.node.listeners[s.pc.Service()]
	s.node.streamsMu.Unlock()
	if l == nil {
		return ctx, nil
	}
	l.young.add()
	over := sync.OnceFunc(l.young.done)
	context.AfterFunc(ctx, over)
	return context.WithValue(ctx, youngKey{}, over), nil
}

// opensConnection recognises the first packet of a QUIC connection (RFC 9000, 17.2.2; RFC 9369, 3.2). A service that is
// closed answers it like one that was never there, while its older streams go on.
func opensConnection(packet []byte) bool {
	const longHeader, typeBits, leastRandomID = 0xc0, 0x30, 8
	if len(packet) < 6 || packet[0]&longHeader != longHeader || packet[5] < leastRandomID {
		return false // Also later packets of a handshake, which have an ID of this side's: they are shorter.
	}
	switch binary.BigEndian.Uint32(packet[1:]) {
	case uint32(quic.Version1):
		return packet[0]&typeBits == 0x00
	case uint32(quic.Version2):
		return packet[0]&typeBits == 0x10
	default:
		return false
	}
}

func (l *StreamListener) refuseWaiting() {
	for {
		select {
		case s := <-l.accept:
			l.leave(s)
			s.refuseUnaccepted()
		default:
			return
		}
	}
}

// refuseUnaccepted ends a stream whose listener closed before anybody took it.
func (s *Stream) refuseUnaccepted() {
	if s.mux != nil {
		s.abort(codeRefused)
		return
	}
	_ = s.qc.CloseWithError(codeAccept, reasonClosing)
}

// acceptConns accepts connections until the listener is closed. Those that have not opened their stream yet are bounded.
func (l *StreamListener) acceptConns() {
	for {
		qc, err := l.ln.Accept(context.Background()) // Ends with the listener, after those that have arrived.
		if err != nil {
			return
		}
		if over, ok := qc.Context().Value(youngKey{}).(func()); ok {
			over()
		}
		select {
		case l.slots <- struct{}{}:
		default:
			_ = qc.CloseWithError(codeAccept, "too many connections are being opened")
			continue
		}
		n := l.socket.node
		n.streamsMu.Lock()
		if l.ctx.Err() != nil {
			n.streamsMu.Unlock()
			_ = qc.CloseWithError(codeAccept, reasonClosing)
			<-l.slots
			continue
		}
		l.socket.users++
		l.wg.Add(1)
		n.streamsMu.Unlock()
		n.wg.Go(func() {
			defer l.wg.Done()
			defer func() { <-l.slots }()
			l.open(qc)
		})
	}
}

// open waits for the stream of a new connection and hands it to Accept.
func (l *StreamListener) open(qc *quic.Conn) {
	l.socket.quic.followConn(qc)
	if qc.ConnectionState().TLS.NegotiatedProtocol == muxALPN {
		n := l.socket.node
		m := n.newMux(qc, l.socket, peerOf(qc.RemoteAddr()))
		m.conf = l.conf
		m.start()
		n.wg.Go(m.serve)
		return
	}
	qs, reason := l.firstStream(qc)
	if reason != "" {
		_ = qc.CloseWithError(codeAccept, reason)
		l.socket.release()
		return
	}
	remote := peerOf(qc.RemoteAddr())
	st := l.socket.adopt(qc, qs, remote)
	select {
	case l.accept <- st:
	case <-l.ctx.Done():
		st.refuseUnaccepted()
	case <-qc.Context().Done():
	}
}

// firstStream reads the byte that opens a stream, or says why the connection is refused, as existing nodes do.
func (l *StreamListener) firstStream(qc *quic.Conn) (*quic.Stream, string) {
	ctx, cancel := context.WithTimeout(l.ctx, acceptTimeout)
	defer cancel()
	qs, err := qc.AcceptStream(ctx)
	switch {
	case l.ctx.Err() != nil:
		return nil, reasonClosing
	case errors.Is(err, context.DeadlineExceeded):
		return nil, "Accept Timeout"
	case err != nil:
		return nil, "AcceptStream Error: " + err.Error()
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = qs.SetReadDeadline(deadline)
	}
	var first [1]byte
	if _, err := io.ReadFull(qs, first[:]); err != nil {
		return nil, "Read Error: " + err.Error()
	}
	if first[0] != streamOpening {
		return nil, "Read Data Error"
	}
	_ = qs.SetReadDeadline(time.Time{})
	return qs, ""
}
