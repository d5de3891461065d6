package netceptor

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

const (
	handshakeEvery = time.Second
	handshakeCount = 11  // The link is closed right after the last one.
	helloLinks     = 100 // Who has more links names none in it: nobody reads them there, and thousands have no room.
	flushTimeout   = 2 * time.Second
	lastWords      = 100 * time.Millisecond // How long what has arrived is read after a write has failed.
	maxFinishing   = 64                     // Links at a time whose peers still read why they are refused; more are just closed.
	maxStrangers   = 1024                   // Connections to this node whose peers have not introduced themselves; the oldest is given up for one more.
)

var (
	errPeerRejected = errors.New("the peer rejected the connection")
	errTooMany      = errors.New("given up for newer connections: the peer has not introduced itself, and too many do so at a time")
	errNoHandshake  = fmt.Errorf("the peer did not introduce itself within %v", (handshakeCount-1)*handshakeEvery)
)

// neighbour is one link, from its first handshake message to its end.
type neighbour struct {
	node    *Node
	backend *Backend // Where the link comes from.
	conn    link.Conn
	opt     LinkOptions
	queue   *sendQueue

	heard       atomic.Int64  // When the last batch was received, by node.clock,
	spoke       atomic.Int64  // and when the last one was written.
	established chan struct{} // Closed when the handshake is done.
	ended       chan struct{} // Closed when the link's end has begun.
	sent        atomic.Uint64 // Bytes, with the lengths that frame messages,
	received    atomic.Uint64 // of whatever kind.
	written     chan struct{} // Closed when the writer is gone.
	warned      bool          // The writer has complained about a message that is too large.

	// Guarded by node.mu.
	id       wire.NodeID // Empty during the handshake.
	cost     float64
	epoch    uint64        // Of the peer, as it introduced itself.
	listsUs  bool          // The peer has listed this node as its neighbour.
	doubtful bool          // The last link with the peer was refused; this one is logged when the peer lists us.
	beats    bool          // Both sides keep the link alive.
	greeted  bool          // It was told what is known, see greetLocked.
	waits    bool          // What was queued may wait for the next beat.
	asked    bool          // The link that stands in the place of this one was asked whether it lives.
	answered chan struct{} // Closed by the next keep-alive message; nil if nobody waits for it.
	since    time.Time     // When it was established.
	cause    error         // Why the link ended.
	finishes bool          // Its peer is still to read why.
	stranger *list.Element // Its place among Node.strangers, if it has one.
	inRoom   bool          // It has a token of its backend.
}

// runLink carries a fresh connection through its life and returns why it ended. peer is empty if the handshake failed.
func (n *Node) runLink(conn link.Conn, opt LinkOptions, from *Backend) (peer wire.NodeID, err error) {
	nb := &neighbour{
		node: n, backend: from, conn: conn, opt: opt, queue: newSendQueue(),
		established: make(chan struct{}), ended: make(chan struct{}), written: make(chan struct{}),
	}
	nb.heard.Store(n.clock())
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		_ = conn.Close()
		return "", ErrClosed
	}
	n.meetLocked(nb)
	n.mu.Unlock()

	n.wg.Go(nb.write)
	nb.sayHello() // Before anything is read: the peer takes the first message as the handshake, whatever it is.
	n.wg.Go(nb.introduce)
	nb.end(nb.read())
	<-nb.written
	peer, err = n.forget(nb)
	nb.finish()
	return peer, err
}

// meetLocked takes in a connection that has still to be introduced. If there are too many that others have made to this
// node, it gives up the oldest: those who open many and say nothing cannot fill the memory, and an honest peer has as long
// as it takes to open all others.
func (n *Node) meetLocked(nb *neighbour) {
	n.pending[nb] = struct{}{}
	if nb.backend == nil || nb.backend.listener == nil {
		return
	}
	nb.inRoom = true
	nb.stranger = n.strangers.PushBack(nb)
	if n.strangers.Len() > maxStrangers {
		oldest := n.strangers.Remove(n.strangers.Front()).(*neighbour)
		oldest.stranger = nil
		oldest.endLocked(errTooMany, false)
	}
}

