package config

import (
	"slices"
	"sync"

	"github.com/pyreceptor/pyreceptor/go/policy"
)

// directive describes one directive. The table below is all that the parsers, the help and the completion know.
type directive struct {
	name     string
	help     string
	group    group
	times    multiplicity
	required bool   // A default one is supplied where it is missing.
	hidden   bool   // In neither help nor completion.
	plural   string // Its key in a file of version 2; empty: the name.
	bare     string // Name of the parameter that takes a value without a name; empty: none does.
	params   []param

	fresh   func() any                          // Pointer to a section with the defaults.
	value   func(section any) any               // What such a pointer points to.
	pointer func(section any) any               // The reverse, to a copy.
	check   func(c *checker, e *entry, sec any) // Rules beyond types; may be nil.
}

// group is a part of the help text.
type group uint8

const (
	general group = iota
	resources
	backends
	services
	workers
	certificates
)

var groupTitles = [...]string{
	resources:    "Commands to configure resources that other commands use:",
	backends:     "Commands to configure back-ends, which connect nodes together:",
	services:     "Commands to configure services that run on top of the mesh:",
	workers:      "Commands to configure workers that process units of work:",
	certificates: "Commands to make certificates instead of running a node:",
}

type multiplicity uint8

const (
	repeatable multiplicity = iota
	once
	alone // Must be the only directive.
)

// kind is the type of a parameter.
type kind uint8

const (
	kindString kind = iota
	kindInt
	kindFloat
	kindBool
	kindList  // []string
	kindCosts // map[string]float64
	kindRules // []policy.Rule
	kindDict  // map[string]any
	kindDicts // []map[string]any
)

var kindLabels = [...]string{
	kindString: "string",
	kindInt:    "int",
	kindFloat:  "float64",
	kindBool:   "bool",
	kindList:   "[]string (may be repeated)",
	kindCosts:  "JSON dict of string to float64",
	kindRules:  "JSON list of dicts",
	kindDict:   "JSON dict with string keys",
	kindDicts:  "JSON list of dicts",
}

// goTypes are the type names in error texts.
var goTypes = [...]string{
	kindString: "string",
	kindInt:    "int",
	kindFloat:  "float64",
	kindBool:   "bool",
	kindList:   "[]string",
	kindCosts:  "map[string]float64",
	kindRules:  "[]map[string]string",
	kindDict:   "map[string]interface {}",
	kindDicts:  "[]map[string]interface {}",
}

// param describes one parameter. Values are string, int, float64, bool, []string, map[string]float64, []policy.Rule,
// map[string]any or []map[string]any by kind.
type param struct {
	name     string
	help     string
	kind     kind
	required bool
	def      string   // Default in the help where the section's own default does not tell.
	naming   bool     // Its value tells this directive from others of its kind.
	secret   bool     // Its value is not shown.
	octal    bool     // An int that is written in octal.
	choices  []string // All that a string may be, in lower case; nil: anything.
	least    int      // An int's smallest and largest value where most is more.
	most     int
	set      func(section, value any)
	get      func(section any) any
}

func (p param) need() param { p.required = true; return p }

func (p param) shown(def string) param { p.def = def; return p }

// names marks what tells directives of one kind apart, in reports about changes.
func (p param) names() param { p.naming = true; return p }

func (p param) private() param { p.secret = true; return p }

func (p param) mode() param { p.octal, p.least, p.most = true, 0, 0o777; return p }

func (p param) among(words ...string) param { p.choices = words; return p }

func (p param) between(least, most int) param { p.least, p.most = least, most; return p }

// of builds a directive for sections of type S.
func of[S any](d directive, defaults S, check func(c *checker, s *S), params ...param) *directive {
	d.params = params
	d.fresh = func() any { s := defaults; return &s }
	d.value = func(section any) any { return *section.(*S) }
	d.pointer = func(section any) any { s := section.(S); return &s }
	if check != nil {
		d.check = func(c *checker, e *entry, section any) { c.entry = e; check(c, section.(*S)) }
	}
	return &d
}

