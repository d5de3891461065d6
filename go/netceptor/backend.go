package netceptor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// Redial delays: the first after a failure, the factor, and the longest. A quarter is random, so that two nodes that
// dial each other at the same moment do not do so for ever.
const (
	redialFirst  = 250 * time.Millisecond
	redialFactor = 1.5
	redialMax    = 20 * time.Second
	dialTimeout  = 30 * time.Second
	acceptPause  = 100 * time.Millisecond
	// acceptAhead is how many connections may be accepted before those are gone that are given up for them. A listener waits
	// then, and loses by itself what it cannot hold: strangers come faster than a node can turn them away.
	acceptAhead = 1024
	maxReasons  = 32
	// stableAfter is how long a link must have lived for the next loss to be redialled at once again.
	stableAfter = 10 * time.Second
)

// Backend is one configured listener or dialer and the links that came from it.
type Backend struct {
	node *Node
	name string
	opt  LinkOptions
	addr string

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu       sync.Mutex
	conns    map[link.Conn]struct{}
	listener link.Listener
	room     chan struct{} // Of a listener: holds a token for each connection that is not introduced, until it is or is gone.

	reasons map[string]struct{} // Failures that were logged: a failing link logs per change, not per try.

	// For Node.Backends.
	kind        string
	state       BackendState
	tries, made uint64
	nextTry     time.Time
	failure     *LinkFailure
}

// Listen admits the links that l accepts. The node owns l from then on.
func (n *Node) Listen(l link.Listener, opt LinkOptions) (*Backend, error) {
	b, err := n.newBackend("listener", "listener "+l.Addr(), opt)
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	b.listener, b.addr, b.room = l, l.Addr(), make(chan struct{}, maxStrangers+acceptAhead)
	b.spawn(b.accept)
	b.spawn(func() {
		<-b.ctx.Done()
		_ = l.Close()
	})
	return b, nil
}

// Dial keeps a link made by d: after a failure or loss it dials again, after
// a quarter of a second, growing to 20 s.
func (n *Node) Dial(d link.Dialer, opt LinkOptions) (*Backend, error) {
	b, err := n.newBackend("dialer", d.String(), opt)
	if err != nil {
		return nil, err
	}
	b.spawn(func() { b.redial(d) })
	return b, nil
}

// AddLink runs one link over a connection that the caller has made, by whatever means ([link.NewStream] makes a link of
// any byte stream). The node owns conn from then on. The backend ends with the link: see [Backend.Done].
func (n *Node) AddLink(conn link.Conn, opt LinkOptions) (*Backend, error) {
	b, err := n.newBackend("link", conn.String(), opt)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	b.spawn(func() {
		peer, err := b.carry(conn)
		b.report(peer, err, false)
		b.stop()
		n.forgetBackend(b)
	})
	return b, nil
}

func (n *Node) newBackend(kind, name string, opt LinkOptions) (*Backend, error) {
	if err := opt.validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	opt.NodeCost = maps.Clone(opt.NodeCost)
	opt.AllowedPeers = slices.Clone(opt.AllowedPeers)
	b := &Backend{node: n, kind: kind, name: name, opt: opt, conns: map[link.Conn]struct{}{}, reasons: map[string]struct{}{}, state: BackendListening}
	b.ctx, b.stop = context.WithCancel(n.ctx)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		b.stop()
		return nil, ErrClosed
	}
	n.backends = append(n.backends, b)
	return b, nil
}

func (o LinkOptions) validate() error {
	bad := func(c float64) bool { return math.IsNaN(c) || c <= 0 || c > wire.MaxLinkCost }
	if bad(o.Cost) {
		return fmt.Errorf("connection cost must be positive (%v given; at most %g)", o.Cost, float64(wire.MaxLinkCost))
	}
	for _, id := range slices.Sorted(maps.Keys(o.NodeCost)) {
		if bad(o.NodeCost[id]) {
			return fmt.Errorf("connection cost must be positive for %s (%v given; at most %g)", id, o.NodeCost[id], float64(wire.MaxLinkCost))
		}
	}
	return nil
}

// spawn runs f as a goroutine that the backend and the node wait for.
func (b *Backend) spawn(f func()) {
	b.wg.Add(1)
	b.node.wg.Go(func() {
		defer b.wg.Done()
		f()
	})
}

// Addr is the address that a listener is bound to; empty for a dialer.
func (b *Backend) Addr() string { return b.addr }

// String names the backend, for example "tcp hub:2222".
func (b *Backend) String() string { return b.name }

// Done is closed when the backend is, when its node is, and when the one link of [Node.AddLink] has ended.
func (b *Backend) Done() <-chan struct{} { return b.ctx.Done() }

// Close ends the backend and its links and waits for them. Safe to call twice.
func (b *Backend) Close() error {
	b.stop()
	b.node.forgetBackend(b)
	b.mu.Lock()
	for c := range b.conns {
		_ = c.Close()
	}
	b.mu.Unlock()
	b.wg.Wait()
	return nil
}

