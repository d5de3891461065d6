package netceptor

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// The tests of this file replay links that were recorded between existing nodes. One of the recorded nodes is a node of
// ours; the test plays the others, byte by byte and at the recorded times, and compares what our node says with what
// the existing node said. What must differ is left out of the comparison: sequence numbers, update IDs, times, names of
// ephemeral services, and the KeepAlive key in handshake messages, which only our nodes send. Two things may differ: our
// nodes flood a change at once, not 100 ms later, and tell a new neighbour what they know.

const (
	toListener = "dialer->listener"
	toDialer   = "listener->dialer"
	fromPeer   = "peer->receptor"
	fromNode   = "receptor->peer"
	charlie    = "charlie-é"
)

// message is one message of a recording; end means that the link was closed at that time.
type message struct {
	at  time.Duration
	dir string
	msg []byte
	end bool
}

type recordedFrame struct {
	T     float64 `json:"t"`
	Dir   string  `json:"dir"`
	Hex   string  `json:"frame_hex"`
	Event string  `json:"event"`
}

type recordedCase struct {
	Name     string          `json:"case"`
	Exchange []recordedFrame `json:"exchange"`
}

func readRecording(t *testing.T, file string) (frames []recordedFrame, cases []recordedCase) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "wire", "testdata", file+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var r struct {
		Frames, Exchange []recordedFrame
		Cases            []recordedCase
	}
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	return append(r.Frames, r.Exchange...), r.Cases
}

func messages(t *testing.T, frames []recordedFrame) []message {
	t.Helper()
	var all []message
	for _, f := range frames {
		m := message{at: time.Duration(f.T * float64(time.Second)), dir: f.Dir, end: f.Event == "closed"}
		if !m.end {
			frame, err := hex.DecodeString(f.Hex)
			if err != nil {
				t.Fatal(err)
			}
			msg, rest, ok := wire.Batch(frame).Next()
			if !ok || len(rest) > 0 {
				t.Fatalf("frame at %v is not one message", m.at)
			}
			m.msg = msg
		}
		all = append(all, m)
	}
	return all
}

// recording is one file of messages, shifted in time.
func recording(t *testing.T, file string, shift time.Duration) []message {
	t.Helper()
	frames, _ := readRecording(t, file)
	all := messages(t, frames)
	for i := range all {
		all[i].at += shift
	}
	return all
}

func pick(all []message, dir string) []message {
	return slices.DeleteFunc(slices.Clone(all), func(m message) bool { return m.dir != dir || m.end })
}