// metLocked is for a connection that has been introduced, or is gone.
func (n *Node) metLocked(nb *neighbour) {
	delete(n.pending, nb)
	if nb.stranger != nil {
		n.strangers.Remove(nb.stranger)
		nb.stranger = nil
	}
	if nb.inRoom {
		nb.inRoom = false
		<-nb.backend.room
	}
}

// end makes the link end for the first cause given; what is queued is not sent any more.
func (nb *neighbour) end(cause error) {
	nb.node.mu.Lock()
	defer nb.node.mu.Unlock()
	nb.endLocked(cause, false)
}

// endLocked is end; with flush, what is queued is still written, within limits.
func (nb *neighbour) endLocked(cause error, flush bool) {
	if nb.cause != nil {
		return
	}
	nb.cause = cause
	close(nb.ended)
	if !flush {
		nb.queue.close()
		_ = nb.conn.Close()
		return
	}
	nb.queue.drain()
	nb.node.wg.Go(func() {
		select {
		case <-nb.written:
			if nb.finishing() {
				return
			}
		case <-time.After(flushTimeout):
		}
		nb.queue.close()
		_ = nb.conn.Close()
	})
}

// finishing reports whether finish closes the connection of a link that has ended.
func (nb *neighbour) finishing() bool {
	nb.node.mu.Lock()
	defer nb.node.mu.Unlock()
	return nb.finishes
}

// finish lets the peer of a refused link read why, and closes the connection. The goroutine of the link does it when all is
// written.
func (nb *neighbour) finish() {
	if !nb.finishing() {
		return
	}
	defer func() {
		nb.node.mu.Lock()
		nb.node.finishing--
		nb.node.mu.Unlock()
	}()
	stop := context.AfterFunc(nb.node.ctx, func() { _ = nb.conn.Close() })
	defer stop()
	_ = link.Finish(nb.conn, flushTimeout)
}

// forget takes the link out of the node.
func (n *Node) forget(nb *neighbour) (wire.NodeID, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forgetLocked(nb)
	return nb.id, nb.cause
}

// forgetLocked takes a link that has ended out of the node, if it is still there.
func (n *Node) forgetLocked(nb *neighbour) {
	n.metLocked(nb)
	if nb.id != "" && n.links[nb.id] == nb {
		delete(n.links, nb.id)
		n.db.RemoveLink(nb.id)
		if !n.closed {
			n.linksChangedLocked()
			n.announceLocked()
		}
		n.publishLocked(Event{Kind: PeerDown, Node: nb.id, Cost: nb.cost, Err: nb.cause})
	}
}

// write is the link's writer: everything that waits goes out in one call.
func (nb *neighbour) write() {
	defer close(nb.written)
	defer fault.Catch(func(e *fault.Error) { nb.end(fmt.Errorf("write: %w", e)) })
	var control, data wire.Batch
	for {
		var ok bool
		control, data, ok = nb.queue.next(control, data)
		if !ok {
			return
		}
		nb.spoke.Store(nb.node.clock())
		nb.sent.Add(uint64(len(control) + len(data)))
		err := nb.conn.WriteBatch(control, data)
		if large, ok := errors.AsType[*link.TooLargeError](err); ok {
			nb.leftOut(large)
		} else if err != nil {
			nb.unwritable(fmt.Errorf("write: %w", err))
			return
		}
	}
}

// unwritable ends a link to which nothing can be written any more. As a rule the peer has closed it, and what it has said before,
// that its services are gone, say, has arrived: the reader takes that first, and finds the end by itself.
func (nb *neighbour) unwritable(cause error) {
	nb.queue.close()
	timer := time.NewTimer(lastWords)
	defer timer.Stop()
	select {
	case <-nb.ended:
	case <-timer.C:
	}
	nb.end(cause)
}

