package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

func TestF115F116NodeHasItsRules(t *testing.T) {
	rules := `[{"action":"accept","toservice":"ping","tonode":"/a|b/"},{"action":"reject","toservice":"ping"}]`
	file := filepath.Join(t.TempDir(), "f.yml")
	if err := os.WriteFile(file, []byte("- node:\n    id: node\n    firewallrules: "+rules+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--node", "id=node", "firewallrules=" + rules}, {"-c", file}} {
		d, err := Build(t.Context(), parse(t, append(args, "--local-only")...), Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if p := d.Node.Ping(t.Context(), "node", wire.MaxHops); !errors.Is(p.Err, netceptor.ErrFirewall) {
			t.Errorf("%q: ping of node: %v, want it rejected", args, p.Err)
		}
		if p := d.Node.Ping(t.Context(), "ab", wire.MaxHops); !errors.Is(p.Err, netceptor.ErrNoRoute) {
			t.Errorf("%q: ping of ab: %v, want no route", args, p.Err)
		}
	}
	d, err := Build(t.Context(), parse(t, "--node", "id=node", "firewallrules=[]", "--local-only"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if p := d.Node.Policy(); p != nil {
		t.Errorf("got policy %v of no rules, want none: it costs time per packet", p)
	}
}