// forwardedBy is a route message as the next node passes it on.
func forwardedBy(t *testing.T, msg []byte, node wire.NodeID) []byte {
	t.Helper()
	u, err := wire.ParseRouteUpdate(msg)
	if err != nil {
		t.Fatal(err)
	}
	u.ForwardingNode = node
	msg, err = u.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func withHops(msg []byte, change int) []byte {
	msg = bytes.Clone(msg)
	msg[1] = byte(int(msg[1]) + change)
	return msg
}

// beyondBravo tells what the link between bravo and charlie-é carried while the one between alpha and bravo was
// recorded: what bravo passed on, came from there, or flooded.
func beyondBravo(t *testing.T, link1 []message) []message {
	t.Helper()
	const hop = 100 * time.Microsecond
	var link2 []message
	add := func(at time.Duration, dir string, msg []byte) {
		link2 = append(link2, message{at: at, dir: dir, msg: msg})
	}
	for _, m := range link1 {
		fromBravo := m.dir == toListener
		switch wire.Type(m.msg[0]) {
		case wire.TypeData:
			h, err := wire.ParseHeader(m.msg)
			if err != nil {
				t.Fatal(err)
			}
			if fromBravo && h.From == wire.Hash(charlie) {
				add(m.at-hop, toListener, withHops(m.msg, 1))
			} else if !fromBravo && h.To == wire.Hash(charlie) && h.Hops > 0 {
				add(m.at+hop, toDialer, withHops(m.msg, -1))
			}
		case wire.TypeRoute:
			u, err := wire.ParseRouteUpdate(m.msg)
			if err != nil {
				t.Fatal(err)
			}
			switch u.NodeID {
			case charlie:
				add(m.at-hop, toListener, forwardedBy(t, m.msg, charlie))
			case "bravo":
				add(m.at, toDialer, m.msg)
			default:
				add(m.at+hop, toDialer, forwardedBy(t, m.msg, "bravo"))
			}
		case wire.TypeAdvert:
			a, err := wire.ParseAdvertisement(m.msg)
			if err != nil {
				t.Fatal(err)
			}
			if a.NodeID == charlie {
				add(m.at-hop, toListener, m.msg)
			} else {
				add(m.at+hop, toDialer, m.msg)
			}
		default:
			t.Fatalf("unexpected message %q", m.msg)
		}
	}
	return link2
}

// stage is a node of ours and the links on which a test plays its peers. It lives in a synctest bubble.
type stage struct {
	t    *testing.T
	n    *Node
	said map[string]bool // Everything that the peers have said; routes as our node passes them on.
}

// newStage starts the node at the time when the recorded one was started, so that they have the same epoch.
func newStage(t *testing.T, id wire.NodeID, epoch uint64) *stage {
	t.Helper()
	if epoch != 0 {
		nanos := (epoch&(1<<24-1)*1e9 + 1<<24 - 1) >> 24
		time.Sleep(time.Until(time.Unix(int64(epoch>>24), int64(nanos))))
	}
	n, err := New(Config{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	if epoch != 0 && n.Epoch() != epoch {
		t.Fatalf("the node's epoch is %d, want the recorded %d", n.Epoch(), epoch)
	}
	t.Cleanup(func() { _ = n.Close() })
	return &stage{t: t, n: n, said: map[string]bool{}}
}

// part is the far end of one link of the node.
type part struct {
	stage *stage
	conn  link.Conn
	begin time.Time

	mu    sync.Mutex
	heard []message
}

func (s *stage) join(opt LinkOptions) *part {
	p := &part{stage: s, conn: rawPeer(s.t, s.n, opt), begin: time.Now()}
	go p.listen()
	return p
}

func (p *part) listen() {
	for {
		batch, err := p.conn.ReadBatch()
		p.mu.Lock()
		now := time.Since(p.begin)
		if err != nil {
			p.heard = append(p.heard, message{at: now, end: true})
			p.mu.Unlock()
			return
		}
		for msg, rest, ok := batch.Next(); ok; msg, rest, ok = rest.Next() {
			p.heard = append(p.heard, message{at: now, msg: bytes.Clone(msg)})
		}
		p.mu.Unlock()
	}
}

// take returns what the node has said since the last time.
func (p *part) take() []message {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.heard
	p.heard = nil
	return all
}

func (p *part) say(msg []byte) {
	t, s := p.stage.t, p.stage
	t.Helper()
	s.said[string(msg)] = true
	if u, err := wire.ParseRouteUpdate(msg); err == nil {
		u.ForwardingNode = s.n.ID()
		again, _ := u.Append(nil)
		s.said[string(again)] = true
	}
	frame, err := wire.AppendFrame(nil, msg)
	if err != nil {
		t.Fatal(err)
	}
	_ = p.conn.WriteBatch(frame) // The node may have closed the link: that is in what it said.
}

// cue is a message of a peer on one link.
type cue struct {
	part *part
	message
}

func cues(p *part, all []message) []cue {
	var l []cue
	for _, m := range all {
		l = append(l, cue{p, m})
	}
	return l
}

// play says all cues at their times since begin, then gives the node some time for its answers.
func (s *stage) play(begin time.Time, all ...cue) {
	slices.SortStableFunc(all, func(a, b cue) int { return cmp.Compare(a.at, b.at) })
	for _, l := range all {
		time.Sleep(time.Until(begin.Add(l.at)))
		synctest.Wait()
		l.part.say(l.msg)
	}
	time.Sleep(500 * time.Millisecond)
	synctest.Wait()
}

// account is what a node said on a link, without what differs from one recording to the next.
type account struct {
	states  []string            // What it said of itself, repetitions left out.
	passed  map[string][]string // Route messages and advertisements of others, by origin.
	adverts []string            // Advertisements of its own, sorted.
	data    []string            // Packets, in hex.
	rejects int
	ended   bool
}

func (s *stage) accountOf(all []message) account {
	s.t.Helper()
	a := account{passed: map[string][]string{}}
	for _, m := range all {
		if m.end {
			a.ended = true
			continue
		}
		switch wire.Type(m.msg[0]) {
		case wire.TypeData:
			a.data = append(a.data, hex.EncodeToString(m.msg))
		case wire.TypeRoute:
			u, err := wire.ParseRouteUpdate(m.msg)
			if err != nil {
				s.t.Fatal(err)
			}
			if u.NodeID != s.n.ID() {
				a.passed[string(u.NodeID)] = append(a.passed[string(u.NodeID)], string(m.msg))
				continue
			}
			u.UpdateID, u.UpdateSequence, u.KeepAlive, u.UpdateEpoch = "", 0, 0, 0
			state, _ := u.Append(nil)
			if len(a.states) == 0 || a.states[len(a.states)-1] != string(state) {
				a.states = append(a.states, string(state))
			}
		case wire.TypeAdvert:
			ad, err := wire.ParseAdvertisement(m.msg)
			if err != nil {
				s.t.Fatal(err)
			}
			if ad.NodeID != s.n.ID() {
				key := string(ad.NodeID) + ":" + ad.Service
				a.passed[key] = append(a.passed[key], string(m.msg))
				continue
			}
			ad.Time = time.Time{}
			text, _ := ad.Append(nil)
			a.adverts = append(a.adverts, string(text))
		case wire.TypeReject:
			if string(m.msg) != "\x03[]" {
				s.t.Errorf("the reject message is %q", m.msg)
			}
			a.rejects++
		default:
			s.t.Errorf("message %q is none that an existing node sends", m.msg)
		}
	}
	slices.Sort(a.adverts)
	return a
}

// subsequence reports the first element of want that got does not have in this order.
func subsequence(want, got []string) (missing string, ok bool) {
	for _, w := range want {
		i := slices.Index(got, w)
		if i < 0 {
			return w, false
		}
		got = got[i+1:]
	}
	return "", true
}

// compare judges what the node said by what the existing one said. Packets must be the same, as must the states that
// the node went through and the advertisements; messages passed on must be the recorded ones, in their order, or others
// that a peer has said.
func (s *stage) compare(what string, recorded, ours []message) {
	s.t.Helper()
	want, got := s.accountOf(recorded), s.accountOf(ours)
	if !slices.Equal(got.data, want.data) {
		s.t.Errorf("%s: packets\n got %q\nwant %q", what, got.data, want.data)
	}
	if missing, ok := subsequence(want.states, got.states); !ok {
		s.t.Errorf("%s: the node never said %q; it said %q", what, missing, got.states)
	}
	for _, state := range got.states {
		if !slices.Contains(want.states, state) {
			s.t.Errorf("%s: the node said %q; the existing one never did", what, state)
		}
	}
	if !slices.Equal(got.adverts, want.adverts) {
		s.t.Errorf("%s: own advertisements\n got %q\nwant %q", what, got.adverts, want.adverts)
	}
	s.comparePassed(what, want, got)
	s.checkOwn(what, ours)
}

func (s *stage) comparePassed(what string, want, got account) {
	s.t.Helper()
	for origin, list := range want.passed {
		if missing, ok := subsequence(list, got.passed[origin]); !ok {
			s.t.Errorf("%s: of %s the node did not pass on %q; it passed on %q", what, origin, missing, got.passed[origin])
		}
	}
	for origin, list := range got.passed {
		for _, msg := range list {
			if !s.said[msg] {
				s.t.Errorf("%s: of %s the node sent %q, which nobody said", what, origin, msg)
			}
		}
	}
}

// checkOwn checks what differs by nature in the route messages that the node makes.
func (s *stage) checkOwn(what string, ours []message) {
	s.t.Helper()
	ids := map[string]bool{}
	var last uint64
	for _, m := range ours {
		if m.end || wire.Type(m.msg[0]) != wire.TypeRoute {
			continue
		}
		u, err := wire.ParseRouteUpdate(m.msg)
		if err != nil || u.ForwardingNode != s.n.ID() {
			s.t.Fatalf("%s: route message %q is forwarded by %q (%v)", what, m.msg, u.ForwardingNode, err)
		}
		if u.NodeID != s.n.ID() {
			continue
		}
		switch {
		case u.UpdateEpoch != s.n.Epoch():
			s.t.Errorf("%s: epoch %d, want %d", what, u.UpdateEpoch, s.n.Epoch())
		case u.UpdateSequence <= last:
			s.t.Errorf("%s: sequence number %d after %d", what, u.UpdateSequence, last)
		case len(u.UpdateID) != 8 || ids[u.UpdateID]:
			s.t.Errorf("%s: update ID %q is used again or not of 8 characters", what, u.UpdateID)
		}
		last, ids[u.UpdateID] = u.UpdateSequence, true
	}
}

// chainEpochs are those of the recorded nodes.
var chainEpochs = map[wire.NodeID]uint64{"alpha": 30120047674893995, "bravo": 30120047710664477, charlie: 30120047773516015}

// chainStage is one node of the recorded chain alpha - bravo - charlie-é, ours, after the recorded handshakes, which it
// compares. link1 is that between alpha and bravo, link2 the other; a node at an end has one.
func chainStage(t *testing.T, id wire.NodeID) (s *stage, link1, link2 *part) {
	t.Helper()
	s = newStage(t, id, chainEpochs[id])
	begin := time.Now()
	const joins = 2 * time.Second // When charlie-é comes; the two recordings of that are 97 ms apart.
	first := append(recording(t, "tcp_handshake_first_link", 0), recording(t, "routing_new_node_seen_two_hops_away", joins+97*time.Millisecond)...)
	second := recording(t, "tcp_handshake_second_link", joins)
	switch id {
	case "alpha":
		link1 = s.join(LinkOptions{Cost: 1})
		s.play(begin, cues(link1, pick(first, toListener))...)
		s.compare("handshake with bravo", pick(first, toDialer), link1.take())
	case "bravo":
		link1 = s.join(LinkOptions{Cost: 1})
		s.play(begin, cues(link1, pick(recording(t, "tcp_handshake_first_link", 0), toDialer))...)
		time.Sleep(time.Until(begin.Add(joins)))
		link2 = s.join(LinkOptions{Cost: 1.5, NodeCost: map[wire.NodeID]float64{charlie: 2.25}})
		rest := pick(recording(t, "routing_new_node_seen_two_hops_away", joins+97*time.Millisecond), toDialer)
		s.play(begin, append(cues(link1, rest), cues(link2, pick(second, toListener))...)...)
		s.compare("handshake with alpha", pick(first, toListener), link1.take())
		s.compare("handshake with charlie-é", pick(second, toDialer), link2.take())
	default:
		time.Sleep(joins)
		link2 = s.join(LinkOptions{Cost: 2.25})
		s.play(begin, cues(link2, pick(second, toDialer))...)
		s.compare("handshake with bravo", pick(second, toListener), link2.take())
	}
	return s, link1, link2
}

// replayChain replays a recording of the link between alpha and bravo to one of the chain's nodes and compares what it
// says. before runs when the handshakes are done. Peers that fall silent in the recording, which was filtered, say
// something unknown every ten seconds: that keeps a link alive.
func replayChain(t *testing.T, id wire.NodeID, file string, before func(s *stage, begin time.Time)) *stage {
	t.Helper()
	s, link1, link2 := chainStage(t, id)
	begin := time.Now().Add(time.Second)
	if before != nil {
		before(s, begin)
	}
	one := recording(t, file, 0)
	two := beyondBravo(t, one)
	var all []cue
	for at := time.Second; at < one[len(one)-1].at; at += 10 * time.Second {
		for _, p := range []*part{link1, link2} {
			if p != nil {
				all = append(all, cue{p, message{at: at, msg: []byte{9}}})
			}
		}
	}
	type side struct {
		part     *part
		messages []message
		in, out  string
	}
	sides := map[wire.NodeID][]side{
		"alpha": {{link1, one, toListener, toDialer}},
		"bravo": {{link1, one, toDialer, toListener}, {link2, two, toListener, toDialer}},
		charlie: {{link2, two, toDialer, toListener}},
	}[id]
	for _, side := range sides {
		all = append(all, cues(side.part, pick(side.messages, side.in))...)
	}
	s.play(begin, all...)
	for i, side := range sides {
		want, got := pick(side.messages, side.out), side.part.take()
		if a := s.accountOf(want); len(a.states) == 0 { // The periodic floods are not in this recording.
			got = slices.DeleteFunc(got, func(m message) bool { return !m.end && wire.Type(m.msg[0]) == wire.TypeRoute })
		}
		s.compare(file+" on link "+string(rune('1'+i)), want, got)
	}
	return s
}

func TestReplayHandshakes(t *testing.T) {
	for id := range chainEpochs {
		t.Run(string(id), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, _, _ := chainStage(t, id)
				want := map[wire.NodeID]map[wire.NodeID]float64{
					"alpha": {"bravo": 1, charlie: 3.25}, "bravo": {"alpha": 1, charlie: 2.25}, charlie: {"bravo": 2.25, "alpha": 3.25},
				}
				got := map[wire.NodeID]float64{}
				for to := range s.n.Status().RoutingTable {
					_, got[to], _ = s.n.WaitRoute(t.Context(), to)
				}
				if !maps.Equal(got, want[id]) {
					t.Errorf("routes of %s: %v, want %v", id, got, want[id])
				}
			})
		})
	}
}

