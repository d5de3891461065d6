package simulation

import (
	"bytes"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

func mesh(t *testing.T, cfg Config, s Shape) *Mesh {
	t.Helper()
	m := New(cfg)
	t.Cleanup(func() { check(t, m.Close()) })
	check(t, m.Build(s))
	return m
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func settle(t *testing.T, m *Mesh, what string, limit time.Duration) {
	t.Helper()
	took, err := m.Settle(limit)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	t.Logf("%s: routes are right after %v", what, took)
}

func TestShapes(t *testing.T) {
	for _, c := range []struct {
		name  string
		shape Shape
		edges int
	}{
		{"line", Line(5), 4}, {"ring", Ring(5), 5}, {"ring of two", Ring(2), 1}, {"star", Star(5), 4}, {"tree", Tree(7, 2), 6},
		{"random", Random(20, 3, 1), 30}, {"complete", Random(4, 9, 1), 6}, {"one", Star(1), 0},
	} {
		if len(c.shape.Edges) != c.edges {
			t.Errorf("%s has %d edges, want %d", c.name, len(c.shape.Edges), c.edges)
		}
		group := make([]int, c.shape.Nodes)
		for i := range group {
			group[i] = i
		}
		for range c.shape.Edges {
			for _, e := range c.shape.Edges {
				low := min(group[e.A], group[e.B])
				group[e.A], group[e.B] = low, low
			}
		}
		for i, g := range group {
			if g != 0 {
				t.Errorf("%s: node %d is not connected to node 0", c.name, i)
			}
		}
	}
}

// TestTruth compares the paths that nodes are judged by with brute force.
func TestTruth(t *testing.T) {
	for seed := range uint64(50) {
		m := New(Config{})
		s := Random(2+int(seed%9), 3, seed)
		brute := make([][]float64, s.Nodes)
		for i := range s.Nodes {
			m.ids = append(m.ids, Name(i))
			brute[i] = make([]float64, s.Nodes)
			for j := range brute[i] {
				if i != j {
					brute[i][j] = math.Inf(1)
				}
			}
		}
		for i, e := range s.Edges {
			c := newCable("", Conditions{}, [2]uint64{}, &m.sum)
			c.cut = i%4 == 3
			m.links = append(m.links, &wiring{c, &member{index: e.A}, &member{index: e.B}, e.Cost})
			if !c.cut {
				brute[e.A][e.B], brute[e.B][e.A] = e.Cost, e.Cost
			}
		}
		for k := range brute {
			for i := range brute {
				for j := range brute {
					brute[i][j] = min(brute[i][j], brute[i][k]+brute[k][j])
				}
			}
		}
		m.truth = make([][]float64, s.Nodes)
		for i := range brute {
			for j, want := range brute[i] {
				if got := m.distances(i)[j]; got != want {
					t.Fatalf("seed %d: %d to %d is %v, want %v", seed, i, j, got, want)
				}
			}
		}
	}
}

// TestRoughSeas: a lossy, slow mesh finds its routes, loses a link, falls apart and comes together again.
func TestRoughSeas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		m := mesh(t, Config{Seed: seed, Conditions: Conditions{Delay: 5 * time.Millisecond, Jitter: 20 * time.Millisecond, Loss: 0.01}}, Random(40, 3, seed))
		settle(t, m, "start", 2*time.Minute)
		ends := m.Links()[len(m.Links())-1]
		check(t, m.Cut(ends[0], ends[1]))
		settle(t, m, "cut", time.Minute)
		check(t, m.Mend(ends[0], ends[1]))
		settle(t, m, "mended", 2*time.Minute)
		check(t, m.Partition(m.Nodes()[:20]))
		settle(t, m, "partition", 2*time.Minute)
		m.Heal()
		settle(t, m, "healed", 5*time.Minute)
		if sum := m.Traffic(); sum.Lost == 0 || sum.Lost > sum.Messages {
			t.Errorf("traffic %+v: some messages should be lost", sum)
		}
	})
}

func TestDelayAddsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mesh(t, Config{Conditions: Conditions{Delay: 20 * time.Millisecond}}, Line(4))
		settle(t, m, "line", time.Minute)
		if p := m.Node(Name(0)).Ping(t.Context(), Name(3), wire.MaxHops); p.Err != nil || p.RTT != 120*time.Millisecond {
			t.Errorf("ping over three links of 20ms: %+v, want 120ms", p)
		}
	})
}

