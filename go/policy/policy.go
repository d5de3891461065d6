package policy

import (
	"errors"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// Verdict is what becomes of a packet.
type Verdict uint8

// The verdicts.
const (
	Accept Verdict = iota // It goes on its way.
	Reject                // It is discarded and its sender is told.
	Drop                  // It is discarded.
)

// String returns the name of the action.
func (v Verdict) String() string {
	switch v {
	case Accept:
		return "accept"
	case Reject:
		return "reject"
	case Drop:
		return "drop"
	}
	return strconv.Itoa(int(v))
}

// Policy is a compiled list of rules. A nil Policy accepts everything.
type Policy struct {
	source []Rule
	rules  []rule
	hits   []atomic.Uint64 // By rule, then the default.

	fromNode, toNode       *memory[wire.NodeID]
	fromService, toService *memory[wire.ServiceName]

	otherwise Func // nil: accept.
}

// Func decides about a packet. It is called from many goroutines, once for each packet, and must not wait.
type Func func(from, to wire.NodeID, fromService, toService wire.ServiceName) Verdict

type rule struct {
	verdict                Verdict
	fromNode, toNode       pattern[wire.NodeID]
	fromService, toService pattern[wire.ServiceName]
}

// pattern is what a rule asks of one name.
type pattern[K name] struct {
	kind  kind
	exact K
	expr  int // Index in the field's memory.
}

type kind uint8

const (
	anything kind = iota
	nothing
	exactly
	expression
)

// RuleHits is how many packets one rule has decided.
type RuleHits struct {
	Rule    int  // Counted from 0; -1 is the default.
	Source  Rule // As it was written; {Action: "accept"} for the default, whoever decides there.
	Packets uint64
}

// Compile makes a Policy. The error holds a [*RuleError] for each thing that is wrong.
func Compile(rules []Rule) (*Policy, error) {
	var errs []error
	p := &Policy{
		source: append([]Rule(nil), rules...), rules: make([]rule, len(rules)), hits: make([]atomic.Uint64, len(rules)+1),
		fromNode: newMemory(nodeName), toNode: newMemory(nodeName),
		fromService: newMemory(serviceName), toService: newMemory(serviceName),
	}
	for i, r := range rules {
		problems := r.Check()
		for _, problem := range problems {
			errs = append(errs, &RuleError{i, problem})
		}
		if problems != nil {
			continue
		}
		verdict, _ := parseAction(r.Action)
		p.rules[i] = rule{
			verdict:     verdict,
			fromNode:    compileField(p.fromNode, r.FromNode, nodeOf),
			toNode:      compileField(p.toNode, r.ToNode, nodeOf),
			fromService: compileField(p.fromService, r.FromService, serviceOf),
			toService:   compileField(p.toService, r.ToService, serviceOf),
		}
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	return p, nil
}

// compileField makes a pattern of text that has been checked. exact returns the name that a plain text stands for, false
// if no packet can carry it.
func compileField[K name](m *memory[K], text string, exact func(string) (K, bool)) pattern[K] {
	if text == "" {
		return pattern[K]{kind: anything}
	}
	if expr, _ := compilePattern("", text); expr != nil {
		return pattern[K]{kind: expression, expr: m.add(text, expr)}
	}
	if k, ok := exact(text); ok {
		return pattern[K]{kind: exactly, exact: k}
	}
	return pattern[K]{kind: nothing}
}

func nodeOf(text string) (wire.NodeID, bool) { return wire.NodeID(text), true }

func serviceOf(text string) (wire.ServiceName, bool) {
	s, err := wire.Service(text)
	return s, err == nil && s.String() == text
}

func nodeName(id wire.NodeID) string { return string(id) }

func serviceName(s wire.ServiceName) string { return s.String() }

// Judge decides about a packet and counts it.
func (p *Policy) Judge(from, to wire.NodeID, fromService, toService wire.ServiceName) Verdict {
	if p == nil {
		return Accept
	}
	i, v := p.find(from, to, fromService, toService)
	p.hits[i].Add(1)
	return v
}

// Foresee says what Judge would, without a packet to count.
func (p *Policy) Foresee(from, to wire.NodeID, fromService, toService wire.ServiceName) Verdict {
	if p == nil {
		return Accept
	}
	_, v := p.find(from, to, fromService, toService)
	return v
}

// find returns the rule that decides, or the number of rules if none does.
func (p *Policy) find(from, to wire.NodeID, fromService, toService wire.ServiceName) (int, Verdict) {
	a := subject[wire.NodeID]{memory: p.fromNode, name: from}
	b := subject[wire.NodeID]{memory: p.toNode, name: to}
	c := subject[wire.ServiceName]{memory: p.fromService, name: fromService}
	d := subject[wire.ServiceName]{memory: p.toService, name: toService}
	for i := range p.rules {
		r := &p.rules[i]
		if a.matches(&r.fromNode) && b.matches(&r.toNode) && c.matches(&r.fromService) && d.matches(&r.toService) {
			return i, r.verdict
		}
	}
	if p.otherwise != nil {
		return len(p.rules), p.otherwise(from, to, fromService, toService)
	}
	return len(p.rules), Accept
}

// Otherwise returns a policy with the same rules and counters in which f decides about the packets that no rule matches.
// A nil Policy has no rules. Streams that are open are asked about as well, see Foresee.
func (p *Policy) Otherwise(f Func) *Policy {
	if p == nil {
		p, _ = Compile(nil) // Without rules there is nothing wrong.
	}
	q := *p
	q.otherwise = f
	return &q
}

// Hits returns the counters of all rules in their order, then that of the default.
func (p *Policy) Hits() []RuleHits {
	if p == nil {
		return nil
	}
	out := make([]RuleHits, 0, len(p.hits))
	for i, r := range p.source {
		out = append(out, RuleHits{Rule: i, Source: r, Packets: p.hits[i].Load()})
	}
	return append(out, RuleHits{Rule: -1, Source: Rule{Action: Accept.String()}, Packets: p.hits[len(p.source)].Load()})
}

// Len returns the number of rules.
func (p *Policy) Len() int {
	if p == nil {
		return 0
	}
	return len(p.rules)
}

// String returns the rules, one a line.
func (p *Policy) String() string {
	lines := make([]string, p.Len())
	for i := range lines {
		lines[i] = p.source[i].String()
	}
	return strings.Join(lines, "\n")
}

// subject is one name of the packet that is being judged.
type subject[K name] struct {
	memory *memory[K]
	name   K
	said   []bool // What the field's expressions say about the name; nil: not asked yet.
}

func (s *subject[K]) matches(p *pattern[K]) bool {
	switch p.kind {
	case anything:
		return true
	case exactly:
		return s.name == p.exact
	case expression:
		if s.said == nil {
			s.said = s.memory.ask(s.name)
		}
		return s.said[p.expr]
	default:
		return false
	}
}