func TestReplayPeriodicUpdates(t *testing.T) {
	for id := range chainEpochs {
		t.Run(string(id), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { replayChain(t, id, "routing_periodic", nil) })
		})
	}
}

func TestReplayLinkLost(t *testing.T) {
	t.Run("alpha", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := replayChain(t, "alpha", "routing_link_lost", nil)
			if p := s.n.Ping(t.Context(), charlie, wire.MaxHops); !errors.Is(p.Err, ErrNoRoute) {
				t.Errorf("ping of the lost node: %+v, want no route", p)
			}
		})
	})
	t.Run("bravo", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, link1, link2 := chainStage(t, "bravo")
			begin := time.Now().Add(time.Second)
			one := recording(t, "routing_link_lost", 0)
			lost := len(one) - 1 // charlie-é ends just before the last message.
			s.play(begin, append(cues(link1, pick(one, toDialer)), cues(link2, pick(beyondBravo(t, one[:lost]), toListener))...)...)
			_ = link2.conn.Close()
			time.Sleep(time.Until(begin.Add(one[lost].at + 500*time.Millisecond)))
			s.compare("link lost", pick(one, toListener), link1.take())
		})
	})
}

func TestReplayAdvertisements(t *testing.T) {
	open := map[wire.NodeID]func(s *stage, begin time.Time){
		"alpha": func(s *stage, begin time.Time) {
			time.Sleep(time.Until(begin))
			s.n.SetWorkCommands([]wire.WorkCommand{{WorkType: "cat"}})
			s.service("control", wire.ConnStream, map[string]string{"type": controlServiceTag})
		},
		"bravo": func(s *stage, begin time.Time) {
			s.service("control", wire.ConnStream, map[string]string{"type": controlServiceTag})
		},
		charlie: func(s *stage, begin time.Time) {
			s.service("control", wire.ConnStream, map[string]string{"type": controlServiceTag})
			s.service("echo", wire.ConnStream, map[string]string{"type": "TCP Proxy", "address": "127.0.0.1:33900"})
			s.service("uecho", wire.ConnDatagram, map[string]string{"type": "UDP Proxy", "address": "127.0.0.1:33900"})
		},
	}
	for id, before := range open {
		t.Run(string(id), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := replayChain(t, id, "service_ads", before)
				known := 0
				for _, ad := range s.n.Status().Advertisements {
					if ad.NodeID != id {
						known++
					}
				}
				if want := map[wire.NodeID]int{"alpha": 4, "bravo": 4, charlie: 2}[id]; known != want {
					t.Errorf("%s knows %d services of others, want %d", id, known, want)
				}
			})
		})
	}
}

