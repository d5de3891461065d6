package netceptor

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

const (
	// advertLife is how long an advertisement lives without being repeated: three periods and a bit.
	advertLife = 3*advertPeriod + 10*time.Second
	// tombstoneLife is how long a withdrawal of an existing node is remembered, so that it is passed on once and not for
	// ever. One of ours does not circulate: it is remembered for as long as the service would have been listed without it.
	tombstoneLife = time.Hour
	// withdrawAgain is how old a withdrawal is at least that is repeated, with the next sweep, for links that may have lost it. It
	// is repeated once: one that went on while others forget it would come back to them for ever.
	withdrawAgain = 5 * time.Second
	// advertAgain is how soon services are advertised again of which the mesh has later advertisements than ours.
	advertAgain = 5 * time.Second
	// Bounds on what peers can make a node remember.
	maxAdverts        = 20_000
	maxAdvertsPerNode = 1_000
	maxAdvertBytes    = 32 << 20 // Of the messages.
)

// controlServiceTag marks the services that say which work types a node offers.
const controlServiceTag = "Control Service"

type advertKey struct {
	node    wire.NodeID
	service string
}

// advertisement is what another node says about one service of its own, or that it is gone (Cancel).
type advertisement struct {
	wire.Advertisement
	raw   []byte    // The message, passed on byte for byte.
	seen  time.Time // When it arrived here.
	again bool      // A withdrawal that was repeated.
}

// amongUs reports whether the message may only go to neighbours of ours.
func (a *advertisement) amongUs() bool { return wire.Type(a.raw[0]) == wire.TypeGone }

// advertised is a service of this node that the mesh is told of.
type advertised struct {
	service string
	kind    wire.ConnType
	tags    map[string]string
	told    bool // Somebody has been.
}

func (n *Node) advertise(service string, kind wire.ConnType, tags map[string]string) *advertised {
	n.mu.Lock()
	defer n.mu.Unlock()
	a := &advertised{service: service, kind: kind, tags: maps.Clone(tags)}
	if n.own[service] == nil {
		n.publishLocked(Event{Kind: ServiceSeen, Node: n.id, Service: service})
	}
	n.own[service] = a
	n.forgetAdvertLocked(advertKey{n.id, service}) // It may have been withdrawn before.
	soonLocked(&n.advertsAt, advertDelay)
	n.kickLocked()
	return a
}

// withdraw stops advertising a service.
func (n *Node) withdraw(a *advertised) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.withdrawLocked(a)
}

// withdrawLocked tells neighbours of ours that the service is gone, who pass it on among them. Existing nodes hear
// nothing, since in a cycle of them a withdrawal would circulate for ever; they, and nodes behind them, see that the
// service is not repeated. It is kept for neighbours that come back and may still list the service.
func (n *Node) withdrawLocked(a *advertised) {
	if n.own[a.service] != a {
		return
	}
	delete(n.own, a.service)
	n.publishLocked(Event{Kind: ServiceGone, Node: n.id, Service: a.service})
	if !a.told {
		return
	}
	w := wire.Withdrawal{NodeID: n.id, Service: a.service, Time: n.nextAdvertTimeLocked()}
	msg, err := w.Append(nil)
	if err != nil {
		n.log.Error("withdrawal of a service cannot be encoded", "service", a.service, "err", err)
		return
	}
	gone := &advertisement{Advertisement: withdrawn(w), raw: msg, seen: time.Now()}
	n.keepAdvertLocked(gone)
	n.passAdvertLocked(gone, nil)
}

// sayGoodbyeLocked withdraws all services, when the node is closed.
func (n *Node) sayGoodbyeLocked() {
	for _, name := range slices.Sorted(maps.Keys(n.own)) {
		n.withdrawLocked(n.own[name])
	}
}

// withdrawn is a withdrawal as it stands in the table.
func withdrawn(w wire.Withdrawal) wire.Advertisement {
	return wire.Advertisement{NodeID: w.NodeID, Service: w.Service, Time: w.Time, Cancel: true}
}

// passAdvertLocked sends an advertisement or withdrawal to every neighbour but one that may have it.
func (n *Node) passAdvertLocked(ad *advertisement, except *neighbour) {
	for _, nb := range n.links {
		if nb != except && (nb.beats || !ad.amongUs()) {
			nb.sendControl(ad.raw)
		}
	}
}

