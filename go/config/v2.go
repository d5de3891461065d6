package config

import (
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// orderV2 is the order in which the directives of a file of version 2 take effect; those not named come last, in the order of
// the help text.
var orderV2 = []string{
	"cert-init", "cert-makereq", "cert-signreq", "node", "trace", "log-level", "process", "control-service", "tls-client", "tls-server",
	"work-command", "work-kubernetes", "work-python", "work-signing", "work-verification", "ip-router", "tcp-server", "tcp-client", "udp-server", "udp-client",
	"unix-socket-server", "unix-socket-client", "command-service", "tcp-listener", "udp-listener", "ws-listener", "tcp-peer", "udp-peer", "ws-peer", "local-only",
}

// keyV2 is what a file of version 2 calls a directive.
func (d *directive) keyV2() string {
	switch {
	case d.plural != "":
		return d.plural
	case d.times == repeatable || d.name == "cert-makereq" || d.name == "cert-signreq":
		return d.name + "s"
	}
	return d.name
}

// lookupV2 finds the directive behind a key in lower case: the singular and the plural are understood for each.
func lookupV2(key string) *directive {
	for _, d := range schema() {
		if !d.hidden && d.name != "version" && (key == d.keyV2() || key == d.name || key == d.name+"s") {
			return d
		}
	}
	return nil
}

func keysV2() []string {
	var keys []string
	for _, d := range schema() {
		if !d.hidden && d.name != "version" {
			keys = append(keys, d.keyV2())
		}
	}
	return keys
}

// isVersion2 reports whether a document says that it is of version 2.
func isVersion2(root *yaml.Node) bool {
	if root.Kind != yaml.MappingNode {
		return false
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		if strings.EqualFold(root.Content[i].Value, "version") {
			return target(root.Content[i+1]).Value == "2"
		}
	}
	return false
}

// version2 reads a mapping of kinds of directives to one directive or a list of them.
func (f *fileReader) version2(root *yaml.Node) {
	f.lenient, f.second = true, true
	first := len(f.entries)
	for _, pair := range f.pairs(root, strings.ToLower) {
		key := strings.ToLower(target(pair.key).Value)
		if key == "version" {
			if v := target(pair.value).Value; v != "2" && v != "1" {
				f.fail(pair.value, "this program knows the versions 1 and 2", "version %s is not known", shown(target(pair.value)))
			}
			continue
		}
		d := lookupV2(key)
		if d == nil {
			f.warn(f.at(pair.key), didYouMean(key, keysV2()), "unknown key %s is ignored", target(pair.key).Value)
			continue
		}
		f.kindV2(d, pair)
	}
	slices.SortStableFunc(f.entries[first:], func(a, b *entry) int { return rankV2(a) - rankV2(b) })
}

func rankV2(e *entry) int {
	if i := slices.Index(orderV2, e.spec.name); i >= 0 {
		return i
	}
	return len(orderV2)
}

// kindV2 reads what stands behind one key.
func (f *fileReader) kindV2(d *directive, p pair) {
	value := target(p.value)
	switch {
	case resolve(value).kind == nullScalar:
		if d.name == "local-only" { // In the other format it is there without a value.
			f.warn(f.at(p.key), "write local-only: {local: true}", "local-only without a value is ignored")
		}
	case value.Kind == yaml.SequenceNode && d.times != once:
		for _, item := range value.Content {
			if !f.spend(1, item) {
				return
			}
			f.itemV2(d, item, item)
		}
	default:
		f.itemV2(d, p.key, value)
	}
}

func (f *fileReader) itemV2(d *directive, at, value *yaml.Node) {
	t := target(value)
	if s := resolve(t); t.Kind != yaml.MappingNode && (s.kind != stringScalar || d.bare == "") {
		kind := map[scalarKind]string{notScalar: "list", nullScalar: "nothing", boolScalar: "bool", intScalar: "int", floatScalar: "float64", stringScalar: "string"}[s.kind]
		f.fail(value, "write its parameters below it, indented", "'%s' expected a map, got '%s'", d.keyV2(), kind)
		return
	}
	e := f.open(d, d.name, f.at(at))
	f.values(e, value)
	f.adaptV2(e)
	f.checkMissing(e)
}

// adaptV2 gives values the meaning that they have in version 2 alone.
func (f *fileReader) adaptV2(e *entry) {
	for i := range e.spec.params {
		q := &e.spec.params[i]
		if q.name == "cost" && e.has("cost") && q.get(e.section) == 0.0 {
			q.set(e.section, 1.0)
		}
	}
	switch s := e.section.(type) {
	case *TLSClient:
		if !e.has("cert") && !e.has("key") {
			e.given["cert"], e.given["key"] = e.pos, e.pos
		}
	case *ControlService:
		if s.Service == "" {
			s.Service = "control"
		}
	case *LocalOnly:
		if e.has("local") && !s.Local {
			f.entries = slices.DeleteFunc(f.entries, func(other *entry) bool { return other == e })
		}
	}
}

// argsV2 reads a command line of the second grammar, which knows a file and little else.
func (p *parser) argsV2(args []string, home string) Action {
	action, path, given, stray := Run, "", false, ""
	for i := 0; i < len(args); i++ {
		token := args[i]
		name, value, joined := strings.Cut(token, "=")
		switch {
		case token == "--help" || token == "-h":
			return ShowHelp
		case token == "--version":
			return ShowVersion
		case token == "--check":
			action = Check
		case token == "--show-config":
			action = ShowEffective
		case name == "--config" && joined:
			path, given = value, true
		case name == "--config" && i+1 < len(args):
			i++
			path, given = args[i], true
		case name == "--config":
			p.problem(Position{Arg: i + 1}, "write --config FILE", "flag needs an argument: --config")
			return action
		case strings.HasPrefix(token, "-"):
			p.problem(Position{Arg: i + 1}, "with --config-v2 there are --config FILE, --check, --show-config, --version and --help", "unknown flag: %s", name)
			return action
		default:
			stray = token
		}
	}
	if !given {
		if home == "" || !isFileAt(home+"/receptor.yaml") {
			hint := ""
			if stray != "" {
				hint = "write --config " + stray
			}
			p.problem(Position{}, hint, "Could not locate config file (default is $HOME/receptor.yaml)")
			return action
		}
		path = home + "/receptor.yaml"
	}
	p.file(path)
	return action
}

// Second reports whether the configuration is of version 2: asked for with --config-v2, or by a file that says so.
func (c *Config) Second() bool { return c.second }

// oneLineOf is the number of a line in the text of a YAML error, 0 if it has none.
func oneLineOf(text string) int {
	_, rest, ok := strings.Cut(text, "yaml: line ")
	if !ok {
		return 0
	}
	digits, _, _ := strings.Cut(rest, ":")
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0
	}
	return n
}
