package config

import (
	"os"
	"strings"
)

// argReader reads a command line from left to right.
type argReader struct {
	*parser
	current *entry   // The directive that values belong to, nil where none is open.
	action  Action   // What to do in place of running.
	skip    bool     // The directive was unknown: its values are passed over.
	files   []int    // Positions of --config whose file name has not come yet.
	lists   listVals // Of the current directive.
}

type listVals map[string][]string

// args reads a command line and says what it asks for.
func (p *parser) args(args []string) Action {
	r := &argReader{parser: p, lists: make(listVals)}
	for i, token := range args {
		pos := Position{Arg: i + 1}
		switch {
		case token == "":
			p.problem(pos, "to give an empty value name the parameter, as in id=", "empty argument at position %d", pos.Arg)
		case token[0] == '-':
			if action := r.open(token, pos); action != Run {
				return action
			}
		case len(r.files) > 0:
			r.files = r.files[1:]
			r.closeCurrent()
			p.file(token)
		case r.skip:
		case r.current == nil:
			p.problem(pos, orphanHint(token), "parameter specified before command")
			r.skip = true
		default:
			r.value(token, pos)
		}
	}
	r.closeCurrent()
	for _, arg := range r.files {
		p.problem(Position{Arg: arg}, "write --config FILE", "no file name given for --config")
	}
	return r.action
}

// open handles a token that begins with a dash.
func (r *argReader) open(token string, pos Position) Action {
	switch strings.ToLower(token) {
	case "--help", "-h":
		return ShowHelp
	}
	name := strings.ToLower(strings.TrimPrefix(strings.TrimPrefix(token, "-"), "-"))
	switch name {
	case "bash-completion":
		return ShowCompletion
	case "zsh-completion":
		return ShowZsh
	case "fish-completion":
		return ShowFish
	case "json-schema":
		return ShowSchema
	case "reference":
		return ShowReference
	case "check", "show-config":
		r.closeCurrent()
		r.action = Check
		if name == "show-config" {
			r.action = ShowEffective
		}
		return Run
	case "config", "c":
		r.files = append(r.files, pos.Arg)
		return Run
	}
	r.closeCurrent()
	d := lookup(name)
	if d == nil {
		r.skip = true
		r.problem(pos, directiveHint(name), "command error: unknown config type %s", name)
		return Run
	}
	r.current = r.parser.open(d, token, pos)
	return Run
}

// orphanHint says what a word may have been meant as that belongs to no directive.
func orphanHint(token string) string {
	name := strings.ToLower(token)
	for _, word := range builtIn {
		if word.name == "--"+name {
			return "did you mean " + word.name + "?"
		}
	}
	switch _, err := os.Stat(token); {
	case name == "cert":
		return "write cert doctor FILE, or cert mesh DIR node=ID"
	case lookup(name) != nil:
		return "did you mean --" + name + "?"
	case err == nil:
		return "a file is given as --config " + token
	}
	return "a directive begins with two dashes; receptor --help lists them"
}

// closeCurrent ends the directive that values belong to.
func (r *argReader) closeCurrent() {
	if r.current != nil {
		r.checkMissing(r.current)
	}
	r.current, r.skip, r.lists = nil, false, make(listVals)
}

func directiveHint(name string) string {
	if before, after, ok := strings.Cut(name, "="); ok {
		return "write --" + before + " " + after
	}
	names := directiveNames()
	for _, word := range builtIn {
		names = append(names, word.name[len("--"):])
	}
	best := nearest(name, names)
	switch {
	case best == "":
		return ""
	case lookup(best) == nil:
		return "did you mean --" + best + "?"
	}
	return "did you mean " + best + "?"
}

// value handles a token that belongs to the current directive.
func (r *argReader) value(token string, pos Position) {
	e := r.current
	name, text, named := strings.Cut(token, "=")
	if !named {
		name, text = e.spec.bare, token
		if name == "" {
			e.broken = true
			r.problem(pos, bareHint(e), "config error: command does not allow bare values")
			return
		}
	}
	q := e.spec.param(strings.ToLower(name))
	if q == nil {
		e.broken = true
		r.problem(pos, paramHint(e, name), "config error: unknown field name %s", name)
		return
	}
	if q.kind == kindRules {
		r.firewallRules(e, q, name, text, pos)
		return
	}
	v, err := fromText(q.kind, text, r.lists[q.name])
	if err != nil {
		e.broken = true
		r.problem(pos, hintOf(err), "error setting config value for field %s: %s", name, err)
		return
	}
	if l, ok := v.([]string); ok {
		r.lists[q.name] = l
	}
	q.set(e.section, v)
	e.given[q.name] = pos
}

func bareHint(e *entry) string {
	if len(e.spec.params) == 0 {
		return e.spec.name + " has no parameters"
	}
	return e.spec.name + " has the parameters " + strings.Join(e.spec.paramNames(), ", ")
}

func paramHint(e *entry, name string) string {
	if hint := didYouMean(name, e.spec.paramNames()); hint != "" {
		return hint
	}
	return bareHint(e)
}