func (s *stage) service(name string, kind wire.ConnType, tags map[string]string) {
	s.t.Helper()
	var err error
	if kind == wire.ConnDatagram {
		_, err = s.n.ListenPacket(name, &ServiceAd{Tags: tags})
	} else {
		var ln *StreamListener
		if ln, err = s.n.ListenStream(name, &ServiceAd{Tags: tags}, nil); err == nil {
			s.t.Cleanup(func() { _ = ln.Close() })
		}
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// TestReplayPackets replays packets to the nodes that answer them or pass them on.
func TestReplayPackets(t *testing.T) {
	upperCase := func(s *stage, _ time.Time) {
		pc, err := s.n.ListenPacket("uecho", nil)
		if err != nil {
			s.t.Fatal(err)
		}
		go func() {
			buf := make([]byte, 100)
			for {
				n, from, err := pc.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = pc.WriteTo(bytes.ToUpper(buf[:n]), from)
			}
		}()
	}
	cases := []struct {
		file   string
		roles  []wire.NodeID
		before func(*stage, time.Time)
	}{
		{"ping_direct", []wire.NodeID{"alpha"}, nil},
		{"ping_two_hops_link1", []wire.NodeID{"bravo", charlie}, nil},
		{"traceroute_link1", []wire.NodeID{"bravo", charlie}, nil},
		{"unreachable_service_unknown", []wire.NodeID{"bravo", charlie}, nil},
		{"data_datagram", []wire.NodeID{"bravo"}, nil},
		{"data_datagram", []wire.NodeID{charlie}, upperCase},
	}
	for _, c := range cases {
		for _, id := range c.roles {
			t.Run(c.file+" "+string(id), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { replayChain(t, id, c.file, c.before) })
			})
		}
	}
}

