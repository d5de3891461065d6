package config

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/pyreceptor/pyreceptor/go/policy"
)

const ruleHint = "a rule is a mapping with the keys action, fromnode, tonode, fromservice, toservice"

// firewallRules reads a JSON list of rules from a command line.
func (r *argReader) firewallRules(e *entry, q *param, name, text string, pos Position) {
	if !strings.HasPrefix(text, "[") {
		e.broken = true
		r.problem(pos, `write a JSON list, as in [{"action":"drop","fromnode":"a"}]`, "error setting config value for field %s: %s", name, typeError(kindRules))
		return
	}
	var items []any
	if err := json.Unmarshal([]byte(text), &items); err != nil {
		e.broken = true
		r.problem(pos, "a value that begins with [ is read as JSON", "error setting config value for field %s: invalid JSON list: %v", name, err)
		return
	}
	rules := make([]policy.Rule, len(items))
	for i, item := range items {
		fields, ok := item.(map[string]any)
		if !ok {
			e.broken = true
			r.problem(pos, ruleHint, "error in rule %d: invalid firewall rule. %s is not a mapping", i, jsonText(item))
			continue
		}
		rules[i] = r.firewallRule(e, i, fields, func(string) Position { return pos })
	}
	q.set(e.section, rules)
	e.given[q.name] = pos
}

// firewallRules reads a YAML list of rules, the parameter called name. Nothing after the name is no rule.
func (f *fileReader) firewallRules(e *entry, q *param, name string, value *yaml.Node) {
	list := target(value)
	if resolve(list).kind == nullScalar {
		return
	}
	if list.Kind != yaml.SequenceNode {
		e.broken = true
		f.fail(value, "begin each rule with \"- \"", "error setting field %s in command %s: %s", name, e.spec.name, typeError(kindRules))
		return
	}
	rules := make([]policy.Rule, 0, len(list.Content))
	for i, item := range list.Content {
		if !f.spend(1, item) {
			e.broken = true
			break
		}
		mapping := target(item)
		if mapping.Kind != yaml.MappingNode {
			e.broken = true
			f.problem(f.at(item), ruleHint, "error in rule %d: invalid firewall rule. %s is not a mapping", i, shown(mapping))
			continue
		}
		rules = append(rules, f.yamlRule(e, i, item, mapping))
	}
	q.set(e.section, rules)
	e.given[q.name] = f.at(value)
}

// yamlRule reads the rule at index i.
func (f *fileReader) yamlRule(e *entry, i int, item, mapping *yaml.Node) policy.Rule {
	fields, lines := map[string]any{}, map[string]Position{}
	for _, pair := range f.pairs(mapping, strings.ToLower) {
		key, value := target(pair.key), target(pair.value)
		fields[key.Value], lines[key.Value] = nil, f.at(pair.key)
		if s := resolve(value); s.kind == stringScalar {
			fields[key.Value] = s.text
		}
	}
	return f.firewallRule(e, i, fields, func(key string) Position {
		if at, ok := lines[key]; ok {
			return at
		}
		return f.at(item)
	})
}

// firewallRule makes the rule at index i of its fields and reports what is wrong with it; at says where a field stands.
func (p *parser) firewallRule(e *entry, i int, fields map[string]any, at func(key string) Position) policy.Rule {
	rule, problems := policy.ParseRule(fields)
	for _, problem := range problems {
		e.broken = true
		hint := problem.Hint
		if !slices.Contains(policy.Keys, strings.ToLower(problem.Key)) {
			hint = cmp.Or(didYouMean(problem.Key, policy.Keys), hint)
		}
		p.problem(at(problem.Key), hint, "%s", &policy.RuleError{Rule: i, Problem: problem})
	}
	return rule
}
