package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/pyreceptor/pyreceptor/go/files"
)

// fileError begins every problem with a file's form.
const fileError = "error loading config file: "

const (
	// maxFile is the largest configuration file, in bytes: one of 100,000 short lines has some 3 MB.
	maxFile = 16 << 20
	// maxMergeDepth is how deep merge keys may nest; it also ends the walk of a mapping that merges itself.
	maxMergeDepth = 16
	// maxNodes is how many values one file may have once aliases are followed. A document of a few lines can name
	// billions.
	maxNodes = 100_000
)

// file appends the directives of one file.
func (p *parser) file(path string) {
	p.files = append(p.files, path)
	data, info, err := files.ReadOnce(path, maxFile)
	if err == nil && len(data) == 0 && info.Mode()&fs.ModeNamedPipe != 0 {
		err = fmt.Errorf("read %s: it is a pipe that holds nothing: either nothing was written to it, or it has been read before", path)
	}
	if err != nil {
		p.problem(Position{}, "", fileError+"%s", err)
		return
	}
	p.document(path, data)
}

// document appends the directives of a file's first document.
func (p *parser) document(path string, data []byte) {
	f := &fileReader{parser: p, path: path, budget: maxNodes}
	root, err := parseTree(path, data)
	switch {
	case errors.Is(err, io.EOF):
		return
	case err != nil:
		pos, hint := Position{File: path, Line: oneLineOf(err.Error())}, ""
		if s, ok := errors.AsType[*syntaxError](err); ok {
			pos.Line, pos.Column = s.line, s.column
		} else {
			hint = tabHint(data, pos.Line)
		}
		p.problem(pos, hint, fileError+"%s", err)
		return
	}
	root = target(root)
	switch s := resolve(root); {
	case s.kind == nullScalar:
		return
	case isVersion2(root), p.second && root.Kind == yaml.MappingNode:
		p.second = true
		f.version2(root)
		return
	case p.second:
		p.problem(f.at(root), "a file of version 2 is a mapping; without --config-v2 this one may be a list", fileError+"yaml: unmarshal errors:\n  line %d: cannot unmarshal %s into map[string]interface {}", root.Line, describe(root))
		return
	case root.Kind != yaml.SequenceNode:
		p.problem(f.at(root), "a configuration file is a list: begin each directive with \"- \"; one of the second format begins with \"version: 2\"",
			fileError+"yaml: unmarshal errors:\n  line %d: cannot unmarshal %s into []interface {}", root.Line, describe(root))
		return
	}
	for _, item := range root.Content {
		f.item(item)
	}
}

// tabHint says that a line which could not be parsed is indented with a tab, "" if it is not.
func tabHint(data []byte, line int) string {
	lines := bytes.Split(data, []byte("\n"))
	if line < 1 || line > len(lines) {
		return ""
	}
	text := lines[line-1]
	if indent := text[:len(text)-len(bytes.TrimLeft(text, " \t"))]; bytes.Contains(indent, []byte("\t")) {
		return "the line is indented with a tab; YAML takes spaces only"
	}
	return ""
}

// parseYAML returns the root of the first document, io.EOF if there is none.
func parseYAML(data []byte) (*yaml.Node, error) {
	var doc yaml.Node
	if err := yaml.NewDecoder(bytes.NewReader(data)).Decode(&doc); err != nil {
		return nil, err
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) == 0 {
		return nil, io.EOF
	}
	return doc.Content[0], nil
}

// fileReader reads the directives of one file.
type fileReader struct {
	*parser
	path    string
	budget  int  // Values that may still be visited.
	lenient bool // Unknown parameters are passed over with a warning.
}

func (f *fileReader) at(n *yaml.Node) Position {
	return Position{File: f.path, Line: n.Line, Column: n.Column}
}

func (f *fileReader) fail(n *yaml.Node, hint, format string, args ...any) {
	f.problem(f.at(n), hint, fileError+format, args...)
}

