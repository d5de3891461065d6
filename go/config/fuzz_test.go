package config

import (
	"bytes"
	"strings"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/policy"
)

// checkResult is the property of both parsers: a configuration that holds what it promises, or an error that says
// something.
func checkResult(t *testing.T, cfg *Config, err error) {
	t.Helper()
	switch {
	case err != nil && (cfg != nil || err.Error() == ""):
		t.Fatalf("got %+v with error %q", cfg, err)
	case err != nil || cfg.Action != Run:
		return
	case cfg.Node().ID == "" || cfg.Node().MaxIdle < MinIdle:
		t.Fatalf("got node %+v", cfg.Node())
	}
	if _, err := policy.Compile(cfg.Node().FirewallRules); err != nil {
		t.Fatalf("got rules that do not compile: %v", err)
	}
	for _, l := range All[TCPListener](cfg) {
		if badCost(l.Cost) != "" {
			t.Fatalf("got cost %v", l.Cost)
		}
	}
}

func FuzzYAML(f *testing.F) {
	for _, seed := range []string{
		"- node:\n    id: a\n- local-only\n", "- tcp-listener: {port: 0x10, nodecost: {a: 1.5}, allowedpeers: [a, y, ~]}\n",
		"- &a\n  node: {<<: *a}\n", "- tcp-peer: &p {address: 'h:1'}\n- tcp-peer: {<<: [*p, *p]}\n", "- node: {id: a, firewallrules: [&r {ACTION: drop, tonode: /a|b/}, {<<: *r, action: y}, ~, [x]]}\n", "a: b", "- ? [a]\n  : b\n", "- !!binary aGVsbG8=\n", "- [*x]",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p := newParser()
		p.document("f.yml", bytes.Clone(data))
		cfg, err := p.finish()
		checkResult(t, cfg, err)
	})
}

func FuzzArgs(f *testing.F) {
	for _, seed := range []string{"--node id=a", "-tcp-listener 1 nodecost={\"a\":1} allowedpeers=[\"a\"]", `--node a firewallrules=[{"action":"drop","tonode":"/"}] FIREWALLRULES=[null,{}]`, "--help", "--version --trace", "", "-- - --=x", "--control-service permissions=0660 service="} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, " ")
		for _, a := range args {
			if strings.EqualFold(strings.TrimLeft(a, "-"), "config") || strings.EqualFold(strings.TrimLeft(a, "-"), "c") {
				t.Skip("reads files")
			}
		}
		cfg, err := ParseArgs(args)
		checkResult(t, cfg, err)
	})
}
