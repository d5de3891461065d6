package config

import (
	"encoding/json"
	"io"

	"github.com/pyreceptor/pyreceptor/go/policy"
)

// object is a JSON object.
type object = map[string]any

// WriteJSONSchema writes the schema of configuration files of both formats, for editors that complete and check them.
func WriteJSONSchema(w io.Writer) error {
	defs, items, keys := object{}, []any{}, object{"version": object{"const": 2, "description": "The format of this file"}}
	var bare []string
	for _, d := range schema() {
		if d.hidden {
			continue
		}
		defs[d.name] = d.jsonSchema()
		ref := object{"$ref": "#/$defs/" + d.name}
		forms := []any{ref, object{"type": "null"}}
		if d.bare != "" {
			forms = append(forms, object{"type": "string", "description": "the " + d.bare})
		}
		items = append(items, object{
			"type": "object", "required": []string{d.name}, "additionalProperties": false,
			"properties": object{d.name: object{"description": d.help, "anyOf": forms}},
		})
		if !d.needs() {
			bare = append(bare, d.name)
		}
		if d.name == "version" {
			continue
		}
		second := object{"description": d.help, "anyOf": forms}
		if d.times != once {
			second["anyOf"] = append(forms[:len(forms):len(forms)], object{"type": "array", "items": ref})
		}
		keys[d.keyV2()] = second
	}
	items = append(items, object{"enum": bare})
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(object{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"title":   "Receptor configuration",
		"oneOf": []any{
			object{"type": []string{"array", "null"}, "items": object{"anyOf": items}, "description": "The first format: a list of directives"},
			object{"type": "object", "properties": keys, "required": []string{"version"}, "description": "The second format: directives by kind"},
		},
		"$defs": defs,
	})
}

// needs reports whether the directive has parameters that must be given.
func (d *directive) needs() bool {
	for i := range d.params {
		if d.params[i].required {
			return true
		}
	}
	return false
}

func (d *directive) jsonSchema() object {
	properties, defaults := object{}, d.fresh()
	var required []string
	for i := range d.params {
		q := &d.params[i]
		properties[q.name] = q.jsonSchema(defaults)
		if q.required {
			required = append(required, q.name)
		}
	}
	out := object{"type": "object", "description": d.help, "properties": properties, "additionalProperties": false}
	if required != nil {
		out["required"] = required
	}
	return out
}

func (q *param) jsonSchema(defaults any) object {
	s := object{"description": q.help}
	switch q.kind {
	case kindString:
		s["type"] = []string{"string", "integer"}
		if q.choices != nil {
			s = object{"description": q.help, "enum": q.choices}
		}
	case kindInt:
		s["type"] = []string{"integer", "string"}
		if q.most > q.least {
			s["minimum"], s["maximum"] = q.least, q.most
		}
	case kindFloat:
		s["type"] = []string{"number", "string"}
	case kindBool:
		s["type"] = []string{"boolean", "string"}
	case kindList:
		s["anyOf"] = []any{object{"type": "array", "items": object{"type": "string"}}, object{"type": "string"}, object{"type": "null"}}
	case kindCosts:
		s["type"], s["additionalProperties"] = []string{"object", "null"}, object{"type": "number", "exclusiveMinimum": 0}
	case kindDict:
		s["type"] = []string{"object", "null"}
	case kindRules:
		fields := object{}
		for _, key := range policy.Keys {
			fields[key] = object{"type": "string"}
		}
		fields["action"] = object{"enum": []string{"accept", "reject", "drop"}}
		s["type"] = []string{"array", "null"}
		s["items"] = object{"type": "object", "properties": fields, "required": []string{"action"}, "additionalProperties": false}
	}
	switch v := q.get(defaults).(type) {
	case string:
		if v != "" && !q.required {
			s["default"] = v
		}
	case int, bool, float64:
		if !q.required {
			s["default"] = v
		}
	}
	return s
}