func (b *Backend) accept() {
	for {
		conn, err := b.listener.Accept()
		switch {
		case err == nil:
			select {
			case b.room <- struct{}{}:
			case <-b.ctx.Done():
				_ = conn.Close()
				return
			}
			b.spawn(func() {
				peer, err := b.carry(conn)
				b.report(peer, err, false)
			})
		case b.ctx.Err() != nil || errors.Is(err, link.ErrClosed):
			return
		default:
			b.noteFailure("", err) // A client's failed handshake, for instance.
			b.logOnce("Error accepting connection (will retry): ", err)
			if !b.pause(acceptPause) {
				return
			}
		}
	}
}

// carry runs one link of this backend to its end.
func (b *Backend) carry(conn link.Conn) (wire.NodeID, error) {
	b.mu.Lock()
	if b.ctx.Err() != nil {
		b.mu.Unlock()
		_ = conn.Close()
		return "", ErrClosed
	}
	b.conns[conn] = struct{}{}
	if b.kind != "dialer" {
		b.tries++
	}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.conns, conn)
		b.mu.Unlock()
	}()
	return b.node.runLink(conn, b.opt, b)
}

func (b *Backend) redial(d link.Dialer) {
	delay := redialFirst
	for b.ctx.Err() == nil {
		started := time.Now()
		b.noteState(BackendDialing)
		peer, err := b.dialOnce(d)
		if b.ctx.Err() != nil {
			return
		}
		b.report(peer, err, true)
		if b.opt.NoRedial {
			b.noteState(BackendStopped)
			return
		}
		if linked, ok := errors.AsType[*linkedError](err); ok { // The peer dials too: wait until its link is gone.
			b.noteState(BackendStandby)
			select {
			case <-linked.by.ended:
			case <-b.ctx.Done():
				return
			}
		}
		if peer != "" && time.Since(started) > stableAfter {
			delay = redialFirst
		}
		wait := delay - time.Duration(rand.Int64N(int64(delay/4)))
		b.noteWaiting(wait)
		if !b.pause(wait) {
			return
		}
		delay = min(time.Duration(float64(delay)*redialFactor), redialMax)
	}
}

func (b *Backend) dialOnce(d link.Dialer) (wire.NodeID, error) {
	ctx, cancel := context.WithTimeout(b.ctx, dialTimeout)
	conn, err := d.Dial(ctx)
	cancel()
	if err != nil {
		return "", err
	}
	return b.carry(conn)
}

// pause waits; false if the backend ended meanwhile.
func (b *Backend) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-b.ctx.Done():
		return false
	}
}

// report logs the end of a link or of a try to make one.
func (b *Backend) report(peer wire.NodeID, err error, dialer bool) {
	if b.ctx.Err() != nil {
		return
	}
	b.noteFailure(peer, err)
	retry := " (will retry)"
	if !dialer || b.opt.NoRedial {
		retry = ""
	}
	if peer != "" && asGoodAsNotMade(err) {
		b.logOnce(fmt.Sprintf("Backend connection to %s failed%s: ", peer, retry), err)
		return
	}
	if peer != "" {
		b.mu.Lock()
		clear(b.reasons)
		b.mu.Unlock()
		b.node.log.Info("Backend connection exited"+retry, "peer", peer, "link", b.name, "err", err)
		fault.Log(b.node.log, err, "link", "peer", peer, "link", b.name)
		return
	}
	b.logOnce("Backend connection failed"+retry+": ", err)
}

// asGoodAsNotMade reports whether a link ended since one of its ends does not want it.
func asGoodAsNotMade(err error) bool {
	return LinkErrorKind(err) == "cost" || errors.Is(err, errPeerRejected)
}

// refused reports whether the last link was one with peer that one of its ends did not want: then the next is probably
// no better.
func (b *Backend) refused(peer wire.NodeID) bool {
	if b == nil { // A link without a backend.
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failure != nil && b.failure.Peer == peer && asGoodAsNotMade(b.failure.Err)
}

// connEnds are both ends of a connection, as errors of package net name them.
var connEnds = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\b(?:read|write) (?:tcp|udp)[46]? \S+->(\S+):\d+: `)
})

// withoutPorts is the text of err, which names the far host of a connection that failed (it may be one to a name server),
// not the ports of both ends: they differ each time, so every try would look like a change.
func withoutPorts(err error) string { return connEnds().ReplaceAllString(err.Error(), "$1: ") }

// logOnce warns of a failure unless it has done so since the last link that was good.
func (b *Backend) logOnce(text string, err error) {
	text += withoutPorts(err)
	news := text
	if same, ok := errors.AsType[*linkFault](err); ok && same.news != "" {
		news = same.news
	}
	b.mu.Lock()
	_, again := b.reasons[news]
	if len(b.reasons) >= maxReasons {
		clear(b.reasons)
	}
	b.reasons[news] = struct{}{}
	b.mu.Unlock()
	if !again {
		b.node.log.Warn(text, "link", b.name)
		fault.Log(b.node.log, err, "link", "link", b.name)
	}
}