func TestCutIsSeenAtOnceAndPartitionBySilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mesh(t, Config{}, Line(2))
		settle(t, m, "line", time.Minute)
		check(t, m.Cut(Name(1), Name(0)))
		if took, err := m.Settle(time.Second); err != nil || took > settleStep {
			t.Errorf("a cut was noticed after %v (%v), want at once", took, err)
		}
		check(t, m.Mend(Name(0), Name(1)))
		settle(t, m, "mended", time.Minute)
		check(t, m.Partition(m.Nodes()[:1]))
		if took, err := m.Settle(time.Minute); err != nil || took < time.Second || took > 4*time.Second {
			t.Errorf("a partition was noticed after %v (%v), want 1s to 4s", took, err)
		}
		if p := m.Node(Name(0)).Ping(t.Context(), Name(1), wire.MaxHops); !errors.Is(p.Err, netceptor.ErrNoRoute) {
			t.Errorf("ping across a partition: %v, want no route", p.Err)
		}
		m.Heal()
		settle(t, m, "healed", time.Minute)
	})
}

func ends(t *testing.T, cond Conditions, seed uint64) (near, far link.Conn) {
	t.Helper()
	near, far, err := newCable("test", cond, [2]uint64{seed, 0}, &traffic{}).connect()
	check(t, err)
	return near, far
}

func frame(t *testing.T, msg []byte) wire.Batch {
	t.Helper()
	b, err := wire.AppendFrame(nil, msg)
	check(t, err)
	return b
}

func TestBandwidthAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := ends(t, Conditions{Delay: time.Second, BytesPerSecond: 1000}, 1)
		start := time.Now()
		for range 2 {
			check(t, near.WriteBatch(frame(t, make([]byte, 4998))))
		}
		check(t, near.Close())
		for i := range 2 {
			if _, err := far.ReadBatch(); err != nil {
				t.Fatal(err)
			}
			if got, want := time.Since(start), time.Duration(6+5*i)*time.Second; got != want {
				t.Errorf("message %d of 5000 bytes at 1000 a second and a second away came after %v, want %v", i, got, want)
			}
		}
		if _, err := far.ReadBatch(); err != io.EOF {
			t.Errorf("after the last message: %v, want EOF", err)
		}
		if err := near.WriteBatch(frame(t, []byte("x"))); err == nil {
			t.Error("a closed link took a message")
		}
		if _, err := near.ReadBatch(); !errors.Is(err, link.ErrClosed) {
			t.Errorf("read from a closed end: %v, want ErrClosed", err)
		}
	})
}

func TestSlowReaderHoldsTheWriterBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := ends(t, Conditions{}, 1)
		written := make(chan int, 100)
		go func() {
			for i := 0; near.WriteBatch(frame(t, make([]byte, 60_000))) == nil; i++ {
				written <- i
			}
			close(written)
		}()
		synctest.Wait()
		if got := len(written); got != 5 {
			t.Errorf("%d messages of 60,000 bytes were taken without a reader, want 5", got)
		}
		if _, err := far.ReadBatch(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := len(written); got != 6 {
			t.Errorf("%d were taken after one was read, want 6", got)
		}
		check(t, far.Close())
		for range written {
		}
	})
}

// TestStreamsCarryMuch: also over links that take no time.
func TestStreamsCarryMuch(t *testing.T) {
	const size = 8 << 20
	for _, c := range []Conditions{{}, {Delay: 20 * time.Millisecond, BytesPerSecond: 1 << 20}} {
		synctest.Test(t, func(t *testing.T) {
			m := mesh(t, Config{Conditions: c}, Line(3))
			settle(t, m, "start", time.Minute)
			from, to := m.Node(Name(0)), m.Node(Name(2))
			ln, err := to.ListenStream("sink", nil, nil)
			check(t, err)
			near, err := from.DialStream(t.Context(), to.ID(), "sink", nil)
			check(t, err)
			far, err := ln.Accept()
			check(t, err)
			go func() {
				_, _ = near.Write(make([]byte, size))
				_ = near.Close()
			}()
			start := time.Now()
			if n, err := io.Copy(io.Discard, far); n != size || err != nil {
				t.Errorf("%+v: %d bytes of %d arrived, %v", c, n, size, err)
			}
			t.Logf("%+v: %v", c, time.Since(start))
			_ = far.Close()
			_ = ln.Close()
		})
	}
}

