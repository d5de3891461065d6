package control

import (
	"bufio"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/policy"
	"github.com/pyreceptor/pyreceptor/go/topology"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// database is what node a knows after the others have said what they say; own links are those of a.
func database(own map[wire.NodeID]float64, says map[wire.NodeID]map[wire.NodeID]float64) *topology.DB {
	db := topology.New("a", 1)
	for peer, cost := range own {
		db.SetLink(peer, cost)
	}
	for node, links := range says {
		db.Apply(wire.RouteUpdate{NodeID: node, UpdateID: string("update-" + node), UpdateEpoch: 1, UpdateSequence: 1, Connections: links, ForwardingNode: node}, time.Now())
	}
	return db
}

func TestTopologyTree(t *testing.T) {
	for _, tc := range []struct {
		name string
		own  map[wire.NodeID]float64
		says map[wire.NodeID]map[wire.NodeID]float64
		want string // node:parent/hops of what can be reached, in order.
	}{
		{"alone", nil, nil, "a:-/0"},
		{"a neighbour that has not spoken yet", map[wire.NodeID]float64{"b": 1}, nil, "a:-/0 b:a/1"},
		{"a line", map[wire.NodeID]float64{"b": 1}, map[wire.NodeID]map[wire.NodeID]float64{
			"b": {"a": 1, "c": 1}, "c": {"b": 1, "d": 1}, "d": {"c": 1},
		}, "a:-/0 b:a/1 c:b/2 d:c/3"},
		{"the cheaper way round", map[wire.NodeID]float64{"b": 1, "c": 5}, map[wire.NodeID]map[wire.NodeID]float64{
			"b": {"a": 1, "c": 1}, "c": {"a": 5, "b": 1},
		}, "a:-/0 b:a/1 c:b/2"},
		{"fewer hops at the same cost", map[wire.NodeID]float64{"b": 1, "c": 2}, map[wire.NodeID]map[wire.NodeID]float64{
			"b": {"a": 1, "c": 1}, "c": {"a": 2, "b": 1},
		}, "a:-/0 b:a/1 c:a/1"},
		{"a node that is gone", map[wire.NodeID]float64{"b": 1}, map[wire.NodeID]map[wire.NodeID]float64{
			"b": {"a": 1}, "x": {},
		}, "a:-/0 b:a/1"},
		{"fractions", map[wire.NodeID]float64{"b": 0.1}, map[wire.NodeID]map[wire.NodeID]float64{
			"b": {"a": 0.1, "c": 0.2}, "c": {"b": 0.2, "d": 0.3}, "d": {"c": 0.3},
		}, "a:-/0 b:a/1 c:b/2 d:c/3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			db := database(tc.own, tc.says)
			var got []string
			for _, n := range topologyNodes(db.Inspect(), db.Routes(), time.Now()) {
				if !n.Reachable {
					continue
				}
				parent := wire.NodeID("-")
				if n.Parent != nil {
					parent = *n.Parent
				}
				if n.Hops == nil {
					t.Fatalf("no hops to %s", n.Node)
				}
				got = append(got, fmt.Sprintf("%s:%s/%d", n.Node, parent, *n.Hops))
			}
			if s := strings.Join(got, " "); s != tc.want {
				t.Errorf("got %s, want %s", s, tc.want)
			}
		})
	}
}

func TestTopologyEdges(t *testing.T) {
	db := database(map[wire.NodeID]float64{"b": 1}, map[wire.NodeID]map[wire.NodeID]float64{
		"b": {"a": 1, "c": 1, "d": 3, "e": 1}, "c": {"b": 2}, "d": {},
	})
	got := map[string]string{}
	for _, e := range topologyEdges(db.Inspect()) {
		got[string(e.A+"-"+e.B)] = e.State
	}
	for edge, want := range map[string]string{"a-b": "ok", "b-c": "costs differ", "b-d": "one-sided", "b-e": "unconfirmed"} {
		if got[edge] != want {
			t.Errorf("edge %s is %q, want %q; all: %v", edge, got[edge], want, got)
		}
	}
}

// ask gives one command on a connection of its own and returns the reply.
func (r *rig) ask(t *testing.T, command string) string {
	t.Helper()
	c := r.dialUnix(t)
	in := bufio.NewReader(c)
	if _, err := in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(c, command)
	line, err := in.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(line, "\n")
}

func (r *rig) askJSON(t *testing.T, command string, into any) {
	t.Helper()
	reply := r.ask(t, command)
	if err := json.Unmarshal([]byte(reply), into); err != nil {
		t.Fatalf("%s: %s: %v", command, reply, err)
	}
}

