package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const secondYAML = `---
version: 2
Node: {ID: foo, datadir: /d, receptorkubeclientsetqps: 5}
log-level: {level: debug}
local-only: {local: true}
tcp-peers:
  - {address: "h:1", cost: 0}
  - address: "h:2"
    nodecosts: {x: 1}
tcp-listeners: {port: 2222, nodecost: {Hub: 2}}
control-services: [{service: "", filename: /s}]
tls-clients: [{name: c}]
work-commands: [{worktype: w, command: cat}]
iprouters: [{networkname: net, localnet: 10.0.0.0/30}]
tcp-serverz: []
`

const secondJSON = `{
	"version": 2,
	"node": {"id": "f\u00f6\ud83d\ude00", "firewallrules": [{"action": "drop", "toservice": "yes"}]},
	"tcp-peers": [{"address": "h:1", "redial": false, "cost": 2.5}],
	"tcp-listeners": [
		{"port": 1}, {"port": 2, "allowedpeers": []}
	]
}`

const secondTOML = `version = 2
[node]
id = "foo"
[local-only]
local = true
[[tcp-peers]]
address = "h:1"
[[tcp-peers]]
address = "h:2"
cost = 3
allowedpeers = ["a", "yes"]
[tcp-listeners]
port = 0o21
nodecost = {a = 1.5}
`

func TestF199F203SecondFormat(t *testing.T) {
	cfg := mustLoad(t, secondYAML)
	if got, want := names(cfg), "node log-level control-service tls-client work-command ip-router tcp-listener tcp-peer tcp-peer local-only"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	var costs []float64
	for _, p := range All[TCPPeer](cfg) {
		costs = append(costs, p.Cost)
	}
	if costs[0] != 1 || costs[1] != 1 || one[TCPListener](t, cfg).NodeCost["Hub"] != 2 || one[ControlService](t, cfg).Service != "control" {
		t.Errorf("got %+v", cfg.Directives)
	}
	var warnings []string
	for _, w := range cfg.Warnings {
		warnings = append(warnings, w.Text)
	}
	if got, want := strings.Join(warnings, "; "), "tcp-peer: unknown key nodecosts is ignored; unknown key tcp-serverz is ignored"; got != want {
		t.Errorf("got warnings %q, want %q", got, want)
	}
	if !cfg.Second() {
		t.Error("it does not know that it is of version 2")
	}
}

func TestF201FormatsByExtension(t *testing.T) {
	for name, text := range map[string]string{"c.json": secondJSON, "c.toml": secondTOML, "c.yaml": secondYAML, "c.conf": secondYAML, "C.JSON": secondJSON} {
		path := write(t, name, text)
		for _, args := range [][]string{{"--config", path}, {"--config-v2", "--config", path}, {"--config=" + path, "extra", "--config-v2"}} {
			cfg, err := ParseArgs(args)
			if strings.HasPrefix(args[0], "--config=") && err == nil && len(cfg.Files) != 1 || err != nil {
				t.Errorf("%v: %v", args, err)
				continue
			}
			if cfg.Node().ID == "" || cfg.Files[0] != path || !cfg.Second() {
				t.Errorf("%v: got %+v", args, cfg)
			}
		}
	}
	node := mustParse(t, "-c", write(t, "c.json", secondJSON)).Node()
	if node.ID != "fö😀" || node.FirewallRules[0].ToService != "yes" {
		t.Errorf("got %+v", node)
	}
	cfg := mustParse(t, "-c", write(t, "c.toml", secondTOML))
	if l := one[TCPListener](t, cfg); l.Port != 17 || l.NodeCost["a"] != 1.5 {
		t.Errorf("got %+v", l)
	}
	if got := mustParse(t, "-c", write(t, "list.json", `[{"node": "a"}, "local-only"]`)); names(got) != "node local-only" {
		t.Errorf("got %q", names(got))
	}
}

func TestF204KubernetesSettings(t *testing.T) {
	for _, cfg := range []*Config{mustLoad(t, secondYAML), mustLoad(t, "- node: {id: a, receptorkubeclientsetqps: 5}\n")} {
		if got := cfg.Node().KubeQPS; got != "5" {
			t.Errorf("got %q", got)
		}
	}
}