// TestSeedRepeats: what gets lost, and when the rest arrives, is the seed's.
func TestSeedRepeats(t *testing.T) {
	run := func(seed uint64) (record []byte) {
		synctest.Test(t, func(t *testing.T) {
			near, far := ends(t, Conditions{Delay: time.Millisecond, Jitter: time.Second, Loss: 0.3}, seed)
			start := time.Now()
			for i := range 100 {
				check(t, near.WriteBatch(frame(t, []byte{byte(i)})))
			}
			check(t, near.Close())
			for last := -1; ; {
				b, err := far.ReadBatch()
				if err != nil {
					return
				}
				msg, _, _ := b.Next()
				if int(msg[0]) <= last {
					t.Fatalf("message %d came after %d", msg[0], last)
				}
				last = int(msg[0])
				record = append(strconv.AppendInt(append(record, msg[0]), int64(time.Since(start)), 10), ' ')
			}
		})
		return record
	}
	if !bytes.Equal(run(1), run(1)) {
		t.Error("two runs with one seed differ")
	}
	if bytes.Equal(run(1), run(2)) {
		t.Error("two seeds do the same")
	}
}

func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mesh(t, Config{}, Line(2))
		for name, err := range map[string]error{
			"a node twice":           m.Add(Name(0)),
			"a bad ID":               m.Add("localhost"),
			"a link twice":           m.Link(Name(1), Name(0), 1),
			"a link to itself":       m.Link(Name(0), Name(0), 1),
			"a link to nobody":       m.Link(Name(0), "nobody", 1),
			"a cut of no link":       m.Cut(Name(0), "nobody"),
			"a group with strangers": m.Partition([]wire.NodeID{"nobody"}),
			"two groups with one":    m.Partition(m.Nodes(), m.Nodes()[:1]),
		} {
			if err == nil {
				t.Errorf("%s was accepted", name)
			}
		}
		check(t, m.Add("third"))
		for _, bad := range []Conditions{{Loss: -1}, {Loss: 2}, {Loss: math.NaN()}, {Delay: -1}, {Jitter: -1}, {BytesPerSecond: -1}} {
			if m.LinkWith(Name(0), "third", 1, bad) == nil {
				t.Errorf("conditions %+v were accepted", bad)
			}
		}
		if m.Node("nobody") != nil {
			t.Error("a node that is not there")
		}
	})
}

// TestMeshAtScale is a campaign, not part of a normal run: RECEPTOR_SIM_NODES names the number of nodes. It prints what a
// cold start, a cut and a partition cost a random mesh of degree 3; a thousand nodes must fit in 2 GiB.
func TestMeshAtScale(t *testing.T) {
	count, err := strconv.Atoi(os.Getenv("RECEPTOR_SIM_NODES"))
	if err != nil {
		t.Skip("RECEPTOR_SIM_NODES is not set")
	}
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(1700 << 20))
	synctest.Test(t, func(t *testing.T) {
		m := mesh(t, Config{Conditions: Conditions{Delay: time.Millisecond}}, Random(count, 3, 1))
		report := func(what string) {
			var mem runtime.MemStats
			runtime.ReadMemStats(&mem)
			holds := (mem.Sys - mem.HeapReleased) >> 20
			t.Logf("%s: %+v, %d MiB", what, m.Traffic(), holds)
			if count <= 1000 && holds > 2048 {
				t.Errorf("%s: %d nodes take %d MiB", what, count, holds)
			}
		}
		settle(t, m, "start", time.Minute)
		report("start")
		ends := m.Links()[count]
		check(t, m.Cut(ends[0], ends[1]))
		settle(t, m, "cut", time.Minute)
		check(t, m.Partition(m.Nodes()[:count/2]))
		settle(t, m, "partition", time.Minute)
		report("partition")
		m.Heal()
		settle(t, m, "healed", 2*time.Minute)
		report("healed")
	})
}

// TestQuietMesh: a mesh in which nothing happens keeps its routes, and costs what its periodic updates cost and a beat a
// second on each link: the updates of all go over each link once in each direction and period, but not back.
func TestQuietMesh(t *testing.T) {
	const count = 30
	synctest.Test(t, func(t *testing.T) {
		m := mesh(t, Config{Conditions: Conditions{Delay: time.Millisecond}}, Random(count, 3, 1))
		settle(t, m, "start", time.Minute)
		time.Sleep(time.Minute)
		const seconds = 300
		before := m.Traffic().Messages
		time.Sleep(seconds * time.Second)
		links := uint64(len(m.Links()))
		updates := count * (2*links - count + 1) * seconds / 10
		most := updates + updates/20 + 2*links*seconds
		if sent := m.Traffic().Messages - before; sent > most {
			t.Errorf("%d messages in %d quiet seconds on %d links, want at most %d", sent, seconds, links, most)
		}
		if wrong := m.Disagreements(5); len(wrong) > 0 {
			t.Errorf("after %d quiet seconds: %v", seconds, wrong)
		}
	})
}
