package control

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// meshRig is a server of a real node, alpha, with the units of a fake engine.
type meshRig struct {
	*rig
	node *netceptor.Node
}

func newNode(t testing.TB, id wire.NodeID) *netceptor.Node {
	t.Helper()
	n, err := netceptor.New(netceptor.Config{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func newMeshRig(t testing.TB) *meshRig {
	t.Helper()
	n := newNode(t, "alpha")
	return &meshRig{newRig(t, func(c *Config) { c.Node, c.Dial = n, nil }), n}
}

// connectNodes makes a link between two nodes and returns what ends it.
func connectNodes(t testing.TB, a, b *netceptor.Node, cost float64) func() {
	t.Helper()
	near, far := link.Pipe()
	backend, err := a.AddLink(near, netceptor.LinkOptions{Cost: cost})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.AddLink(far, netceptor.LinkOptions{Cost: cost}); err != nil {
		t.Fatal(err)
	}
	return func() { backend.Close() }
}

// listener reads a stream of events.
type listener struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func (r *meshRig) listenTo(t *testing.T, command string) *listener {
	t.Helper()
	c := r.dialUnix(t)
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil { // A hang guard.
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	wantLine(t, in, "Receptor Control, node alpha")
	if _, err := fmt.Fprintln(c, command); err != nil {
		t.Fatal(err)
	}
	return &listener{t, c, in}
}

// next returns the next event in short: "link up beta 1".
func (l *listener) next() string {
	l.t.Helper()
	line, err := l.in.ReadString('\n')
	if err != nil {
		l.t.Fatalf("%q, %v", line, err)
	}
	if !strings.HasPrefix(line, `{"event":"`) {
		l.t.Fatalf("event is not the first key of %q", line)
	}
	var e struct {
		event
		Status map[string]any `json:"status"`
	}
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		l.t.Fatalf("%q: %v", line, err)
	}
	if e.Time.IsZero() {
		l.t.Errorf("no time in %q", line)
	}
	words := []string{e.Event, e.Change, string(e.Node), e.Service, string(e.Via), string(e.Unit)}
	if e.Cost != 0 {
		words = append(words, fmt.Sprint(e.Cost))
	}
	if e.Status != nil {
		words = append(words, fmt.Sprint(e.Status["StateName"]))
	}
	if e.Snapshot {
		words = append(words, "snapshot")
	}
	if e.Count > 0 {
		words = append(words, fmt.Sprint(e.Count))
	}
	return strings.Join(strings.Fields(strings.Join(words, " ")), " ")
}

// want skips nothing.
func (l *listener) want(events ...string) {
	l.t.Helper()
	for _, want := range events {
		if got := l.next(); got != want {
			l.t.Fatalf("got event %q, want %q", got, want)
		}
	}
}

// until skips events up to one.
func (l *listener) until(want string) {
	l.t.Helper()
	for l.next() != want {
	}
}

func TestEvents(t *testing.T) {
	r := newMeshRig(t)
	u := r.work.add("unitAAAA", "cat", workceptor.Running, "")
	beta, gamma := newNode(t, "beta"), newNode(t, "gamma")
	cut := connectNodes(t, r.node, beta, 1)
	if _, _, err := r.node.WaitRoute(t.Context(), "beta"); err != nil {
		t.Fatal(err)
	}

	l := r.listenTo(t, "events link route unit")
	l.want("route up beta beta 1 snapshot", "link up beta 1 snapshot", "unit changed unitAAAA Running snapshot", "live alpha")
	u.end()
	l.want("unit changed unitAAAA Succeeded")
	connectNodes(t, beta, gamma, 2)
	l.want("route up gamma beta 3")
	connectNodes(t, r.node, gamma, 2)
	l.until("route changed gamma gamma 2")
	l.until("link up gamma 2")
	cut()
	l.until("route changed beta gamma 4")
	if _, err := r.work.Release(t.Context(), "unitAAAA", true); err != nil {
		t.Fatal(err)
	}
	l.until("unit released unitAAAA Succeeded")
	closeWrite(t, l.conn) // Has no effect.
	l.conn.Write(nil)
	beta.Close()
	l.until("route down beta")
	r.node.Close()
	for { // The end of the node is the end of the stream.
		if _, err := l.in.ReadString('\n'); err != nil {
			break
		}
	}
}

func TestEventsChosen(t *testing.T) {
	r := newMeshRig(t)
	r.work.add("unitAAAA", "cat", workceptor.Running, "")
	other := r.work.add("unitBBBB", "cat", workceptor.Running, "")
	beta := newNode(t, "beta")
	connectNodes(t, r.node, beta, 1)
	if _, _, err := r.node.WaitRoute(t.Context(), "beta"); err != nil {
		t.Fatal(err)
	}
	pc, err := r.node.ListenPacket("svc", &netceptor.ServiceAd{Tags: map[string]string{"a": "b"}})
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	r.listenTo(t, `{"command":"events","kinds":["unit"],"unit":"unitBBBB"}`).want("unit changed unitBBBB Running snapshot", "live alpha")
	r.listenTo(t, `{"command":"events","node":"beta","unit":"none"}`).want("route up beta beta 1 snapshot", "link up beta 1 snapshot", "live alpha")
	r.listenTo(t, `{"command":"events","kinds":["route","link"],"node":"gamma"}`).want("live alpha")
	services := r.listenTo(t, `{"command":"events","kinds":["service"]}`)
	services.want("service up alpha svc snapshot", "live alpha")
	late, err := r.node.ListenPacket("late", &netceptor.ServiceAd{})
	if err != nil {
		t.Fatal(err)
	}
	services.want("service up alpha late")
	late.Close()
	services.want("service down alpha late")
	l := r.listenTo(t, `{"command":"events","snapshot":false,"kinds":["unit","route"]}`)
	l.want("live alpha")
	other.end()
	l.want("unit changed unitBBBB Succeeded")
	for request, want := range map[string]string{
		"events bananas":                          "ERROR: unknown kind of event bananas, expected link, backend, route, service or unit",
		`{"command":"events","kinds":"unit"}`:     "ERROR: field kinds must be a list of strings",
		`{"command":"events","kinds":[1]}`:        "ERROR: field kinds must be a list of strings",
		`{"command":"events","node":1}`:           "ERROR: field node must be a string",
		`{"command":"events","unit":[]}`:          "ERROR: field unit must be a string",
		`{"command":"events","snapshot":"false"}`: "ERROR: field snapshot must be true or false",
	} {
		l := r.listenTo(t, request+"\nwork list x")
		wantLine(t, l.in, want)
		wantLine(t, l.in, "ERROR: unknown work unit x") // The session goes on.
	}
}

// TestEventsFailures tells of a link that cannot be made, once.
func TestEventsFailures(t *testing.T) {
	r := newMeshRig(t)
	l := r.listenTo(t, "events backend")
	l.want("live alpha")
	const dead = "127.0.0.1:1"
	if _, err := r.node.Dial(link.DialTCP(dead), netceptor.LinkOptions{Cost: 1}); err != nil {
		t.Fatal(err)
	}
	line, err := l.in.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var e event
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		t.Fatal(err)
	}
	if e.Event != "backend" || e.Change != "failed" || e.Backend != "tcp "+dead || e.Kind != "refused" || e.Reason == "" {
		t.Errorf("%s", line)
	}
	r.listenTo(t, "events backend").want("backend failed snapshot", "live alpha")
}

// TestEventsDropped lets a client fall behind: it hears how much it has missed, and what there is then.
func TestEventsDropped(t *testing.T) {
	r := newMeshRig(t)
	wish, err := eventWishOf(request{params: "unit"})
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	defer near.Close()
	s := newSession(r.Server, far, listening{kind: TCP})
	s.ctx = t.Context()
	lost := uint64(0)
	f := s.newFeed(wish)
	defer f.close()
	f.work.Lost = func() uint64 { return lost }
	r.work.add("unitAAAA", "cat", workceptor.Running, "")
	l := &listener{t, near, bufio.NewReader(near)}
	ended := make(chan error, 1)
	go func() { ended <- f.begin() }()
	l.want("unit changed unitAAAA Running snapshot", "live alpha")
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	lost = 7
	go func() { ended <- f.flush() }()
	l.want("dropped 7", "unit changed unitAAAA Running snapshot", "live alpha")
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	lost = 9
	f.wish.snapshot = false
	go func() { ended <- f.flush() }()
	l.want("dropped 2")
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

// TestEventsClientGone leaves nothing behind, whatever the client still sends.
func TestEventsClientGone(t *testing.T) {
	r := newMeshRig(t)
	for _, rest := range []string{"", "garbage\n", strings.Repeat("x", 1<<20)} {
		l := r.listenTo(t, "events")
		l.until("live alpha")
		go l.conn.Write([]byte(rest))
		l.conn.Close()
	}
	for deadline := time.Now().Add(time.Minute); r.Stats().Sessions > 0; {
		if time.Now().After(deadline) {
			t.Fatalf("%d sessions are left:\n%s", r.Stats().Sessions, sessionsLeft())
		}
		time.Sleep(time.Millisecond) // Nothing tells of the end of a session.
	}
}

// TestEventsPipe has a client whose connection tells nothing of its end: the next sign of life does.
func TestEventsPipe(t *testing.T) {
	const command = "events\nmore"
	for cut := range len(command) + 1 {
		synctest.Test(t, func(t *testing.T) {
			n, err := netceptor.New(netceptor.Config{ID: "alpha"})
			if err != nil {
				t.Fatal(err)
			}
			b := &bubble{Server: newServer(Config{Node: n}, newFakeWork())}
			c := b.connect(t, TCP)
			got := drain(c)
			if _, err := c.Write([]byte(command[:cut])); err != nil {
				t.Fatal(err)
			}
			time.Sleep(aliveEvery + time.Second)
			c.Close()
			time.Sleep(aliveEvery)
			synctest.Wait()
			text := <-got
			if alive := strings.Count(text, `{"event":"alive"`); cut > len("events") && (alive != 1 || !strings.Contains(text, `{"event":"live"`)) {
				t.Errorf("got %s", text)
			}
			if left := sessionsLeft(); left != "" {
				t.Errorf("cut after %d: left behind:\n%s", cut, left)
			}
			b.Close()
			n.Close()
		})
	}
}
