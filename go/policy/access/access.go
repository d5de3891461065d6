// Package access says which clients of a control service may use which commands.
//
//	rules, err := access.Compile([]access.Rule{
//		{Commands: []string{"*"}, Listener: "unix", GID: "receptor"},
//		{Commands: []string{"status", "work submit", "work results"}, CertNode: "controller"},
//	})
//	...
//	if !rules.Allow(client, "work submit") { ... }
//
// Rules add up: a client may use a command if one rule that it matches lists it, and nothing else. nil Rules allow
// everything. [Compile] looks names of users and groups up, once; nothing else here makes I/O.
//
// # Decisions
//
// An expression, written between slashes, must match the whole name, alternatives included: /a|b/ is a or b. (In
// firewall rules, where existing configurations rely on it, the alternatives of an expression stand alone.)
package access

import (
	"errors"
	"fmt"
	"maps"
	"os/user"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// Rule allows the clients that match all of its fields to use some commands. Empty fields match every client.
type Rule struct {
	// Commands are names in lower case: "status"; "work", with all its sub-commands; "work submit"; "*". Required.
	Commands []string
	Listener string // "unix", "tcp" or "mesh".
	UID      string // Of the process at the other end of a Unix socket: a number or a name.
	GID      string // The like; its group or one of its supplementary groups.
	Node     string // The node that a stream of the mesh comes from: a name or /expression/.
	CertNode string // A node ID in the client's certificate: a name or /expression/.
}

// Client is who wants to use a command.
type Client struct {
	Listener  string        // "unix", "tcp" or "mesh".
	Local     bool          // UID and Groups are known.
	UID       int           // Of a process on this machine.
	Groups    []int         // Its group, then its supplementary groups.
	Node      wire.NodeID   // Of a stream; "" for none.
	CertNodes []wire.NodeID // In the certificate that the listener has accepted.
}

// String describes the client in a refusal: "user 1000 on the unix socket", "node edge over the mesh", "a client over
// tcp with a certificate of edge".
func (c Client) String() string {
	var b strings.Builder
	switch {
	case c.Local:
		fmt.Fprintf(&b, "user %d on the unix socket", c.UID)
	case c.Listener == "mesh":
		fmt.Fprintf(&b, "node %.100s over the mesh", c.Node)
	case c.Listener == "unix":
		b.WriteString("a client on the unix socket")
	default:
		b.WriteString("a client over " + c.Listener)
	}
	if len(c.CertNodes) > 0 {
		fmt.Fprintf(&b, " with a certificate of %.100s", c.CertNodes[0])
	}
	return b.String()
}

// Rules are compiled rules. They never change and are safe for concurrent use.
type Rules struct{ rules []rule }

type rule struct {
	commands       []string
	listener       string
	uid, gid       int // -1: any.
	node, certNode func(wire.NodeID) bool
}

// RuleError says what is wrong with the rule at index Rule, counted from 0.
type RuleError struct {
	Rule int
	Err  error
}

func (e *RuleError) Error() string { return fmt.Sprintf("error in rule %d: %v", e.Rule, e.Err) }
func (e *RuleError) Unwrap() error { return e.Err }

// Compile checks the rules and reports everything that is wrong with them.
func Compile(rules []Rule) (*Rules, error) {
	var problems error
	compiled := &Rules{rules: make([]rule, len(rules))}
	for i, r := range rules {
		var err error
		if compiled.rules[i], err = compile(r); err != nil {
			problems = errors.Join(problems, &RuleError{i, err})
		}
	}
	if problems != nil {
		return nil, problems
	}
	return compiled, nil
}

func compile(r Rule) (rule, error) {
	out := rule{listener: r.Listener, uid: -1, gid: -1}
	var problems []error
	check := func(err error) {
		if err != nil {
			problems = append(problems, err)
		}
	}
	for _, command := range r.Commands {
		words := strings.Fields(strings.ToLower(command))
		if len(words) == 0 || len(words) > 2 || len(words) == 2 && words[0] != "work" {
			check(fmt.Errorf("commands: %q is no command; write for example status, work submit or *", command))
		}
		out.commands = append(out.commands, strings.Join(words, " "))
	}
	if len(r.Commands) == 0 {
		check(errors.New("commands: required, for example [status, work submit] or *"))
	}
	if !slices.Contains([]string{"", "unix", "tcp", "mesh"}, r.Listener) {
		check(fmt.Errorf("listener: %q is not one of unix, tcp, mesh", r.Listener))
	}
	var err error
	if r.UID != "" {
		out.uid, err = identify(r.UID, func(name string) (string, error) {
			u, err := user.Lookup(name)
			if err != nil {
				return "", err
			}
			return u.Uid, nil
		})
		check(prefixed("uid", err))
	}
	if r.GID != "" {
		out.gid, err = identify(r.GID, func(name string) (string, error) {
			g, err := user.LookupGroup(name)
			if err != nil {
				return "", err
			}
			return g.Gid, nil
		})
		check(prefixed("gid", err))
	}
	out.node, err = nodePattern(r.Node)
	check(prefixed("node", err))
	out.certNode, err = nodePattern(r.CertNode)
	check(prefixed("certnode", err))
	return out, errors.Join(problems...)
}

func prefixed(field string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", field, err)
}

// identify turns a number or a name into a number.
func identify(text string, lookup func(string) (string, error)) (int, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err == nil {
		return int(n), nil
	}
	found, err := lookup(text)
	if err != nil {
		return -1, err
	}
	return strconv.Atoi(found)
}

// nodePattern returns nil for "", which matches everybody.
func nodePattern(text string) (func(wire.NodeID) bool, error) {
	switch {
	case text == "":
		return nil, nil
	case len(text) < 2 || text[0] != '/' || text[len(text)-1] != '/':
		return func(id wire.NodeID) bool { return string(id) == text }, nil
	}
	expr, err := regexp.Compile("^(?:" + text[1:len(text)-1] + ")$")
	if err != nil {
		return nil, fmt.Errorf("regular expression %s: %w", text, err)
	}
	return func(id wire.NodeID) bool { return expr.MatchString(string(id)) }, nil
}

// Allow reports whether the client may use a command: "status", or "work" and its sub-command.
func (r *Rules) Allow(c Client, command string) bool {
	if r == nil {
		return true
	}
	return slices.ContainsFunc(r.rules, func(r rule) bool { return r.lists(command) && r.matches(c) })
}

// Commands returns the names in the rules, sorted, each once: who compiled them may warn of those that do not exist.
func (r *Rules) Commands() []string {
	if r == nil {
		return nil
	}
	var all []string
	for _, r := range r.rules {
		all = append(all, r.commands...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (r rule) lists(command string) bool {
	word, _, _ := strings.Cut(command, " ")
	return slices.ContainsFunc(r.commands, func(c string) bool { return c == "*" || c == command || c == word })
}

func (r rule) matches(c Client) bool {
	switch {
	case r.listener != "" && r.listener != c.Listener,
		r.uid >= 0 && (!c.Local || c.UID != r.uid),
		r.gid >= 0 && (!c.Local || !slices.Contains(c.Groups, r.gid)),
		r.node != nil && (c.Node == "" || !r.node(c.Node)),
		r.certNode != nil && !slices.ContainsFunc(c.CertNodes, r.certNode):
		return false
	}
	return true
}

// Keys are the keys of a rule in configurations, which may have any letter case.
var Keys = []string{"commands", "listener", "uid", "gid", "node", "certnode"}

// Parse makes rules of lists of keys and values, as configurations have them: commands may be a list or a text with
// commas, users and groups may be numbers. It compiles them, too.
func Parse(list []map[string]any) ([]Rule, error) {
	var problems error
	rules := make([]Rule, len(list))
	for i, fields := range list {
		for _, key := range slices.Sorted(maps.Keys(fields)) {
			if err := rules[i].set(strings.ToLower(key), fields[key]); err != nil {
				problems = errors.Join(problems, &RuleError{i, err})
			}
		}
	}
	if problems != nil {
		return nil, problems
	}
	_, err := Compile(rules)
	return rules, err
}

func (r *Rule) set(key string, value any) error {
	text, isText := value.(string)
	number, isNumber := value.(float64)
	switch key {
	case "commands":
		list, isList := value.([]any)
		if !isText && !isList {
			return errors.New("commands: write a list, such as [status, work submit], or a text with commas")
		}
		if isText {
			r.Commands = strings.Split(text, ",")
			return nil
		}
		for _, item := range list {
			name, ok := item.(string)
			if !ok {
				return fmt.Errorf("commands: %v is no text", item)
			}
			r.Commands = append(r.Commands, name)
		}
		return nil
	case "uid", "gid":
		if isNumber && number == float64(int64(number)) {
			text, isText = strconv.FormatInt(int64(number), 10), true
		}
	case "listener", "node", "certnode":
	default:
		return fmt.Errorf("unknown key %s: a rule has the keys %s", key, strings.Join(Keys, ", "))
	}
	if !isText || text == "" { // An empty one would match everybody.
		return fmt.Errorf("%s: %v is no text, or an empty one", key, value)
	}
	switch key {
	case "uid":
		r.UID = text
	case "gid":
		r.GID = text
	case "listener":
		r.Listener = text
	case "node":
		r.Node = text
	case "certnode":
		r.CertNode = text
	}
	return nil
}
