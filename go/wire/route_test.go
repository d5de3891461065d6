package wire

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"testing"
)

var layoutSeeds = []string{
	`{"NodeID":"a","UpdateID":"7NgKZgOp","UpdateEpoch":30120047674893995,"UpdateSequence":3,"Connections":{"b":1,"c":2.25},"ForwardingNode":"b","SuspectedDuplicate":0}`,
	`{"NodeID":"a","UpdateID":"7NgKZgOp","UpdateEpoch":18446744073709551615,"UpdateSequence":0,"Connections":{},"ForwardingNode":"a","SuspectedDuplicate":7,"KeepAlive":1000}`,
	`{"NodeID":"é","UpdateID":"","UpdateEpoch":1,"UpdateSequence":1,"Connections":null,"ForwardingNode":"","SuspectedDuplicate":0}`,
	`{"NodeID":"a\u0062","UpdateID":"\n","UpdateEpoch":01,"UpdateSequence":1e3,"Connections":{"b":-0,"b":1e400},"ForwardingNode":"","SuspectedDuplicate":0}`,
	`{"NodeID":"a","UpdateID":"x","UpdateEpoch":1,"UpdateSequence":1,"Connections":{"b":1,"b":0.1234567890123456789},"ForwardingNode":"b","SuspectedDuplicate":0,"KeepAlive":4294967296}`,
	`{"NodeID":"a","UpdateID":"x","UpdateEpoch":1,"UpdateSequence":1,"Connections":{"b":12345678901234567890,},"ForwardingNode":"b","SuspectedDuplicate":0} `,
	"{\"NodeID\":\"\xff\",\"UpdateID\":\"\x7f<\",\"UpdateEpoch\":1,\"UpdateSequence\":1,\"Connections\":{\"b\":01},\"ForwardingNode\":\"b\",\"SuspectedDuplicate\":0}",
}

// FuzzRouteLayout: what the short way accepts, encoding/json accepts too and reads the same, and both write the same.
func FuzzRouteLayout(f *testing.F) {
	for _, s := range layoutSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		u, ok := parseRouteLayout(body)
		var want RouteUpdate
		err := json.Unmarshal(body, &want)
		if ok && (err != nil || !reflect.DeepEqual(u, want)) {
			t.Fatalf("the short way read %+v, encoding/json %+v (%v)", u, want, err)
		}
		if err != nil {
			return
		}
		written, ok := appendRoute(nil, &want)
		reference, err := appendJSON(nil, TypeRoute, &want)
		if !ok || err != nil || !bytes.Equal(written, reference) {
			t.Fatalf("the short way wrote %s, encoding/json %s (%v)", written, reference, err)
		}
	})
}

func TestNodesTakeTheShortWay(t *testing.T) {
	for i, s := range layoutSeeds {
		if _, ok := parseRouteLayout([]byte(s)); ok != (i < 3) {
			t.Errorf("message %d: taken the short way: %v", i, ok)
		}
	}
}

func TestRouteCostsAreWrittenAsJSON(t *testing.T) {
	for _, v := range []float64{0, 1, 1.5, 1e-6, 9e-7, 1e20, 1e21, math.MaxFloat64, math.SmallestNonzeroFloat64, math.Copysign(0, -1)} {
		u := RouteUpdate{NodeID: "<a&b>\u2028\xff", Connections: map[NodeID]float64{"n": v, "\"": 1, "m": 2}}
		got, ok := appendRoute(nil, &u)
		want, err := appendJSON(nil, TypeRoute, &u)
		if !ok || err != nil || !bytes.Equal(got, want) {
			t.Errorf("cost %v: %s, want %s", v, got, want)
		}
	}
	u := RouteUpdate{Connections: map[NodeID]float64{"n": math.NaN()}}
	if msg, err := u.Append([]byte("kept")); err == nil || string(msg) != "kept" {
		t.Errorf("a cost that is no number was written as %q", msg)
	}
}

func TestGreetsIsLeftOutForExistingNodes(t *testing.T) {
	u := RouteUpdate{NodeID: "a", UpdateID: "12345678", UpdateEpoch: 1, UpdateSequence: 2, Connections: map[NodeID]float64{"b": 1}, ForwardingNode: "c"}
	plain, _ := u.Append(nil)
	u.Greets = true
	msg, _ := u.Append(nil)
	if got := PlainRoute(msg); string(got) != string(plain) || string(PlainRoute(plain)) != string(plain) {
		t.Errorf("the plain form of %s is %s, want %s", msg, got, plain)
	}
	if got, err := ParseRouteUpdate(msg); err != nil || !got.Greets {
		t.Errorf("%s is read as %+v, %v", msg, got, err)
	}
	if got, err := ParseRouteUpdate([]byte("\x01 " + string(msg[1:]))); err != nil || !got.Greets {
		t.Errorf("with a blank in front it is read as %+v, %v", got, err)
	}
}

func TestSameConnections(t *testing.T) {
	message := func(id string, conns map[NodeID]float64) []byte {
		u := RouteUpdate{NodeID: "a\"b", UpdateID: id, UpdateEpoch: 1, Connections: conns, ForwardingNode: "c"}
		msg, err := u.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		return msg
	}
	one := map[NodeID]float64{"b": 1, `x","Connections":`: 2}
	if !SameConnections(message("1", one), message("2", one)) {
		t.Error("two messages with the same connections differ")
	}
	for _, other := range []map[NodeID]float64{nil, {}, {"b": 1}, {"b": 1, `x","Connections":`: 3}} {
		if SameConnections(message("1", one), message("1", other)) {
			t.Errorf("%v and %v are the same", one, other)
		}
	}
	if SameConnections(nil, nil) {
		t.Error("no messages are the same")
	}
}
