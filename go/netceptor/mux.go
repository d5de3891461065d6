package netceptor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// muxALPN is what two nodes of this implementation agree on instead of [streamALPN]: the connection then carries any
// number of streams to the service it was made to. Streams to another service need another connection: firewalls on the
// way judge packets by their service, and would not see that a stream inside is for one that they hold back.
//
// Each bidirectional stream of the dialer begins with a kind:
//
//	1  a service stream: u8 length, service name. The answer is u8 status; 0 opens the stream, and what follows in both
//	   directions is the application's. Any other status is followed by u8 length and a text, and the stream is over.
//	2  the liveness stream: one byte every two seconds while there are service streams; never answered.
//
// The other side has a liveness stream too, a unidirectional one, on which it writes a byte when it has service streams and
// hears nothing: the dialer may be done with them, and does not know that their data is still being read.
//
// FIN, reset (STOP_SENDING and RESET_STREAM with the application's code) and flow control are those of QUIC. The
// connection itself ends with application error 0, "normal close", when it has carried nothing for a while.
const muxALPN = "receptor-mux/1"

const (
	muxService byte = 1
	muxBeat    byte = 2

	muxOpen     byte = 0
	muxUnknown  byte = 1 // No such service.
	muxIdentity byte = 2 // Another service, or another TLS profile by now: it needs a connection of its own.
	muxBusy     byte = 3 // Too many streams wait to be accepted.
	muxClosing  byte = 4 // The service is being closed.

	beatEvery   = 2 * time.Second
	pathLost    = 3 * beatEvery    // Without a packet for this long, a connection with streams is given up.
	muxRest     = 15 * time.Second // A connection without streams is kept this long for the next one.
	muxBacklog  = 5 * time.Second  // How long a stream waits for room among those that wait to be accepted.
	muxHeader   = 10 * time.Second // How long a stream may take to say what it is for.
	staleAfter  = 2 * time.Second  // How long a connection that was at rest may take to answer before it is given up.
	sharedDial  = 2 * time.Second  // How long a stream waits for a connection that is being made before it makes its own.
	codePath    = quic.ApplicationErrorCode(501)
	codeRefused = quic.StreamErrorCode(500)
	codeEnds    = quic.StreamErrorCode(codePath) // Of a stream whose node ends.
)

var (
	errPathLost  = fmt.Errorf("path lost: nothing received for %v", pathLost)
	errOtherMux  = errors.New("the connection was made to another service or TLS profile")
	errMuxBusy   = errors.New("the service does not accept streams as fast as they come")
	errMuxFull   = errors.New("no more streams fit on the connection")
	errMuxBroken = errors.New("the connection has ended")
)

// muxKey says which streams may share a connection: those to one service of one node with one client profile.
type muxKey struct {
	node    wire.NodeID
	service string
	conf    *tls.Config
}

// verify judges the service's certificate again; nil without a profile.
func (k muxKey) verify() func(tls.ConnectionState) error {
	if k.conf == nil {
		return nil
	}
	return k.conf.VerifyConnection
}

// mux is a connection that carries many streams.
type mux struct {
	node   *Node
	qc     *quic.Conn
	socket *streamSocket
	dialer bool
	key    muxKey      // Of the dialer.
	conf   *tls.Config // Of the service the connection was made to.
	local  Addr
	remote Addr

	mu       sync.Mutex
	streams  map[*Stream]struct{}
	used     bool        // A stream was opened on it.
	spoke    bool        // The peer's program may not have read yet what was written to a stream that is finished.
	liveness interface { // Once there was need for it.
		io.Writer
		SetWriteDeadline(t time.Time) error
	}
	resting time.Time // Since when there are no streams.
	cause   error     // Why this side gave the connection up.
	lost    bool      // See lose.
}

// newMux takes over a connection and one use of its socket.
func (n *Node) newMux(qc *quic.Conn, socket *streamSocket, remote Addr) *mux {
	return &mux{
		node: n, qc: qc, socket: socket, local: socket.pc.LocalAddr().(Addr), remote: remote,
		streams: map[*Stream]struct{}{}, resting: time.Now(),
	}
}

