package wire_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// message is one captured mesh message with what was read from it at the time.
type message struct {
	where   string
	bytes   []byte
	decoded decoded
}

type decoded struct {
	Type        string `json:"type"`
	JSON        string `json:"json"`
	Hops        uint8  `json:"hops_to_live"`
	Reserved    string `json:"reserved"`
	FromNode    string `json:"from_node"`
	FromHash    string `json:"from_hash"`
	ToNode      string `json:"to_node"`
	ToHash      string `json:"to_hash"`
	FromService string `json:"from_service"`
	ToService   string `json:"to_service"`
	PayloadLen  int    `json:"payload_len"`
	PayloadJSON string `json:"payload_json"`
}

type record struct {
	Frame    string  `json:"frame_hex"`
	Datagram string  `json:"datagram_hex"`
	Decoded  decoded `json:"decoded"`
}

func readJSON(t testing.TB, file string, v any) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// captured returns every message of every capture between existing nodes, or between one and a scripted peer.
func captured(t testing.TB) []message {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all []message
	for _, path := range files {
		file := filepath.Base(path)
		if file == "node_id_hashes.json" || file == "tls_san.json" || file == "malformed.json" {
			continue
		}
		var c struct {
			Frames   []record `json:"frames"`
			Exchange []record `json:"exchange"`
			Cases    []struct {
				Exchange []record `json:"exchange"`
			} `json:"cases"`
		}
		readJSON(t, file, &c)
		records := append(c.Frames, c.Exchange...)
		for _, one := range c.Cases {
			records = append(records, one.Exchange...)
		}
		for i, r := range records {
			m := message{where: file + " " + strconv.Itoa(i), decoded: r.Decoded}
			switch {
			case r.Frame != "":
				frame := wire.Batch(unhex(t, r.Frame))
				msg, rest, ok := frame.Next()
				if !ok || len(rest) != 0 || frame.Whole() != len(frame) {
					t.Fatalf("%s: frame of %d bytes leaves %d, whole %v", m.where, len(frame), len(rest), ok)
				}
				again, err := wire.AppendFrame(nil, msg[:1], msg[1:])
				if err != nil || !bytes.Equal(again, frame) {
					t.Fatalf("%s: framed again: %x, %v; want %x", m.where, again, err, frame)
				}
				m.bytes = msg
			case r.Datagram != "":
				m.bytes = unhex(t, r.Datagram)
			default:
				continue // An event such as "closed".
			}
			all = append(all, m)
		}
	}
	if len(all) < 200 {
		t.Fatalf("only %d messages in the captures", len(all))
	}
	return all
}

// TestGoldenMessages reads every captured message and writes it again: the bytes must be the same.
func TestGoldenMessages(t *testing.T) {
	seen := map[wire.Type]int{}
	for _, m := range captured(t) {
		typ := wire.Type(m.bytes[0])
		seen[typ]++
		var again []byte
		var err error
		switch typ {
		case wire.TypeData:
			again = goldenData(t, m)
		case wire.TypeRoute:
			var u wire.RouteUpdate
			if u, err = wire.ParseRouteUpdate(m.bytes); err == nil {
				again, err = u.Append(nil)
			} else if strings.Contains(m.decoded.JSON, `"UpdateSequence":-1`) {
				continue // The scripted peer's negative number must not be accepted.
			}
		case wire.TypeAdvert:
			var a wire.Advertisement
			if a, err = wire.ParseAdvertisement(m.bytes); err == nil {
				again, err = a.Append(nil)
			}
		case wire.TypeReject:
			again = wire.RejectMessage
		}
		if err != nil {
			t.Errorf("%s: %v", m.where, err)
		} else if !bytes.Equal(again, m.bytes) {
			t.Errorf("%s: got  %q\nwant %q", m.where, again, m.bytes)
		}
	}
	t.Log(seen)
	for _, typ := range []wire.Type{wire.TypeData, wire.TypeRoute, wire.TypeAdvert, wire.TypeReject} {
		if seen[typ] == 0 {
			t.Errorf("no %s message in the captures", typ)
		}
	}
}

