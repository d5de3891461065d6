package control

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/policy/access"
)

func compiled(t *testing.T, rules ...access.Rule) *access.Rules {
	t.Helper()
	r, err := access.Compile(rules)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// wantVerdicts gives commands on one connection: status is allowed, others are refused with the client's name.
func wantVerdicts(t *testing.T, c net.Conn, client string) {
	t.Helper()
	in := bufio.NewReader(c)
	wantLine(t, in, "Receptor Control, node alpha")
	fmt.Fprint(c, "reload\nwork list\nwork release x\n{\"command\":\"status\",\"requested_fields\":[\"NodeID\"]}\nnosuch\n")
	wantLine(t, in, "ERROR: not allowed: "+client+" may not use reload here")
	wantLine(t, in, "{}")
	wantLine(t, in, "ERROR: not allowed: "+client+" may not use work release here")
	wantLine(t, in, `{"NodeID":"alpha"}`)
	wantLine(t, in, "ERROR: Unknown command")
}

// serveWith serves a listener with rules until the test ends.
func (r *rig) serveWith(t *testing.T, l net.Listener, kind Kind, rules *access.Rules) {
	done := make(chan error, 1)
	go func() { done <- r.Serve(t.Context(), l, kind, Allow(rules)) }()
	t.Cleanup(func() { r.Close(); <-done })
}

func TestAllowUnix(t *testing.T) {
	me, group := os.Getuid(), os.Getgid()
	for name, rule := range map[string]access.Rule{
		"uid":      {UID: strconv.Itoa(me)},
		"gid":      {GID: strconv.Itoa(group)},
		"both":     {UID: strconv.Itoa(me), GID: strconv.Itoa(group), Listener: "unix"},
		"listener": {Listener: "unix"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			path := t.TempDir() + "/s"
			l, err := ListenUnix(path, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			rule.Commands = []string{"status", "work list"}
			other := access.Rule{Commands: []string{"*"}, UID: strconv.Itoa(me + 1)}
			r.serveWith(t, l, Unix, compiled(t, other, access.Rule{Commands: []string{"*"}, Listener: "mesh"}, rule))
			c, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			wantVerdicts(t, c, fmt.Sprintf("user %d on the unix socket", me))
			if s := r.Stats(); s.Denied != 2 {
				t.Errorf("%d commands were denied, want 2", s.Denied)
			}
		})
	}
	if groups, err := os.Getgroups(); err == nil && len(groups) > 0 {
		near, far := socketPair(t)
		defer near.Close()
		_, got, ok := peerOf(far)
		for _, g := range groups {
			if !ok || !strings.Contains(fmt.Sprint(got), strconv.Itoa(g)) {
				t.Errorf("groups %v do not have %d", got, g)
			}
		}
	}
}

func TestAllowTCP(t *testing.T) {
	r := newRig(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.serveWith(t, l, TCP, compiled(t, access.Rule{Commands: []string{"status", "work list"}, Listener: "tcp"},
		access.Rule{Commands: []string{"*"}, UID: "0"}, access.Rule{Commands: []string{"*"}, CertNode: "/.*/"}, access.Rule{Commands: []string{"*"}, Node: "/.*/"}))
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	wantVerdicts(t, c, "a client over tcp")
}

// TestAllowMesh tells nodes apart by where their streams come from.
func TestAllowMesh(t *testing.T) {
	r := newMeshRig(t)
	beta, gamma := newNode(t, "beta"), newNode(t, "gamma")
	connectNodes(t, r.node, beta, 1)
	connectNodes(t, beta, gamma, 1)
	services, err := r.node.ListenStream("control", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	rules := compiled(t, access.Rule{Commands: []string{"status", "work list"}, Node: "/gam.*/"}, access.Rule{Commands: []string{"*"}, Node: "alpha"},
		access.Rule{Commands: []string{"*"}, CertNode: "gamma"}, access.Rule{Commands: []string{"*"}, Listener: "unix"})
	go func() { done <- r.ServeMesh(t.Context(), services, Allow(rules)) }()
	t.Cleanup(func() { r.Close(); <-done })
	open := func(from *netceptor.Node) net.Conn {
		if _, _, err := from.WaitRoute(t.Context(), "alpha"); err != nil {
			t.Fatal(err)
		}
		c, err := from.DialStream(t.Context(), "alpha", "control", nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	wantVerdicts(t, open(gamma), "node gamma over the mesh")
	c := open(beta)
	in := bufio.NewReader(c)
	wantLine(t, in, "Receptor Control, node alpha")
	fmt.Fprintln(c, "status")
	wantLine(t, in, "ERROR: not allowed: node beta over the mesh may not use status here")
	own := open(r.node)
	in = bufio.NewReader(own)
	wantLine(t, in, "Receptor Control, node alpha")
	fmt.Fprintln(own, "work list")
	wantLine(t, in, "{}")
}
