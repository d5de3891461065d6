package wire

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Route messages are most of what a large mesh sends, and nodes all write them in one layout. It is read and written
// here without reflection; whatever is laid out differently goes through encoding/json, with the same result.

// parseRouteLayout decodes the body of a route message that is laid out exactly as nodes write it. ok is false for any
// other, valid or not. All strings of the result share one copy of the body.
func parseRouteLayout(body []byte) (u RouteUpdate, ok bool) {
	r := layoutReader{rest: string(body)}
	r.literal(`{"NodeID":`)
	u.NodeID = NodeID(r.text())
	r.literal(`,"UpdateID":`)
	u.UpdateID = r.text()
	r.literal(`,"UpdateEpoch":`)
	u.UpdateEpoch = r.integer(64)
	r.literal(`,"UpdateSequence":`)
	u.UpdateSequence = r.integer(64)
	r.literal(`,"Connections":`)
	u.Connections = r.costs()
	r.literal(`,"ForwardingNode":`)
	u.ForwardingNode = NodeID(r.text())
	r.literal(`,"SuspectedDuplicate":`)
	u.SuspectedDuplicate = r.integer(64)
	if r.skip(`,"KeepAlive":`) {
		u.KeepAlive = uint32(r.integer(32))
	}
	u.Greets = r.skip(`,"Greets":true`)
	r.literal(`}`)
	return u, !r.failed && r.rest == ""
}

// layoutReader reads what is expected; after the first surprise it only reports failed.
type layoutReader struct {
	rest   string
	failed bool
}

func (r *layoutReader) skip(s string) bool {
	rest, found := strings.CutPrefix(r.rest, s)
	r.rest = rest
	return found
}

func (r *layoutReader) literal(s string) {
	if !r.skip(s) {
		r.failed = true
	}
}

// text reads a string that stands for itself: no escapes, no control characters, valid UTF-8.
func (r *layoutReader) text() string {
	if r.failed || !r.skip(`"`) {
		r.failed = true
		return ""
	}
	end := strings.IndexByte(r.rest, '"')
	if end < 0 || !plain(r.rest[:end]) {
		r.failed = true
		return ""
	}
	s := r.rest[:end]
	r.rest = r.rest[end+1:]
	return s
}

func plain(s string) bool {
	ascii := true
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '\\' {
			return false
		} else if c >= utf8.RuneSelf {
			ascii = false
		}
	}
	return ascii || utf8.ValidString(s)
}

// digits splits off a run of digits that is an integer as JSON writes it.
func (r *layoutReader) digits() string {
	n := 0
	for n < len(r.rest) && r.rest[n]-'0' <= 9 {
		n++
	}
	if n == 0 || n > 1 && r.rest[0] == '0' {
		r.failed = true
		return ""
	}
	s := r.rest[:n]
	r.rest = r.rest[n:]
	return s
}

func (r *layoutReader) integer(bits int) uint64 {
	v, err := strconv.ParseUint(r.digits(), 10, bits)
	if err != nil {
		r.failed = true
	}
	return v
}

// number reads a number without sign and exponent.
func (r *layoutReader) number() float64 {
	from := r.rest
	whole := r.digits()
	if !r.skip(".") {
		if len(whole) <= 15 { // Exact.
			v, _ := strconv.ParseUint(whole, 10, 64)
			return float64(v)
		}
	} else {
		n := 0
		for n < len(r.rest) && r.rest[n]-'0' <= 9 {
			n++
		}
		if n == 0 {
			r.failed = true
			return 0
		}
		r.rest = r.rest[n:]
	}
	v, err := strconv.ParseFloat(from[:len(from)-len(r.rest)], 64)
	if err != nil {
		r.failed = true
	}
	return v
}

func (r *layoutReader) costs() map[NodeID]float64 {
	if r.skip("null") {
		return nil
	}
	r.literal("{")
	m := map[NodeID]float64{}
	if r.skip("}") {
		return m
	}
	for !r.failed {
		key := r.text()
		r.literal(":")
		v := r.number()
		m[NodeID(key)] = v
		if r.skip("}") {
			return m
		}
		r.literal(",")
	}
	return nil
}

// appendRoute appends a whole route message; ok is false, and dst unchanged, if a cost is not a number that JSON has.
func appendRoute(dst []byte, u *RouteUpdate) (_ []byte, ok bool) {
	start := len(dst)
	dst = append(slices.Grow(dst, 192+24*len(u.Connections)), byte(TypeRoute))
	dst = appendText(append(dst, `{"NodeID":`...), string(u.NodeID))
	dst = appendText(append(dst, `,"UpdateID":`...), u.UpdateID)
	dst = strconv.AppendUint(append(dst, `,"UpdateEpoch":`...), u.UpdateEpoch, 10)
	dst = strconv.AppendUint(append(dst, `,"UpdateSequence":`...), u.UpdateSequence, 10)
	dst = append(dst, `,"Connections":`...)
	if dst, ok = appendCosts(dst, u.Connections); !ok {
		return dst[:start], false
	}
	dst = appendText(append(dst, `,"ForwardingNode":`...), string(u.ForwardingNode))
	dst = strconv.AppendUint(append(dst, `,"SuspectedDuplicate":`...), u.SuspectedDuplicate, 10)
	if u.KeepAlive != 0 {
		dst = strconv.AppendUint(append(dst, `,"KeepAlive":`...), uint64(u.KeepAlive), 10)
	}
	if u.Greets {
		return append(dst, greetsEnd...), true
	}
	return append(dst, '}'), true
}

// greetsEnd is how a message ends whose Greets is true.
const greetsEnd = `,"Greets":true}`

// PlainRoute returns a route message that [RouteUpdate.Append] has made as existing nodes write it: without Greets. msg
// stays as it is.
func PlainRoute(msg []byte) []byte {
	body, found := bytes.CutSuffix(msg, []byte(greetsEnd))
	if !found {
		return msg
	}
	return append(append(make([]byte, 0, len(body)+1), body...), '}')
}

func appendCosts(dst []byte, costs map[NodeID]float64) (_ []byte, ok bool) {
	if costs == nil {
		return append(dst, "null"...), true
	}
	var few [16]NodeID
	names := few[:0]
	for name := range costs {
		names = append(names, name)
	}
	slices.Sort(names)
	dst = append(dst, '{')
	for i, name := range names {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendText(dst, string(name)), ':')
		if dst, ok = appendCost(dst, costs[name]); !ok {
			return dst, false
		}
	}
	return append(dst, '}'), true
}

// appendCost writes v as encoding/json does, which changes to an exponent for the very small and the very large.
func appendCost(dst []byte, v float64) (_ []byte, ok bool) {
	if v == 0 || math.Abs(v) >= 1e-6 && math.Abs(v) < 1e21 {
		return strconv.AppendFloat(dst, v, 'f', -1, 64), true
	}
	b, err := json.Marshal(v)
	return append(dst, b...), err == nil
}

func appendText(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			b, _ := json.Marshal(s) // A string always has a form.
			return append(dst, b...)
		}
	}
	return append(append(append(dst, '"'), s...), '"')
}
