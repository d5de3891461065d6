package wire_test

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// TestRouteJSON has the rules of the JSON that malformed.json only names.
func TestRouteJSON(t *testing.T) {
	const head = `{"NodeID":"n","UpdateID":"u",`
	for _, tc := range []struct {
		name, json string
		ok         bool
	}{
		{"plain", head + `"UpdateEpoch":18446744073709551615,"UpdateSequence":1}`, true},
		{"fraction", head + `"UpdateEpoch":1.5}`, false},
		{"exponent", head + `"UpdateEpoch":1e3}`, false},
		{"negative", head + `"UpdateSequence":-1}`, false},
		{"over 64 bits", head + `"UpdateEpoch":18446744073709551616}`, false},
		{"number as a string", head + `"UpdateEpoch":"1"}`, false},
		{"cost as a string", head + `"Connections":{"x":"1"}}`, false},
		{"cost over the range", head + `"Connections":{"x":1e999}}`, false},
		{"cost not a number", head + `"Connections":{"x":NaN}}`, false},
		{"list of connections", head + `"Connections":["x"]}`, false},
		{"node ID a number", `{"NodeID":1}`, false},
		{"trailing garbage", `{} x`, false},
		{"second object", `{}{}`, false},
		{"byte order mark", "\ufeff{}", false},
		{"array", `[]`, false},
		{"odd letter case, extra fields, white space", " \t\r\n{\"nodeid\" : \"n\",\"UPDATEID\":\"u\",\"updateepoch\":7,\"more\":{\"a\":[1]}} \n", true},
		{"key without a name", head + `"Connections":{"":1}}`, true},
	} {
		u, err := wire.ParseRouteUpdate([]byte("\x01" + tc.json))
		if (err == nil) != tc.ok {
			t.Errorf("%s: error %v, want accepted: %v", tc.name, err, tc.ok)
		}
		if tc.ok && (u.NodeID != "n" || u.UpdateID != "u") {
			t.Errorf("%s: got %+v", tc.name, u)
		}
		if !tc.ok && u.NodeID != "" {
			t.Errorf("%s: half an update came back with the error: %+v", tc.name, u)
		}
	}
	u, err := wire.ParseRouteUpdate([]byte("\x01" + `{"UpdateEpoch":18446744073709551615,"Connections":null}`))
	if err != nil || u.UpdateEpoch != math.MaxUint64 || u.Connections != nil {
		t.Errorf("got %+v, %v", u, err)
	}
	if u, _ := wire.ParseRouteUpdate([]byte("\x01" + `{"Connections":{}}`)); u.Connections == nil {
		t.Error("{} reads as null")
	}
}

func TestRouteText(t *testing.T) {
	for _, tc := range []struct {
		name string
		u    wire.RouteUpdate
		want string
	}{
		{
			"order of fields and keys, costs", wire.RouteUpdate{
				NodeID: "n", UpdateID: "u", UpdateEpoch: math.MaxUint64, UpdateSequence: 1 << 53,
				Connections: map[wire.NodeID]float64{"b": 2.25, "a": 1, "é": 100, "": 3, "Z": 1e6}, ForwardingNode: "f", SuspectedDuplicate: 9,
			},
			`{"NodeID":"n","UpdateID":"u","UpdateEpoch":18446744073709551615,"UpdateSequence":9007199254740992,` +
				`"Connections":{"":3,"Z":1000000,"a":1,"b":2.25,"é":100},"ForwardingNode":"f","SuspectedDuplicate":9}`,
		},
		{
			"nobody, null", wire.RouteUpdate{},
			`{"NodeID":"","UpdateID":"","UpdateEpoch":0,"UpdateSequence":0,"Connections":null,"ForwardingNode":"","SuspectedDuplicate":0}`,
		},
		{
			"nobody, empty", wire.RouteUpdate{Connections: map[wire.NodeID]float64{}},
			`{"NodeID":"","UpdateID":"","UpdateEpoch":0,"UpdateSequence":0,"Connections":{},"ForwardingNode":"","SuspectedDuplicate":0}`,
		},
		{
			"escapes", wire.RouteUpdate{NodeID: "<&>\u2028\u2029 é\"\\\n", UpdateID: "\xff"},
			`{"NodeID":"\u003c\u0026\u003e\u2028\u2029 é\"\\\n","UpdateID":"\ufffd","UpdateEpoch":0,"UpdateSequence":0,"Connections":null,"ForwardingNode":"","SuspectedDuplicate":0}`,
		},
	} {
		got, err := tc.u.Append([]byte("x"))
		if want := "x\x01" + tc.want; err != nil || string(got) != want {
			t.Errorf("%s: %v\ngot  %q\nwant %q", tc.name, err, got, want)
		}
	}
	bad := wire.RouteUpdate{Connections: map[wire.NodeID]float64{"x": math.NaN()}}
	if got, err := bad.Append([]byte("x")); err == nil || string(got) != "x" {
		t.Errorf("a cost that is not a number: %q, %v", got, err)
	}
}