// start watches the connection until its end.
func (m *mux) start() {
	n := m.node
	n.streamsMu.Lock()
	n.muxes[m] = struct{}{}
	n.streamsMu.Unlock()
	if m.dialer {
		n.wg.Go(m.discardBeats)
	}
	n.wg.Go(func() {
		m.watch()
		n.streamsMu.Lock()
		delete(n.muxes, m)
		n.streamsMu.Unlock()
		m.endStreams()
		m.socket.release()
	})
}

// watch keeps the connection alive while it has streams, gives it up when its path is lost, and ends it when it is not
// needed any more. The peer may need it for longer, to read what has arrived, and beats as long as it does.
func (m *mux) watch() {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	var packets uint64
	heard, silent := time.Now(), time.Now() // Since when nothing was heard while there were streams, and since when at all.
	for {
		select {
		case <-m.qc.Context().Done():
			return
		case <-tick.C:
		}
		m.mu.Lock()
		busy, resting, over := len(m.streams) > 0, m.resting, m.cause != nil
		m.mu.Unlock()
		now, received := time.Now(), m.qc.ConnectionStats().PacketsReceived
		if received != packets {
			packets, heard, silent = received, now, now
		}
		if !busy {
			heard = now
		}
		switch {
		case over:
		case busy && now.Sub(heard) >= pathLost:
			m.lose(errPathLost)
		case busy && (m.dialer || now.Sub(heard) >= beatEvery):
			m.beat()
		case !busy && m.dialer && now.Sub(resting) >= muxRest && now.Sub(silent) >= pathLost:
			_ = m.qc.CloseWithError(codeNormal, reasonNormal)
		}
	}
}

// discardBeats reads the peer's liveness stream.
func (m *mux) discardBeats() {
	for {
		beats, err := m.qc.AcceptUniStream(m.node.ctx)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, beats)
	}
}

// beat writes to the liveness stream, which it opens the first time.
func (m *mux) beat() {
	m.mu.Lock()
	if m.liveness == nil { // If all streams are in use there is a next time.
		if m.dialer {
			if s, err := m.qc.OpenStream(); err == nil {
				m.liveness = s
			}
		} else if s, err := m.qc.OpenUniStream(); err == nil {
			m.liveness = s
		}
	}
	s := m.liveness
	m.mu.Unlock()
	if s != nil {
		_ = s.SetWriteDeadline(time.Now().Add(beatEvery))
		_, _ = s.Write([]byte{muxBeat})
	}
}

// lose gives up the path, but lets the streams read what has arrived: the connection goes on without packets until they
// are finished, or for its idle timeout.
func (m *mux) lose(cause error) {
	m.mu.Lock()
	if m.cause == nil {
		m.cause = cause
	}
	m.lost = true
	streams := slices.Collect(maps.Keys(m.streams))
	m.mu.Unlock()
	if m.dialer {
		m.node.unshare(m)
	}
	if len(streams) == 0 {
		m.giveUp(cause)
	}
	for _, s := range streams {
		s.drain()
	}
}

// next opens a stream. Before the second, the liveness stream is opened, while there is room for it: a connection that is
// full of streams on which nothing moves lives by it.
func (m *mux) next() (*quic.Stream, error) {
	m.mu.Lock()
	reserve := m.used && m.liveness == nil
	m.used = true
	m.mu.Unlock()
	if reserve {
		m.beat()
	}
	return m.qc.OpenStream()
}

// giveUp ends the connection and all its streams with an error.
func (m *mux) giveUp(cause error) {
	m.mu.Lock()
	if m.cause == nil {
		m.cause = cause
	}
	m.mu.Unlock()
	_ = m.qc.CloseWithError(codePath, cause.Error())
}

func (m *mux) broken() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cause
}

// endStreams tells every stream that the connection is gone.
func (m *mux) endStreams() {
	m.mu.Lock()
	streams := m.streams
	m.streams = nil
	m.mu.Unlock()
	for s := range streams {
		m.node.dropStream(s)
		s.markDone()
	}
}

