package policy

import (
	"fmt"
	"maps"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// Rule is one rule as it is written. Empty patterns are not given.
type Rule struct {
	Action      string // "accept", "reject" or "drop", in any letter case. Required.
	FromNode    string
	ToNode      string
	FromService string
	ToService   string
}

// Keys are the keys of a rule in configuration files, which may have any letter case.
var Keys = []string{"action", "fromnode", "tonode", "fromservice", "toservice"}

// Problem is one thing that is wrong with a rule.
type Problem struct {
	Key  string // As written, or one of [Keys].
	Text string // In the words that existing nodes use, where they have some.
	Hint string // What to write instead; may be empty.
}

// RuleError says what is wrong with the rule at index Rule, counted from 0.
type RuleError struct {
	Rule    int
	Problem Problem
}

func (e *RuleError) Error() string {
	return fmt.Sprintf("error in rule %d: %s", e.Rule, e.Problem.Text)
}

// ParseRule makes a rule of the keys and values of a configuration and returns all that is wrong with it.
func ParseRule(fields map[string]any) (Rule, []Problem) {
	var r Rule
	var problems []Problem
	seen := map[string]bool{}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		folded := strings.ToLower(key)
		at := r.field(folded)
		text, isText := fields[key].(string)
		switch {
		case at == nil:
			problems = append(problems, Problem{key, "invalid filewall rule. unknown key: " + key,
				"a rule has the keys " + strings.Join(Keys, ", ")})
		case seen[folded]:
			problems = append(problems, Problem{key, "invalid firewall rule. " + folded + " is given twice", "keys may have any letter case"})
		case !isText:
			problems = append(problems, Problem{key, "invalid firewall rule. " + key + " must be a string", "write it in quotes, or leave it out"})
		default:
			*at = text
		}
		seen[folded] = true
	}
	misread := seen["action"] && r.Action == "" && len(problems) > 0 // Reported already.
	for _, p := range r.Check() {
		if p.Key != "action" || !misread {
			problems = append(problems, p)
		}
	}
	return r, problems
}

// field returns where the value of a key (lower case) is kept, nil for an unknown key.
func (r *Rule) field(key string) *string {
	switch key {
	case "action":
		return &r.Action
	case "fromnode":
		return &r.FromNode
	case "tonode":
		return &r.ToNode
	case "fromservice":
		return &r.FromService
	case "toservice":
		return &r.ToService
	}
	return nil
}

// Check returns all that is wrong with the rule.
func (r Rule) Check() []Problem {
	var problems []Problem
	if _, ok := parseAction(r.Action); !ok {
		problems = append(problems, Problem{"action", "unknown action: " + r.Action, "one of accept, reject, drop"})
	}
	for _, key := range Keys[1:] {
		if _, p := compilePattern(key, *r.field(key)); p != nil {
			problems = append(problems, *p)
		}
	}
	return problems
}

// String returns the rule as a configuration file has it, on one line.
func (r Rule) String() string {
	var b strings.Builder
	for _, key := range Keys {
		if v := *r.field(key); v != "" {
			if b.Len() > 0 {
				b.WriteByte(' ')
			}
			fmt.Fprintf(&b, "%s: %s", key, v)
		}
	}
	return b.String()
}

func parseAction(s string) (Verdict, bool) {
	for v := Accept; v <= Drop; v++ {
		if strings.EqualFold(s, v.String()) {
			return v, true
		}
	}
	return Accept, false
}

// compilePattern returns the regular expression of a pattern, nil if it is plain text.
func compilePattern(key, pattern string) (*regexp.Regexp, *Problem) {
	if !strings.HasPrefix(pattern, "/") {
		return nil, nil
	}
	if len(pattern) < 2 || !strings.HasSuffix(pattern, "/") {
		return nil, &Problem{key, fmt.Sprintf("%s: regular expression %s has no closing slash", key, pattern),
			"a value that begins with / is a regular expression between two slashes"}
	}
	expr, err := regexp.Compile("^" + pattern[1:len(pattern)-1] + "$")
	if err != nil {
		return nil, &Problem{key, fmt.Sprintf("%s: regular expression %s: %s", key, pattern, reasonOf(err)),
			"the syntax is that of https://github.com/google/re2/wiki/Syntax"}
	}
	return expr, nil
}

// reasonOf is what the regular expression parser says, without the expression, which differs from what was written by
// the anchors around it.
func reasonOf(err error) string {
	if e, ok := err.(*syntax.Error); ok {
		return e.Code.String()
	}
	return err.Error()
}