// TestInvalidUTF8 checks that foreign bytes become the replacement character on the way in.
func TestInvalidUTF8(t *testing.T) {
	u, err := wire.ParseRouteUpdate([]byte("\x01{\"NodeID\":\"a\xffb\",\"Connections\":{\"\xc3\":1}}"))
	if err != nil || u.NodeID != "a\ufffdb" || u.Connections["\ufffd"] != 1 {
		t.Errorf("got %+v, %v", u, err)
	}
	n, err := wire.ParseUnreachable([]byte("{\"FromService\":\"\xfe\"}"))
	if err != nil || n.FromService != "\ufffd" {
		t.Errorf("got %+v, %v", n, err)
	}
}

func TestAdvertisement(t *testing.T) {
	for _, tc := range []struct {
		name, json string
		ok         bool
	}{
		{"smallest", `{"NodeID":"n","Service":"s"}`, true},
		{"only Cancel", `{"Cancel":true}`, false},
		{"null", `null`, false},
		{"no node", `{"Service":"s"}`, false},
		{"no service", `{"NodeID":"n"}`, false},
		{"time without T", `{"NodeID":"n","Service":"s","Time":"2026-10-24 10:00:00"}`, false},
		{"time with an offset", `{"NodeID":"n","Service":"s","Time":"2026-10-24T10:00:00.123456789+02:00"}`, true},
		{"connection type over a byte", `{"NodeID":"n","Service":"s","ConnType":256}`, false},
		{"tag not a string", `{"NodeID":"n","Service":"s","Tags":{"a":1}}`, false},
		{"extra field", `{"NodeID":"n","Service":"s","Extension":[1]}`, true},
	} {
		a, err := wire.ParseAdvertisement([]byte("\x02" + tc.json))
		if (err == nil) != tc.ok {
			t.Errorf("%s: error %v, want accepted: %v", tc.name, err, tc.ok)
		}
		if !tc.ok && a.NodeID != "" {
			t.Errorf("%s: half an advertisement came back with the error: %+v", tc.name, a)
		}
	}
	a := wire.Advertisement{
		NodeID: "n", Service: "s", Time: time.Date(2026, 1, 2, 3, 4, 5, 60, time.FixedZone("", 7200)), ConnType: wire.ConnStreamTLS,
		Tags: map[string]string{"b": "2", "a": "<"}, WorkCommands: []wire.WorkCommand{{WorkType: "cat", Secure: true}}, Cancel: true,
	}
	want := "\x02" + `{"NodeID":"n","Service":"s","Time":"2026-01-02T03:04:05.00000006+02:00","ConnType":2,"Tags":{"a":"\u003c","b":"2"},"WorkCommands":[{"WorkType":"cat","Secure":true}],"Cancel":true}`
	if got, err := a.Append(nil); err != nil || string(got) != want {
		t.Errorf("%v\ngot  %s\nwant %s", err, got, want)
	}
	a.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	if _, err := a.Append(nil); err == nil {
		t.Error("the year 10000 was written")
	}
}

func TestService(t *testing.T) {
	for _, tc := range []struct{ in, out string }{
		{"", ""}, {"ping", "ping"}, {"12345678", "12345678"}, {"a\x00b", "a\x00b"}, {"a\x00", "a"}, {"\xff\xfe", "\xff\xfe"}, {"\x00", ""},
	} {
		s, err := wire.Service(tc.in)
		if err != nil || s.String() != tc.out {
			t.Errorf("%q: got %q, %v", tc.in, s, err)
		}
	}
	if _, err := wire.Service("123456789"); !errors.Is(err, wire.ErrServiceLength) {
		t.Errorf("nine bytes: %v", err)
	}
}

func TestFrames(t *testing.T) {
	longest := bytes.Repeat([]byte{9}, wire.MaxMessage)
	batch, err := wire.AppendFrame(nil, []byte{1}, []byte("{}"))
	if err == nil {
		batch, err = wire.AppendFrame(batch, longest)
	}
	if err != nil || len(batch) != 5+2+wire.MaxMessage {
		t.Fatalf("%d bytes, %v", len(batch), err)
	}
	for _, parts := range [][][]byte{nil, {{}}, {longest, {1}}} {
		if again, err := wire.AppendFrame(batch, parts...); !errors.Is(err, wire.ErrFrameLength) || len(again) != len(batch) {
			t.Errorf("%d parts: %v", len(parts), err)
		}
	}
	msg, rest, ok := batch.Next()
	if !ok || string(msg) != "\x01{}" || cap(msg) != 3 {
		t.Errorf("first message %q with room for %d, %v", msg, cap(msg), ok)
	}
	if msg, rest, ok = rest.Next(); !ok || !bytes.Equal(msg, longest) || len(rest) != 0 {
		t.Errorf("second message of %d bytes, %v", len(msg), ok)
	}
	for cut := range 8 {
		want := 0
		if cut >= 5 {
			want = 5
		}
		if got := batch[:cut].Whole(); got != want {
			t.Errorf("of %d bytes %d are whole, want %d", cut, got, want)
		}
		msg, rest, ok := batch[:cut].Next()
		if ok != (cut >= 5) || !ok && (msg != nil || len(rest) != cut) {
			t.Errorf("%d bytes: message %q, rest %d, %v", cut, msg, len(rest), ok)
		}
	}
	if msg, rest, ok := (wire.Batch{0, 0, 7}).Next(); !ok || len(msg) != 0 || len(rest) != 1 {
		t.Errorf("empty frame: %q %v %v", msg, rest, ok)
	}
}