// spend counts n values; false means that the file has too many.
func (f *fileReader) spend(n int, at *yaml.Node) bool {
	before := f.budget
	f.budget -= n
	if f.budget < 0 && before >= 0 {
		f.fail(at, "", "more than %d values once aliases are followed", maxNodes)
	}
	return f.budget >= 0
}

// item reads one item of the root list.
func (f *fileReader) item(n *yaml.Node) {
	if !f.spend(1, n) {
		return
	}
	t := target(n)
	if t.Kind != yaml.MappingNode {
		if s := resolve(t); s.kind == stringScalar {
			f.directive(n, s.text, nil)
		} else {
			f.fail(n, "an item is a directive's name, or a name, a colon and its parameters", "unknown config file format")
		}
		return
	}
	pairs := f.pairs(t, strings.Clone)
	switch {
	case len(pairs) == 0:
		f.fail(n, "an item is a directive's name, or a name, a colon and its parameters", "unknown config file format")
	case len(pairs) > 1:
		f.fail(n, "begin each directive with \"- \" and indent its parameters further", "config format invalid: item has multiple names")
	default:
		key := resolve(target(pairs[0].key))
		if key.kind != stringScalar {
			f.fail(pairs[0].key, "", "section key is not a string")
			return
		}
		f.directive(pairs[0].key, key.text, pairs[0].value)
	}
}

// directive reads the directive called name, at n, with its value (nil: none).
func (f *fileReader) directive(n *yaml.Node, name string, value *yaml.Node) {
	d := lookup(name)
	if d == nil {
		f.fail(n, didYouMean(name, directiveNames()), "could not get config type for command %s: unknown config type %s", name, name)
		return
	}
	e := f.open(d, name, f.at(n))
	f.values(e, value)
	f.checkMissing(e)
}

// values reads what stands behind a directive's name.
func (f *fileReader) values(e *entry, value *yaml.Node) {
	if value == nil {
		return
	}
	t := target(value)
	s := resolve(t)
	switch {
	case s.kind == nullScalar:
	case s.kind == stringScalar && e.spec.bare == "":
		e.broken = true
		f.fail(value, bareHint(e), "could not get barevalue for command %s: command does not allow bare values", e.spec.name)
	case s.kind == stringScalar:
		f.param(e, value, e.spec.bare, value)
	case t.Kind == yaml.MappingNode:
		f.params(e, t)
	default:
		hint := ""
		if t.Kind == yaml.ScalarNode {
			hint = "write it in quotes: " + strconv.Quote(t.Value)
		}
		e.broken = true
		f.fail(value, hint, "invalid config format for %s", e.spec.name)
	}
}

// params reads a mapping of parameters.
func (f *fileReader) params(e *entry, mapping *yaml.Node) {
	for _, pair := range f.pairs(mapping, strings.ToLower) {
		key := resolve(target(pair.key))
		if key.kind != stringScalar {
			e.broken = true
			f.fail(pair.key, "a parameter's name is text", "invalid config format for %s", e.spec.name)
			continue
		}
		f.param(e, pair.key, key.text, pair.value)
	}
}

// param reads one parameter, named at n.
func (f *fileReader) param(e *entry, n *yaml.Node, name string, value *yaml.Node) {
	q := e.spec.param(strings.ToLower(name))
	if q == nil && f.lenient {
		f.warn(f.at(n), paramHint(e, name), "%s: unknown key %s is ignored", e.spec.name, name)
		return
	}
	if q == nil {
		e.broken = true
		f.fail(n, paramHint(e, name), "field %s not defined for command %s: unknown field name %s", name, e.spec.name, name)
		return
	}
	if q.kind == kindRules {
		f.firewallRules(e, q, name, value)
		return
	}
	v, err := f.convert(q.kind, target(value))
	if err != nil {
		e.broken = true
		f.fail(value, hintOf(err), "error setting field %s in command %s: %s", name, e.spec.name, err)
		return
	}
	if v != nil {
		q.set(e.section, v)
	}
	e.given[q.name] = f.at(n)
}

