package config

import (
	"reflect"
	"strings"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

func TestF065F066Backends(t *testing.T) {
	cfg := mustLoad(t, `
- node: {id: hub}
- udp-listener: {port: 1, bindaddr: "[::1]", cost: 2.5, nodecost: {a: 3}, allowedpeers: [a]}
- udp-peer: h:1
- ws-listener: {port: 0, path: /mesh/}
- ws-peer: {address: "wss://h/mesh", extraheader: "x-token :  a: b ", redial: false, cost: 2}
`)
	if got, want := one[UDPListener](t, cfg), (UDPListener{BindAddr: "[::1]", Port: 1, Cost: 2.5,
		NodeCost: map[wire.NodeID]float64{"a": 3}, AllowedPeers: []wire.NodeID{"a"}}); !reflect.DeepEqual(got, want) {
		t.Errorf("udp-listener is %+v, want %+v", got, want)
	}
	if got, want := one[UDPPeer](t, cfg), (UDPPeer{Address: "h:1", Redial: true, Cost: 1}); !reflect.DeepEqual(got, want) {
		t.Errorf("udp-peer is %+v, want %+v", got, want)
	}
	if got, want := one[WSListener](t, cfg), (WSListener{BindAddr: "0.0.0.0", Path: "/mesh/", Cost: 1}); !reflect.DeepEqual(got, want) {
		t.Errorf("ws-listener is %+v, want %+v", got, want)
	}
	got := one[WSPeer](t, cfg)
	if got.Address != "wss://h/mesh" || got.HeaderName != "x-token" || got.HeaderValue != "a: b" || got.Redial || got.Cost != 2 {
		t.Errorf("ws-peer is %+v", got)
	}
	if got := one[WSListener](t, mustParse(t, "--ws-listener", "80")); got.Path != "/" || got.Port != 80 {
		t.Errorf("ws-listener is %+v", got)
	}
}

func TestBackendErrors(t *testing.T) {
	for _, tc := range []struct{ row, args, want string }{
		{"F065", "--udp-peer host", "address host: missing port in address"},
		{"F065", "--udp-peer h:1 tls=x", "config error: unknown field name tls"},
		{"F065", "--udp-listener", "error in --udp-listener: required parameter missing: port"},
		{"F068", "--ws-listener 1 path=", `websocket path "" would never be asked for`},
		{"F068", "--ws-listener 1 path=mesh", `websocket path "mesh" would never be asked for`},
		{"F069", "--ws-peer ws://h extraheader=x", "extra header must be in the form key:value"},
		{"F069", "--ws-peer ws://h extraheader=:x", `extra header ":x" has no name`},
		{"F065", "--udp-peer fe80::1:2222", "address fe80::1:2222: too many colons in address (put the brackets of an IPv6 address around it, as in [fe80::1]:2222)"},
		{"F065", "--tcp-peer ::1", "address ::1: too many colons in address (put the brackets"},
		{"F065", "--tcp-listener 1 bindaddr=::1", "address ::1:1: too many colons in address (put the brackets of an IPv6 address around it, as in [fe80::1])"},
		{"F065", "--udp-listener 1 bindaddr=::", "address :::1: too many colons in address (put the brackets"},
		{"F065", "--ws-listener 1 bindaddr=fe80::1%lo", "address fe80::1%lo:1: too many colons in address (put the brackets"},
		{"F065", "--tcp-listener 1 bindaddr=localhost:1", "address localhost:1:1: too many colons in address (leave the port out"},
		{"9.8", "--ws-peer ws://fe80::1:2222/", "address ws://fe80::1:2222/: malformed ws or wss URL (put the brackets"},
		{"F075", "--udp-peer h:1 cost=-1", "connection cost must be positive"},
		{"F075", `--udp-listener 1 nodecost={"a":0}`, "connection cost must be positive for a"},
		{"F075", `--ws-listener 1 nodecost={"a":0}`, "connection cost must be positive for a"},
		{"F075", "--ws-peer ws://h cost=0", "connection cost must be positive"},
		{"F114", "--ws-listener 1 tls=x", "unknown TLS config x"},
		{"F114", "--ws-peer wss://h tls=x", "unknown TLS config x"},
		{"9.8", "--ws-peer 127.0.0.1:1", `address 127.0.0.1:1 is not a valid URL: parse "127.0.0.1:1": first path segment in URL cannot contain colon`},
		{"9.8", "--ws-peer http://h", "address http://h: malformed ws or wss URL"},
		{"9.8", "--ws-peer h:1", "address h:1: malformed ws or wss URL"},
		{"9.8", "--ws-peer ws:///x", "address ws:///x: malformed ws or wss URL"},
		{"9.8", "--ws-peer ws://me:secret@h", "address ws://me:xxxxx@h: malformed ws or wss URL"},
	} {
		t.Run(tc.row+" "+tc.args, func(t *testing.T) {
			_, err := ParseArgs(strings.Fields(tc.args))
			wantError(t, err, tc.want)
		})
	}
}