func TestPatchHops(t *testing.T) {
	msg := append(wire.Header{Hops: 30, From: 1, To: 2}.AppendTo(nil), "payload"...)
	want := append([]byte(nil), msg...)
	want[1] = 29
	msg[2], msg[3] = 0xff, 0xee
	wire.PatchHops(msg, 29)
	if !bytes.Equal(msg, want) {
		t.Errorf("got %x, want %x", msg, want)
	}
}

func TestRuns(t *testing.T) {
	packet := func(hops uint8, to wire.NodeHash, payload string) []byte {
		return append(wire.Header{Hops: hops, From: 1, To: to}.AppendTo(nil), payload...)
	}
	odd := packet(30, 2, "reserved bytes do not count")
	odd[2], odd[3] = 7, 8
	run := []([]byte){packet(30, 2, "a"), packet(30, 2, ""), odd}
	for _, test := range []struct {
		name string
		next []byte // What comes behind the run.
	}{
		{"nothing", nil},
		{"another hop count", packet(29, 2, "a")},
		{"another destination", packet(30, 3, "a")},
		{"a short message", packet(30, 2, "")[:wire.HeaderSize-1]},
		{"another type", append([]byte{1}, packet(30, 2, "a")[1:]...)},
	} {
		var batch wire.Batch
		for _, msg := range run {
			batch, _ = wire.AppendFrame(batch, msg)
		}
		want := len(batch)
		if test.next != nil {
			batch, _ = wire.AppendFrame(batch, test.next)
		}
		if got := batch.Run(); got != want || batch[:got].Count() != 3 {
			t.Errorf("%s: the run has %d messages in %d bytes, want 3 in %d", test.name, batch[:got].Count(), got, want)
		}
		for cut := range want {
			if got := batch[:cut].Run(); got != batch[:cut].Whole() {
				t.Errorf("%s: %d bytes of %d are a run, want %d", test.name, got, cut, batch[:cut].Whole())
			}
		}
		batch[:want].PatchHops(9)
		if msg, _, _ := batch[:want].Next(); msg[1] != 9 || string(msg[wire.HeaderSize:]) != "a" {
			t.Errorf("patched: %q", msg)
		}
		if test.next != nil && !bytes.Equal(batch[want+wire.FrameOverhead:], test.next) {
			t.Errorf("%s: the message behind the run was changed", test.name)
		}
	}
	for _, first := range [][]byte{{0}, {1, 2}, packet(30, 2, "")[:wire.HeaderSize-1]} {
		batch, _ := wire.AppendFrame(nil, first)
		if got := batch.Run(); got != 0 {
			t.Errorf("%x: a run of %d bytes", first, got)
		}
	}
	if got := (wire.Batch{0, 0, 1, 0, 0}).Run(); got != 0 {
		t.Errorf("an empty frame begins a run of %d bytes", got)
	}
}

func TestTypeNames(t *testing.T) {
	_, err := wire.ParseHeader(append([]byte{9}, make([]byte, 40)...))
	if err == nil || !strings.Contains(err.Error(), "9, want data") {
		t.Errorf("got %v", err)
	}
	if _, err := wire.ParseRouteUpdate([]byte("\x02{}")); err == nil || !strings.Contains(err.Error(), "advertisement, want route") {
		t.Errorf("got %v", err)
	}
}

func TestWithdrawal(t *testing.T) {
	w := wire.Withdrawal{NodeID: "n", Service: "s", Time: time.Date(2026, 1, 2, 3, 4, 5, 60, time.UTC)}
	want := "\x05" + `{"NodeID":"n","Service":"s","Time":"2026-01-02T03:04:05.00000006Z"}`
	msg, err := w.Append(nil)
	if err != nil || string(msg) != want {
		t.Errorf("%v\ngot  %s\nwant %s", err, msg, want)
	}
	if again, err := wire.ParseWithdrawal(msg); err != nil || again != w {
		t.Errorf("%v: read %+v, want %+v", err, again, w)
	}
	for _, json := range []string{``, `{}`, `null`, `{"Service":"s"}`, `{"NodeID":"n"}`, `{"NodeID":"n","Service":"ninebytes"}`, `{"NodeID":"n","Service":"s","Time":"soon"}`} {
		if w, err := wire.ParseWithdrawal([]byte("\x05" + json)); err == nil || w.NodeID != "" {
			t.Errorf("%s: %+v, %v; want an error alone", json, w, err)
		}
	}
	if _, err := wire.ParseWithdrawal([]byte("\x02{}")); err == nil || !strings.Contains(err.Error(), "advertisement, want withdrawal") {
		t.Errorf("got %v", err)
	}
}
