package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
	"gopkg.in/yaml.v3"
)

// syntaxError is a file that is not what its name says.
type syntaxError struct {
	text         string
	line, column int // 0: not known.
}

func (e *syntaxError) Error() string { return e.text }

// parseTree reads a file by its extension, .json, .toml or anything else for YAML, into nodes as YAML has them. io.EOF means
// that there is nothing in it.
func parseTree(path string, data []byte) (*yaml.Node, error) {
	text := bytes.TrimPrefix(data, []byte("\ufeff")) // A byte order mark, with which some editors begin; YAML knows it.
	switch strings.ToLower(filepath.Ext(path)) {
	case ".json":
		return parseJSON(text)
	case ".toml":
		return parseTOML(text)
	}
	return parseYAML(data)
}

// jsonReader makes nodes of JSON text.
type jsonReader struct {
	data []byte
	dec  *json.Decoder
}

func parseJSON(data []byte) (*yaml.Node, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, io.EOF
	}
	r := &jsonReader{data: data, dec: json.NewDecoder(bytes.NewReader(data))}
	r.dec.UseNumber()
	n, err := r.value(0)
	if err == nil {
		if _, more := r.dec.Token(); more != io.EOF {
			err = errors.New("more than one value")
		}
	}
	if err != nil {
		offset := r.dec.InputOffset()
		if s, ok := errors.AsType[*json.SyntaxError](err); ok {
			offset = max(offset, s.Offset-1)
		}
		line, column := place(data, int(offset))
		return nil, &syntaxError{"json: " + err.Error(), line, column}
	}
	return n, nil
}

// place turns an offset into line and column.
func place(data []byte, offset int) (line, column int) {
	before := data[:max(0, min(offset, len(data)))]
	return bytes.Count(before, []byte("\n")) + 1, len(before) - bytes.LastIndexByte(before, '\n')
}

func (r *jsonReader) value(depth int) (*yaml.Node, error) {
	if depth > maxMergeDepth*4 {
		return nil, errors.New("values nest too deep")
	}
	start := int(r.dec.InputOffset())
	for start < len(r.data) && strings.IndexByte(" \t\r\n,:", r.data[start]) >= 0 {
		start++
	}
	token, err := r.dec.Token()
	if err != nil {
		return nil, err
	}
	n := &yaml.Node{Kind: yaml.ScalarNode}
	n.Line, n.Column = place(r.data, start)
	switch v := token.(type) {
	case json.Delim:
		n.Kind, n.Tag = yaml.MappingNode, "!!map"
		if v == '[' {
			n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		}
		for r.dec.More() {
			item, err := r.value(depth + 1)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, item)
		}
		_, err = r.dec.Token() // The closing one.
		return n, err
	case string:
		n.Tag, n.Style, n.Value = "!!str", yaml.DoubleQuotedStyle, v
	case json.Number:
		n.Value = v.String()
	case bool:
		n.Value = strconv.FormatBool(v)
	case nil:
		n.Value = "null"
	}
	return n, nil
}

// parseTOML reads the values with one parser and finds where they stand with another.
func parseTOML(data []byte) (*yaml.Node, error) {
	var values map[string]any
	if err := toml.Unmarshal(data, &values); err != nil {
		line, column := 0, 0
		if d, ok := errors.AsType[*toml.DecodeError](err); ok {
			line, column = d.Position()
		}
		return nil, &syntaxError{err.Error(), line, column}
	}
	if len(values) == 0 {
		return nil, io.EOF
	}
	t := &tomlTree{data: data, places: make(map[string]int)}
	t.index()
	return t.node("", values, 0), nil
}

// tomlTree knows where the keys of a TOML document stand: offsets by path, the steps of a path behind a NUL each.
type tomlTree struct {
	data   []byte
	places map[string]int
	lists  map[string]int // How many tables of a list were seen.
	parser unstable.Parser
}

func (t *tomlTree) index() {
	t.lists = make(map[string]int)
	t.parser.Reset(t.data)
	table := ""
	for t.parser.NextExpression() {
		e := t.parser.Expression()
		switch e.Kind {
		case unstable.Table:
			table = t.path("", e.Key())
		case unstable.ArrayTable:
			list := t.path("", e.Key())
			table = list + "\x00" + strconv.Itoa(t.lists[list])
			t.places[table] = t.places[list]
			t.lists[list]++
		case unstable.KeyValue:
			t.keyValue(table, e)
		}
	}
}

// path notes the keys of a dotted key below parent and returns the last one's path. A step into a list is one into its
// last table.
func (t *tomlTree) path(parent string, keys unstable.Iterator) string {
	for keys.Next() {
		key := keys.Node()
		if n := t.lists[parent]; n > 0 {
			parent += "\x00" + strconv.Itoa(n-1)
		}
		parent += "\x00" + string(key.Data)
		if _, known := t.places[parent]; !known {
			t.places[parent] = int(key.Raw.Offset)
		}
	}
	return parent
}

func (t *tomlTree) keyValue(parent string, e *unstable.Node) {
	path := t.path(parent, e.Key())
	t.values(path, e.Value())
}

func (t *tomlTree) values(path string, v *unstable.Node) {
	switch v.Kind {
	case unstable.InlineTable:
		for items := v.Children(); items.Next(); {
			t.keyValue(path, items.Node())
		}
	case unstable.Array:
		i := 0
		for items := v.Children(); items.Next(); i++ {
			item := path + "\x00" + strconv.Itoa(i)
			t.places[item] = t.places[path]
			if raw := items.Node().Raw; raw.Length > 0 {
				t.places[item] = int(raw.Offset)
			}
			t.values(item, items.Node())
		}
	}
}

// node makes nodes of decoded values; up is the offset of what contains them.
func (t *tomlTree) node(path string, v any, up int) *yaml.Node {
	if at, ok := t.places[path]; ok {
		up = at
	}
	n := &yaml.Node{Kind: yaml.ScalarNode}
	n.Line, n.Column = place(t.data, up)
	switch v := v.(type) {
	case map[string]any:
		n.Kind, n.Tag = yaml.MappingNode, "!!map"
		keys := make([]string, 0, len(v))
		for key := range v {
			keys = append(keys, key)
		}
		slices.SortFunc(keys, func(a, b string) int {
			if d := t.places[path+"\x00"+a] - t.places[path+"\x00"+b]; d != 0 {
				return d
			}
			return strings.Compare(a, b)
		})
		for _, key := range keys {
			value := t.node(path+"\x00"+key, v[key], up)
			n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.DoubleQuotedStyle, Value: key, Line: value.Line, Column: value.Column}, value)
		}
	case []any:
		n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		for i, item := range v {
			n.Content = append(n.Content, t.node(path+"\x00"+strconv.Itoa(i), item, up))
		}
	case string:
		n.Tag, n.Style, n.Value = "!!str", yaml.DoubleQuotedStyle, v
	case float64:
		n.Value = strconv.FormatFloat(v, 'g', -1, 64)
	case time.Time:
		n.Tag, n.Style, n.Value = "!!str", yaml.DoubleQuotedStyle, v.Format(time.RFC3339)
	default: // Integers, booleans, local dates.
		n.Value = fmt.Sprint(v)
	}
	return n
}