// convert turns a YAML value into the value of a parameter; nil means: as if it were not there.
func (f *fileReader) convert(k kind, n *yaml.Node) (any, error) {
	switch k {
	case kindList:
		return f.list(n)
	case kindCosts:
		return f.costs(n)
	case kindDict:
		return f.dict(n)
	case kindDicts:
		return f.dicts(n)
	}
	s := resolve(n)
	switch s.kind {
	case notScalar:
		return nil, typeError(k)
	case nullScalar:
		return nil, because("give a value or remove the line", "value cannot be nil")
	}
	switch k {
	case kindString:
		return s.asString(n)
	case kindInt:
		return s.asInt()
	case kindFloat:
		return s.asFloat()
	default:
		return s.asBool()
	}
}

func (f *fileReader) list(n *yaml.Node) (any, error) {
	s := resolve(n)
	switch {
	case s.kind == nullScalar:
		return nil, nil
	case s.kind == stringScalar:
		return []string{s.text}, nil
	case n.Kind != yaml.SequenceNode:
		return nil, typeError(kindList)
	}
	out := make([]string, 0, len(n.Content))
	for _, item := range n.Content {
		if !f.spend(1, item) {
			break
		}
		item = target(item)
		s := resolve(item)
		if s.kind != stringScalar {
			return nil, because(quoteHint(item), "invalid value %s: must be type string", shown(item))
		}
		out = append(out, s.text)
	}
	return out, nil
}

func (f *fileReader) costs(n *yaml.Node) (any, error) {
	if resolve(n).kind == nullScalar {
		return nil, nil
	}
	if n.Kind != yaml.MappingNode {
		return nil, typeError(kindCosts)
	}
	out := make(map[string]float64)
	for _, pair := range f.pairs(n, strings.Clone) {
		key, value := resolve(target(pair.key)), target(pair.value)
		if key.kind != stringScalar {
			return nil, because(quoteHint(target(pair.key)), "invalid key %s: must be type string", shown(target(pair.key)))
		}
		s := resolve(value)
		if s.kind != intScalar && s.kind != floatScalar {
			return nil, because("write a number without quotes", "invalid value %s: must be type float64", shown(value))
		}
		cost, err := s.asFloat()
		if err != nil {
			return nil, err
		}
		out[key.text] = cost
	}
	return out, nil
}

// dict reads a mapping whose values are free, as JSON could have them.
func (f *fileReader) dict(n *yaml.Node) (any, error) {
	if resolve(n).kind == nullScalar {
		return nil, nil
	}
	if n.Kind != yaml.MappingNode {
		return nil, typeError(kindDict)
	}
	return f.free(n, 0)
}

// dicts reads a list of such mappings.
func (f *fileReader) dicts(n *yaml.Node) (any, error) {
	if resolve(n).kind == nullScalar {
		return nil, nil
	}
	if n.Kind != yaml.SequenceNode {
		return nil, because("begin each element with \"- \"", "%s", typeError(kindDicts))
	}
	items, err := f.free(n, 0)
	if err != nil {
		return nil, err
	}
	return asDicts(items.([]any))
}

