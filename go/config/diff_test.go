package config

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// everything has every directive that may stand in one file, and most parameters.
const everything = `
- node: {id: a, datadir: /d, maxidleconnectiontimeout: 1m, firewallrules: [{action: drop, fromnode: /x|y/}, {action: accept, toservice: 'no'}]}
- log-level: {level: Debug, format: JSON, areas: [mesh=info]}
- process: {draintimeout: 1m30s}
- local-only
- trace
- tls-server: {name: s, cert: c, key: k, requireclientcert: yes, clientcas: ca, pinnedclientcert: [ab, 'yes']}
- tls-client: {name: c, cert: '', key: ''}
- tcp-listener: {port: 1, tls: s, cost: 2.5, nodecost: {b: 3, 'y': 1e-3}, allowedpeers: []}
- tcp-peer: {address: "h:1", redial: no, allowedpeers: [b, '1']}
- udp-listener: '2'
- udp-peer: h:2
- ws-listener: {port: 3, path: /x}
- ws-peer: {address: "ws://h", extraheader: "Authorization: Bearer secret"}
- control-service: {filename: /s, permissions: 0660, tcplisten: 7000}
- tcp-server: {port: 4, remotenode: b, remoteservice: s}
- tcp-client: {service: t, address: "h:4"}
- udp-server: {port: 5, remotenode: b, remoteservice: s}
- udp-client: {service: u, address: "h:5"}
- unix-socket-server: {filename: /u, permissions: "0666", remotenode: b, remoteservice: s}
- unix-socket-client: {service: x, filename: /x}
- command-service: {service: sh, command: bash}
- ip-router: {networkname: lan, localnet: 10.0.0.0/30, routes: 10.1.0.0/16}
- metrics-listener: {port: 9100, bindaddr: 127.0.0.1, page: true, username: ops, passwordfile: /etc/receptor/password}
- work-command: {worktype: w, command: cat, params: "-n 'a b'", allowruntimeparams: on, verifysignature: on}
- work-python: {worktype: py, plugin: p, function: f, config: {a: [1, {b: 'on'}], c: null}}
- work-kubernetes: {worktype: k, namespace: ns, image: i}
- work-limits: {maxrunning: 8, keepunits: 1000, keepfor: 168h}
- work-signing: {privatekey: k, tokenexpiration: 1h}
- work-verification: k
`

func TestEffectiveIsAFileOfTheSameMeaning(t *testing.T) {
	cfg := mustLoad(t, everything)
	var b bytes.Buffer
	if err := WriteEffective(&b, cfg); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "Bearer") || !strings.Contains(b.String(), "extraheader: (hidden)") {
		t.Errorf("a secret is shown, or not said to be hidden:\n%s", b.String())
	}
	for _, want := range []string{`permissions: "0660"`, "maxidleconnectiontimeout: 1m0s", "level: debug", "tcplisten: 127.0.0.1:7000", "cost: 1\n", "- local-only:\n    local: false", "- trace\n", "allowedpeers: []"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	again := mustLoad(t, strings.Replace(b.String(), "(hidden)", "'Authorization: Bearer secret'", 1))
	if changes := Diff(cfg, again); len(changes) != 0 || names(cfg) != names(again) {
		t.Errorf("got changes %v after reading\n%s", changes, b.String())
	}
	seen := make(map[string]bool)
	for _, d := range cfg.Directives {
		seen[d.Name] = true
	}
	for _, d := range schema() {
		if d.times != alone && !d.hidden && !seen[d.name] {
			t.Errorf("%s is not in this test", d.name)
		}
	}
	if _, err := json.Marshal(cfg.Effective()); err != nil {
		t.Error(err)
	}
}

func TestF197OrderIsNotAChange(t *testing.T) {
	cfg := mustLoad(t, everything)
	items := strings.Split(strings.TrimSpace(everything), "\n")
	for i := range items[:len(items)/2] {
		items[i], items[len(items)-1-i] = items[len(items)-1-i], items[i]
	}
	moved := strings.Join(items, "\n")
	moved = strings.NewReplacer("{port: 1, tls: s,", "{TLS: s, port: 0x1,", "level: Debug", "level: DEBUG", "- udp-peer: h:2", "- udp-peer: {cost: 1.0, address: 'h:2'} # as before").Replace(moved)
	if changes := Diff(cfg, mustLoad(t, moved)); len(changes) != 0 {
		t.Errorf("got changes %v, want none", changes)
	}
}

func TestDiff(t *testing.T) {
	base := "- node: a\n- tcp-peer: {address: 'h:1'}\n- tcp-peer: {address: 'h:2'}\n- tcp-listener: {port: 1, allowedpeers: [a, b]}\n- log-level: info\n"
	for _, tc := range []struct {
		from, to string
		want     []string
	}{
		{"", "", nil},
		{"address: 'h:2'", "address: 'h:2', cost: 2", []string{"changed tcp-peer h:2 (cost)"}},
		{"address: 'h:2'", "address: 'h:3'", []string{"added tcp-peer h:3", "removed tcp-peer h:2"}},
		{"- tcp-peer: {address: 'h:2'}\n", "", []string{"removed tcp-peer h:2"}},
		{"- log-level: info\n", "", []string{"removed log-level"}},
		{"- log-level: info\n", "- log-level: debug\n", []string{"changed log-level (level)"}},
		{"allowedpeers: [a, b]", "allowedpeers: []", []string{"changed tcp-listener 0.0.0.0:1 (allowedpeers)"}},
		{"port: 1, allowedpeers: [a, b]", "port: 1, bindaddr: '[::1]', allowedpeers: [a, b]", []string{"added tcp-listener [::1]:1", "removed tcp-listener 0.0.0.0:1"}},
		{"- node: a\n", "- node: b\n- tcp-peer: {address: 'h:1'}\n", []string{"changed node (id)", "added tcp-peer h:1"}},
		{"- node: a\n", "- node: {id: a, firewallrules: [{action: drop}]}\n", []string{"changed node (firewallrules)"}},
	} {
		var got []string
		for _, c := range Diff(mustLoad(t, base), mustLoad(t, strings.Replace(base, tc.from, tc.to, 1))) {
			got = append(got, c.String())
		}
		if !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%q for %q: got %q, want %q", tc.to, tc.from, got, tc.want)
		}
	}
	none := mustLoad(t, "- tcp-listener: {port: 1, allowedpeers: }\n")
	nobody := mustLoad(t, "- tcp-listener: {port: 1, allowedpeers: []}\n")
	if got := Diff(none, nobody); len(got) != 1 {
		t.Errorf("from everybody to nobody: got %v, want one change", got)
	}
}

func TestReread(t *testing.T) {
	path := write(t, "mesh.yml", "- node: a\n")
	cfg := mustParse(t, "-C", path, "--local-only")
	again, err := cfg.Reread()
	if err != nil || len(Diff(cfg, again)) != 0 || !reflect.DeepEqual(again.Files, []string{path}) {
		t.Errorf("got %+v, %v", again, err)
	}
}