// TestSecondLinkAsRecorded checks the assumption of the other tests: what they play on the link behind bravo is what was
// recorded there.
func TestSecondLinkAsRecorded(t *testing.T) {
	for one, two := range map[string]string{
		"ping_two_hops_link1": "ping_two_hops_link2", "data_datagram": "data_datagram_link2", "traceroute_link1": "traceroute_link2",
	} {
		for _, dir := range []string{toDialer, toListener} {
			var got, want []string
			for _, m := range pick(beyondBravo(t, recording(t, one, 0)), dir) {
				got = append(got, hex.EncodeToString(m.msg))
			}
			for _, m := range pick(recording(t, two, 0), dir) {
				want = append(want, hex.EncodeToString(m.msg))
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s %s:\n got %q\nwant %q", two, dir, got, want)
			}
		}
	}
}

// converse replays packets to the node that began the conversation. The names of its ephemeral services are its own
// choice: they are put into the recorded answers.
func (s *stage) converse(p *part, all []message, ours string) {
	s.t.Helper()
	names := map[string]string{}
	rename := func(msg []byte) []byte {
		for recorded, own := range names {
			msg = bytes.ReplaceAll(msg, []byte(recorded), []byte(own))
		}
		return msg
	}
	var waiting []message
	for _, m := range all {
		if m.dir != ours {
			p.say(rename(m.msg))
			continue
		}
		waiting = append(waiting, slices.DeleteFunc(p.take(), func(m message) bool { return m.end || wire.Type(m.msg[0]) != wire.TypeData })...)
		if len(waiting) == 0 {
			s.t.Fatalf("the node did not send the packet at %v of the recording", m.at)
		}
		got := waiting[0].msg
		waiting = waiting[1:]
		theirs, err := wire.ParseHeader(m.msg)
		if err != nil {
			s.t.Fatal(err)
		}
		h, err := wire.ParseHeader(got)
		if err != nil {
			s.t.Fatal(err)
		}
		if name := h.FromService.String(); len(name) != 8 || names[theirs.FromService.String()] == "" && slices.Contains(slices.Collect(maps.Values(names)), name) {
			s.t.Errorf("the ephemeral service is %q, want 8 characters not used before", name)
		}
		names[theirs.FromService.String()] = h.FromService.String()
		want, comparable := rename(m.msg), len(m.msg)
		if comparable > 1000 { // An encrypted packet: its header only.
			comparable = wire.HeaderSize
			if n := len(got) - wire.HeaderSize; n < 1200 || n > mostPacket {
				s.t.Errorf("the first packet of a stream has %d bytes, want 1200 to %d", n, mostPacket)
			}
		}
		if len(got) < comparable || !bytes.Equal(got[:comparable], want[:comparable]) || comparable > wire.HeaderSize && len(got) != len(want) {
			s.t.Errorf("packet at %v\n got %x\nwant %x", m.at, got, want)
		}
	}
	synctest.Wait()
}

