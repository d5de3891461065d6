package unit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// object is a JSON object, its keys in order. Status files are read by the thousand, and this takes a fifth of the time
// of a map. The values are parts of the text that was read.
type object []pair

type pair struct {
	name  string
	value json.RawMessage
}

var errNotObject = errors.New("status is not a JSON object")

// readObject takes an object apart. Of a key that is there twice the last value counts.
func readObject(data []byte) (object, error) {
	rest := skipSpace(data)
	if !json.Valid(data) || rest[0] != '{' {
		var none map[string]json.RawMessage
		if err := json.Unmarshal(data, &none); err != nil {
			return nil, err
		}
		return nil, errNotObject // null
	}
	o := make(object, 0, 12)
	for rest = skipSpace(rest[1:]); rest[0] != '}'; rest = skipSpace(rest) {
		if rest[0] == ',' {
			rest = skipSpace(rest[1:])
		}
		end := valueEnd(rest)
		name, plain := plainText(rest[:end])
		if !plain {
			if err := json.Unmarshal(rest[:end], &name); err != nil {
				return nil, err
			}
		}
		rest = skipSpace(skipSpace(rest[end:])[1:]) // What is skipped is the colon.
		end = valueEnd(rest)
		o = append(o, pair{name, json.RawMessage(rest[:end])})
		rest = rest[end:]
	}
	return o, nil
}

func skipSpace(text []byte) []byte { return bytes.TrimLeft(text, " \t\r\n") }

// valueEnd returns how long the JSON value at the start of text is. There is a valid one, and something behind it.
func valueEnd(text []byte) int {
	depth := 0
	for i := 0; ; i++ {
		switch text[i] {
		case '"':
			for i++; text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			depth++
			continue
		case '}', ']':
			depth--
		default:
			if depth > 0 || strings.IndexByte(" \t\r\n,:}]", text[i+1]) < 0 {
				continue
			}
		}
		if depth == 0 {
			return i + 1
		}
	}
}

func (o object) has(name string) bool {
	return slices.ContainsFunc(o, func(p pair) bool { return p.name == name })
}

// field is where a key's value goes.
type field struct {
	name string
	into any
	ours bool // A value of another form is that of some other program, and is left where it is.
}

// take decodes the wanted keys and returns a copy of the others.
func (o object) take(want []field) (others map[string]json.RawMessage, err error) {
	for _, p := range o {
		at := slices.IndexFunc(want, func(f field) bool { return f.name == p.name })
		if at >= 0 {
			err := decode(p.value, want[at].into)
			if err == nil {
				continue
			}
			if !want[at].ours {
				return nil, fmt.Errorf("%s: %w", p.name, err)
			}
		}
		if others == nil {
			others = map[string]json.RawMessage{}
		}
		others[p.name] = bytes.Clone(p.value)
	}
	return others, nil
}

// decode is json.Unmarshal, faster for what status files are full of.
func decode(value []byte, into any) error {
	switch p := into.(type) {
	case *int64:
		if n, err := strconv.ParseInt(string(value), 10, 64); err == nil {
			*p = n
			return nil
		}
	case *string:
		if text, plain := plainText(value); plain {
			*p = text
			return nil
		}
	case *time.Time:
		return p.UnmarshalJSON(value)
	case **int:
		var n int
		err := json.Unmarshal(value, &n)
		if err == nil && string(value) != "null" {
			*p = &n
		}
		return err
	}
	return json.Unmarshal(value, into)
}

// plainText returns the text of a JSON string that stands for itself.
func plainText(value []byte) (text string, plain bool) {
	if value[0] != '"' {
		return "", false
	}
	for _, c := range value {
		if c == '\\' || c >= 0x80 {
			return "", false
		}
	}
	return string(value[1 : len(value)-1]), true
}
