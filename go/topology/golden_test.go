package topology_test

import (
	"encoding/hex"
	"encoding/json"
	"maps"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/topology"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

type step struct {
	dir string
	at  time.Time
	u   wire.RouteUpdate
}

// capture reads the route messages of a recorded link between existing nodes.
func capture(t *testing.T, file string) []step {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "wire", "testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Frames []struct {
			T   float64 `json:"t"`
			Dir string  `json:"dir"`
			Hex string  `json:"frame_hex"`
		} `json:"frames"`
	}
	if err := json.Unmarshal(data, &c); err != nil {
		t.Fatal(err)
	}
	var steps []step
	for _, f := range c.Frames {
		frame, err := hex.DecodeString(f.Hex)
		if err != nil {
			t.Fatal(err)
		}
		msg, _, _ := wire.Batch(frame).Next()
		if wire.Type(msg[0]) != wire.TypeRoute {
			continue
		}
		u, err := wire.ParseRouteUpdate(msg)
		if err != nil {
			t.Fatal(err)
		}
		steps = append(steps, step{f.Dir, start.Add(time.Duration(f.T * float64(time.Second))), u})
	}
	return steps
}

// TestGoldenJoin replays what alpha saw while charlie-é joined behind bravo.
func TestGoldenJoin(t *testing.T) {
	const alphaEpoch = 30120047674893995
	db := topology.New("alpha", alphaEpoch)
	db.SetLink("bravo", 1)
	// alpha had heard of bravo before; the newcomer's updates make it announce itself.
	db.Apply(wire.RouteUpdate{NodeID: "bravo", UpdateID: "earlier", UpdateEpoch: 30120047710664477, UpdateSequence: 4, Connections: edges{"alpha": 1}}, start)
	var got []topology.Effects
	for _, s := range capture(t, "routing_new_node_seen_two_hops_away.json") {
		got = append(got, db.Apply(s.u, s.at))
	}
	want := []topology.Effects{
		{Forward: true, Recompute: true},
		{Forward: true, Recompute: true, Announce: true, NewNode: "charlie-é"},
		{Forward: true},
		{Ignored: topology.IgnoredOwn}, // alpha's own, as if it had come back.
		{Forward: true},
	}
	if len(got) != len(want) {
		t.Fatalf("%d updates, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("update %d: got %+v, want %+v", i, got[i], want[i])
		}
	}
	wantRoutes(t, db, "bravo bravo 1", "charlie-é bravo 3.25")
}

// TestGoldenPeriodic replays three cycles of unchanged updates.
func TestGoldenPeriodic(t *testing.T) {
	db := topology.New("alpha", 30120047674893995)
	db.SetLink("bravo", 1)
	changes := 0
	for _, s := range capture(t, "routing_periodic.json") {
		if s.dir != "dialer->listener" {
			continue
		}
		if db.Apply(s.u, s.at).Recompute {
			changes++
		}
	}
	// bravo's first list and charlie-é's; and bravo's once more if charlie-é came first.
	if changes > 3 {
		t.Errorf("%d changes in a stable mesh", changes)
	}
	wantRoutes(t, db, "bravo bravo 1", "charlie-é bravo 3.25")
}

// TestGoldenLost replays the end of charlie-é as alpha saw it.
func TestGoldenLost(t *testing.T) {
	db := topology.New("alpha", 30120047674893995)
	db.SetLink("bravo", 1)
	var last topology.Effects
	for i, s := range capture(t, "routing_link_lost.json") {
		last = db.Apply(s.u, s.at)
		if i == 1 {
			wantRoutes(t, db, "bravo bravo 1", "charlie-é bravo 3.25")
		}
	}
	if !last.Recompute {
		t.Errorf("losing the link changed nothing: %+v", last)
	}
	wantRoutes(t, db, "bravo bravo 1")
	want := map[wire.NodeID]edges{"alpha": {"bravo": 1}, "bravo": {"alpha": 1}, "charlie-é": {}}
	if got := db.Known(); !maps.EqualFunc(got, want, maps.Equal) {
		t.Errorf("table %v, want %v", got, want)
	}
}

// TestGoldenDuplicate replays both links of a mesh in which two nodes are called twin.
func TestGoldenDuplicate(t *testing.T) {
	const olderEpoch, newerEpoch = 30120058095682868, 30120058139758231
	older := topology.New("twin", olderEpoch)
	hub := topology.New("h1", 30120058041329280)
	hub.SetLink("twin", 1)
	hub.SetLink("h2", 1)
	asked, told := 0, uint64(0)
	for _, s := range capture(t, "duplicate_node_older_twin_link.json") {
		if s.u.ForwardingNode == "h1" {
			if e := older.Apply(s.u, s.at); e.DuplicateOf != 0 {
				asked++
				told = e.DuplicateOf
			}
		}
		hub.Apply(s.u, s.at)
	}
	if asked != 1 || told != newerEpoch {
		t.Errorf("the older twin asked %d times, about %d", asked, told)
	}
	// The hub went back to the older twin, so its next update counts.
	if e := hub.Apply(update("twin", olderEpoch, 6, edges{"h1": 1}), start); e.Ignored != "" {
		t.Errorf("the older twin is ignored after the notice: %+v", e)
	}
	newer := topology.New("twin", newerEpoch)
	var last topology.Effects
	for _, s := range capture(t, "duplicate_node_newer_twin_link.json") {
		last = newer.Apply(s.u, s.at)
	}
	if !last.Shutdown {
		t.Errorf("the newer twin was not told: %+v", last)
	}
}

func FuzzApply(f *testing.F) {
	for _, file := range []string{"routing_periodic.json", "duplicate_node_older_twin_link.json"} {
		for _, s := range capture(&testing.T{}, file) {
			msg, _ := s.u.Append(nil)
			f.Add(msg, msg)
		}
	}
	f.Fuzz(func(t *testing.T, one, two []byte) {
		db := topology.New("alpha", 30120047674893995)
		db.SetLink("bravo", 1)
		for _, msg := range [][]byte{one, two, one} {
			u, err := wire.ParseRouteUpdate(msg)
			if err != nil {
				continue
			}
			e := db.Apply(u, start)
			if e.Forward == (e.Ignored != "") {
				t.Fatalf("forwarded and ignored at once, or neither: %+v", e)
			}
		}
		for name, r := range db.Routes().ByName() {
			if name == "alpha" || r.Cost <= 0 || math.IsInf(r.Cost, 0) {
				t.Fatalf("route %+v", r)
			}
		}
		db.Sweep(start.Add(2 * topology.Retention))
	})
}
