package netceptor

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/policy"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

func rules(t *testing.T, list ...policy.Rule) *policy.Policy {
	t.Helper()
	p, err := policy.Compile(list)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestGoldenFirewall replays what a scripted peer exchanged with an existing node: the same packets draw the same
// answers, byte for byte.
func TestGoldenFirewall(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "wire", "testdata", "firewall.json"))
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Rules    []map[string]any `json:"rules_in_order"`
		Listener wire.NodeID      `json:"listener"`
		Exchange []struct {
			Dir string `json:"dir"`
			Hex string `json:"frame_hex"`
		} `json:"exchange"`
	}
	if err := json.Unmarshal(data, &golden); err != nil {
		t.Fatal(err)
	}
	var list []policy.Rule
	for _, fields := range golden.Rules {
		r, problems := policy.ParseRule(fields)
		if problems != nil {
			t.Fatal(problems)
		}
		list = append(list, r)
	}
	synctest.Test(t, func(t *testing.T) {
		n, err := New(Config{ID: golden.Listener, Policy: rules(t, list...)})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		peer := rawPeer(t, n, LinkOptions{Cost: 1})
		answers := listen(peer, wire.TypeData)
		packets, answered := 0, 0
		for i, step := range golden.Exchange {
			frame, err := hex.DecodeString(step.Hex)
			if err != nil {
				t.Fatal(err)
			}
			msg, _, _ := wire.Batch(frame).Next()
			switch {
			case step.Dir == "peer->receptor":
				synctest.Wait()
				if len(answers) != 0 {
					t.Fatalf("before step %d: %d answers more than expected, the first is %q", i, len(answers), <-answers)
				}
				say(t, peer, msg)
				if wire.Type(msg[0]) == wire.TypeData {
					packets++
				}
			case wire.Type(msg[0]) == wire.TypeData:
				synctest.Wait()
				select {
				case got := <-answers:
					if string(got) != string(msg) {
						t.Errorf("step %d: got %q, want %q", i, got, msg)
					}
				default:
					t.Errorf("step %d: no answer, want %q", i, msg)
				}
				answered++
			}
		}
		synctest.Wait()
		if len(answers) != 0 || packets != 7 || answered != 5 {
			t.Errorf("%d packets drew %d answers and %d that should not be, want 7, 5 and 0", packets, answered, len(answers))
		}
		if got := n.Counters().DropFirewall; got != 5 {
			t.Errorf("%d packets were held back, want 5", got)
		}
	})
}

// line is a simulated mesh a-b-c with a socket on either end.
type line struct {
	*simulation
	out, in *PacketConn
}

func newLine(t *testing.T) *line {
	l := &line{simulation: newSimulation(t)}
	for _, id := range []wire.NodeID{"a", "b", "c"} {
		l.add(id)
	}
	l.link("a", "b", 1)
	l.link("b", "c", 1)
	l.settle("line", 5*time.Second)
	var err error
	if l.out, err = l.nodes["a"].ListenPacket("out", nil); err != nil {
		t.Fatal(err)
	}
	if l.in, err = l.nodes["c"].ListenPacket("in", nil); err != nil {
		t.Fatal(err)
	}
	return l
}

// fate sends a packet from a:out to c:in and says what became of it.
func (l *line) fate() string {
	l.t.Helper()
	_, err := l.out.WriteTo([]byte("x"), Addr{"c", "in"})
	synctest.Wait()
	fate := "gone"
	if l.in.take() {
		l.in.reading = nil
		fate = "arrived"
	}
	if err != nil {
		fate += fmt.Sprintf(", error %v", err)
	}
	for {
		select {
		case n := <-l.out.Notices():
			fate += fmt.Sprintf(", %s says %s", n.Reporter, n.Problem)
			if n.FromNode != "a" || n.FromService != "out" || n.ToNode != "c" || n.ToService != "in" {
				fate += fmt.Sprintf(" of %+v", n)
			}
		default:
			return fate
		}
	}
}

func TestF115F116F117F120RulesAtEachNode(t *testing.T) {
	exact := policy.Rule{FromNode: "a", ToNode: "c", FromService: "out", ToService: "in"}
	for _, tc := range []struct {
		node wire.NodeID
		rule policy.Rule
		want string
	}{
		{"a", policy.Rule{Action: "accept"}, "arrived"},
		{"b", policy.Rule{Action: "accept"}, "arrived"},
		{"c", policy.Rule{Action: "accept"}, "arrived"},
		{"a", with(exact, "drop"), "gone"},
		{"b", with(exact, "drop"), "gone"},
		{"c", with(exact, "drop"), "gone"},
		{"a", with(exact, "reject"), "gone, error blocked by firewall, a says blocked by firewall"},
		{"b", with(exact, "reject"), "gone, b says blocked by firewall"},
		{"c", with(exact, "reject"), "gone, c says blocked by firewall"},
		{"b", policy.Rule{Action: "reject", FromNode: "a", ToNode: "b"}, "arrived"},
		{"b", policy.Rule{Action: "reject", ToService: "IN"}, "arrived"},
		// The notice is judged as well, and nobody is told about a notice.
		{"b", policy.Rule{Action: "reject"}, "gone"},
		{"c", policy.Rule{Action: "reject"}, "gone"},
		{"a", policy.Rule{Action: "reject"}, "gone, error blocked by firewall, a says blocked by firewall"},
		{"a", policy.Rule{Action: "drop"}, "gone"},
	} {
		t.Run(fmt.Sprintf("%s %s", tc.node, tc.rule), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLine(t)
				defer l.close()
				l.nodes[tc.node].SetPolicy(rules(t, tc.rule))
				if got := l.fate(); got != tc.want {
					t.Errorf("got %q, want %q", got, tc.want)
				}
				held := l.nodes[tc.node].Counters().DropFirewall
				if (held > 0) != (tc.want != "arrived") {
					t.Errorf("%d packets were held back", held)
				}
				l.nodes[tc.node].SetPolicy(nil)
				if got := l.fate(); got != "arrived" {
					t.Errorf("without rules: got %q", got)
				}
			})
		})
	}
}

