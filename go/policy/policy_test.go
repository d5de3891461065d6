package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

func mustCompile(tb testing.TB, rules ...Rule) *Policy {
	tb.Helper()
	p, err := Compile(rules)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func svc(tb testing.TB, name string) wire.ServiceName {
	tb.Helper()
	s, err := wire.Service(name)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// packet is "from:service to:service".
func judge(tb testing.TB, p *Policy, packet string) Verdict {
	tb.Helper()
	source, target, _ := strings.Cut(packet, " ")
	from, fromService, _ := strings.Cut(source, ":")
	to, toService, _ := strings.Cut(target, ":")
	return p.Judge(wire.NodeID(from), wire.NodeID(to), svc(tb, fromService), svc(tb, toService))
}

func TestF115FirstMatchWinsAndNoMatchAccepts(t *testing.T) {
	p := mustCompile(t,
		Rule{Action: "reject", ToService: "a"},
		Rule{Action: "accept", ToNode: "n"},
		Rule{Action: "drop", ToService: "/./"},
	)
	for packet, want := range map[string]Verdict{
		"m:x n:a": Reject, "m:x n:b": Accept, "m:x o:b": Drop, "m:x o:bb": Accept,
	} {
		if got := judge(t, p, packet); got != want {
			t.Errorf("%s: got %v, want %v", packet, got, want)
		}
	}
	for _, none := range []*Policy{nil, mustCompile(t)} {
		if got := judge(t, none, "m:x n:a"); got != Accept {
			t.Errorf("no rules: got %v, want accept", got)
		}
	}
}

func TestF116Actions(t *testing.T) {
	for action, want := range map[string]Verdict{"accept": Accept, "DROP": Drop, "Reject": Reject} {
		if got := judge(t, mustCompile(t, Rule{Action: action}), "a:x b:y"); got != want || !strings.EqualFold(got.String(), action) {
			t.Errorf("%s: got %v, want %v", action, got, want)
		}
	}
}

func TestF117AllGivenFieldsMustMatch(t *testing.T) {
	rule := Rule{Action: "drop", FromNode: "a", ToNode: "b", FromService: "x", ToService: "y"}
	for packet, want := range map[string]Verdict{
		"a:x b:y": Drop, "A:x b:y": Accept, "c:x b:y": Accept, "a:x c:y": Accept, "a:z b:y": Accept, "a:x b:z": Accept, "b:y a:x": Accept,
	} {
		if got := judge(t, mustCompile(t, rule), packet); got != want {
			t.Errorf("%s: got %v, want %v", packet, got, want)
		}
	}
}

func TestF118F119Patterns(t *testing.T) {
	for _, tc := range []struct {
		pattern string
		matches string // Names, by spaces; "-" is the empty one.
		others  string
	}{
		{"", "a A -", ""},
		{"ab", "ab", "a abc AB b -"},
		{"a.", "a.", "ab"},
		{"a/", "a/", "a"},
		{"/ab/", "ab", "a abc cab AB -"},
		{"/a.*/", "a abc", "ba -"},
		{"/a|b/", "a ax axb xb b", "xa bx xax -"},
		{"/(a|b)/", "a b", "ax xb -"},
		{"/(?i)ab/", "ab AB aB", "abc"},
		{"//", "-", "a"},
		{"/a/b/", "a/b", "a b"},
		{"/[^a]+/", "bcd ü", "bad -"},
		{"/./", "é €", "éé"},
	} {
		p := mustCompile(t, Rule{Action: "drop", FromNode: tc.pattern}, Rule{Action: "reject", ToService: tc.pattern})
		check := func(names string, want bool) {
			for _, name := range strings.Fields(names) {
				name = strings.TrimPrefix(name, "-")
				for range 2 { // The second time from memory.
					node := p.Judge(wire.NodeID(name), "n", svc(t, "s"), svc(t, "NONE")) == Drop
					service := mustCompile(t, Rule{Action: "reject", ToService: tc.pattern}).Judge("n", "n", svc(t, "s"), svc(t, name)) == Reject
					if node != want || service != want {
						t.Errorf("%q on %q: got %v for a node and %v for a service, want %v", tc.pattern, name, node, service, want)
					}
				}
			}
		}
		check(tc.matches, true)
		check(tc.others, false)
	}
}

func TestServiceThatNoPacketCarries(t *testing.T) {
	p := mustCompile(t, Rule{Action: "drop", ToService: "ninebytes"}, Rule{Action: "drop", FromService: "a\x00"}, Rule{Action: "reject", ToService: "/ninebytes|ninebyte/"})
	if got := judge(t, p, "a:a b:ninebyte"); got != Reject {
		t.Errorf("got %v, want reject", got)
	}
}

// TestF234OwnFunction: a program decides about what no rule matches.
func TestF234OwnFunction(t *testing.T) {
	rules, err := Compile([]Rule{{Action: "accept", FromNode: "friend"}})
	if err != nil {
		t.Fatal(err)
	}
	var none *Policy
	a, b := wire.ServiceName{'a'}, wire.ServiceName{'b'}
	hostile := func(from, _ wire.NodeID, _, toService wire.ServiceName) Verdict {
		if from == "friend" || toService == b {
			return Drop
		}
		return Reject
	}
	for _, c := range []struct {
		name string
		p    *Policy
		from wire.NodeID
		to   wire.ServiceName
		want Verdict
	}{
		{"a rule is first", rules.Otherwise(hostile), "friend", b, Accept},
		{"the function is next", rules.Otherwise(hostile), "other", b, Drop},
		{"and sees the packet", rules.Otherwise(hostile), "other", a, Reject},
		{"without rules", none.Otherwise(hostile), "friend", b, Drop},
		{"the policy itself is as it was", rules, "other", b, Accept},
	} {
		if got := c.p.Judge(c.from, "n", a, c.to); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
		if got := c.p.Foresee(c.from, "n", a, c.to); got != c.want {
			t.Errorf("%s: foresees %v, want %v", c.name, got, c.want)
		}
	}
}

func TestF121RuleErrors(t *testing.T) {
	for _, tc := range []struct {
		rule string // key=value, by spaces; a value "5" is a number, "null" is nil.
		want string
	}{
		{"action=allow", "error in rule 1: unknown action: allow"},
		{"fromnode=a", "error in rule 1: unknown action: "},
		{"", "error in rule 1: unknown action: "},
		{"action=drop FromNod=a", "error in rule 1: invalid filewall rule. unknown key: FromNod"},
		{"action=drop fromnode=5", "error in rule 1: invalid firewall rule. fromnode must be a string"},
		{"action=5", "error in rule 1: invalid firewall rule. action must be a string"},
		{"action=drop toservice=null", "error in rule 1: invalid firewall rule. toservice must be a string"},
		{"action=drop ACTION=drop", "error in rule 1: invalid firewall rule. action is given twice"},
		{"action=drop tonode=/", "error in rule 1: tonode: regular expression / has no closing slash"},
		{"action=drop tonode=/abc", "error in rule 1: tonode: regular expression /abc has no closing slash"},
		{"action=drop toservice=/a(/", "error in rule 1: toservice: regular expression /a(/: missing closing )"},
		{"action=x fromservice=/a**/", "error in rule 1: unknown action: x\nerror in rule 1: fromservice: regular expression /a**/: invalid nested repetition operator"},
		{"action=drop fromservice=/a{1001}/", "error in rule 1: fromservice: regular expression /a{1001}/: invalid repeat count"},
	} {
		fields := map[string]any{}
		for _, f := range strings.Fields(tc.rule) {
			key, value, _ := strings.Cut(f, "=")
			fields[key] = map[string]any{"5": 5, "null": nil}[value]
			if value != "5" && value != "null" {
				fields[key] = value
			}
		}
		r, problems := ParseRule(fields)
		var lines []string
		for _, p := range problems {
			lines = append(lines, (&RuleError{1, p}).Error())
			if p.Hint == "" {
				t.Errorf("%s: no hint", tc.rule)
			}
		}
		if got := strings.Join(lines, "\n"); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.rule, got, tc.want)
		}
		if r.Check() != nil { // What is wrong with the rule as such is an error of Compile as well.
			_, err := Compile([]Rule{{Action: "drop"}, r})
			bad, ok := errors.AsType[*RuleError](err)
			if !ok || bad.Rule != 1 || !strings.Contains(err.Error(), "error in rule 1: ") {
				t.Errorf("%s: Compile says %v", tc.rule, err)
			}
		}
	}
}