func TestReplayOwnPings(t *testing.T) {
	cases := []struct {
		file     string
		from, to wire.NodeID
		ours     string
	}{
		{"ping_direct", "bravo", "alpha", toListener},
		{"ping_two_hops_link1", "alpha", charlie, toDialer},
	}
	for _, c := range cases {
		t.Run(c.file, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, link1, _ := chainStage(t, c.from)
				answer := make(chan Pong, 1)
				go func() { answer <- s.n.Ping(t.Context(), c.to, wire.MaxHops) }()
				s.converse(link1, recording(t, c.file, 0), c.ours)
				if p := <-answer; p.Err != nil || p.From != c.to {
					t.Errorf("ping: %+v, want an answer from %s", p, c.to)
				}
			})
		})
	}
}

func TestReplayOwnTraceroute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, link1, _ := chainStage(t, "alpha")
		var got []string
		done := make(chan struct{})
		go func() {
			defer close(done)
			for _, to := range []wire.NodeID{charlie, "bravo"} {
				s.n.Traceroute(t.Context(), to, func(_ int, p Pong) {
					text := string(p.From)
					if p.Err != nil {
						text += " " + p.Err.Error()
					}
					got = append(got, text)
				})
			}
		}()
		s.converse(link1, recording(t, "traceroute_link1", 0), toDialer)
		<-done
		want := []string{"alpha message expired", "bravo message expired", charlie, "alpha message expired", "bravo"}
		if !slices.Equal(got, want) {
			t.Errorf("traceroutes: %q, want %q", got, want)
		}
	})
}

func TestReplayOwnDatagram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, link1, _ := chainStage(t, "alpha")
		pc, err := s.n.ListenPacket("", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pc.WriteTo([]byte("hello dgram"), Addr{charlie, "uecho"}); err != nil {
			t.Fatal(err)
		}
		s.converse(link1, recording(t, "data_datagram", 0), toDialer)
		buf := make([]byte, 100)
		n, from, err := pc.ReadFrom(buf)
		if err != nil || string(buf[:n]) != "HELLO DGRAM" || from.String() != charlie+":uecho" {
			t.Errorf("read %q from %v, %v", buf[:n], from, err)
		}
	})
}

func TestReplayOwnDialOfUnknownService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, link1, _ := chainStage(t, "alpha")
		failed := make(chan error, 1)
		begin := time.Now()
		go func() {
			_, err := s.n.DialStream(t.Context(), charlie, "nosuch", nil)
			failed <- err
		}()
		s.converse(link1, recording(t, "unreachable_service_unknown", 0)[:2], toDialer)
		err := <-failed
		dial, ok := errors.AsType[*DialError](err)
		if !ok || dial.Text != "context canceled" || !errors.Is(err, ErrServiceUnknown) {
			t.Errorf("dial: %v, want service unknown", err)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("the dial gave up after %v, want at once", took)
		}
	})
}

// victim is the recorded node that a script talked to, with links to some silent neighbours.
func victim(t *testing.T, neighbours ...wire.NodeID) *stage {
	t.Helper()
	s := newStage(t, "victim", 30120049344981782)
	for _, id := range neighbours {
		s.neighbour(id)
	}
	return s
}

// neighbour links a peer that lists the node.
func (s *stage) neighbour(id wire.NodeID) *part {
	p := s.join(LinkOptions{Cost: 1})
	p.say(hello(id))
	u := wire.RouteUpdate{NodeID: id, UpdateID: randomName(), UpdateEpoch: 1, UpdateSequence: 2, Connections: map[wire.NodeID]float64{s.n.ID(): 1}, ForwardingNode: id}
	msg, _ := u.Append(nil)
	p.say(msg)
	synctest.Wait()
	time.Sleep(time.Second) // Until what the node has to say about it is said.
	return p
}

// firstConnections are the neighbours that the recorded node listed in its handshake.
func firstConnections(t *testing.T, all []message) []wire.NodeID {
	t.Helper()
	for _, m := range pick(all, fromNode) {
		if wire.Type(m.msg[0]) == wire.TypeRoute {
			u, err := wire.ParseRouteUpdate(m.msg)
			if err != nil {
				t.Fatal(err)
			}
			return slices.Sorted(maps.Keys(u.Connections))
		}
	}
	return nil
}

