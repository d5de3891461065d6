package config

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Action is what the command line asks for.
type Action uint8

// The actions.
const (
	Run             Action = iota // Run a node.
	ShowHelp                      // Print the help text and stop.
	ShowCompletion                // Print the bash completion script and stop.
	ShowVersion                   // Print the version and stop.
	MakeCertificate               // Run the only directive, one of the cert- kind, and stop.
	Check                         // Say what is wrong with the configuration, and stop.
	ShowEffective                 // Print the configuration as it takes effect, and stop.
	ShowZsh                       // Print the completion script for zsh and stop.
	ShowFish                      // Print the completion script for fish and stop.
	ShowSchema                    // Print the JSON schema of configuration files and stop.
	ShowReference                 // Print the reference page and stop.
)

// Position says where something was written.
type Position struct {
	File   string // As it was named; empty on the command line.
	Line   int    // 1-based; 0 means the whole file.
	Column int    // 1-based; 0 means the whole line.
	Arg    int    // Index of the argument on the command line, 1-based; 0 in files and for what nobody wrote.
}

// String returns "file:line:column", "argument N", or "" for what nobody wrote (the implicit node).
func (p Position) String() string {
	switch {
	case p.File != "" && p.Line > 0 && p.Column > 0:
		return p.File + ":" + strconv.Itoa(p.Line) + ":" + strconv.Itoa(p.Column)
	case p.File != "" && p.Line > 0:
		return p.File + ":" + strconv.Itoa(p.Line)
	case p.File != "":
		return p.File
	case p.Arg > 0:
		return "argument " + strconv.Itoa(p.Arg)
	}
	return ""
}

// Directive is one directive with all its parameters.
type Directive struct {
	Name    string // Lower case.
	Pos     Position
	Section any // The typed section by value: [Node], [TCPListener], ...
}

// Config is a complete, checked configuration. Nothing in it may be changed.
type Config struct {
	Action     Action
	Directives []Directive // In the order they were written; an implicit node comes last.
	Files      []string    // The files it was read from, as they were named.
	Warnings   []Problem   // What will surprise, but stops nothing.
	Wrong      *Error      // Of Check: what is wrong with it; Directives are then those in which nothing is.
	ReadAt     time.Time   // Before the first of the files was read.

	args   []string // The command line.
	second bool
}

// Reread reads the same command line and files again.
func (c *Config) Reread() (*Config, error) { return ParseArgs(c.args) }

// All yields the sections of type T in the order they were written.
func All[T any](c *Config) iter.Seq2[Position, T] {
	return func(yield func(Position, T) bool) {
		for _, d := range c.Directives {
			if s, ok := d.Section.(T); ok && !yield(d.Pos, s) {
				return
			}
		}
	}
}

// First returns the first section of type T; ok is false if there is none.
func First[T any](c *Config) (section T, ok bool) {
	for _, s := range All[T](c) {
		return s, true
	}
	return section, false
}

// Node returns the node section; a Config to run always has one.
func (c *Config) Node() Node {
	n, _ := First[Node](c)
	return n
}

// LogLevel returns the level to log at.
func (c *Config) LogLevel() Level { return c.Log().Level }

// Log returns what to log, and how.
func (c *Config) Log() LogLevel {
	if l, ok := First[LogLevel](c); ok {
		return l
	}
	return LogLevel{Level: LevelInfo, Format: "text"}
}

// Trace reports whether to log every packet, at level debug.
func (c *Config) Trace() bool {
	_, ok := First[Trace](c)
	return ok
}

// Process returns how the process behaves.
func (c *Config) Process() Process {
	if p, ok := First[Process](c); ok {
		return p
	}
	return Process{WatchConfig: c.second}
}

// Problem is one thing that is wrong.
type Problem struct {
	Pos  Position
	Text string // What is wrong, in the words that scripts may look for.
	Hint string // What to do about it; may be empty.
}

// String returns the text with position and hint in brackets.
func (p Problem) String() string {
	notes := make([]string, 0, 2)
	if p.Pos.File != "" {
		notes = append(notes, p.Pos.String())
	}
	if p.Hint != "" {
		notes = append(notes, p.Hint)
	}
	if len(notes) == 0 {
		return p.Text
	}
	return fmt.Sprintf("%s (%s)", p.Text, strings.Join(notes, "; "))
}

// Error lists all that is wrong with a configuration, from top to bottom. It is never empty.
type Error struct{ Problems []Problem }

// Error returns one line per problem (a problem's own text may have more).
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// ParseArgs reads a command line without the program's name. Files it names are read at the place where they are named.
func ParseArgs(args []string) (*Config, error) {
	if len(args) == 0 {
		return &Config{Action: ShowHelp}, nil
	}
	if args[0] == "cert" && len(args) > 1 { // cert doctor FILE is --cert-doctor FILE.
		if args[1] == "--help" || args[1] == "-h" {
			return &Config{Action: ShowHelp}, nil
		}
		args = append([]string{"--cert-" + args[1]}, args[2:]...)
	}
	p := newParser()
	p.written = slices.Clone(args)
	var action Action
	if i := slices.Index(args, "--config-v2"); i >= 0 {
		p.second = true
		action = p.argsV2(slices.Concat(args[:i], args[i+1:]), os.Getenv("HOME"))
	} else {
		action = p.args(args)
	}
	switch {
	case action == Check || action == ShowEffective:
		cfg, err := p.finish()
		if wrong, ok := errors.AsType[*Error](err); ok && action == Check {
			return p.partial(wrong), nil
		}
		if err == nil && cfg.Action != ShowVersion {
			cfg.Action = action
		}
		return cfg, err
	case action != Run && len(p.problems) == 0:
		return &Config{Action: action, second: p.second}, nil
	}
	return p.finish()
}

