package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/topology"
	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

const (
	// eventBacklog is how many changes wait for a client that does not read; further ones are dropped and counted.
	eventBacklog = 1024
	// aliveEvery is how often a stream of events that is silent says so, so that a client that is gone without a word is
	// noticed.
	aliveEvery = 30 * time.Second
)

var (
	errKindsType    = errors.New("field kinds must be a list of strings")
	errNodeType     = errors.New("field node must be a string")
	errEventUnit    = errors.New("field unit must be a string")
	errSnapshotType = errors.New("field snapshot must be true or false")
)

// eventKinds are the kinds that can be asked for.
var eventKinds = []string{"link", "backend", "route", "service", "unit"}

// eventWish is what a client wants to hear of.
type eventWish struct {
	kinds    map[string]bool
	node     wire.NodeID       // "": all.
	unit     workceptor.UnitID // "": all.
	snapshot bool
}

// event is one line. The order of fields is that of the line.
type event struct {
	Event      string             `json:"event"`
	Change     string             `json:"change,omitempty"`
	Backend    string             `json:"backend,omitempty"`
	Connection string             `json:"connection,omitempty"`
	Cost       float64            `json:"cost,omitempty"`
	Count      uint64             `json:"count,omitempty"`
	Kind       string             `json:"kind,omitempty"`
	Link       string             `json:"link,omitempty"`
	Node       wire.NodeID        `json:"node,omitempty"`
	Reason     string             `json:"reason,omitempty"`
	Service    string             `json:"service,omitempty"`
	Snapshot   bool               `json:"snapshot,omitempty"`
	Status     *workceptor.Status `json:"status,omitempty"`
	Tags       map[string]string  `json:"tags,omitempty"`
	Time       time.Time          `json:"time"`
	Unit       workceptor.UnitID  `json:"unit,omitempty"`
	Via        wire.NodeID        `json:"via,omitempty"`
	Work       []workType         `json:"work,omitempty"`
}

// events makes the session a stream of what happens, until the client goes.
func (s *session) events(req request) error {
	wish, err := eventWishOf(req)
	if err != nil {
		return err
	}
	s.in.ignore()
	s.srv.working(-1) // Events have no end that could be waited for.
	defer s.srv.working(1)
	s.whileConnected(func(ctx context.Context) {
		f := s.newFeed(wish)
		defer f.close()
		err = f.run(ctx)
	})
	if err != nil {
		return err
	}
	return errSessionOver
}

func eventWishOf(req request) (eventWish, error) {
	wish := eventWish{kinds: map[string]bool{}, snapshot: true}
	kinds := strings.Fields(req.params)
	if raw, some := req.keys["kinds"]; some && string(raw) != "null" {
		var ok bool
		if kinds, ok = stringList(raw); !ok {
			return wish, errKindsType
		}
	}
	for _, kind := range kinds {
		if !slices.Contains(eventKinds, kind) {
			return wish, fmt.Errorf("unknown kind of event %.100s, expected link, backend, route, service or unit", kind)
		}
		wish.kinds[kind] = true
	}
	if len(kinds) == 0 {
		for _, kind := range eventKinds {
			wish.kinds[kind] = true
		}
	}
	node, found, isString := req.text("node")
	if found && !isString {
		return wish, errNodeType
	}
	unit, found, isString := req.text("unit")
	if found && !isString {
		return wish, errEventUnit
	}
	wish.node, wish.unit = wire.NodeID(node), workceptor.UnitID(unit)
	if raw, some := req.keys["snapshot"]; some && json.Unmarshal(raw, &wish.snapshot) != nil {
		return wish, errSnapshotType
	}
	return wish, nil
}

func stringList(raw json.RawMessage) ([]string, bool) {
	var list []json.RawMessage
	if len(raw) == 0 || raw[0] != '[' || json.Unmarshal(raw, &list) != nil {
		return nil, false
	}
	out := make([]string, len(list))
	for i, element := range list {
		var ok bool
		if out[i], ok = stringValue(element); !ok {
			return nil, false
		}
	}
	return out, true
}

