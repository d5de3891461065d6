package wire_test

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// seed adds the captured messages of one type.
func seed(f *testing.F, typ wire.Type) {
	for _, m := range captured(f) {
		if wire.Type(m.bytes[0]) == typ {
			f.Add(m.bytes)
		}
	}
}

// FuzzRouteUpdate: an update is refused, or it survives being written and read again.
func FuzzRouteUpdate(f *testing.F) {
	seed(f, wire.TypeRoute)
	f.Fuzz(func(t *testing.T, msg []byte) {
		u, err := wire.ParseRouteUpdate(msg)
		if err != nil {
			return
		}
		out, err := u.Append(nil)
		if err != nil {
			t.Fatalf("read but not written: %v", err)
		}
		again, err := wire.ParseRouteUpdate(out)
		if err != nil || !reflect.DeepEqual(again, u) {
			t.Fatalf("%v\nread  %+v\nagain %+v", err, u, again)
		}
	})
}

func FuzzAdvertisement(f *testing.F) {
	seed(f, wire.TypeAdvert)
	f.Fuzz(func(t *testing.T, msg []byte) {
		a, err := wire.ParseAdvertisement(msg)
		if err != nil {
			return
		}
		out, err := a.Append(nil)
		if err != nil {
			t.Fatalf("read but not written: %v", err)
		}
		again, err := wire.ParseAdvertisement(out)
		if err != nil || !again.Time.Equal(a.Time) {
			t.Fatalf("%v: time %v, again %v", err, a.Time, again.Time)
		}
		again.Time = a.Time
		if !reflect.DeepEqual(again, a) {
			t.Fatalf("read  %+v\nagain %+v", a, again)
		}
	})
}

func FuzzWithdrawal(f *testing.F) {
	f.Add([]byte("\x05" + `{"NodeID":"n","Service":"s","Time":"2026-01-02T03:04:05.00000006+02:00"}`))
	f.Add([]byte("\x05" + `{"NodeID":"n","Service":"longer than a packet has room for","Time":"2026-01-02T03:04:05Z"}`))
	f.Add([]byte("\x05{}"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		w, err := wire.ParseWithdrawal(msg)
		if err != nil {
			return
		}
		out, err := w.Append(nil)
		if err != nil {
			t.Fatalf("read but not written: %v", err)
		}
		again, err := wire.ParseWithdrawal(out)
		if err != nil || !again.Time.Equal(w.Time) || again.NodeID != w.NodeID || again.Service != w.Service {
			t.Fatalf("%v\nread  %+v\nagain %+v", err, w, again)
		}
	})
}

func FuzzUnreachable(f *testing.F) {
	for _, m := range captured(f) {
		if m.decoded.ToService == "unreach" {
			f.Add(m.bytes[wire.HeaderSize:])
		}
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		u, err := wire.ParseUnreachable(payload)
		if err != nil {
			return
		}
		out, err := u.AppendPayload(nil)
		if err != nil {
			t.Fatalf("read but not written: %v", err)
		}
		if again, err := wire.ParseUnreachable(out); err != nil || again != u {
			t.Fatalf("%v\nread  %+v\nagain %+v", err, u, again)
		}
	})
}

func FuzzHeader(f *testing.F) {
	seed(f, wire.TypeData)
	f.Fuzz(func(t *testing.T, msg []byte) {
		h, err := wire.ParseHeader(msg)
		if err != nil {
			if len(msg) >= wire.HeaderSize && msg[0] == 0 {
				t.Fatalf("refused: %v", err)
			}
			return
		}
		wire.PatchHops(msg, h.Hops)
		if out := append(h.AppendTo(nil), msg[wire.HeaderSize:]...); !bytes.Equal(out, msg) {
			t.Fatalf("read  %x\nagain %x", msg, out)
		}
	})
}

// FuzzBatch: splitting loses no byte and agrees with Whole.
func FuzzBatch(f *testing.F) {
	var all []byte
	for i, m := range captured(f) {
		if i%40 == 0 {
			f.Add(all)
		}
		all, _ = wire.AppendFrame(all, m.bytes)
	}
	f.Add([]byte{0, 0, 1, 0, 9, 255, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		rest := wire.Batch(data)
		whole := rest.Whole()
		if run := rest.Run(); run > whole || run > 0 && rest[:run].Run() != run {
			t.Fatalf("a run of %d bytes in %d", run, whole)
		}
		var out wire.Batch
		for {
			msg, next, ok := rest.Next()
			if !ok {
				break
			}
			if len(msg) == 0 {
				out = append(out, 0, 0)
			} else if out, _ = wire.AppendFrame(out, msg); len(out) == 0 {
				t.Fatalf("message of %d bytes not framed", len(msg))
			}
			rest = next
		}
		if len(out) != whole || !bytes.Equal(append(out, rest...), data) {
			t.Fatalf("whole %d, split off %d, rest %d of %d", whole, len(out), len(rest), len(data))
		}
	})
}
