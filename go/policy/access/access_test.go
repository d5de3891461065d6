package access

import (
	"strings"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

func TestAllow(t *testing.T) {
	root := Client{Listener: "unix", Local: true, UID: 0, Groups: []int{0}}
	user := Client{Listener: "unix", Local: true, UID: 1000, Groups: []int{1000, 27}}
	edge := Client{Listener: "mesh", Node: "edge-1"}
	cert := Client{Listener: "tcp", CertNodes: []wire.NodeID{"laptop", "controller"}}
	both := Client{Listener: "mesh", Node: "controller", CertNodes: []wire.NodeID{"controller"}}
	for _, tc := range []struct {
		name    string
		rule    Rule
		client  Client
		command string
		want    bool
	}{
		{"everything", Rule{Commands: []string{"*"}}, edge, "reload", true},
		{"the command", Rule{Commands: []string{"ping", "status"}}, edge, "status", true},
		{"another command", Rule{Commands: []string{"status"}}, edge, "reload", false},
		{"work with all of it", Rule{Commands: []string{"work"}}, edge, "work submit", true},
		{"one sub-command", Rule{Commands: []string{"Work  Submit"}}, edge, "work submit", true},
		{"another sub-command", Rule{Commands: []string{"work submit"}}, edge, "work list", false},
		{"work alone is not covered by a sub-command", Rule{Commands: []string{"work submit"}}, edge, "work", false},
		{"listener", Rule{Commands: []string{"*"}, Listener: "mesh"}, edge, "status", true},
		{"other listener", Rule{Commands: []string{"*"}, Listener: "unix"}, edge, "status", false},
		{"uid", Rule{Commands: []string{"*"}, UID: "1000"}, user, "status", true},
		{"uid 0 is not nobody", Rule{Commands: []string{"*"}, UID: "0"}, edge, "status", false},
		{"user by name", Rule{Commands: []string{"*"}, UID: "root"}, root, "status", true},
		{"other uid", Rule{Commands: []string{"*"}, UID: "root"}, user, "status", false},
		{"gid", Rule{Commands: []string{"*"}, GID: "1000"}, user, "status", true},
		{"supplementary group", Rule{Commands: []string{"*"}, GID: "27"}, user, "status", true},
		{"gid over the mesh", Rule{Commands: []string{"*"}, GID: "0"}, edge, "status", false},
		{"node", Rule{Commands: []string{"*"}, Node: "edge-1"}, edge, "status", true},
		{"other node", Rule{Commands: []string{"*"}, Node: "edge-10"}, edge, "status", false},
		{"nodes", Rule{Commands: []string{"*"}, Node: "/edge-.*/"}, edge, "status", true},
		{"a node expression matches no client without a node", Rule{Commands: []string{"*"}, Node: "/.*/"}, user, "status", false},
		{"alternatives are whole names", Rule{Commands: []string{"*"}, Node: "/edge|x/"}, edge, "status", false},
		{"certificate", Rule{Commands: []string{"*"}, CertNode: "controller"}, cert, "status", true},
		{"no certificate", Rule{Commands: []string{"*"}, CertNode: "/.*/"}, user, "status", false},
		{"all fields", Rule{Commands: []string{"*"}, CertNode: "controller", Node: "/con.*/", Listener: "mesh"}, both, "status", true},
		{"all fields but one", Rule{Commands: []string{"*"}, CertNode: "controller", Node: "edge-1"}, both, "status", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rules, err := Compile([]Rule{{Commands: []string{"nothing"}}, tc.rule})
			if err != nil {
				t.Fatal(err)
			}
			if got := rules.Allow(tc.client, tc.command); got != tc.want {
				t.Errorf("%+v may use %s: %v, want %v", tc.client, tc.command, got, tc.want)
			}
		})
	}
	if none, _ := Compile(nil); none.Allow(root, "status") || !(*Rules)(nil).Allow(edge, "reload") {
		t.Error("an empty list allows nothing, no list everything")
	}
}

func TestCompileErrors(t *testing.T) {
	_, err := Compile([]Rule{
		{Commands: []string{"*"}},
		{Listener: "udp", Node: "/(/"},
		{Commands: []string{"ping x", ""}, UID: "no-such-user", GID: "-5", CertNode: "/[/"},
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"error in rule 1: commands: required", `listener: "udp" is not one of unix, tcp, mesh`, "node: regular expression /(/",
		`error in rule 2: commands: "ping x" is no command`, `commands: "" is no command`, "uid: ", "gid: ", "certnode: regular expression /[/",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in\n%v", want, err)
		}
	}
}

func TestClientText(t *testing.T) {
	for want, c := range map[string]Client{
		"user 1000 on the unix socket":              {Listener: "unix", Local: true, UID: 1000},
		"a client on the unix socket":               {Listener: "unix"},
		"node edge over the mesh":                   {Listener: "mesh", Node: "edge"},
		"a client over tcp":                         {Listener: "tcp"},
		"a client over tcp with a certificate of b": {Listener: "tcp", CertNodes: []wire.NodeID{"b", "c"}},
	} {
		if got := c.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestParse(t *testing.T) {
	rules, err := Parse([]map[string]any{
		{"Commands": "status, work submit", "UID": 1000.0, "gid": "root"},
		{"commands": []any{"*"}, "listener": "mesh", "node": "a", "certnode": "/b.*/"},
	})
	if err != nil {
		t.Fatal(err)
	}
	compiled, err := Compile(rules)
	if err != nil {
		t.Fatal(err)
	}
	if !compiled.Allow(Client{Listener: "unix", Local: true, UID: 1000, Groups: []int{0}}, "work submit") {
		t.Error("the first rule does not match")
	}
	if !compiled.Allow(Client{Listener: "mesh", Node: "a", CertNodes: []wire.NodeID{"bc"}}, "reload") {
		t.Error("the second rule does not match")
	}
	_, err = Parse([]map[string]any{{"commands": "status", "usr": "x"}, {"commands": 1.0, "uid": 1.5, "node": "", "listener": true}, {"commands": []any{1.0}}})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"error in rule 0: unknown key usr: a rule has the keys commands, listener, uid, gid, node, certnode", "error in rule 1: commands: write a list",
		"uid: 1.5", "node: ", "listener: true", "error in rule 2: commands: 1 is no text",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in\n%v", want, err)
		}
	}
}