func TestParseRuleTakesKeysInAnyLetterCase(t *testing.T) {
	r, problems := ParseRule(map[string]any{"ACTION": "Drop", "FromNode": "a", "tonode": "b", "fromservice": "", "toService": "/c/"})
	if want := (Rule{Action: "Drop", FromNode: "a", ToNode: "b", ToService: "/c/"}); r != want || problems != nil {
		t.Errorf("got %+v, %v; want %+v", r, problems, want)
	}
	if got := r.String(); got != "action: Drop fromnode: a tonode: b toservice: /c/" {
		t.Errorf("got %q", got)
	}
}

func TestCompileReportsAllRules(t *testing.T) {
	_, err := Compile([]Rule{{Action: "no"}, {Action: "drop"}, {Action: "drop", ToNode: "/"}})
	want := "error in rule 0: unknown action: no\nerror in rule 2: tonode: regular expression / has no closing slash"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestHits(t *testing.T) {
	p := mustCompile(t, Rule{Action: "drop", FromNode: "a"}, Rule{Action: "reject", FromNode: "/b./"})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 300 { // More names than a set has places.
				for _, packet := range []string{"a:x n:y", fmt.Sprintf("b%d:x n:y", i%10), fmt.Sprintf("c%d:x n:y", i)} {
					judge(t, p, packet)
				}
			}
		})
	}
	wg.Wait()
	var got []uint64
	for _, h := range p.Hits() {
		got = append(got, h.Packets)
	}
	if want := []uint64{1200, 1200, 1200}; !slices.Equal(got, want) {
		t.Errorf("got %d, want %d", got, want)
	}
	if h := p.Hits()[2]; h.Rule != -1 || h.Source.Action != "accept" {
		t.Errorf("got %+v for the default", h)
	}
}