func with(r policy.Rule, action string) policy.Rule {
	r.Action = action
	return r
}

// TestNoticeIsJudgedOnItsWay: the reject at c is told to a through b, where a rule holds notices back.
func TestNoticeIsJudgedOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t)
		defer l.close()
		l.nodes["c"].SetPolicy(rules(t, policy.Rule{Action: "reject", ToService: "in"}))
		b := rules(t, policy.Rule{Action: "reject", FromNode: "c", ToService: "unreach"})
		l.nodes["b"].SetPolicy(b)
		if got := l.fate(); got != "gone" {
			t.Errorf("got %q, want gone", got)
		}
		if h := b.Hits(); h[0].Packets != 1 || h[1].Packets != 1 {
			t.Errorf("b judged %+v, want the packet and its notice, each once", h)
		}
	})
}

// TestEachPacketIsJudgedOnce: a ping is one packet there and one back at every node, also to oneself.
func TestEachPacketIsJudgedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t)
		defer l.close()
		policies := map[wire.NodeID]*policy.Policy{}
		for id, n := range l.nodes {
			policies[id] = rules(t, policy.Rule{Action: "accept", ToService: "ping"}, policy.Rule{Action: "accept", FromService: "ping"})
			n.SetPolicy(policies[id])
		}
		if p := l.nodes["a"].Ping(t.Context(), "c", wire.MaxHops); p.Err != nil {
			t.Error(p.Err)
		}
		if p := l.nodes["b"].Ping(t.Context(), "b", wire.MaxHops); p.Err != nil {
			t.Error(p.Err)
		}
		for id, p := range policies {
			want := uint64(1)
			if id == "b" {
				want = 2
			}
			if h := p.Hits(); h[0].Packets != want || h[1].Packets != want || h[2].Packets != 0 {
				t.Errorf("%s judged %+v, want %d, %d and 0", id, h, want, want)
			}
		}
	})
}

func TestPingsAndTheirAnswersAreJudged(t *testing.T) {
	for _, tc := range []struct {
		node wire.NodeID
		rule policy.Rule
		want error
		took time.Duration
	}{
		{"a", policy.Rule{Action: "reject", ToService: "ping"}, ErrFirewall, 0},
		{"a", policy.Rule{Action: "drop", ToService: "ping"}, ErrTimeout, pingTimeout},
		{"b", policy.Rule{Action: "reject", ToService: "ping"}, ErrFirewall, 0},
		{"c", policy.Rule{Action: "reject", ToService: "ping"}, ErrFirewall, 0},
		{"c", policy.Rule{Action: "drop", ToService: "ping"}, ErrTimeout, pingTimeout},
		{"c", policy.Rule{Action: "drop", FromService: "ping"}, ErrTimeout, pingTimeout},
		{"c", policy.Rule{Action: "reject", FromService: "ping"}, ErrTimeout, pingTimeout},
		{"b", policy.Rule{Action: "reject", FromNode: "c"}, ErrTimeout, pingTimeout},
		{"c", policy.Rule{Action: "reject", ToService: "in"}, nil, 0},
	} {
		t.Run(fmt.Sprintf("%s %s", tc.node, tc.rule), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLine(t)
				defer l.close()
				l.nodes[tc.node].SetPolicy(rules(t, tc.rule))
				start := time.Now()
				p := l.nodes["a"].Ping(t.Context(), "c", wire.MaxHops)
				if took := time.Since(start); !errors.Is(p.Err, tc.want) || took != tc.took {
					t.Errorf("ping: %v after %v, want %v after %v", p.Err, took, tc.want, tc.took)
				}
				if c := l.nodes[tc.node].Counters(); c.DropQueueFull != 0 {
					t.Errorf("an answer held back by the firewall counts as one for which there was no room: %+v", c)
				}
			})
		})
	}
}