// free returns a value as encoding/json would: map[string]any, []any, string, float64, bool or nil.
func (f *fileReader) free(n *yaml.Node, depth int) (any, error) {
	n = target(n)
	if depth > maxMergeDepth || !f.spend(1, n) {
		return nil, because("", "values nest more than %d deep", maxMergeDepth)
	}
	switch n.Kind {
	case yaml.SequenceNode:
		out := make([]any, 0, len(n.Content))
		for _, item := range n.Content {
			v, err := f.free(item, depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
		return out, nil
	case yaml.MappingNode:
		out := make(map[string]any)
		for _, pair := range f.pairs(n, strings.Clone) {
			key := resolve(target(pair.key))
			if key.kind != stringScalar {
				return nil, because(quoteHint(target(pair.key)), "invalid key %s: must be type string", shown(target(pair.key)))
			}
			v, err := f.free(pair.value, depth+1)
			if err != nil {
				return nil, err
			}
			out[key.text] = v
		}
		return out, nil
	}
	switch s := resolve(n); s.kind {
	case nullScalar:
		return nil, nil
	case boolScalar:
		return s.b, nil
	case intScalar, floatScalar:
		if math.IsInf(s.f, 0) || math.IsNaN(s.f) {
			return nil, because("", "%s is not a number that JSON has", s.text)
		}
		return s.f, nil
	default:
		return s.text, nil
	}
}

// pair is one key and value of a mapping.
type pair struct{ key, value *yaml.Node }

// pairs returns a mapping's keys and values in the order they were written, those that it merges after them. Keys that
// are equal after fold and were written twice are reported.
func (f *fileReader) pairs(mapping *yaml.Node, fold func(string) string) []pair {
	m := &merger{fileReader: f, fold: fold, seen: make(map[string]*yaml.Node)}
	m.add(mapping, 0)
	return m.out
}

type merger struct {
	*fileReader
	fold func(string) string
	seen map[string]*yaml.Node // Where a key was first written.
	out  []pair
}

// add appends the pairs of n, then what n merges.
func (m *merger) add(n *yaml.Node, depth int) {
	if !m.spend(1+len(n.Content)/2, n) {
		return
	}
	if depth > maxMergeDepth {
		m.fail(n, "", "merge keys nest more than %d deep", maxMergeDepth)
		return
	}
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind == yaml.ScalarNode && key.Tag == "!!merge" {
			merged = append(merged, value)
			continue
		}
		m.pair(key, value, depth)
	}
	for _, value := range merged {
		m.merge(value, depth)
	}
}

func (m *merger) pair(key, value *yaml.Node, depth int) {
	t := target(key)
	name := fmt.Sprint(t.Kind, t.Line, t.Column)
	if t.Kind == yaml.ScalarNode {
		name = m.fold(t.Value)
	}
	first := m.seen[name]
	switch {
	case first == nil:
		m.seen[name] = key
		m.out = append(m.out, pair{key, value})
	case depth == 0:
		m.fail(key, "", "key %q is already set at line %d", t.Value, first.Line)
	}
}

// merge adds what stands behind a merge key: one mapping or a list of them.
func (m *merger) merge(value *yaml.Node, depth int) {
	t := target(value)
	switch t.Kind {
	case yaml.MappingNode:
		m.add(t, depth+1)
	case yaml.SequenceNode:
		for _, item := range t.Content {
			if item = target(item); item.Kind != yaml.MappingNode {
				m.fail(item, "", "map merge requires map or sequence of maps as the value")
				continue
			}
			m.add(item, depth+1)
		}
	default:
		m.fail(value, "", "map merge requires map or sequence of maps as the value")
	}
}

// target follows an alias.
func target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

// describe names a node as the YAML library's own errors do.
func describe(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode {
		return fmt.Sprintf("%s `%s`", n.ShortTag(), shown(n))
	}
	return n.ShortTag()
}

// shown is how a value appears in an error.
func shown(n *yaml.Node) string {
	const most = 40
	switch n.Kind {
	case yaml.SequenceNode:
		return "[...]"
	case yaml.MappingNode:
		return "{...}"
	}
	if n.Value == "" {
		return "null"
	}
	if len(n.Value) > most {
		return strings.ToValidUTF8(n.Value[:most], "") + "..."
	}
	return n.Value
}

func quoteHint(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode || n.Value == "" {
		return ""
	}
	return "write it in quotes: " + strconv.Quote(shown(n))
}
