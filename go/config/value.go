package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

var (
	trueWords  = []string{"1", "t", "T", "Y", "true", "TRUE", "True", "yes", "Yes", "YES"}
	falseWords = []string{"0", "f", "F", "N", "false", "FALSE", "False", "no", "No", "NO"}
)

// reason is why a value was refused, and what to write instead.
type reason struct{ text, hint string }

func (r *reason) Error() string { return r.text }

func typeError(k kind) error { return &reason{text: "type error (expected " + goTypes[k] + ")"} }

func because(hint, format string, args ...any) error {
	return &reason{text: fmt.Sprintf(format, args...), hint: hint}
}

// hintOf returns the advice that comes with err.
func hintOf(err error) string {
	if r, ok := errors.AsType[*reason](err); ok {
		return r.hint
	}
	return ""
}

// fromText converts what was written on a command line, or a string in a file. old is the value a list has so far.
func fromText(k kind, s string, old []string) (any, error) {
	switch k {
	case kindInt:
		return parseInt(s)
	case kindFloat:
		return strconv.ParseFloat(s, 64)
	case kindBool:
		return parseBool(s)
	case kindList:
		if strings.HasPrefix(s, "[") {
			return jsonList(s)
		}
		return append(slices.Clone(old), s), nil
	case kindCosts:
		if strings.HasPrefix(s, "{") {
			return jsonCosts(s)
		}
		return nil, typeError(k)
	case kindDict:
		if strings.HasPrefix(s, "{") {
			return jsonDict(s)
		}
		return nil, typeError(k)
	case kindDicts:
		if strings.HasPrefix(s, "[") {
			return jsonDicts(s)
		}
		return nil, because("a list in JSON begins with [", "%s", typeError(k))
	default:
		return s, nil
	}
}

func jsonDicts(s string) ([]map[string]any, error) {
	var items []any
	if err := json.Unmarshal([]byte(s), &items); err != nil {
		return nil, because("a value that begins with [ is read as JSON", "invalid JSON list: %v", err)
	}
	return asDicts(items)
}

// asDicts is a list of mappings and nothing else.
func asDicts(items []any) ([]map[string]any, error) {
	out := make([]map[string]any, len(items))
	for i, item := range items {
		var ok bool
		if out[i], ok = item.(map[string]any); !ok {
			return nil, because("each element has keys and values", "invalid value %v: must be a mapping", jsonText(item))
		}
	}
	return out, nil
}

func parseInt(s string) (int, error) {
	n, err := strconv.ParseInt(s, 0, strconv.IntSize)
	if err != nil {
		return 0, err
	}
	return int(n), nil
}

func parseBool(s string) (bool, error) {
	if slices.Contains(trueWords, s) {
		return true, nil
	}
	if slices.Contains(falseWords, s) {
		return false, nil
	}
	return false, because("write true or false", "could not parse %s as boolean", s)
}

func jsonList(s string) ([]string, error) {
	var items []any
	if err := json.Unmarshal([]byte(s), &items); err != nil {
		return nil, because("a value that begins with [ is read as JSON", "invalid JSON list: %v", err)
	}
	list := make([]string, 0, len(items))
	for _, item := range items {
		text, ok := item.(string)
		if !ok {
			return nil, because("write it in quotes", "invalid value %v: must be type string", jsonText(item))
		}
		list = append(list, text)
	}
	return list, nil
}

func jsonCosts(s string) (map[string]float64, error) {
	var items map[string]any
	if err := json.Unmarshal([]byte(s), &items); err != nil {
		return nil, because("a value that begins with { is read as JSON", "invalid JSON dict: %v", err)
	}
	out := make(map[string]float64, len(items))
	for k, item := range items {
		f, ok := item.(float64)
		if !ok {
			return nil, because("write a number without quotes", "invalid value %v: must be type float64", jsonText(item))
		}
		out[k] = f
	}
	return out, nil
}

func jsonDict(s string) (map[string]any, error) {
	var items map[string]any
	if err := json.Unmarshal([]byte(s), &items); err != nil {
		return nil, because("a value that begins with { is read as JSON", "invalid JSON dict: %v", err)
	}
	return items, nil
}

func jsonText(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}

// wholeNumber returns f as an int if nothing is lost.
func wholeNumber(f float64) (int, bool) {
	if f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, false
	}
	return int(f), true
}
