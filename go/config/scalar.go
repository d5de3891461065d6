package config

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"gopkg.in/yaml.v3"
)

// scalarKind is what YAML 1.1 makes of a scalar.
type scalarKind uint8

const (
	notScalar scalarKind = iota // A list or mapping.
	nullScalar
	boolScalar
	intScalar
	floatScalar
	stringScalar
)

// scalar is a scalar as YAML 1.1 reads it: text is what was written, b, n and f are its value by kind.
type scalar struct {
	kind scalarKind
	text string
	b    bool
	n    int64
	f    float64
}

// yamlFloat is the float of YAML 1.1 without its base 60 form.
var yamlFloat = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`)
})

// resolve reads a scalar. Quoted text is always text; a tag such as !!str decides for itself.
func resolve(n *yaml.Node) scalar {
	if n.Kind != yaml.ScalarNode {
		return scalar{}
	}
	if n.Style&yaml.TaggedStyle != 0 {
		if n.ShortTag() == "!!str" || n.ShortTag() == "!!binary" {
			return scalar{kind: stringScalar, text: n.Value}
		}
		return resolvePlain(n.Value)
	}
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		return scalar{kind: stringScalar, text: n.Value}
	}
	return resolvePlain(n.Value)
}

func resolvePlain(s string) scalar {
	switch s {
	case "", "~", "null", "Null", "NULL":
		return scalar{kind: nullScalar, text: s}
	case "y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON":
		return scalar{kind: boolScalar, text: s, b: true}
	case "n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF":
		return scalar{kind: boolScalar, text: s}
	case ".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF":
		return scalar{kind: floatScalar, text: s, f: math.Inf(1)}
	case "-.inf", "-.Inf", "-.INF":
		return scalar{kind: floatScalar, text: s, f: math.Inf(-1)}
	case ".nan", ".NaN", ".NAN":
		return scalar{kind: floatScalar, text: s, f: math.NaN()}
	}
	if !strings.ContainsRune("+-.0123456789", rune(s[0])) {
		return scalar{kind: stringScalar, text: s}
	}
	digits := strings.ReplaceAll(s, "_", "")
	if n, err := strconv.ParseInt(digits, 0, 64); err == nil {
		return scalar{kind: intScalar, text: s, n: n, f: float64(n)}
	}
	if yamlFloat().MatchString(digits) {
		if f, err := strconv.ParseFloat(digits, 64); err == nil {
			return scalar{kind: floatScalar, text: s, f: f}
		}
	}
	return scalar{kind: stringScalar, text: s}
}

// asString returns text, or an integer as decimal text. Everything else would silently become other text than written.
func (s scalar) asString(n *yaml.Node) (any, error) {
	switch s.kind {
	case stringScalar:
		return s.text, nil
	case intScalar:
		return strconv.FormatInt(s.n, 10), nil
	case boolScalar:
		return nil, because(quoteHint(n), "%s without quotes is a boolean, not text", s.text)
	default:
		return nil, because(quoteHint(n), "%s without quotes is a number, not text", s.text)
	}
}

func (s scalar) asInt() (any, error) {
	switch s.kind {
	case intScalar:
		if s.n > math.MaxInt || s.n < math.MinInt {
			return nil, because("", "%s is out of range", s.text)
		}
		return int(s.n), nil
	case floatScalar:
		n, ok := wholeNumber(s.f)
		if !ok {
			return nil, because("write a whole number", "%s is not a whole number", s.text)
		}
		return n, nil
	case stringScalar:
		return parseInt(s.text)
	default:
		return nil, typeError(kindInt)
	}
}

func (s scalar) asFloat() (float64, error) {
	switch s.kind {
	case intScalar, floatScalar:
		return s.f, nil
	case stringScalar:
		return strconv.ParseFloat(s.text, 64)
	default:
		return 0, typeError(kindFloat)
	}
}

func (s scalar) asBool() (any, error) {
	switch s.kind {
	case boolScalar:
		return s.b, nil
	case stringScalar:
		return parseBool(s.text)
	default:
		return nil, typeError(kindBool)
	}
}
