package config

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func TestServiceSections(t *testing.T) {
	cfg := mustLoad(t, `
- node: a
- udp-server: {port: 1, remotenode: b, remoteservice: s}
- udp-client: {service: dns, address: "h:53"}
- unix-socket-server: {filename: /s, permissions: 0660, remotenode: b, remoteservice: s}
- unix-socket-client: {service: docker, filename: /run/docker.sock}
- command-service: {service: sh, command: bash -l}
- ip-router: {networkname: lan, interface: mesh0, localnet: 10.9.0.5/30, routes: "192.168.7.0/24, fd00::/8"}
- work-python: {worktype: py, plugin: p, function: f, config: {a: 1, b: [x, true, null], c: {d: e}}}
- work-kubernetes: {worktype: k, namespace: ns, image: i, AuthMethod: InCluster}
`)
	for _, tc := range []struct{ got, want any }{
		{one[UDPServer](t, cfg), UDPServer{Port: 1, BindAddr: "0.0.0.0", RemoteNode: "b", RemoteService: "s"}},
		{one[UDPClient](t, cfg), UDPClient{Service: "dns", Address: "h:53"}},
		{one[UnixServer](t, cfg), UnixServer{Filename: "/s", Permissions: 0o660, RemoteNode: "b", RemoteService: "s", permissions: 0o660}},
		{one[UnixClient](t, cfg), UnixClient{Service: "docker", Filename: "/run/docker.sock"}},
		{one[CommandService](t, cfg), CommandService{Service: "sh", Command: "bash -l"}},
		{one[WorkPython](t, cfg).Config, map[string]any{"a": 1.0, "b": []any{"x", true, nil}, "c": map[string]any{"d": "e"}}},
		{one[WorkKubernetes](t, cfg), WorkKubernetes{WorkType: "k", Namespace: "ns", Image: "i", AuthMethod: "incluster", StreamMethod: "logger", DeletePodOnRestart: true}},
		{one[IPRouter](t, cfg).LocalNet, netip.MustParsePrefix("10.9.0.4/30")},
		{one[IPRouter](t, cfg).Routes, []netip.Prefix{netip.MustParsePrefix("192.168.7.0/24"), netip.MustParsePrefix("fd00::/8")}},
	} {
		if !reflect.DeepEqual(tc.got, tc.want) {
			t.Errorf("got %+v, want %+v", tc.got, tc.want)
		}
	}
	if got := one[WorkPython](t, mustParse(t, "--work-python", "worktype=w", "plugin=p", "function=f", `config={"a":[1]}`)).Config; !reflect.DeepEqual(got, map[string]any{"a": []any{1.0}}) {
		t.Errorf("got config %v", got)
	}
}

func TestServiceErrors(t *testing.T) {
	for _, tc := range []struct{ row, args, want string }{
		{"9.7", "--tcp-listener 99999", "listen tcp: address 99999: invalid port"},
		{"9.7", "--udp-listener 99999", "address 99999: invalid port"},
		{"9.7", "--ws-listener port=-1", "listen tcp: address -1: invalid port"},
		{"9.13", "--udp-server port=1 remotenode= remoteservice=s", "remotenode must not be empty"},
		{"9.13", "--udp-server port=1 remotenode=b remoteservice=123456789", "service name 123456789 too long"},
		{"9.13", "--udp-client service=ping address=h:1", "error listening on Receptor network: service ping is already listening"},
		{"9.14", "--unix-socket-server filename=/s remotenode=b remoteservice=s tls=x", "unknown TLS config x"},
		{"9.14", "--unix-socket-client service=s filename=", "filename must not be empty"},
		{"9.15", "--command-service service=s command=", "command must not be empty"},
		{"9.16", "--ip-router networkname=n localnet=x", "could not parse x as a CIDR address"},
		{"9.16", "--ip-router networkname=n localnet=10.0.0.0/24", "local network 10.0.0.0/24 must be a /30 CIDR"},
		{"9.16", "--ip-router networkname=n localnet=fd00::/30", "local network fd00::/30 must be IPv4"},
		{"9.16", "--ip-router networkname=123456789 localnet=10.0.0.0/30", "error listening on Receptor network: service name 123456789 too long"},
		{"9.18", "--work-python worktype=w plugin=p function=f config=3", "error setting config value for field config: type error (expected map[string]interface {})"},
		{"9.19", "--work-kubernetes worktype=k image=i", "must provide namespace when AuthMethod is not kubeconfig"},
		{"9.19", "--work-kubernetes worktype=k namespace=n", "must specify a container image to run"},
		{"9.19", "--work-kubernetes worktype=k namespace=n image=i authmethod=magic", "invalid AuthMethod: magic"},
		{"9.19", "--work-kubernetes worktype=k namespace=n image=i kubeconfig=f", "can only provide KubeConfig when AuthMethod=kubeconfig"},
		{"9.19", "--work-kubernetes worktype=k namespace=n image=i pod=f", "can only provide Pod when Image, Command, and Params are empty"},
		{"9.19", "--work-kubernetes worktype=k namespace=n image=i streammethod=udp", "stream mode must be logger or tcp"},
		{"bug-25", "--work-kubernetes worktype=k namespace=n image=i verifysignature=yes", "VerifySignature for work command 'k' is true, but the work verification public key is not specified"},
	} {
		t.Run(tc.row+" "+tc.args, func(t *testing.T) {
			_, err := ParseArgs(strings.Fields(tc.args))
			wantError(t, err, tc.want)
		})
	}
}
