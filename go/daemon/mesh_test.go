package daemon

import (
	"errors"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
)

// TestDialErrorHasTwoTexts: clients get the one that existing nodes give, people the reason.
func TestDialErrorHasTwoTexts(t *testing.T) {
	d, err := Build(t.Context(), parse(t, "--node", "id=a", "datadir="+t.TempDir(), "--local-only"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	_, err = workMesh{d.Node, d}.DialStream(t.Context(), "a", "nobody", "")
	told, ok := errors.AsType[clientError](err)
	if !ok || !errors.Is(err, netceptor.ErrServiceUnknown) {
		t.Fatalf("got %v, want ErrServiceUnknown", err)
	}
	if told.Error() != "context canceled" || told.Reason() != "service unknown" {
		t.Errorf("got %q for clients and %q for people", told.Error(), told.Reason())
	}
}