// ownOnly leaves out what the node tells a new neighbour of others.
func ownOnly(all []message, id wire.NodeID) []message {
	return slices.DeleteFunc(slices.Clone(all), func(m message) bool {
		if m.end || wire.Type(m.msg[0]) != wire.TypeRoute {
			return false
		}
		u, err := wire.ParseRouteUpdate(m.msg)
		return err == nil && u.NodeID != id
	})
}

func TestReplayScriptedPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := recording(t, "data_scripted_peer", 0)
		s := victim(t, "pyIdle")
		p := s.join(LinkOptions{Cost: 1})
		s.play(time.Now(), cues(p, pick(all, fromPeer))...)
		// An existing node passes on a packet that a neighbour sends in its name; ours does not answer to its own name.
		want := slices.DeleteFunc(pick(all, fromNode), func(m message) bool {
			h, err := wire.ParseHeader(m.msg)
			return err == nil && h.From == wire.Hash("victim") && h.FromService == mustService("abcdefgh")
		})
		if len(want) != len(pick(all, fromNode))-1 {
			t.Fatal("the forged packet is not in the recording")
		}
		got := p.take()
		s.compare("scripted peer", want, ownOnly(got, "victim"))
		if a := s.accountOf(got); !a.ended || a.rejects != 1 {
			t.Errorf("the node rejected %d times (link ended: %v), want once at the end", a.rejects, a.ended)
		}
		if c := s.n.Counters(); c.DropSpoofed != 1 || c.DropUnknownHash != 2 {
			t.Errorf("%d forged packets and %d with unknown nodes were dropped, want 1 and 2", c.DropSpoofed, c.DropUnknownHash)
		}
	})
}

// TestReplayRejections: our node closes what the existing one closed, and its reject arrives always.
func TestReplayRejections(t *testing.T) {
	_, cases := readRecording(t, "rejections")
	if len(cases) != 10 {
		t.Fatalf("%d cases are recorded, want 10", len(cases))
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				all := messages(t, c.Exchange)
				s := victim(t, firstConnections(t, all)...)
				opt := LinkOptions{Cost: 1}
				if strings.Contains(c.Name, "allowed-peer") {
					opt.AllowedPeers = []wire.NodeID{"friend"}
				}
				want := s.accountOf(pick(all, fromNode))
				if len(want.adverts) > 0 {
					s.service("control", wire.ConnStream, map[string]string{"type": controlServiceTag})
					time.Sleep(time.Second)
				}
				p := s.join(opt)
				s.play(time.Now(), cues(p, pick(all, fromPeer))...)
				ended := all[len(all)-1].end
				got := ownOnly(p.take(), "victim")
				if a := s.accountOf(got); a.ended != ended {
					t.Errorf("link ended: %v; the existing node ended it: %v", a.ended, ended)
				} else if rejected := ended && c.Name != "reject-before-init"; (a.rejects == 1) != rejected {
					t.Errorf("%d rejects", a.rejects)
				}
				if c.Name == "cost-disagreement" || c.Name == "late-init" { // Ours has told of the link before it learns the peer's cost.
					want.states = append(want.states, listing(t, s, all, "py1"))
				}
				s.compareStates(want, s.accountOf(got))
				s.checkOwn(c.Name, got)
				if _, linked := linkTo(s.n, "dup"); c.Name == "duplicate-connection-second" && !linked {
					t.Error("the first link did not survive")
				}
			})
		})
	}
}

func (s *stage) compareStates(want, got account) {
	s.t.Helper()
	if missing, ok := subsequence(slices.Compact(want.states), got.states); !ok && !strings.Contains(missing, `"py1"`) {
		s.t.Errorf("the node never said %q; it said %q", missing, got.states)
	}
	for _, state := range got.states {
		if !slices.Contains(want.states, state) {
			s.t.Errorf("the node said %q; the existing one never did", state)
		}
	}
	if !slices.Equal(got.adverts, want.adverts) {
		s.t.Errorf("advertisements %q, want %q", got.adverts, want.adverts)
	}
}

// listing is the node's first recorded state with one more neighbour.
func listing(t *testing.T, s *stage, all []message, id wire.NodeID) string {
	t.Helper()
	u := wire.RouteUpdate{NodeID: s.n.ID(), ForwardingNode: s.n.ID(), Connections: map[wire.NodeID]float64{id: 1}}
	for _, other := range firstConnections(t, all) {
		u.Connections[other] = 1
	}
	msg, err := u.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(msg)
}

func linkTo(n *Node, id wire.NodeID) (cost float64, ok bool) {
	for _, c := range n.Status().Connections {
		if c.NodeID == id {
			return c.Cost, true
		}
	}
	return 0, false
}

func TestReplayInitTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := recording(t, "init_timeout", 0)
		s := victim(t)
		p := s.join(LinkOptions{Cost: 1})
		time.Sleep(20 * time.Second)
		got := p.take()
		if len(got) != len(all) {
			t.Fatalf("%d messages and ends, want %d", len(got), len(all))
		}
		for i, m := range all {
			if d := got[i].at - m.at; d < -10*time.Millisecond || d > 10*time.Millisecond || got[i].end != m.end {
				t.Errorf("message %d at %v (end: %v), recorded at %v (%v)", i, got[i].at, got[i].end, m.at, m.end)
			}
		}
		s.checkOwn("init timeout", got)
	})
}

