package control

import (
	"encoding/json"
	"testing"
	"time"
)

// TestEncode compares what is written by hand with encoding/json.
func TestEncode(t *testing.T) {
	texts := []string{"", "plain-1.2_3", "a b", `q"\`, "<&>", "\x00\x1f\x7f", "é\u2028\u2029", "\xff\xfe", "tab\tnewline\n"}
	m := map[string]float64{}
	for i, s := range texts {
		m[s] = []float64{0, 1, -1, 1.5, 1e14, 1e15, 1e21, 1e-7, 123456789}[i]
	}
	times := []time.Time{time.Unix(0, 0).UTC(), time.Date(2026, 1, 2, 3, 4, 5, 678, time.FixedZone("x", 3600)), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	for _, tc := range []struct {
		got  []byte
		want any
	}{
		{appendList(nil, texts, appendString), texts},
		{appendMap(nil, m, appendNumber), m},
		{appendList(nil, times, appendTime), times},
		{appendList(nil, []string{}, appendString), []string{}},
		{appendMap(nil, map[string]string(nil), appendString), map[string]string{}},
	} {
		want, err := json.Marshal(tc.want)
		if err != nil {
			t.Fatal(err)
		}
		if string(tc.got) != string(want) {
			t.Errorf("got %s, want %s", tc.got, want)
		}
	}
}
