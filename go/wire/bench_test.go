package wire_test

import (
	"testing"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

var sink any

func dataMessage() []byte {
	from, _ := wire.Service("Ywfug8wN")
	to, _ := wire.Service("ping")
	h := wire.Header{Hops: 29, From: wire.Hash("bravo"), To: wire.Hash("alpha"), FromService: from, ToService: to}
	return append(h.AppendTo(nil), make([]byte, 1200)...)
}

// TestHotPathAllocations keeps what happens once per packet free of garbage.
func TestHotPathAllocations(t *testing.T) {
	msg := dataMessage()
	h, err := wire.ParseHeader(msg)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 0, 4096)
	batch, err := wire.AppendFrame(nil, msg)
	if err != nil {
		t.Fatal(err)
	}
	id := wire.NodeID("a-node-with-a-longer-name.example")
	sum := wire.NodeHash(0)
	for name, f := range map[string]func(){
		"ParseHeader": func() { h, _ = wire.ParseHeader(msg) },
		"AppendTo":    func() { buf = h.AppendTo(buf[:0]) },
		"PatchHops":   func() { wire.PatchHops(msg, 28) },
		"Next":        func() { msg, _, _ = batch.Next() },
		"Run":         func() { sum += wire.NodeHash(batch.Run()) },
		"Whole":       func() { sum += wire.NodeHash(batch.Whole()) },
		"AppendFrame": func() { buf, _ = wire.AppendFrame(buf[:0], msg) },
		"Hash":        func() { sum += wire.Hash(id) },
		"Service":     func() { h.ToService, _ = wire.Service("ping") },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func BenchmarkParseHeader(b *testing.B) {
	msg := dataMessage()
	b.ReportAllocs()
	for b.Loop() {
		if h, err := wire.ParseHeader(msg); err != nil || h.Hops == 0 {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendTo(b *testing.B) {
	h, _ := wire.ParseHeader(dataMessage())
	buf := make([]byte, 0, wire.HeaderSize)
	b.ReportAllocs()
	for b.Loop() {
		buf = h.AppendTo(buf[:0])
	}
}

func BenchmarkPatchHops(b *testing.B) {
	msg := dataMessage()
	b.ReportAllocs()
	for b.Loop() {
		wire.PatchHops(msg, 29)
	}
}

func BenchmarkBatchNext(b *testing.B) {
	var batch wire.Batch
	for range 50 {
		batch, _ = wire.AppendFrame(batch, dataMessage())
	}
	b.ReportAllocs()
	for b.Loop() {
		for rest, ok := batch, true; ok; {
			_, rest, ok = rest.Next()
		}
	}
}

func BenchmarkHash(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if wire.Hash("node-17.example.com") == 0 {
			b.Fatal("zero")
		}
	}
}

func BenchmarkParseRouteUpdate(b *testing.B) {
	msg := captured(b)[0].bytes
	for _, m := range captured(b) {
		if m.decoded.Type == "route" && len(m.bytes) > len(msg) {
			msg = m.bytes
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		u, err := wire.ParseRouteUpdate(msg)
		if err != nil {
			b.Fatal(err)
		}
		sink = u.NodeID
	}
}