func TestSecondFormatErrorsNameTheirPlace(t *testing.T) {
	for name, tc := range map[string]struct{ file, text, want string }{
		"required":     {"c.yml", "version: 2\nnode: {id: a}\ntcp-listeners:\n- cost: 1\n", "error loading config file: error in tcp-listener: required parameter missing: port (@:4:3)"},
		"map expected": {"c.yml", "version: 2\nwork-commands: yes\n", "error loading config file: 'work-commands' expected a map, got 'bool' (@:2:16; "},
		"value":        {"c.yml", "version: 2\ntcp-listeners: [{port: x}]\n", `error loading config file: error setting field port in command tcp-listener: strconv.ParseInt: parsing "x": invalid syntax (@:2:24)`},
		"version":      {"c.yml", "version: 2\nVersion: 2\n", `error loading config file: key "Version" is already set at line 1 (@:2:1)`},
		"json value":   {"c.json", "{\"version\": 2,\n \"tcp-peers\": [{\"address\": \"h:1\", \"cost\": \"x\"}]}", `error loading config file: error setting field cost in command tcp-peer: strconv.ParseFloat: parsing "x": invalid syntax (@:2:43)`},
		"json syntax":  {"c.json", "{\"version\": 2,\n \"tcp-peers\": [}", "error loading config file: json: invalid character '}' looking for beginning of value (@:2:16)"},
		"json trailer": {"c.json", "{\"version\": 2} x", "error loading config file: json: "},
		"toml value":   {"c.toml", "version = 2\n[[tcp-peers]]\naddress = \"h:1\"\n[[tcp-peers]]\naddress = \"h:2\"\ncost = \"x\"\n", `error loading config file: error setting field cost in command tcp-peer: strconv.ParseFloat: parsing "x": invalid syntax (@:6:1)`},
		"toml syntax":  {"c.toml", "version = 2\nnode = {\n", "error loading config file: toml: "},
		"toml inline":  {"c.toml", "version = 2\nnode.id = \"a\"\ntcp-peers = [{address = \"h:1\"}, {adress = \"h\"}]\n", "error loading config file: error in tcp-peer: required parameter missing: address (@:3:"},
		"yaml syntax":  {"c.yml", "version: 2\nnode: {\n", "error loading config file: yaml: line "},
		"list":         {"c.yml", "- node: a\n", "error loading config file: yaml: unmarshal errors:\n  line 1: cannot unmarshal !!seq into map[string]interface {} (@:1:1; a file of version 2 is a mapping"},
	} {
		path := write(t, tc.file, tc.text)
		_, err := ParseArgs([]string{"--config-v2", "--config", path})
		if want := strings.ReplaceAll(tc.want, "@", path); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got error\n%v\nwant\n%s", name, err, want)
		}
	}
}

func TestF200DefaultFile(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	_, err := ParseArgs([]string{"--config-v2"})
	wantError(t, err, "Could not locate config file (default is $HOME/receptor.yaml)")
	_, err = ParseArgs([]string{"--config-v2", "mesh.yaml"})
	wantError(t, err, "Could not locate config file (default is $HOME/receptor.yaml) (write --config mesh.yaml)")
	if err := os.WriteFile(filepath.Join(home, "receptor.yaml"), []byte("node: {id: a}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := mustParse(t, "--config-v2").Node().ID; got != "a" {
		t.Errorf("got ID %q", got)
	}
}

func TestF198SecondGrammar(t *testing.T) {
	for args, want := range map[string]Action{"--config-v2 --help": ShowHelp, "--config-v2 -h": ShowHelp, "--version --config-v2": ShowVersion} {
		if got := mustParse(t, strings.Fields(args)...).Action; got != want {
			t.Errorf("%s: got action %d, want %d", args, got, want)
		}
	}
	_, err := ParseArgs([]string{"--config-v2", "--node", "id=a"})
	wantError(t, err, "unknown flag: --node")
	_, err = ParseArgs([]string{"--config-v2", "-c", "x"})
	wantError(t, err, "unknown flag: -c")
	if cfg := mustLoad(t, "version: 2\nlocal-only: {local: false}\nnode: {id: a}\ntrace:\n"); names(cfg) != "node" {
		t.Errorf("got %q, want node alone", names(cfg))
	}
	cfg := mustLoad(t, "version: 2\nnode: {id: a}\nlocal-only:\n")
	if len(cfg.Warnings) != 1 || !strings.Contains(cfg.Warnings[0].String(), "local-only without a value is ignored") {
		t.Errorf("got the warnings %v, want one of local-only", cfg.Warnings)
	}
	for _, name := range []string{"bom.json", "bom.toml"} {
		text := map[string]string{"bom.json": `["local-only", {"node": "a"}]`, "bom.toml": "version = 2\n[node]\nid = 'a'\n"}[name]
		if got := mustParse(t, "-c", write(t, name, "\ufeff"+text)).Node().ID; got != "a" {
			t.Errorf("%s: got the node %q, want a", name, got)
		}
	}
	if cfg := mustLoad(t, "version: 2\nnode: {id: a}\ncert-makereqs:\n"); cfg.Action != Run {
		t.Errorf("got action %d", cfg.Action)
	}
}

func FuzzTrees(f *testing.F) {
	f.Add("c.json", []byte(secondJSON))
	f.Add("c.toml", []byte(secondTOML))
	f.Add("c.yaml", []byte(secondYAML))
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		p := newParser()
		p.document(name, data)
		cfg, err := p.finish()
		checkResult(t, cfg, err)
	})
}
