package netceptor

import (
	"fmt"
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// answerLimit is how long a standing link has to show that it lives when its peer makes another one.
const answerLimit = 500 * time.Millisecond

// linkedError refuses a second link to a peer.
type linkedError struct {
	peer wire.NodeID
	by   *neighbour
}

func (e *linkedError) Error() string {
	return fmt.Sprintf("it connected using a node ID we are already connected to: %s, by %s", e.peer, e.by.conn)
}

// doubt says that a second link to a peer may have to take the place of the standing one.
type doubt struct {
	standing *neighbour
	since    int64           // When the standing link was asked, by Node.clock.
	answered <-chan struct{} // Closed by its answer.
}

func (d *doubt) Error() string { return "waiting for the standing link to answer" }

// secondLinkLocked decides about a link whose peer is linked already: it is refused, or the standing link is asked first
// whether it lives. It may not, if the peer was restarted (its epoch is greater) or has lost that link (it is silent).
// Only peers that keep links alive can be asked.
func (n *Node) secondLinkLocked(nb *neighbour, peer wire.NodeID, epoch uint64) error {
	standing := n.links[peer]
	silent := n.sinceAt(time.Now(), standing.heard.Load())
	restarted := epoch > standing.epoch
	lost := epoch == standing.epoch && silent > beatPeriod*3/2
	if nb.asked || !standing.beats || !restarted && !lost {
		return &linkedError{peer: peer, by: standing}
	}
	nb.asked = true
	if standing.answered == nil {
		standing.answered = make(chan struct{})
		standing.sendControl(wire.AskMessage)
	}
	return &doubt{standing: standing, since: n.clock(), answered: standing.answered}
}

// settle waits until the standing link has answered, or takes it out of the node. It runs on the new link's reader, so
// that what the peer says behind its introduction waits too.
func (nb *neighbour) settle(d *doubt) {
	n, late := nb.node, time.NewTimer(answerLimit)
	defer late.Stop()
	select {
	case <-d.answered:
		return
	case <-nb.ended:
		return
	case <-d.standing.ended:
	case <-late.C:
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if d.standing.cause == nil && d.standing.heard.Load() > d.since {
		return
	}
	d.standing.endLocked(faultf("silent", "the peer has made a new connection, and this one does not answer"), false)
	n.forgetLocked(d.standing)
}

// introduces reports whether a route message can be the first of a link. Over UDP it can also be a late one of a link
// that this node has ended: an update that was passed on, or that lists this node already. The link that it would make
// has nobody at the other end. (What lists this node and announces keep-alives is an introduction by a peer that has not
// noticed yet that an older link is dead.)
func introduces(u *wire.RouteUpdate, self wire.NodeID) bool {
	_, listed := u.Connections[self]
	return u.NodeID == u.ForwardingNode && (!listed || u.KeepAlive > 0)
}