// adopt makes a stream of this connection known; false if the connection has ended.
func (m *mux) adopt(qs *quic.Stream, local, remote Addr) (*Stream, bool) {
	s := &Stream{node: m.node, qc: m.qc, qs: qs, mux: m, local: local, remote: remote, done: make(chan struct{})}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.streams == nil || m.cause != nil {
		return nil, false
	}
	m.streams[s] = struct{}{}
	m.node.addStream(s)
	return s, true
}

// leave takes a finished stream, whose lock is held, off the connection.
func (m *mux) leave(s *Stream) {
	m.mu.Lock()
	delete(m.streams, s)
	m.spoke = m.spoke || s.aborted == nil && s.sent.Load() > 0
	if len(m.streams) == 0 {
		m.resting = time.Now()
		if m.lost { // Nothing is left to read.
			cause := m.cause
			m.node.wg.Go(func() { m.giveUp(cause) })
		}
	}
	m.mu.Unlock()
	m.node.dropStream(s)
	s.markDone()
}

// atRest reports whether the connection has carried nothing for a while, so that nobody knows whether its path still
// exists. One that was just made is known to work, however slow it is.
func (m *mux) atRest() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.streams) == 0 && time.Since(m.resting) > beatEvery
}

// open opens a stream to a service over the connection.
func (m *mux) open(ctx context.Context, to Addr) (*Stream, error) {
	if verify := m.key.verify(); verify != nil && verify(m.qc.ConnectionState().TLS) != nil {
		return nil, errOtherMux // A new connection will say what is wrong, if anything is.
	}
	if m.atRest() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, staleAfter, errMuxBroken)
		defer cancel()
	}
	qs, err := m.next()
	if err != nil {
		if m.qc.Context().Err() != nil {
			return nil, errMuxBroken
		}
		return nil, errMuxFull
	}
	s, ok := m.adopt(qs, m.local, to)
	if !ok {
		return nil, errMuxBroken
	}
	status, text, err := m.ask(ctx, qs, to.Service)
	switch {
	case err == nil && status == muxOpen:
		return s, nil
	case err == nil:
		err = statusError(status, text)
		_ = s.Close()
	default:
		if reset, ok := errors.AsType[*quic.StreamError](err); ok && reset.Remote && reset.ErrorCode != codeRefused && ctx.Err() == nil {
			return s, nil // It was accepted and then reset, which discards the answer on its way. Who reads it hears that.
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		} else if m.qc.Context().Err() != nil {
			err = errMuxBroken
		}
		s.abort(codeReadCancel)
	}
	if errors.Is(err, errMuxBroken) {
		m.giveUp(errPathLost)
	}
	return nil, err
}