// TestRoutesAndAdvertsPassEveryFirewall: the mesh lives on where no packet passes.
func TestRoutesAndAdvertsPassEveryFirewall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t)
		defer s.close()
		for _, id := range []wire.NodeID{"a", "b", "c"} {
			s.add(id).SetPolicy(rules(t, policy.Rule{Action: "drop"}))
		}
		s.link("a", "b", 1)
		s.link("b", "c", 1)
		if _, err := s.nodes["a"].ListenPacket("svc", &ServiceAd{}); err != nil {
			t.Fatal(err)
		}
		s.settle("line", 5*time.Second)
		time.Sleep(2 * time.Minute)
		s.settle("two minutes later", time.Second)
		if ads := s.nodes["c"].Status().Advertisements; len(ads) == 0 || ads[0].Service != "svc" {
			t.Errorf("c knows of the services %v, want svc", ads)
		}
		if c := s.nodes["b"].Counters(); c.DropFirewall != 0 {
			t.Errorf("b held back %d messages", c.DropFirewall)
		}
	})
}

// TestDialThatIsDroppedSaysWhatMayBe the cause: nobody tells.
func TestDialThatIsDroppedSaysWhatMayBe(t *testing.T) {
	for _, node := range []wire.NodeID{"a", "b", "c"} {
		t.Run(string(node), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, err := dialUnder(t, node, policy.Rule{Action: "drop", ToService: "svc"})
				if !errors.Is(err, ErrTimeout) || !strings.Contains(err.Error(), "a firewall rule with the action drop") {
					t.Errorf("dial: %v, want a timeout that names firewalls", err)
				}
			})
		})
	}
}

// dialUnder is how long a dial from one end of a line to a service at the other takes, and what becomes of it, while node has
// the rule.
func dialUnder(t *testing.T, node wire.NodeID, rule policy.Rule) (took time.Duration, err error) {
	l := newLine(t)
	defer l.close()
	ln, err := l.nodes["c"].ListenStream("svc", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	l.nodes[node].SetPolicy(rules(t, rule))
	start := time.Now()
	_, err = l.nodes["a"].DialStream(t.Context(), "c", "svc", nil)
	return time.Since(start), err
}

func TestStreamDialIsRejectedAtOnce(t *testing.T) {
	for _, node := range []wire.NodeID{"a", "b", "c"} {
		for _, rule := range []policy.Rule{{Action: "reject", ToService: "svc"}, {Action: "reject", FromNode: "a"}} {
			t.Run(fmt.Sprintf("%s %s", node, rule), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					took, err := dialUnder(t, node, rule)
					if !errors.Is(err, ErrFirewall) || took != 0 {
						t.Errorf("dial: %v after %v, want blocked by firewall at once", err, took)
					}
				})
			})
		}
	}
}

// TestForwardingUnderAPolicyAllocatesNothing keeps the hot path of a relay free of garbage.
func TestForwardingUnderAPolicyAllocatesNothing(t *testing.T) {
	n := testNode(t, "n")
	n.SetPolicy(rules(t, policy.Rule{Action: "accept", FromNode: "x"}, policy.Rule{Action: "drop", FromNode: "/p|q/", ToService: "svc"}))
	near, far := link.Pipe()
	n.wg.Go(func() { _, _ = n.runLink(near, LinkOptions{Cost: 1}, nil) })
	t.Cleanup(func() { _ = far.Close() })
	say(t, far, hello("p"))
	say(t, far, update("p", "p", 2, map[wire.NodeID]float64{"n": 1}))
	waitRoute(t, n, "p")
	h := wire.Header{Hops: 5, From: wire.Hash("p"), To: wire.Hash("n"), FromService: mustService("out"), ToService: mustService("svc")}
	msg := h.AppendTo(nil)
	var r receiver
	if allocs := testing.AllocsPerRun(100, func() { n.receivePacket(&r, msg) }); allocs != 0 {
		t.Errorf("%v allocations per packet, want 0", allocs)
	}
	if c := n.Counters(); c.DropFirewall < 100 {
		t.Errorf("the rule was not asked: %+v", c)
	}
}

// TestSharedConnectionsHideNoService: a stream to a service that a rule rejects does not travel as one to another
// service, wherever the rule stands and whatever the dialling node does.
func TestSharedConnectionsHideNoService(t *testing.T) {
	for _, node := range []wire.NodeID{"a", "b", "c"} {
		t.Run(string(node), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLine(t)
				defer l.close()
				for _, service := range []string{"open", "closed"} {
					ln, err := l.nodes["c"].ListenStream(service, nil, nil)
					if err != nil {
						t.Fatal(err)
					}
					defer ln.Close()
				}
				l.nodes[node].SetPolicy(rules(t, policy.Rule{Action: "reject", ToService: "closed"}))
				s, err := l.nodes["a"].DialStream(t.Context(), "c", "open", nil)
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				if _, err := l.nodes["a"].DialStream(t.Context(), "c", "closed", nil); !errors.Is(err, ErrFirewall) {
					t.Errorf("dial of the other service: %v, want blocked by firewall", err)
				}
				if s.mux == nil {
					t.Fatal("the stream is on no shared connection")
				}
				if s, err := s.mux.open(t.Context(), Addr{"c", "closed"}); !errors.Is(err, errOtherMux) {
					t.Errorf("a dialler that asks for the other service all the same got %v, %v", s, err)
				}
			})
		})
	}
}
