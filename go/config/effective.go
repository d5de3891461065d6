package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/pyreceptor/pyreceptor/go/policy"
)

// hiddenValue stands for a value that is not shown.
const hiddenValue = "(hidden)"

// Setting is one parameter of a directive as it is in effect.
type Setting struct {
	Name  string
	Value any // string, int, float64, bool, []string, map[string]float64, []policy.Rule or map[string]any.
	octal bool
}

// Settings returns the parameters of a directive that are in effect, defaults included, in the order of the help text.
// Those that are empty and would be so by default are left out; secrets are hidden.
func (d Directive) Settings() []Setting {
	var out []Setting
	spec := lookup(d.Name)
	section, defaults := spec.pointer(d.Section), spec.fresh()
	for i := range spec.params {
		q := &spec.params[i]
		v := q.get(section)
		if !q.required && empty(v) && empty(q.get(defaults)) {
			continue
		}
		if q.secret {
			v = hiddenValue
		}
		out = append(out, Setting{Name: q.name, Value: v, octal: q.octal})
	}
	return out
}

// empty tells what nobody would miss; a list without items is not that, it admits nobody.
func empty(v any) bool {
	switch v := v.(type) {
	case string:
		return v == ""
	case []string:
		return v == nil
	case []policy.Rule:
		return len(v) == 0
	case []map[string]any:
		return v == nil
	case map[string]float64:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

// Label is what tells the directive from others of its kind, for example an address; "" if there is only one.
func (d Directive) Label() string {
	spec := lookup(d.Name)
	section := spec.pointer(d.Section)
	var parts []string
	port := ""
	for i := range spec.params {
		q := &spec.params[i]
		if !q.naming {
			continue
		}
		if text := fmt.Sprint(q.get(section)); q.name == "port" {
			port = ":" + text
		} else if text != "" {
			parts = append(parts, text)
		}
	}
	return strings.Join(parts, " ") + port
}

// Effective is the configuration as data for JSON: one object per directive with its name as the only key, as a file
// has it. Defaults are filled in, secrets hidden.
func (c *Config) Effective() []map[string]map[string]any {
	out := make([]map[string]map[string]any, 0, len(c.Directives))
	for _, d := range c.Directives {
		params := make(map[string]any)
		for _, s := range d.Settings() {
			params[s.Name] = s.shown()
		}
		out = append(out, map[string]map[string]any{d.Name: params})
	}
	return out
}

// shown is the value as a file has it.
func (s Setting) shown() any {
	switch v := s.Value.(type) {
	case int:
		if s.octal {
			return fmt.Sprintf("%04o", v)
		}
	case []policy.Rule:
		rules := make([]map[string]string, len(v))
		for i, r := range v {
			rules[i] = ruleFields(r)
		}
		return rules
	}
	return s.Value
}

// ruleFields are the keys of a rule that say something.
func ruleFields(r policy.Rule) map[string]string {
	fields := map[string]string{"action": string(r.Action)}
	for key, value := range map[string]string{"fromnode": r.FromNode, "tonode": r.ToNode, "fromservice": r.FromService, "toservice": r.ToService} {
		if value != "" {
			fields[key] = value
		}
	}
	return fields
}

// WriteEffective writes the configuration as a file that would give the same one, secrets apart.
func WriteEffective(w io.Writer, c *Config) error {
	list := &yaml.Node{Kind: yaml.SequenceNode}
	for _, d := range c.Directives {
		params := &yaml.Node{Kind: yaml.MappingNode}
		for _, s := range d.Settings() {
			params.Content = append(params.Content, textNode(s.Name), valueNode(s.shown()))
		}
		item := textNode(d.Name)
		if len(params.Content) > 0 {
			item = &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{item, params}}
		}
		list.Content = append(list.Content, item)
	}
	var b bytes.Buffer
	b.WriteString("---\n")
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(list); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

// textNode is text, in quotes where a YAML 1.1 parser would read something else.
func textNode(s string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	if resolvePlain(s).kind != stringScalar {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

func valueNode(v any) *yaml.Node {
	switch v := v.(type) {
	case string:
		return textNode(v)
	case float64:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: strconv.FormatFloat(v, 'f', -1, 64)}
	case nil:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: "null"}
	}
	switch value := reflect.ValueOf(v); value.Kind() {
	case reflect.Slice:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range value.Len() {
			n.Content = append(n.Content, valueNode(value.Index(i).Interface()))
		}
		if value.Len() == 0 {
			n.Style = yaml.FlowStyle
		}
		return n
	case reflect.Map:
		n := &yaml.Node{Kind: yaml.MappingNode}
		keys := value.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, key := range keys {
			n.Content = append(n.Content, textNode(key.String()), valueNode(value.MapIndex(key).Interface()))
		}
		return n
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Value: fmt.Sprint(v)}
}

// Fingerprint is equal for directives that mean the same.
func (d Directive) Fingerprint() string {
	spec := lookup(d.Name)
	section := spec.pointer(d.Section)
	values := make([]any, len(spec.params))
	for i := range spec.params {
		values[i] = spec.params[i].get(section)
	}
	b, err := json.Marshal(values)
	if err != nil { // A cost or a dictionary that JSON cannot say.
		b = fmt.Append(nil, values)
	}
	return d.Name + " " + string(b)
}