func text[S any, V ~string](name, help string, at func(*S) *V) param {
	return param{name: name, help: help, kind: kindString,
		set: func(s, v any) { *at(s.(*S)) = V(v.(string)) },
		get: func(s any) any { return string(*at(s.(*S))) }}
}

func number[S any](name, help string, at func(*S) *int) param {
	return param{name: name, help: help, kind: kindInt,
		set: func(s, v any) { *at(s.(*S)) = v.(int) },
		get: func(s any) any { return *at(s.(*S)) }}
}

func float[S any](name, help string, at func(*S) *float64) param {
	return param{name: name, help: help, kind: kindFloat,
		set: func(s, v any) { *at(s.(*S)) = v.(float64) },
		get: func(s any) any { return *at(s.(*S)) }}
}

func boolean[S any](name, help string, at func(*S) *bool) param {
	return param{name: name, help: help, kind: kindBool,
		set: func(s, v any) { *at(s.(*S)) = v.(bool) },
		get: func(s any) any { return *at(s.(*S)) }}
}

func list[S any, V ~string](name, help string, at func(*S) *[]V) param {
	return param{name: name, help: help, kind: kindList,
		set: func(s, v any) { *at(s.(*S)) = retyped[V](v.([]string)) },
		get: func(s any) any { return retyped[string](*at(s.(*S))) }}
}

// retyped converts a list; nil stays nil.
func retyped[To, From ~string](in []From) []To {
	if in == nil {
		return nil
	}
	out := make([]To, len(in))
	for i, text := range in {
		out[i] = To(text)
	}
	return out
}

func costs[S any, K ~string](name, help string, at func(*S) *map[K]float64) param {
	return param{name: name, help: help, kind: kindCosts,
		set: func(s, v any) {
			out := make(map[K]float64)
			for k, cost := range v.(map[string]float64) {
				out[K(k)] = cost
			}
			*at(s.(*S)) = out
		},
		get: func(s any) any {
			out := make(map[string]float64)
			for k, cost := range *at(s.(*S)) {
				out[string(k)] = cost
			}
			return out
		}}
}

func dict[S any](name, help string, at func(*S) *map[string]any) param {
	return param{name: name, help: help, kind: kindDict,
		set: func(s, v any) { *at(s.(*S)) = v.(map[string]any) },
		get: func(s any) any { return *at(s.(*S)) }}
}

func dicts[S any](name, help string, at func(*S) *[]map[string]any) param {
	return param{name: name, help: help, kind: kindDicts,
		set: func(s, v any) { *at(s.(*S)) = v.([]map[string]any) },
		get: func(s any) any { return *at(s.(*S)) }}
}

func firewallRules[S any](name, help string, at func(*S) *[]policy.Rule) param {
	return param{name: name, help: help, kind: kindRules,
		set: func(s, v any) { *at(s.(*S)) = v.([]policy.Rule) },
		get: func(s any) any { return *at(s.(*S)) }}
}

// lookup returns the directive called name (lower case), nil if there is none.
func lookup(name string) *directive {
	all := schema()
	if i := slices.IndexFunc(all, func(d *directive) bool { return d.name == name }); i >= 0 {
		return all[i]
	}
	return nil
}

// param returns the parameter called name (lower case), nil if there is none.
func (d *directive) param(name string) *param {
	if i := slices.IndexFunc(d.params, func(p param) bool { return p.name == name }); i >= 0 {
		return &d.params[i]
	}
	return nil
}

// schema is the table of all directives, group by group. Built when first needed: the process that runs a command never
// needs it.
var schema = sync.OnceValue(func() []*directive {
	return slices.Concat(nodeDirectives(), tlsDirectives(), linkDirectives(), serviceDirectives(), proxyDirectives(), watchDirectives(), workDirectives(), kubernetesDirectives(), signingDirectives(), certificateDirectives())
})