// feed turns what happens in the node into lines for one client.
type feed struct {
	*session
	wish   eventWish
	node   observed
	mesh   *netceptor.Subscription
	work   changes
	lost   uint64                         // Changes of units, as far as the client was told.
	routes map[wire.NodeID]topology.Route // As the client knows them; nil: not at all.
	lines  []byte                         // Not sent yet.
}

func (s *session) newFeed(wish eventWish) *feed {
	f := &feed{session: s, wish: wish, node: s.observed()}
	f.mesh = f.node.Subscribe(eventBacklog)
	if wish.kinds["unit"] && s.srv.work != nil {
		f.work = s.srv.work.Subscribe(eventBacklog)
	}
	return f
}

func (f *feed) close() {
	f.mesh.Close()
	if f.work.Close != nil {
		f.work.Close()
	}
}

// run sends lines until ctx or the node ends (nil), or the client cannot be told.
func (f *feed) run(ctx context.Context) error {
	if err := f.begin(); err != nil {
		return err
	}
	alive := time.NewTimer(aliveEvery)
	defer alive.Stop()
	for {
		select {
		case e, ok := <-f.mesh.C:
			if !ok {
				return nil
			}
			f.meshEvent(e)
		case c, ok := <-f.work.C:
			if !ok {
				return nil
			}
			f.unitEvent(c)
		case <-alive.C:
			f.add(event{Event: "alive"})
		case <-ctx.Done():
			return nil
		}
		if err := f.flush(); err != nil {
			return err
		}
		alive.Reset(aliveEvery)
	}
}

// begin tells what there is now.
func (f *feed) begin() error {
	f.snapshot(f.wish.snapshot)
	f.add(event{Event: "live", Node: f.srv.node.ID()})
	return f.flush()
}

// flushAt is how many bytes of lines are collected while there is more to tell.
const flushAt = 32 << 10

// flush sends the lines, when nothing more waits or they are many, and tells of lost changes.
func (f *feed) flush() error {
	if lost := f.takeLost(); lost > 0 {
		f.add(event{Event: "dropped", Count: lost})
		if f.wish.snapshot {
			f.routes = nil
			return f.begin()
		}
	}
	if len(f.mesh.C)+len(f.work.C) > 0 && len(f.lines) < flushAt || len(f.lines) == 0 {
		return nil
	}
	err := f.send(f.lines)
	if f.lines = f.lines[:0]; cap(f.lines) > 2*flushAt {
		f.lines = nil
	}
	return err
}

func (f *feed) takeLost() uint64 {
	lost := f.mesh.Lost()
	if f.work.Lost != nil {
		all := f.work.Lost()
		lost += all - f.lost
		f.lost = all
	}
	return lost
}

// add puts a line in the queue, with the present time unless it has one.
func (f *feed) add(e event) {
	if e.Time.IsZero() {
		e.Time = now()
	}
	e.Time = e.Time.UTC()
	b, err := json.Marshal(e)
	if err != nil {
		f.srv.log.Error("event cannot be told", "event", e.Event, "err", err)
		return
	}
	f.lines = append(append(f.lines, b...), '\n')
}

func (f *feed) wants(kind string, node wire.NodeID) bool {
	return f.wish.kinds[kind] && (f.wish.node == "" || f.wish.node == node)
}

