package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/identity"
	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// alone is a mesh of one node.
type alone struct{ id wire.NodeID }

func (m alone) ID() wire.NodeID { return m.id }
func (alone) DialStream(context.Context, wire.NodeID, string, string) (workceptor.Stream, error) {
	return nil, errors.New("no route to node")
}
func (alone) WaitRoute(ctx context.Context, _ wire.NodeID) error { <-ctx.Done(); return ctx.Err() }

// meshOf starts a node that knows so many others, all behind one neighbour, and an engine with so many finished units.
func meshOf(tb testing.TB, nodes, units int) Sources {
	tb.Helper()
	n, err := netceptor.New(netceptor.Config{ID: "n"})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = n.Close() })
	dir := tb.TempDir()
	record := unit.Record{State: unit.Succeeded, Detail: "exit status 0", WorkType: "cat", Outcome: unit.Exit(0)}
	record.Created = time.Now().UTC()
	text := record.Append(nil)
	for i := range units {
		path := filepath.Join(dir, "n", fmt.Sprintf("unit%04d", i))
		if err := os.MkdirAll(path, 0o700); err != nil {
			tb.Fatal(err)
		}
		for name, content := range map[string][]byte{"status": text, "status.lock": nil, "stdin": nil, "stdout": nil} {
			if err := os.WriteFile(filepath.Join(path, name), content, 0o600); err != nil {
				tb.Fatal(err)
			}
		}
	}
	near, far := link.Pipe()
	if _, err := n.AddLink(near, netceptor.LinkOptions{Cost: 1}); err != nil {
		tb.Fatal(err)
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for {
			if _, err := far.ReadBatch(); err != nil {
				return
			}
		}
	}()
	tb.Cleanup(func() { _ = far.Close(); <-drained })
	sequence := uint64(0)
	tell := func(id wire.NodeID, costs map[wire.NodeID]float64) {
		sequence++
		u := wire.RouteUpdate{NodeID: id, ForwardingNode: "p", UpdateID: fmt.Sprint(sequence), UpdateEpoch: 1, UpdateSequence: sequence, Connections: costs}
		msg, err := u.Append(nil)
		if err != nil {
			tb.Fatal(err)
		}
		frame, err := wire.AppendFrame(nil, msg)
		if err != nil {
			tb.Fatal(err)
		}
		if err := far.WriteBatch(frame); err != nil {
			tb.Fatal(err)
		}
	}
	tell("p", map[wire.NodeID]float64{})
	neighbours := map[wire.NodeID]float64{"n": 1}
	for i := range nodes {
		id := wire.NodeID(fmt.Sprintf("node%04d", i))
		neighbours[id] = 1
		tell(id, map[wire.NodeID]float64{"p": 1})
	}
	tell("p", neighbours)
	for id := range neighbours {
		if _, _, err := n.WaitRoute(tb.Context(), id); err != nil {
			tb.Fatalf("%s: %v", id, err)
		}
	}
	e, err := workceptor.New(workceptor.Config{Mesh: alone{"n"}, DataDir: dir})
	if err != nil {
		tb.Fatal(err)
	}
	if err := e.RegisterCommand(workceptor.CommandType{WorkType: "cat", Command: "cat"}); err != nil {
		tb.Fatal(err)
	}
	if err := e.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = e.Close() })
	return Sources{Node: n, Work: e, Version: "1", Control: &Control{}, TLS: []identity.Status{{Name: "p"}}}
}

// TestDashboard: what the Grafana dashboard asks for exists, and what exists is on the dashboard.
func TestDashboard(t *testing.T) {
	exists := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) `).FindAllStringSubmatch(Text(meshOf(t, 1, 1)), -1) {
		exists[m[1]] = true
	}
	const path = "../../examples/deploy/grafana.json"
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			ID      int
			Title   string
			Type    string
			Targets []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Name, Definition string }
		}
	}
	if err := json.Unmarshal(content, &board); err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`receptor_\w+`)
	shown, ids := map[string]bool{}, map[int]bool{}
	ask := func(where, query string) {
		names := name.FindAllString(query, -1)
		if len(names) == 0 {
			t.Errorf("%s: %s: %q asks for no metric", path, where, query)
		}
		for _, n := range names {
			shown[n] = true
			if !exists[n] {
				t.Errorf("%s: %s: there is no metric %s", path, where, n)
			}
		}
	}
	for _, p := range board.Panels {
		if ids[p.ID] {
			t.Errorf("%s: two panels have the ID %d", path, p.ID)
		}
		ids[p.ID] = true
		if len(p.Targets) == 0 && p.Type != "row" {
			t.Errorf("%s: panel %s shows nothing", path, p.Title)
		}
		for _, target := range p.Targets {
			ask(p.Title, target.Expr)
			if strings.Count(target.Expr, "(") != strings.Count(target.Expr, ")") || strings.Contains(target.Expr, "_total{") && !strings.Contains(target.Expr, "rate(") {
				t.Errorf("%s: %s: %s", path, p.Title, target.Expr)
			}
		}
	}
	for _, v := range board.Templating.List {
		if v.Definition != "" {
			ask("variable "+v.Name, v.Definition)
		}
	}
	for n := range exists {
		if !shown[n] {
			t.Errorf("%s does not show %s", path, n)
		}
	}
	if len(exists) == 0 {
		t.Error("there are no metrics")
	}
}

// BenchmarkText is all metrics of a node in a mesh of 1,000 with 10,000 units.
func BenchmarkText(b *testing.B) {
	s := meshOf(b, 1000, 10_000)
	b.ReportAllocs()
	for b.Loop() {
		if text := Text(s); !strings.Contains(text, `receptor_units{state="succeeded",worktype="cat"} 10000`) || !strings.Contains(text, "receptor_routes 1001") {
			b.Fatal(text)
		}
	}
}

// BenchmarkReading is what of BenchmarkText is spent before a number is written.
func BenchmarkReading(b *testing.B) {
	s := meshOf(b, 1000, 10_000)
	for b.Loop() {
		known, routes := s.Node.Inspect()
		if len(known) < 1000 || routes.Len() < 1000 || len(s.Work.List()) != 10_000 {
			b.Fatal("the node is not what it was")
		}
	}
}