// LoadFile reads one configuration file, as `--config path` alone would.
func LoadFile(path string) (*Config, error) {
	p := newParser()
	p.written = []string{"--config", path}
	p.file(path)
	return p.finish()
}

// parser collects directives and problems from any number of sources.
type parser struct {
	readAt   time.Time
	written  []string // The command line.
	files    []string // Read so far.
	entries  []*entry
	problems []Problem
	warnings []Problem
	second   bool // A file is of version 2, or all must be.
}

// isFileAt reports whether there is something at path.
func isFileAt(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// entry is a directive under construction.
type entry struct {
	spec    *directive
	typed   string // As written, with its dashes.
	pos     Position
	section any // Pointer to the section's struct.
	given   map[string]Position
	broken  bool // A problem was found in it: missing parameters are not reported as well.
}

func newParser() *parser { return &parser{readAt: time.Now()} }

func (p *parser) problem(pos Position, hint, format string, args ...any) {
	p.problems = append(p.problems, Problem{Pos: pos, Text: fmt.Sprintf(format, args...), Hint: hint})
}

func (p *parser) warn(pos Position, hint, format string, args ...any) {
	p.warnings = append(p.warnings, Problem{Pos: pos, Text: fmt.Sprintf(format, args...), Hint: hint})
}

// open appends a directive with its defaults.
func (p *parser) open(d *directive, typed string, pos Position) *entry {
	e := &entry{spec: d, typed: typed, pos: pos, section: d.fresh(), given: make(map[string]Position)}
	p.entries = append(p.entries, e)
	return e
}

// finish applies the rules that span directives and returns the result.
func (p *parser) finish() (*Config, error) {
	p.checkMultiplicity()
	if len(p.problems) > 0 {
		check(p) // All problems at once.
		return nil, p.wrong()
	}
	cfg := &Config{ReadAt: p.readAt, Files: p.files, Warnings: p.warnings, args: p.written, second: p.second}
	if slices.ContainsFunc(p.entries, func(e *entry) bool { return e.spec.name == "version" }) {
		cfg.Action = ShowVersion
		return cfg, nil
	}
	if slices.ContainsFunc(p.entries, func(e *entry) bool { return e.spec.group == certificates }) {
		cfg.Action = MakeCertificate
	} else if !slices.ContainsFunc(p.entries, func(e *entry) bool { return e.spec.name == "node" }) {
		p.open(lookup("node"), "--node", Position{})
	}
	check(p)
	if len(p.problems) > 0 {
		return nil, p.wrong()
	}
	for _, e := range p.entries {
		cfg.Directives = append(cfg.Directives, Directive{Name: e.spec.name, Pos: e.pos, Section: e.spec.value(e.section)})
	}
	return cfg, nil
}

// partial is what can be checked further of a configuration that is wrong: the directives in which nothing is.
func (p *parser) partial(wrong *Error) *Config {
	cfg := &Config{Action: Check, ReadAt: p.readAt, Files: p.files, Wrong: wrong, args: p.written, second: p.second}
	for _, e := range p.entries {
		if !e.broken && e.spec.group != certificates {
			cfg.Directives = append(cfg.Directives, Directive{Name: e.spec.name, Pos: e.pos, Section: e.spec.value(e.section)})
		}
	}
	return cfg
}

// wrong is the error of all problems: those of each file, and of the command line, together and from top to bottom.
func (p *parser) wrong() *Error {
	var sources []string
	for _, problem := range p.problems {
		sources = append(sources, problem.Pos.File)
	}
	slices.SortStableFunc(p.problems, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(slices.Index(sources, a.Pos.File), slices.Index(sources, b.Pos.File)),
			cmp.Compare(a.Pos.Line, b.Pos.Line), cmp.Compare(a.Pos.Column, b.Pos.Column), cmp.Compare(a.Pos.Arg, b.Pos.Arg),
		)
	})
	return &Error{Problems: p.problems}
}

// checkMissing is called when all parameters of e have been read.
func (p *parser) checkMissing(e *entry) {
	if e.broken {
		return
	}
	var missing []string
	for i := range e.spec.params {
		if q := &e.spec.params[i]; q.required && !e.has(q.name) {
			missing = append(missing, q.name)
		}
	}
	if len(missing) == 0 {
		return
	}
	e.broken = true
	word := "parameter"
	if len(missing) > 1 {
		word = "parameters"
	}
	prefix, name := "", e.typed
	if e.pos.File != "" {
		prefix, name = fileError, e.spec.name
	}
	p.problem(e.pos, "", "%serror in %s: required %s missing: %s", prefix, name, word, strings.Join(missing, ", "))
}

func (e *entry) has(param string) bool {
	_, ok := e.given[param]
	return ok
}

func (p *parser) checkMultiplicity() {
	first := make(map[string]*entry)
	for _, e := range p.entries {
		switch e.spec.times {
		case once:
			if f := first[e.spec.name]; f == nil {
				first[e.spec.name] = e
			} else if f.pos.File != "" && f.pos.File == e.pos.File {
				p.problem(e.pos, "first given at line "+strconv.Itoa(f.pos.Line), fileError+"only one %s directive is allowed", e.spec.name)
			} else {
				p.problem(e.pos, "first given at "+f.pos.String(), "directive %q is only allowed once", e.spec.name)
			}
		case alone:
			if len(p.entries) > 1 {
				p.problem(e.pos, "", "cannot specify any other options with %s", e.spec.name)
			}
		}
	}
}
