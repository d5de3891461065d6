package workceptor

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/workceptor/store"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// BenchmarkLocalFirstByte measures from the submit to the first byte of output, durable unit, runner and command
// included.
func BenchmarkLocalFirstByte(b *testing.B) {
	benchmarkFirstByte(b, localEngine(b), "localhost")
}

// BenchmarkRemoteFirstByte is the same for a unit on another node over in-memory connections.
func BenchmarkRemoteFirstByte(b *testing.B) {
	m := newTestMesh()
	executor := openEngine(b, b.TempDir(), m.node("beta"))
	m.serve("beta", executor)
	releaseAll(b, executor)
	benchmarkFirstByte(b, openEngine(b, b.TempDir(), m.node("alpha")), "beta")
}

func benchmarkFirstByte(b *testing.B, e *Engine, node string) {
	first := make([]byte, 1)
	var all []time.Duration
	for b.Loop() {
		began := time.Now()
		id := submit(b, e, request(node, "cat", ""), "x")
		r, err := e.Results(b.Context(), id, 0)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(r, first); err != nil {
			b.Fatal(err)
		}
		all = append(all, time.Since(began))
		r.Close()
		b.StopTimer()
		wait(b, e, id)
		if _, err := e.Release(b.Context(), id, false); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "ms-median")
	b.ReportMetric(float64(all[len(all)*95/100].Microseconds())/1000, "ms-p95")
}

// BenchmarkStatusUpdate measures one update of the status file, without and with sync.
func BenchmarkStatusUpdate(b *testing.B) {
	root, err := store.Open(b.TempDir(), "alpha")
	if err != nil {
		b.Fatal(err)
	}
	_, dir, stdin, err := root.Create(unit.Record{WorkType: "true"}, func(UnitID) bool { return false })
	if err != nil {
		b.Fatal(err)
	}
	stdin.Close()
	for _, sync := range []bool{false, true} {
		b.Run(strings.TrimPrefix(map[bool]string{false: "memory", true: "disk"}[sync], ""), func(b *testing.B) {
			for b.Loop() {
				if _, err := dir.Update(sync, func(r *unit.Record) bool { r.StdoutSize++; return true }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
