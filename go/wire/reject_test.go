package wire_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

func TestRejectReason(t *testing.T) {
	long := strings.Repeat("ö", 5000)
	for _, c := range []struct{ name, msg, kind, text string }{
		{"none", string(wire.RejectMessage), "", ""},
		{"a reason", string(wire.RejectFor("cost", "1 here, 5 there")), "cost", "1 here, 5 there"},
		{"more than we know", `` + "\x03" + `["cost","why","more"]`, "cost", "why"},
		{"escapes for a terminal", string(wire.RejectFor("cost", "a\x1b[31m\nb")), "cost", "a[31mb"},
		{"the same from a peer", "\x03[\"\\u001bcost\",\"a\\nb\"]", "cost", "ab"},
		{"not UTF-8", string(wire.RejectFor("cost", "\xff")), "cost", "\ufffd"},
		{"a long one is cut", string(wire.RejectFor("cost", long)), "cost", long[:600]},
		{"a long one from a peer", "\x03[\"cost\",\"" + long + "\"]", "", ""},
		{"other types", "\x03[1,2]", "", ""},
		{"half of it", "\x03[\"cost\"]", "", ""},
		{"no JSON", "\x03x", "", ""},
		{"nothing", "", "", ""},
	} {
		if kind, text := wire.RejectReason([]byte(c.msg)); kind != c.kind || text != c.text {
			t.Errorf("%s: got %q, %q, want %q, %q", c.name, kind, text, c.kind, c.text)
		}
	}
}

// FuzzRejectReason: whatever a peer gives for a reason, what is shown of it is bounded and printable text.
func FuzzRejectReason(f *testing.F) {
	f.Add([]byte("\x03[]"))
	f.Add(wire.RejectFor("cost", "p uses 5, n 2.25"))
	f.Add([]byte("\x03[\"cost\",\"\\u0000\\n\\u202e\"]"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		if len(msg) == 0 {
			return
		}
		kind, reason := wire.RejectReason(msg)
		if len(kind)+len(reason) > 2400 || !utf8.ValidString(kind) || !utf8.ValidString(reason) {
			t.Fatalf("%q became %q, %q", msg, kind, reason)
		}
	})
}