func TestJudgeAllocatesNothing(t *testing.T) {
	for name, rules := range map[string][]Rule{
		"plain":   {{Action: "drop", FromNode: "x", ToService: "y"}, {Action: "drop", ToNode: "z", FromService: "w"}},
		"regular": {{Action: "drop", FromNode: "/x+/", ToService: "/y/"}, {Action: "drop", ToNode: "/[^n]/", FromService: "/(a|b)/"}},
	} {
		p := mustCompile(t, rules...)
		x, y := svc(t, "x"), svc(t, "y")
		if n := testing.AllocsPerRun(100, func() { p.Judge("laptop", "edge", x, y); p.Judge("x", "edge", x, x) }); n != 0 {
			t.Errorf("%s rules: %v allocations per packet, want 0", name, n)
		}
	}
}

// TestMemoryIsBounded: names that somebody invents take the places of others, and long ones are not kept.
func TestMemoryIsBounded(t *testing.T) {
	p := mustCompile(t, Rule{Action: "drop", FromNode: "/.*[02468]/"})
	for i := range 10 * sets * ways {
		want := Accept
		if i%2 == 0 {
			want = Drop
		}
		if got := judge(t, p, fmt.Sprintf("node-%d:x n:y", i)); got != want {
			t.Fatalf("node-%d: got %v, want %v", i, got, want)
		}
	}
	long := strings.Repeat("a", maxRemembered) + "0"
	if got := judge(t, p, long+":x n:y"); got != Drop {
		t.Errorf("long name: got %v, want drop", got)
	}
	kept := 0
	for i := range p.fromNode.sets {
		for j := range p.fromNode.sets[i] {
			if a := p.fromNode.sets[i][j].Load(); a != nil {
				kept++
				if len(a.name) > maxRemembered {
					t.Error("the long name is kept")
				}
			}
		}
	}
	if kept == 0 || kept > sets*ways {
		t.Errorf("%d names are kept, want at most %d", kept, sets*ways)
	}
}

// slow is what rules mean, written down without any preparation.
func slow(rules []Rule, from, to string, fromService, toService wire.ServiceName) Verdict {
	matches := func(pattern, name string) bool {
		expr, _ := compilePattern("", pattern)
		switch {
		case pattern == "":
			return true
		case expr != nil:
			return expr.MatchString(name)
		}
		return pattern == name
	}
	for _, r := range rules {
		if matches(r.FromNode, from) && matches(r.ToNode, to) && matches(r.FromService, fromService.String()) && matches(r.ToService, toService.String()) {
			v, _ := parseAction(r.Action)
			return v
		}
	}
	return Accept
}

func FuzzJudge(f *testing.F) {
	f.Add("drop", "/a|b/", "x", "ping", "axe", "bob")
	f.Add("Reject", "a", "/(?i)svc/", "SVC\x00", "a", "\xff")
	f.Add("accept", "/", "//", "", "", "")
	f.Add("drop", "/(/", "/x{1000}/", "ninebytes", "a", "b")
	f.Fuzz(func(t *testing.T, action, nodePattern, servicePattern, service, from, to string) {
		r, problems := ParseRule(map[string]any{"Action": action, "fromnode": nodePattern, "tonode": "/[^/]*/", "fromservice": servicePattern})
		rules := []Rule{r, {Action: "reject", ToNode: nodePattern}, {Action: "drop", ToService: servicePattern}}
		p, err := Compile(rules)
		if (err == nil) != (problems == nil && rules[1].Check() == nil && rules[2].Check() == nil) {
			t.Fatalf("Compile says %v, ParseRule %v", err, problems)
		}
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an error without text")
			}
			return
		}
		var x, y wire.ServiceName
		copy(x[:], service)
		copy(y[:], from)
		for range 2 {
			if got, want := p.Judge(wire.NodeID(from), wire.NodeID(to), x, y), slow(rules, from, to, x, y); got != want {
				t.Fatalf("%q: %q:%q to %q:%q: got %v, want %v", rules, from, x, to, y, got, want)
			}
		}
	})
}

func TestVerdictNames(t *testing.T) {
	got := map[string]bool{Accept.String(): true, Reject.String(): true, Drop.String(): true, Verdict(9).String(): true}
	if want := []string{"9", "accept", "drop", "reject"}; !slices.Equal(slices.Sorted(maps.Keys(got)), want) {
		t.Errorf("got %v", got)
	}
}

func BenchmarkJudge(b *testing.B) {
	exact, regular := make([]Rule, 20), make([]Rule, 20)
	for i := range exact {
		exact[i] = Rule{Action: "drop", FromNode: fmt.Sprintf("node-%d", i), ToService: "control"}
		regular[i] = Rule{Action: "drop", FromNode: fmt.Sprintf("/node-%d[0-9]/", i), ToService: "/con.*/"}
	}
	x, y := svc(b, "abcdefgh"), svc(b, "control")
	for name, rules := range map[string][]Rule{"exact": exact, "regular": regular} {
		p := mustCompile(b, rules...)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Judge("node-x", "edge", x, y)
			}
		})
	}
}