// repeatLocked is passAdvertLocked of a withdrawal that most neighbours have.
func (n *Node) repeatLocked(ad *advertisement) {
	for _, nb := range n.links {
		if nb.beats {
			nb.sendSometime(ad.raw)
		}
	}
}

// SetWorkCommands sets the work types that the node's control services advertise.
func (n *Node) SetWorkCommands(commands []wire.WorkCommand) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.workCommands = slices.Clone(commands)
	if len(n.own) > 0 {
		soonLocked(&n.advertsAt, advertDelay)
		n.kickLocked()
	}
}

// nextAdvertTimeLocked is the date of what is now said about a service of this node.
func (n *Node) nextAdvertTimeLocked() time.Time {
	now := time.Now().Round(0)    // The date alone, which is all that receivers see.
	if !now.After(n.lastAdvert) { // They take only later ones, also when our clock was set back.
		now = n.lastAdvert.Add(time.Nanosecond)
	}
	n.lastAdvert = now
	return now
}

// ownAdvertLocked makes the advertisement of an own service as it stands now, for others.
func (n *Node) ownAdvertLocked(a *advertised) wire.Advertisement {
	a.told = true
	ad := wire.Advertisement{NodeID: n.id, Service: a.service, Time: n.nextAdvertTimeLocked(), ConnType: a.kind, Tags: a.tags}
	if a.tags["type"] == controlServiceTag && len(n.workCommands) > 0 {
		ad.WorkCommands = n.workCommands
	}
	return ad
}

// sendAdvertsLocked advertises every own service to every neighbour.
func (n *Node) sendAdvertsLocked() {
	n.advertsAt = time.Now().Add(advertPeriod)
	if len(n.links) == 0 {
		return // Who comes is told then.
	}
	for _, name := range slices.Sorted(maps.Keys(n.own)) {
		if msg := n.encodeAdvert(n.ownAdvertLocked(n.own[name])); msg != nil {
			n.broadcastLocked(msg)
		}
	}
}

func (n *Node) encodeAdvert(ad wire.Advertisement) []byte {
	msg, err := ad.Append(nil)
	if err != nil || len(msg) > wire.MaxMessage {
		n.log.Error("service cannot be advertised: its advertisement does not fit in a message", "service", ad.Service, "bytes", len(msg), "err", err)
		return nil
	}
	return msg
}

// sendKnownAdvertsLocked tells one new neighbour of every service that can be reached from here, and one of ours of what
// was withdrawn while it may have been away.
func (n *Node) sendKnownAdvertsLocked(nb *neighbour) {
	for _, name := range slices.Sorted(maps.Keys(n.own)) {
		if msg := n.encodeAdvert(n.ownAdvertLocked(n.own[name])); msg != nil {
			nb.sendControl(msg)
		}
	}
	for key, ad := range n.adverts {
		d := n.table.Load().byName(key.node)
		switch {
		case key.node == nb.id:
		case ad.Cancel && ad.amongUs() && nb.beats, !ad.Cancel && d != nil && d.next != nil:
			nb.tell(ad.raw)
		}
	}
}

// parseAdvert reads an advertisement or a withdrawal.
func parseAdvert(msg []byte) (wire.Advertisement, error) {
	if wire.Type(msg[0]) == wire.TypeGone {
		w, err := wire.ParseWithdrawal(msg)
		return withdrawn(w), err
	}
	return wire.ParseAdvertisement(msg)
}

// receiveAdvertLocked folds an advertisement or withdrawal into the table and passes it on if it is news.
func (n *Node) receiveAdvertLocked(nb *neighbour, msg []byte) {
	ad, err := parseAdvert(msg)
	if err != nil {
		n.count.dropMalformed.Add(1)
		n.log.Debug("advertisement ignored", "peer", nb.id, "err", err)
		return
	}
	if ad.NodeID == n.id {
		n.ownAdvertCameLocked(ad)
		return
	}
	key := advertKey{ad.NodeID, ad.Service}
	old := n.adverts[key]
	if old != nil && !ad.Time.After(old.Time) {
		if nb.id == ad.NodeID && nb.beats && ad.Time.Before(old.Time) {
			nb.sendControl(old.raw) // Its clock was set back: it goes on from there.
		}
		return
	}
	now := &advertisement{Advertisement: ad, raw: bytes.Clone(msg), seen: time.Now()}
	if !n.keepAdvertLocked(now) {
		n.count.dropMalformed.Add(1)
		return
	}
	n.passAdvertLocked(now, nb)
	known := old != nil && !old.Cancel
	switch {
	case ad.Cancel && known:
		n.publishLocked(Event{Kind: ServiceGone, Node: ad.NodeID, Service: ad.Service})
	case !ad.Cancel && !known:
		n.publishLocked(Event{Kind: ServiceSeen, Node: ad.NodeID, Service: ad.Service})
	}
}