// leftOut counts messages that the link cannot carry, and says so once per link.
func (nb *neighbour) leftOut(large *link.TooLargeError) {
	nb.node.count.dropTooLarge.Add(uint64(large.Messages))
	if nb.warned {
		return
	}
	nb.warned = true
	nb.node.log.Warn("a message was too large for the link and is lost, as others like it will be", "link", nb.conn.String(), "err", large)
}

// introduce repeats the handshake message until the peer has introduced itself.
func (nb *neighbour) introduce() {
	tick := time.NewTicker(handshakeEvery)
	defer tick.Stop()
	for i := 2; ; i++ { // The first one is out.
		select {
		case <-tick.C:
		case <-nb.established:
			return
		case <-nb.ended:
			return
		}
		if !nb.sayHello() {
			return
		}
		if i == handshakeCount {
			nb.node.mu.Lock()
			nb.endLocked(errNoHandshake, true)
			nb.node.mu.Unlock()
			return
		}
	}
}

// sayHello queues one handshake message; false if the handshake is over. No such message may follow an update that
// lists the peer (it would end the link), hence the lock.
func (nb *neighbour) sayHello() bool {
	n := nb.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if nb.id != "" || nb.cause != nil {
		return false
	}
	u := n.ownUpdateLocked(0)
	if len(u.Connections) > helloLinks {
		u.Connections = map[wire.NodeID]float64{}
	}
	u.KeepAlive = uint32(beatPeriod / time.Millisecond)
	msg, err := u.Append(nil)
	if err != nil {
		return false
	}
	nb.sendControl(msg)
	return true
}

// sendControl queues a control message. A peer that does not read loses the link. The caller holds node.mu.
func (nb *neighbour) sendControl(msg []byte) { nb.queueControl(msg, false) }

// sendSometime is sendControl for what is no news: it goes out with the next message or beat, so that the periodic
// updates of a whole mesh cost a link one write and one read a second.
func (nb *neighbour) sendSometime(msg []byte) {
	nb.waits = nb.waits || nb.beats
	nb.queueControl(msg, nb.beats)
}

// tell is sendControl for a greeting, which is no reason to lose the link however much there is to tell.
func (nb *neighbour) tell(msg []byte) {
	if nb.queue.controlWaiting() < greetingLimit {
		nb.sendControl(msg)
	}
}

func (nb *neighbour) queueControl(msg []byte, canWait bool) {
	err := nb.queue.pushControl(msg, canWait)
	if errors.Is(err, errQueueFull) {
		nb.endLocked(errors.New("the peer has stopped reading"), false)
	} else if err != nil && !errors.Is(err, errQueueClosed) {
		nb.node.log.Error("message cannot be sent", "peer", nb.id, "err", err)
	}
}

// read is the link's reader: it runs until the link ends and returns why. A bug that the peer's bytes have found is a
// reason, too: locks are unlocked by defer wherever they are handled.
func (nb *neighbour) read() (err error) {
	defer fault.Into(&err)
	var r receiver
	defer r.flush()
	up := false
	for {
		batch, err := nb.conn.ReadBatch()
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		nb.heard.Store(nb.node.clock())
		nb.received.Add(uint64(len(batch)))
		for {
			if up {
				if n := batch.Run(); n > 0 {
					nb.node.receiveRun(&r, batch[:n])
					batch = batch[n:]
					continue
				}
			}
			msg, rest, ok := batch.Next()
			if !ok {
				break
			}
			batch = rest
			if len(msg) == 0 {
				continue
			}
			if up && wire.Type(msg[0]) == wire.TypeData {
				nb.node.receivePacket(&r, msg) // It is too short.
				continue
			}
			up, err = nb.control(msg)
			if doubt, ok := errors.AsType[*doubt](err); ok {
				nb.settle(doubt)
				up, err = nb.control(msg)
			}
			if err != nil {
				return err
			}
		}
		r.flush()
	}
}