// ask sends the header of a service stream and waits for the answer.
func (m *mux) ask(ctx context.Context, qs *quic.Stream, service string) (status byte, text string, err error) {
	stop := context.AfterFunc(ctx, func() { _ = qs.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := qs.Write(muxQuestion(service)); err != nil {
		return 0, "", err
	}
	return readMuxAnswer(qs)
}

// muxQuestion is the header of a service stream.
func muxQuestion(service string) []byte {
	return append([]byte{muxService, byte(len(service))}, service...)
}

// readMuxHeader reads what a stream of the peer begins with and nothing after it: the kind and, of a service stream, the
// service. An unknown kind is an error.
func readMuxHeader(r io.Reader) (kind byte, service string, err error) {
	var b [1]byte
	if _, err = io.ReadFull(r, b[:]); err != nil {
		return 0, "", err
	}
	switch kind = b[0]; kind {
	case muxService:
		service, err = readMuxText(r)
	case muxBeat:
	default:
		err = fmt.Errorf("streams of kind %d are unknown", kind)
	}
	return kind, service, err
}

// muxAnswer is the answer to the header of a service stream; the text is for other statuses than muxOpen.
func muxAnswer(status byte, text string) []byte {
	if status == muxOpen {
		return []byte{status}
	}
	return append([]byte{status, byte(len(text))}, text...)
}

// readMuxAnswer reads a [muxAnswer] and nothing after it.
func readMuxAnswer(r io.Reader) (status byte, text string, err error) {
	var b [1]byte
	if _, err = io.ReadFull(r, b[:]); err != nil || b[0] == muxOpen {
		return b[0], "", err
	}
	text, err = readMuxText(r)
	return b[0], text, err
}

// readMuxText reads u8 length and so many bytes.
func readMuxText(r io.Reader) (string, error) {
	var b [256]byte
	if _, err := io.ReadFull(r, b[:1]); err != nil {
		return "", err
	}
	n, err := io.ReadFull(r, b[:b[0]])
	return string(b[:n]), err
}

func statusError(status byte, text string) error {
	switch status {
	case muxUnknown:
		return ErrServiceUnknown
	case muxIdentity:
		return errOtherMux
	case muxBusy:
		return errMuxBusy
	case muxClosing:
		return ErrServiceClosing
	default:
		return fmt.Errorf("refused with status %d: %.255q", status, text)
	}
}

// serve accepts streams on a connection that was made to a service of this node.
func (m *mux) serve() {
	for {
		qs, err := m.qc.AcceptStream(m.node.ctx)
		if err != nil {
			return
		}
		m.node.wg.Go(func() { m.receive(qs) })
	}
}

// receive finds out what a stream is for.
func (m *mux) receive(qs *quic.Stream) {
	_ = qs.SetDeadline(time.Now().Add(muxHeader))
	kind, service, err := readMuxHeader(qs)
	switch {
	case err != nil:
		qs.CancelRead(codeRefused)
		qs.CancelWrite(codeRefused)
	case kind == muxBeat:
		_ = qs.SetDeadline(time.Time{})
		_, _ = io.Copy(io.Discard, qs)
		_ = qs.Close()
	default:
		m.dispatch(qs, service)
	}
}

// dispatch hands a stream to the listener of its service, or refuses it.
func (m *mux) dispatch(qs *quic.Stream, service string) {
	n := m.node
	if m.broken() != nil { // The peer, whose path was lost, is back. Streams of before may have something to be read.
		refuse(qs, muxIdentity, errOtherMux.Error())
		return
	}
	n.streamsMu.Lock()
	l := n.listeners[service]
	n.streamsMu.Unlock()
	switch {
	case service != m.local.Service:
		refuse(qs, muxIdentity, errOtherMux.Error())
	case l == nil:
		refuse(qs, muxUnknown, string(wire.ProblemServiceUnknown))
	case l.conf != m.conf || !m.stillTrusted(l.conf):
		refuse(qs, muxIdentity, errOtherMux.Error())
	case l.ctx.Err() != nil:
		refuse(qs, muxClosing, reasonClosing)
	case !l.reserve(m.qc.Context()):
		if l.ctx.Err() != nil {
			refuse(qs, muxClosing, reasonClosing)
			return
		}
		refuse(qs, muxBusy, errMuxBusy.Error())
	default:
		_, err := qs.Write(muxAnswer(muxOpen, ""))
		_ = qs.SetDeadline(time.Time{})
		s, ok := m.adopt(qs, Addr{n.id, service}, m.remote)
		if err != nil || !ok {
			<-l.places
			if ok {
				s.abort(codeRefused)
			}
			return
		}
		select {
		case l.accept <- s:
			if l.ctx.Err() != nil { // Nobody accepts any more; Close may have looked before.
				l.refuseWaiting()
			}
		case <-l.ctx.Done():
			<-l.places
			s.abort(codeRefused)
		case <-m.qc.Context().Done():
			<-l.places
		}
	}
}

// stillTrusted reports whether a profile would let the peer in today: pins and files may have changed since the handshake.
func (m *mux) stillTrusted(conf *tls.Config) bool {
	if conf == nil {
		return true
	}
	if choose := conf.GetConfigForClient; choose != nil {
		chosen, err := choose(&tls.ClientHelloInfo{Conn: peerOnly{remote: m.qc.RemoteAddr()}})
		if err != nil {
			return false
		}
		if chosen != nil {
			conf = chosen
		}
	}
	state := m.qc.ConnectionState().TLS
	needed := conf.ClientAuth == tls.RequireAnyClientCert || conf.ClientAuth == tls.RequireAndVerifyClientCert
	switch {
	case needed && len(state.PeerCertificates) == 0:
		return false
	case conf.VerifyConnection != nil:
		return conf.VerifyConnection(state) == nil
	}
	return true
}

// peerOnly is the connection of a tls.ClientHelloInfo of which only the peer is asked.
type peerOnly struct {
	net.Conn
	remote net.Addr
}

func (p peerOnly) RemoteAddr() net.Addr { return p.remote }

func refuse(qs *quic.Stream, status byte, text string) {
	_, _ = qs.Write(muxAnswer(status, text))
	_ = qs.Close()
	qs.CancelRead(codeRefused)
}

// muxTo returns a connection that streams to a service can share. If there is none, the caller is to make one and to call
// ends once that is over. If one is being made right now, it waits for that for up to [sharedDial]: on a busy machine a
// hundred handshakes at once take far longer than one.
func (n *Node) muxTo(ctx context.Context, key muxKey) (m *mux, ends func()) {
	for waited := false; ; waited = true {
		n.streamsMu.Lock()
		if list := n.shared[key]; len(list) > 0 {
			m := list[len(list)-1]
			n.streamsMu.Unlock()
			return m, nil
		}
		dialing := n.dialing[key]
		if dialing == nil || waited {
			ends := n.dialBeginsLocked(key)
			n.streamsMu.Unlock()
			return nil, ends
		}
		n.streamsMu.Unlock()
		timer := time.NewTimer(sharedDial)
		select {
		case <-dialing:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// share offers a dialled connection to later streams until it ends.
func (n *Node) share(m *mux) {
	n.streamsMu.Lock()
	n.shared[m.key] = append(n.shared[m.key], m)
	n.streamsMu.Unlock()
	n.wg.After(m.qc.Context(), func() { n.unshare(m) })
}

// unshare keeps further streams off a connection.
func (n *Node) unshare(m *mux) {
	n.streamsMu.Lock()
	defer n.streamsMu.Unlock()
	list := slices.DeleteFunc(n.shared[m.key], func(other *mux) bool { return other == m })
	if len(list) == 0 {
		delete(n.shared, m.key)
		return
	}
	n.shared[m.key] = list
}

// dialBeginsLocked notes that a connection is being made; the function it returns notes the end of that.
func (n *Node) dialBeginsLocked(key muxKey) (ends func()) {
	done := make(chan struct{})
	if n.dialing[key] == nil {
		n.dialing[key] = done
	}
	return func() {
		n.streamsMu.Lock()
		defer n.streamsMu.Unlock()
		if n.dialing[key] == done {
			delete(n.dialing, key)
		}
		close(done)
	}
}

// failMuxes ends connections to and from a node that are known to lead nowhere.
func (n *Node) failMuxes(cause error, which func(*mux) bool) {
	n.streamsMu.Lock()
	var hit []*mux
	for m := range n.muxes {
		if which(m) {
			hit = append(hit, m)
		}
	}
	n.streamsMu.Unlock()
	for _, m := range hit {
		if leavesData(cause) {
			m.lose(cause)
		} else {
			m.giveUp(cause)
		}
	}
}

// finishMuxes ends the shared connections at a node's end, within a limit.
func (n *Node) finishMuxes(cause error, limit time.Duration) {
	n.streamsMu.Lock()
	var wg sync.WaitGroup
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for m := range n.muxes {
		wg.Go(func() { n.wg.guard(func() { m.finish(ctx, cause) }) })
	}
	n.streamsMu.Unlock()
	wg.Wait()
}

// finish ends the connection once what was written has arrived. If the peer's program may still have to read some of that,
// the peer is not told of the end, as in [Stream.letGo]; its streams that are not finished are reset.
func (m *mux) finish(ctx context.Context, cause error) {
	m.mu.Lock()
	if m.cause == nil {
		m.cause = cause
	}
	spoke, open := m.spoke, slices.Collect(maps.Keys(m.streams))
	m.mu.Unlock()
	for _, s := range open { // Also where nothing is left to deliver: what still flows on them would go on for all of ctx.
		s.abort(codeEnds)
	}
	awaitDelivery(m.qc, ctx.Done(), nil)
	if spoke {
		m.socket.quic.hushConn(m.qc)
	}
	m.giveUp(cause)
}