// TestReplayIdleTimeout plays the silent peer, and the others that came and went meanwhile.
func TestReplayIdleTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := recording(t, "idle_timeout", 0)
		s := victim(t)
		begin := time.Now()
		idle := s.join(LinkOptions{Cost: 1})
		s.play(begin, cues(idle, pick(all, fromPeer))...)
		var visitor *part
		var who wire.NodeID
		var epoch uint64
		for _, m := range pick(all, fromNode) {
			u, err := wire.ParseRouteUpdate(m.msg)
			if err != nil || u.NodeID == "victim" {
				continue
			}
			time.Sleep(time.Until(begin.Add(m.at)))
			if u.NodeID != who || u.UpdateEpoch != epoch {
				if visitor != nil {
					_ = visitor.conn.Close()
					synctest.Wait()
					time.Sleep(time.Millisecond)
				}
				who, epoch = u.NodeID, u.UpdateEpoch
				visitor = s.join(LinkOptions{Cost: 1})
				visitor.say(hello(who))
			}
			visitor.say(forwardedBy(t, m.msg, who))
		}
		s.service("control", wire.ConnStream, map[string]string{"type": controlServiceTag})
		time.Sleep(time.Until(begin.Add(30 * time.Second)))
		got := idle.take()
		last := got[len(got)-1]
		silent := last.at - pick(all, fromPeer)[1].at
		if !last.end || silent < 21*time.Second || silent > 26*time.Second {
			t.Errorf("the link ended (%v) after %v of silence, want 21 s to 26 s", last.end, silent)
		}
		wantAll, gotAll := s.accountOf(pick(all, fromNode)), s.accountOf(got)
		s.comparePassed("idle timeout", wantAll, gotAll)
		if missing, ok := subsequence(wantAll.states[:3], gotAll.states); !ok {
			t.Errorf("the node never said %q; it said %q", missing, gotAll.states)
		}
		if !slices.Equal(slices.Compact(gotAll.adverts), wantAll.adverts) {
			t.Errorf("advertisements %q, want %q", gotAll.adverts, wantAll.adverts)
		}
		s.checkOwn("idle timeout", got)
	})
}

// TestReplayOlderTwin: of two nodes with one ID our node is the older, which makes the other give up.
func TestReplayOlderTwin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := recording(t, "duplicate_node_older_twin_link", 0)
		s := newStage(t, "twin", 30120058095682868)
		p := s.join(LinkOptions{Cost: 1})
		s.play(time.Now(), cues(p, pick(all, toDialer))...)
		s.compare("older twin", pick(all, toListener), p.take())
		if s.n.Err() != nil {
			t.Errorf("the older twin ended with %v", s.n.Err())
		}
	})
}

// TestReplayNewerTwin: our node is the newer. An existing node believes the notice alone, which anybody can forge; ours
// wants to have heard of the other twin's links as well, from it and from its neighbour, which a mesh tells every ten
// seconds.
func TestReplayNewerTwin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := recording(t, "duplicate_node_newer_twin_link", 0)
		s := newStage(t, "twin", 30120058139758231)
		p := s.join(LinkOptions{Cost: 1})
		s.play(time.Now(), cues(p, pick(all, toDialer))...)
		s.compare("newer twin", pick(all, toListener), p.take())
		if s.n.Err() != nil {
			t.Fatalf("the notice alone ended the node: %v", s.n.Err())
		}
		for _, m := range pick(recording(t, "duplicate_node_older_twin_link", 0), toDialer) {
			if u, err := wire.ParseRouteUpdate(m.msg); err == nil && u.NodeID == "h1" {
				p.say(forwardedBy(t, m.msg, "h2")) // h1, which lists the other twin.
			}
		}
		notice := pick(all, toDialer)
		u, err := wire.ParseRouteUpdate(notice[len(notice)-1].msg)
		if err != nil || u.SuspectedDuplicate != s.n.Epoch() {
			t.Fatalf("the last message of the recording is no notice to this node: %+v, %v", u, err)
		}
		again := func(id string, duplicate uint64) {
			u.UpdateSequence++
			u.UpdateID, u.SuspectedDuplicate = id, duplicate
			msg, _ := u.Append(nil)
			p.say(msg)
			synctest.Wait()
		}
		again("repeated", s.n.Epoch()) // The older twin does so with every update of this node that reaches it.
		if s.n.Err() != nil {
			t.Fatalf("a notice and a neighbour ended the node: %v", s.n.Err())
		}
		again("periodic", 0)
		<-s.n.Done()
		if !errors.Is(s.n.Err(), ErrDuplicateNode) {
			t.Errorf("the newer twin ended with %v, want ErrDuplicateNode", s.n.Err())
		}
	})
}