// control handles everything but packets; up is whether the link is established.
func (nb *neighbour) control(msg []byte) (up bool, err error) {
	n := nb.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if nb.cause != nil {
		return false, nb.cause
	}
	up = nb.id != ""
	switch wire.Type(msg[0]) {
	case wire.TypeReject:
		return up, nb.rejectedBy(msg)
	case wire.TypeRoute:
		if up && n.isCopyLocked(nb, msg) {
			return up, nil
		}
		u, perr := wire.ParseRouteUpdate(msg)
		if perr != nil {
			n.count.dropMalformed.Add(1)
			n.log.Debug("route message ignored", "peer", nb.id, "err", perr)
			return up, nil
		}
		switch {
		case up:
			err = n.receiveRouteLocked(nb, u)
		case introduces(&u, n.id):
			err = nb.establishLocked(u)
			up = err == nil
		}
		if _, open := errors.AsType[*doubt](err); err != nil && !open {
			nb.rejectLocked(err, nb.beats || u.KeepAlive > 0)
		}
		return up, err
	case wire.TypeAdvert, wire.TypeGone:
		if up {
			n.receiveAdvertLocked(nb, msg)
		}
	case wire.TypeBeat:
		nb.beats = nb.beats || up // Over UDP the handshake message that says so may have been lost.
		if nb.answered != nil {
			close(nb.answered)
			nb.answered = nil
		}
		if up && wire.AsksBack(msg) {
			nb.sendControl(wire.BeatMessage)
		}
	default:
		if up {
			n.count.dropMalformed.Add(1)
		}
	}
	return up, nil
}

// isCopyLocked reports whether a route message brings nothing new: an update that has come by another way. What the peer
// says of itself is always read, since the link depends on it.
func (n *Node) isCopyLocked(nb *neighbour, msg []byte) bool {
	node, id, ok := wire.PeekRoute(msg)
	return ok && string(node) != string(nb.id) && n.db.Seen(id)
}

// rejectLocked tells the peer that the link is refused and closes it. A peer of ours is told why; others read nothing.
func (nb *neighbour) rejectLocked(cause error, ours bool) {
	msg := wire.RejectMessage
	if ours {
		msg = wire.RejectFor(LinkErrorKind(cause), cause.Error())
	}
	nb.sendControl(msg)
	if nb.cause == nil && nb.node.finishing < maxFinishing {
		nb.finishes = true
		nb.node.finishing++
	}
	nb.endLocked(fmt.Errorf("rejected: %w", cause), true)
}

// rejectedBy is why the link ends when the peer has rejected it. Without a reason of the peer the most frequent one is
// the guess, with what this end knows of it.
func (nb *neighbour) rejectedBy(msg []byte) error {
	kind, reason := wire.RejectReason(msg)
	if reason == "" {
		cost, about := nb.opt.Cost, ""
		if nb.id != "" {
			cost, about = nb.cost, fmt.Sprintf(" of %s", nb.id)
		}
		return fmt.Errorf("%w; the log%s says why, often another link cost (it is %v here) or a node ID that is not allowed", errPeerRejected, about, cost)
	}
	err := fmt.Errorf("%w: %q", errPeerRejected, reason)
	if kind == "cost" || kind == "not allowed" || kind == "own id" {
		return &linkFault{kind, nb.sameCosts(reason), err}
	}
	return err
}

const differentCosts = "we disagree about the connection cost: %s uses %v, %s "

// costFault is why the link ends if the peer goes by another cost.
func (nb *neighbour) costFault(theirs float64) error {
	us := nb.node.id
	err := fmt.Errorf(differentCosts+"%v; set the same cost on both ends", nb.id, theirs, us, nb.cost)
	return &linkFault{"cost", nb.costNews(fmt.Sprint(theirs)), err}
}

func (nb *neighbour) costNews(theirs string) string {
	return fmt.Sprintf(differentCosts+"%v", nb.id, theirs, nb.node.id, nb.cost)
}

// sameCosts is what costFault has for news, if that is what the peer says, from its side; else it is empty.
func (nb *neighbour) sameCosts(reason string) string {
	theirs, ok := strings.CutPrefix(reason, fmt.Sprintf(differentCosts, nb.node.id, nb.cost, nb.id))
	if !ok {
		return ""
	}
	theirs, _, _ = strings.Cut(theirs, ";")
	return nb.costNews(theirs)
}