// snapshot tells everything that is there; with tell false it only looks.
func (f *feed) snapshot(tell bool) {
	at := now()
	if f.wish.kinds["route"] {
		f.routeEvents(f.node.Routes(), tell)
	}
	if !tell {
		return
	}
	for _, l := range f.node.Links() {
		if f.wants("link", l.Node) {
			f.add(event{Event: "link", Change: "up", Node: l.Node, Cost: l.Cost, Link: l.Address, Time: at, Snapshot: true})
		}
	}
	for _, b := range f.node.Backends() {
		if b.Failure != nil && b.State != netceptor.BackendUp && f.wants("backend", b.Failure.Peer) {
			f.add(failed(b.Name, b.Failure.Err, b.Failure.Time, true))
		}
	}
	for _, s := range f.node.Services() {
		if f.wants("service", s.NodeID) {
			f.add(serviceUp(s, at, true))
		}
	}
	if f.work.C == nil {
		return
	}
	units := f.srv.work.List()
	for _, id := range slices.Sorted(maps.Keys(units)) {
		if status := units[id]; f.wish.unit == "" || f.wish.unit == id {
			f.add(event{Event: "unit", Change: "changed", Unit: id, Status: &status, Time: at, Snapshot: true})
		}
	}
}

func failed(backend string, err error, at time.Time, snapshot bool) event {
	return event{
		Event: "backend", Change: "failed", Backend: backend, Reason: err.Error(), Kind: netceptor.LinkErrorKind(err), Time: at, Snapshot: snapshot,
	}
}

func serviceUp(s netceptor.Service, at time.Time, snapshot bool) event {
	return event{
		Event: "service", Change: "up", Node: s.NodeID, Service: s.Service, Connection: connectionName(s.ConnType),
		Tags: s.Tags, Work: workTypes(s.WorkCommands), Time: at, Snapshot: snapshot,
	}
}

func (f *feed) meshEvent(e netceptor.Event) {
	switch e.Kind {
	case netceptor.PeerUp:
		if f.wants("link", e.Node) {
			f.add(event{Event: "link", Change: "up", Node: e.Node, Cost: e.Cost, Link: e.Backend, Time: e.Time})
		}
	case netceptor.PeerDown:
		if f.wants("link", e.Node) {
			f.add(event{Event: "link", Change: "down", Node: e.Node, Cost: e.Cost, Reason: fmt.Sprint(e.Err), Kind: kindOf(e.Err), Time: e.Time})
		}
	case netceptor.BackendFailed:
		if f.wants("backend", "") {
			f.add(failed(e.Backend, e.Err, e.Time, false))
		}
	case netceptor.RoutesChanged:
		if f.wish.kinds["route"] {
			f.routeEvents(f.node.Routes(), true)
		}
	case netceptor.ServiceSeen:
		if s, ok := f.node.Service(e.Node, e.Service); ok && f.wants("service", e.Node) {
			f.add(serviceUp(s, e.Time, false))
		}
	case netceptor.ServiceGone:
		if f.wants("service", e.Node) {
			f.add(event{Event: "service", Change: "down", Node: e.Node, Service: e.Service, Time: e.Time})
		}
	}
}

func kindOf(err error) string {
	if err == nil {
		return ""
	}
	return netceptor.LinkErrorKind(err)
}

func (f *feed) unitEvent(c workceptor.Change) {
	if f.wish.unit != "" && f.wish.unit != c.Unit {
		return
	}
	e := event{Event: "unit", Change: "changed", Unit: c.Unit, Status: &c.Status}
	if c.Released {
		e.Change = "released"
	}
	f.add(e)
}

// routeEvents tells what differs from the routes that the client knows. Routes are compared, not counted, so none of
// their changes is lost.
func (f *feed) routeEvents(table *topology.Table, tell bool) {
	snapshot := f.routes == nil
	next := make(map[wire.NodeID]topology.Route, table.Len())
	for r := range table.All() {
		if f.wish.node == "" || f.wish.node == r.Node {
			next[r.Node] = r
		}
	}
	old := f.routes
	f.routes = next
	if !tell {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(next)) {
		r := next[id]
		before, had := old[id]
		if had && before == r {
			continue
		}
		e := event{Event: "route", Change: "up", Node: id, Via: r.NextHop, Cost: r.Cost, Snapshot: snapshot}
		if had {
			e.Change = "changed"
		}
		f.add(e)
	}
	for _, id := range slices.Sorted(maps.Keys(old)) {
		if _, still := next[id]; !still {
			f.add(event{Event: "route", Change: "down", Node: id})
		}
	}
}
