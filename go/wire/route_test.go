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