func TestTopologyCommand(t *testing.T) {
	r := newMeshRig(t)
	beta := newNode(t, "beta")
	connectNodes(t, r.node, beta, 2.5)
	seen := r.node.Subscribe(100)
	beta.SetWorkCommands([]wire.WorkCommand{{WorkType: "cat", Secure: true}})
	s, err := beta.ListenStream("control", &netceptor.ServiceAd{Tags: map[string]string{"type": "Control Service"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for e := range seen.C {
		if e.Kind == netceptor.ServiceSeen {
			break
		}
	}
	if _, _, err := r.node.WaitRoute(t.Context(), "beta"); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Node     string
		Time     time.Time
		Nodes    []topologyNode
		Edges    []topologyEdge
		Services []topologyService
	}
	r.askJSON(t, "topology", &got)
	if got.Node != "alpha" || got.Time.IsZero() || len(got.Nodes) != 2 || len(got.Edges) != 1 || len(got.Services) != 1 {
		t.Fatalf("%+v", got)
	}
	if n := got.Nodes[1]; n.Node != "beta" || !n.Reachable || *n.Cost != 2.5 || *n.Hops != 1 || *n.Via != "beta" || *n.Parent != "alpha" {
		t.Errorf("node %+v", n)
	}
	sv := got.Services[0]
	if sv.Node != "beta" || sv.Connection != "stream" || sv.SkewS == nil || sv.HeardS == nil || len(sv.Work) != 1 || !sv.Work[0].Secure {
		t.Errorf("service %+v", sv)
	}
	if reply := r.ask(t, "topology x"); reply != "ERROR: topology command does not take parameters" {
		t.Errorf("%s", reply)
	}
	if reply := newRig(t).ask(t, "topology"); reply != "ERROR: Unknown command" { // Of a node that cannot be looked into.
		t.Errorf("%s", reply)
	}
}

func TestLinksCommand(t *testing.T) {
	r := newMeshRig(t)
	rules, err := policy.Compile([]policy.Rule{{Action: "drop", FromNode: "bad"}})
	if err != nil {
		t.Fatal(err)
	}
	r.node.SetPolicy(rules)
	r.Server.tls = func() []TLSProfile {
		return []TLSProfile{{Name: "mutual", Server: true, NodeIDs: []wire.NodeID{"alpha"}, Expiry: new(time.Unix(2e9, 0).UTC())}}
	}
	var status struct{ Certificates []certificate }
	r.askJSON(t, "status", &status)
	if len(status.Certificates) != 1 || status.Certificates[0].Name != "mutual" || status.Certificates[0].Expiry.Unix() != 2e9 {
		t.Errorf("status tells of the certificates %+v", status.Certificates)
	}
	beta := newNode(t, "beta")
	events := r.node.Subscribe(100)
	connectNodes(t, r.node, beta, 1)
	if _, err := r.node.Dial(link.DialTCP("127.0.0.1:1"), netceptor.LinkOptions{Cost: 3, AllowedPeers: []wire.NodeID{"x"}, NodeCost: map[wire.NodeID]float64{"x": 4}, NoRedial: true}); err != nil {
		t.Fatal(err)
	}
	for up, failed := false, false; !up || !failed; {
		e := <-events.C
		up, failed = up || e.Kind == netceptor.PeerUp, failed || e.Kind == netceptor.BackendFailed
	}
	var got struct {
		Node     string
		Backends []backendReply
		Links    []linkReply
		Firewall firewallReply
		TLS      []TLSProfile
		Packets  map[string]uint64
	}
	r.askJSON(t, "links", &got)
	if got.Node != "alpha" || len(got.Backends) != 2 || len(got.Links) != 1 || len(got.TLS) != 1 || len(got.Firewall.Rules) != 1 {
		t.Fatalf("%+v", got)
	}
	if b := got.Backends[0]; b.Kind != "link" || b.State != netceptor.BackendUp || len(b.Peers) != 1 || b.LinksMade != 1 || b.AllowedPeers != nil {
		t.Errorf("the link that stands: %+v", b)
	}
	b := got.Backends[1]
	if b.Kind != "dialer" || b.LastError == nil || b.LastError.Kind != "refused" || b.Cost != 3 || b.NodeCosts["x"] != 4 || len(*b.AllowedPeers) != 1 {
		t.Errorf("the one that does not: %+v", b)
	}
	if l := got.Links[0]; l.Node != "beta" || l.Cost != 1 || l.Since.IsZero() {
		t.Errorf("link %+v", l)
	}
	if got.Firewall.Rules[0].Rule != "action: drop fromnode: bad" {
		t.Errorf("firewall %+v", got.Firewall)
	}
	if _, ok := got.Packets["dropped_firewall"]; !ok {
		t.Errorf("packets %v", got.Packets)
	}
}
