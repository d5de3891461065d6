package control

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"
)

// encoded is a reply that is JSON already. Long replies are written by hand: reflection over maps takes ten times as long.
type encoded []byte

// MarshalJSON returns the reply.
func (e encoded) MarshalJSON() ([]byte, error) { return e, nil }

// appendString appends a string as encoding/json does.
func appendString[S ~string](dst []byte, s S) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			b, _ := json.Marshal(string(s)) // A string has a form.
			return append(dst, b...)
		}
	}
	dst = append(append(dst, '"'), s...)
	return append(dst, '"')
}

// appendNumber appends a number as encoding/json does; what has no form is null.
func appendNumber(dst []byte, f float64) []byte {
	if f == math.Trunc(f) && math.Abs(f) < 1e15 {
		return strconv.AppendInt(dst, int64(f), 10)
	}
	b, err := json.Marshal(f)
	if err != nil {
		return append(dst, "null"...)
	}
	return append(dst, b...)
}

func appendTime(dst []byte, t time.Time) []byte {
	b, err := t.AppendText(append(dst, '"'))
	if err != nil {
		return append(dst, "null"...)
	}
	return append(b, '"')
}

// appendMap appends an object with its keys in byte order.
func appendMap[K ~string, V any](dst []byte, m map[K]V, value func([]byte, V) []byte) []byte {
	dst = append(dst, '{')
	for i, key := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = value(append(appendString(dst, key), ':'), m[key])
	}
	return append(dst, '}')
}

func appendList[V any](dst []byte, list []V, value func([]byte, V) []byte) []byte {
	dst = append(dst, '[')
	for i, v := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = value(dst, v)
	}
	return append(dst, ']')
}
