package config

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/policy"
)

var twoRules = []policy.Rule{
	{Action: "Accept", FromNode: "/edge-[0-9]+/", ToService: "control"},
	{Action: "reject", ToService: "5"},
}

func TestF115RulesInFile(t *testing.T) {
	for _, text := range []string{
		"- node:\n    id: a\n    firewallrules:\n      - action: Accept\n        FromNode: /edge-[0-9]+/\n        toservice: control\n        tonode: ''\n      - toservice: '5'\n        ACTION: reject\n",
		`- node: {id: a, FirewallRules: [{action: Accept, fromnode: "/edge-[0-9]+/", toservice: control}, {action: reject, toservice: "5"}]}`,
		"- node:\n    id: a\n    firewallrules:\n      - &r {action: Accept, fromnode: '/edge-[0-9]+/', toservice: control}\n      - {<<: *r, action: reject, toservice: !!str 5, fromnode: ''}\n",
	} {
		if got := mustLoad(t, text).Node().FirewallRules; !reflect.DeepEqual(got, twoRules) {
			t.Errorf("%s: got %+v, want %+v", text, got, twoRules)
		}
	}
	for _, text := range []string{"- node: {id: a, firewallrules: }", "- node: {id: a, firewallrules: []}", "- node: {id: a}"} {
		if got := mustLoad(t, text).Node().FirewallRules; len(got) != 0 {
			t.Errorf("%s: got %+v, want no rules", text, got)
		}
	}
}

// On existing nodes rules can only stand in a file.
func TestRulesOnTheCommandLine(t *testing.T) {
	json := `[{"action":"Accept","FromNode":"/edge-[0-9]+/","toservice":"control"},{"action":"reject","toservice":"5","fromnode":""}]`
	got := mustParse(t, "--node", "id=a", "firewallrules=[]", "FirewallRules="+json).Node().FirewallRules
	if !reflect.DeepEqual(got, twoRules) {
		t.Errorf("got %+v, want %+v", got, twoRules)
	}
	if got := mustParse(t, "--node", "id=a", "firewallrules="+json, "firewallrules=[]").Node().FirewallRules; len(got) != 0 {
		t.Errorf("the last value wins: got %+v, want no rules", got)
	}
}

func TestF121RuleErrorsInFile(t *testing.T) {
	for _, tc := range []struct{ rules, want string }{ // Rules begin on line 3.
		{"- {action: allow}", "error in rule 0: unknown action: allow (FILE:4; one of accept, reject, drop)"},
		{"- {action: drop}\n- {}", "error in rule 1: unknown action:  (FILE:5; one of accept, reject, drop)"},
		{"- action: drop\n  formnode: a", "error in rule 0: invalid filewall rule. unknown key: formnode (FILE:5; did you mean fromnode?)"},
		{"- action: drop\n  5: a", "error in rule 0: invalid filewall rule. unknown key: 5 (FILE:5; a rule has the keys action, fromnode, tonode, fromservice, toservice)"},
		{"- action: drop\n  FromNode: 5", "error in rule 0: invalid firewall rule. FromNode must be a string (FILE:5; write it in quotes, or leave it out)"},
		{"- {action: drop, tonode: yes}", "error in rule 0: invalid firewall rule. tonode must be a string"},
		{"- {action: drop, tonode: }", "error in rule 0: invalid firewall rule. tonode must be a string"},
		{"- {action: drop, tonode: [a]}", "error in rule 0: invalid firewall rule. tonode must be a string"},
		{"- {action: drop, tonode: a, ToNode: b}", `error loading config file: key "ToNode" is already set at line 4`},
		{"- {action: drop, tonode: /}", "error in rule 0: tonode: regular expression / has no closing slash (FILE:4; a value that begins with / is"},
		{"- {action: drop, tonode: /a}", "error in rule 0: tonode: regular expression /a has no closing slash"},
		{"- action: drop\n  tonode: /(a/", "error in rule 0: tonode: regular expression /(a/: missing closing ) (FILE:5; "},
		{"- {action: drop}\n- ~", "error in rule 1: invalid firewall rule. ~ is not a mapping (FILE:5; a rule is a mapping"},
		{"- drop", "error in rule 0: invalid firewall rule. drop is not a mapping"},
		{"- {action: x}\n- {action: drop, tonode: /}\n- {action: z}", "error in rule 0: unknown action: x (FILE:4; one of accept, reject, drop)\nerror in rule 1: tonode: regular expression / has no closing slash (FILE:5; a value that begins with / is a regular expression between two slashes)\nerror in rule 2: unknown action: z"},
		{"action: drop", "error loading config file: error setting field firewallrules in command node: type error (expected []map[string]string) (FILE:4; "},
	} {
		text := "- node:\n    id: a\n    firewallrules:\n      " + strings.ReplaceAll(tc.rules, "\n", "\n      ") + "\n"
		path := write(t, "f.yml", text)
		_, err := LoadFile(path)
		if err != nil {
			err = errors.New(columns.ReplaceAllString(err.Error(), "$1"))
		}
		wantError(t, err, strings.ReplaceAll(tc.want, "FILE", path))
	}
}

func TestF121RuleErrorsOnTheCommandLine(t *testing.T) {
	for _, tc := range []struct{ json, want string }{
		{`[{"action":"x"}]`, "error in rule 0: unknown action: x (one of accept, reject, drop)"},
		{`[{"action":"drop"},null]`, "error in rule 1: invalid firewall rule. null is not a mapping"},
		{`[{"action":"drop","toservce":"a"}]`, "error in rule 0: invalid filewall rule. unknown key: toservce (did you mean toservice?)"},
		{`[{"action":"drop","toservice":5}]`, "error in rule 0: invalid firewall rule. toservice must be a string"},
		{`[{"action":"drop","toservice":"/"}]`, "error in rule 0: toservice: regular expression / has no closing slash"},
		{`[{"action":"drop","tonode":"a","TONODE":"b"}]`, "error in rule 0: invalid firewall rule. tonode is given twice"},
		{`[{]`, "error setting config value for field firewallrules: invalid JSON list: "},
		{`{"action":"drop"}`, "error setting config value for field firewallrules: type error (expected []map[string]string) (write a JSON list, as in "},
		{``, "error setting config value for field firewallrules: type error"},
	} {
		_, err := ParseArgs([]string{"--node", "id=a", "firewallrules=" + tc.json})
		wantError(t, err, tc.want)
	}
}