// ownAdvertCameLocked is for an advertisement in this node's name: one of its own, on its way round, unless it is later
// than the last. Then it is of a former life, before the clock was set back, or forged. Receivers heed none of ours until
// we go on from its date.
func (n *Node) ownAdvertCameLocked(ad wire.Advertisement) {
	if !ad.Time.After(n.lastAdvert) || ad.Time.Year() >= lastYear {
		return
	}
	n.lastAdvert = ad.Time
	if len(n.own) > 0 {
		soonLocked(&n.advertsAt, advertAgain)
		n.kickLocked()
	}
}

// lastYear is the last that a date on the wire can have.
const lastYear = 9999

// keepAdvertLocked puts an advertisement or withdrawal into the table, if there is room.
func (n *Node) keepAdvertLocked(ad *advertisement) bool {
	key := advertKey{ad.NodeID, ad.Service}
	old, more := n.adverts[key], len(ad.raw)
	if old != nil {
		more -= len(old.raw)
	}
	room := old != nil || len(n.adverts) < maxAdverts && n.advertsOf[ad.NodeID] < maxAdvertsPerNode
	if !room || n.advertBytes+more > maxAdvertBytes {
		return false
	}
	if old == nil {
		n.advertsOf[ad.NodeID]++
	}
	n.advertBytes += more
	n.adverts[key] = ad
	return true
}

func (n *Node) forgetAdvertLocked(key advertKey) {
	ad := n.adverts[key]
	if ad == nil {
		return
	}
	delete(n.adverts, key)
	n.advertBytes -= len(ad.raw)
	if n.advertsOf[key.node]--; n.advertsOf[key.node] == 0 {
		delete(n.advertsOf, key.node)
	}
}

// sweepAdvertsLocked forgets services that are not repeated any more, and old withdrawals, and repeats new ones.
func (n *Node) sweepAdvertsLocked(now time.Time) {
	for key, ad := range n.adverts {
		if ad.Cancel && ad.amongUs() && !ad.again && now.Sub(ad.seen) >= withdrawAgain {
			ad.again = true
			n.repeatLocked(ad)
		}
		life := advertLife
		if ad.Cancel && !ad.amongUs() {
			life = tombstoneLife
		}
		if now.Sub(ad.seen) <= life {
			continue
		}
		n.forgetAdvertLocked(key)
		if !ad.Cancel {
			n.publishLocked(Event{Kind: ServiceGone, Node: key.node, Service: key.service})
		}
	}
}

// shownLocked is an own service as it is shown: with the present time and, whatever its kind, the work types.
func (n *Node) shownLocked(name string, a *advertised) wire.Advertisement {
	return wire.Advertisement{NodeID: n.id, Service: name, Time: time.Now(), ConnType: a.kind, Tags: a.tags, WorkCommands: n.workCommands}
}

// advertsLocked lists all services known, the own ones first. Own ones carry the present time and, whatever their kind,
// the work types, as status displays expect.
func (n *Node) advertsLocked() []wire.Advertisement {
	list := make([]wire.Advertisement, 0, len(n.own)+len(n.adverts))
	for _, name := range slices.Sorted(maps.Keys(n.own)) {
		list = append(list, n.shownLocked(name, n.own[name]))
	}
	keys := slices.SortedFunc(maps.Keys(n.adverts), func(a, b advertKey) int {
		if a.node != b.node {
			return cmp.Compare(a.node, b.node)
		}
		return cmp.Compare(a.service, b.service)
	})
	for _, key := range keys {
		if ad := n.adverts[key]; !ad.Cancel {
			list = append(list, ad.Advertisement)
		}
	}
	return list
}