// establishLocked ends the handshake: the peer has introduced itself.
func (nb *neighbour) establishLocked(u wire.RouteUpdate) error {
	n, peer := nb.node, wire.NodeID(strings.Clone(string(u.ForwardingNode)))
	switch {
	case peer == "":
		return errors.New("the peer gave no node ID")
	case peer == n.id:
		return faultf("own id", "it tried to connect using our own node ID %s: give one of the two another ID", peer)
	case nb.opt.AllowedPeers != nil && !slices.Contains(nb.opt.AllowedPeers, peer):
		return faultf("not allowed", "it is not in the allowed peers list: %.100s; add it to allowedpeers of this backend if it may connect", peer)
	case n.links[peer] != nil:
		return n.secondLinkLocked(nb, peer, u.UpdateEpoch)
	}
	nb.id, nb.cost, nb.epoch, nb.since = peer, nb.opt.Cost, u.UpdateEpoch, time.Now()
	nb.beats = u.KeepAlive > 0 && time.Duration(u.KeepAlive)*time.Millisecond <= beatPeriod
	if c, ok := nb.opt.NodeCost[peer]; ok {
		nb.cost = c
	}
	n.metLocked(nb)
	n.links[peer] = nb
	close(nb.established)
	soonLocked(&n.beatAt, untilBeat(time.Now()))
	n.db.Introduce(peer, u.UpdateEpoch)
	n.db.SetLink(peer, nb.cost)
	n.linksChangedLocked()
	n.announceJoinLocked(nb)
	if nb.doubtful = nb.backend.refused(peer); !nb.doubtful {
		nb.logEstablished()
	}
	nb.backend.noteMade()
	n.publishLocked(Event{Kind: PeerUp, Node: peer, Cost: nb.cost, Backend: nb.conn.String()})
	return nil
}

func (nb *neighbour) logEstablished() {
	nb.node.log.Info("Connection established with "+string(nb.id), "link", nb.conn.String(), "cost", nb.cost)
}

// untilBeat is how long to wait for the next beat: for the next full second, so that all nodes speak at the same time as
// far as their clocks agree. A node then wakes once a second for its own beat and those of all its neighbours.
func untilBeat(now time.Time) time.Duration {
	return beatPeriod - time.Duration(now.Nanosecond())%beatPeriod
}

// beatLocked speaks on links that were silent for a while, and ends those whose peer is. A node that was itself held up
// does not judge others by it: what they have said meanwhile is still to be read.
func (n *Node) beatLocked(now time.Time) {
	n.beatAt = time.Time{}
	if len(n.links) == 0 {
		return
	}
	speak := !now.Before(n.speakAt)
	if speak {
		n.speakAt = now.Add(untilBeat(now))
	}
	wait := n.speakAt.Sub(now)
	heldUp := now.Sub(n.beaten) > beatPeriod+beatPeriod/4
	n.beaten = now
	for id, nb := range n.links {
		limit := n.maxIdle
		if nb.beats {
			limit = beatLimit
		}
		if nb.beats && speak {
			nb.beatLocked(now)
		}
		if left := limit - n.sinceAt(now, nb.heard.Load()); left > 0 {
			wait = min(wait, left)
		} else if !heldUp {
			n.log.Warn(fmt.Sprintf("Timing out connection %s, idle for the past %v", id, limit))
			nb.endLocked(faultf("silent", "nothing received for %v", limit), false)
		}
	}
	n.beatAt = now.Add(wait)
}

// beatLocked says what waits on this link, or that it lives, unless something was said a moment ago.
func (nb *neighbour) beatLocked(now time.Time) {
	if nb.node.sinceAt(now, nb.spoke.Load()) < beatPeriod*3/4 {
		return
	}
	if nb.waits {
		nb.waits = false
		nb.queue.wake()
		return
	}
	nb.sendControl(wire.BeatMessage)
}