func goldenData(t *testing.T, m message) []byte {
	t.Helper()
	h, err := wire.ParseHeader(m.bytes)
	if err != nil {
		t.Errorf("%s: %v", m.where, err)
		return nil
	}
	d, payload := m.decoded, m.bytes[wire.HeaderSize:]
	if h.Hops != d.Hops || h.FromService.String() != d.FromService || h.ToService.String() != d.ToService || len(payload) != d.PayloadLen {
		t.Errorf("%s: header %+v, payload of %d bytes; want %+v", m.where, h, len(payload), d)
	}
	if from, to := wire.Hash(wire.NodeID(d.FromNode)), wire.Hash(wire.NodeID(d.ToNode)); d.FromNode != "" && from != h.From || d.ToNode != "" && to != h.To {
		t.Errorf("%s: hashes %x %x; want those of %s and %s", m.where, h.From, h.To, d.FromNode, d.ToNode)
	}
	for _, s := range []wire.ServiceName{h.FromService, h.ToService} {
		if packed, err := wire.Service(s.String()); err != nil || packed != s {
			t.Errorf("%s: service %q packs as %x: %v", m.where, s, packed, err)
		}
	}
	if d.ToService == "unreach" && strings.HasSuffix(d.PayloadJSON, "}") {
		u, err := wire.ParseUnreachable(payload)
		if err != nil {
			t.Errorf("%s: %v", m.where, err)
		}
		if payload, err = u.AppendPayload(nil); err != nil {
			t.Errorf("%s: %v", m.where, err)
		}
	}
	again := append(h.AppendTo(nil), payload...)
	if d.Reserved != "0000" {
		copy(again[2:4], unhex(t, d.Reserved)) // Written as zero, ignored when read.
	}
	return again
}

func TestGoldenHashes(t *testing.T) {
	var cases []struct{ NodeID, UTF8Hex, HashHex, HashDecimal string }
	readJSON(t, "node_id_hashes.json", &cases)
	if len(cases) < 20 {
		t.Fatalf("%d cases", len(cases))
	}
	for _, c := range cases {
		id := wire.NodeID(unhex(t, c.UTF8Hex))
		h := wire.Hash(id)
		if got := strconv.FormatUint(uint64(h), 10); got != c.HashDecimal {
			t.Errorf("%q: hash %s, want %s", id, got, c.HashDecimal)
		}
		header := wire.Header{From: h}.AppendTo(nil)
		if got := hex.EncodeToString(header[4:12]); got != c.HashHex {
			t.Errorf("%q: %s on the wire, want %s", id, got, c.HashHex)
		}
	}
}

// TestGoldenMalformed feeds what made existing nodes ignore, reject or crash.
func TestGoldenMalformed(t *testing.T) {
	var c struct {
		Cases []struct {
			Name  string  `json:"name"`
			Hex   *string `json:"message_hex"`
			Frame string  `json:"tcp_frame_hex"`
		} `json:"cases"`
	}
	readJSON(t, "malformed.json", &c)
	// What each parser says, in the order route, advertisement, header; nil: it is accepted.
	want := map[string][3]error{
		"empty message":                        {wire.ErrShort, wire.ErrShort, wire.ErrShort},
		"route, truncated JSON":                {errAny, wire.ErrType, errAny},
		"route, no JSON at all":                {errAny, wire.ErrType, wire.ErrShort},
		"route, empty object":                  {nil, wire.ErrType, wire.ErrShort},
		"advertisement, empty object":          {wire.ErrType, errAny, wire.ErrShort},
		"advertisement, truncated JSON":        {wire.ErrType, errAny, wire.ErrShort},
		"reject":                               {wire.ErrType, wire.ErrType, wire.ErrShort},
		"unknown type":                         {wire.ErrType, wire.ErrType, wire.ErrShort},
		"data, 6 bytes":                        {wire.ErrType, wire.ErrType, wire.ErrShort},
		"data, 36 zero bytes (unknown hashes)": {wire.ErrType, wire.ErrType, nil},
	}
	checked := 0
	for _, tc := range c.Cases {
		expect, ok := want[tc.Name]
		if !ok || tc.Hex == nil {
			continue
		}
		checked++
		msg := unhex(t, *tc.Hex)
		_, routeErr := wire.ParseRouteUpdate(msg)
		_, adErr := wire.ParseAdvertisement(msg)
		_, headerErr := wire.ParseHeader(msg)
		for i, got := range []error{routeErr, adErr, headerErr} {
			if !matches(got, expect[i]) {
				t.Errorf("%s, parser %d: got %v, want %v", tc.Name, i, got, expect[i])
			}
		}
		if tc.Frame != "" {
			if got, rest, ok := wire.Batch(unhex(t, tc.Frame)).Next(); !ok || len(got) != len(msg) || len(rest) != 0 {
				t.Errorf("%s: frame gives %x, %v", tc.Name, got, ok)
			}
		}
	}
	if checked != len(want) {
		t.Errorf("checked %d cases, want %d", checked, len(want))
	}
}

var errAny = errors.New("any error")

func matches(got, want error) bool {
	if want == errAny {
		return got != nil
	}
	return errors.Is(got, want)
}

func TestLocalhostIsTheNodeItself(t *testing.T) {
	for name, want := range map[wire.NodeID]wire.NodeID{"localhost": "own", "LocalHost": "own", "own": "own", "other": "other", "localhos": "localhos", "": ""} {
		if got := name.At("own"); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
}
