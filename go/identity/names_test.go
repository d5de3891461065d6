package identity

import (
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestF187NamesGolden(t *testing.T) {
	content, err := os.ReadFile("testdata/tls_san.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Hex      string `json:"san_extension_value_der_hex"`
		Contains struct {
			DNS   []string      `json:"dns"`
			IP    []net.IP      `json:"ip"`
			Nodes []wire.NodeID `json:"receptor_node_ids"`
		}
		OID string `json:"othername_oid"`
	}
	if err := json.Unmarshal(content, &golden); err != nil {
		t.Fatal(err)
	}
	names := Names{golden.Contains.DNS, golden.Contains.IP, golden.Contains.Nodes}
	e, err := names.Extension()
	if err != nil || hex.EncodeToString(e.Value) != golden.Hex || e.Critical {
		t.Errorf("got %x, critical %v, %v; want %s, not critical", e.Value, e.Critical, err, golden.Hex)
	}
	if oidNodeID.String() != golden.OID {
		t.Errorf("got type %s, want %s", oidNodeID, golden.OID)
	}
	got, err := ParseNames(unhex(t, golden.Hex))
	if err != nil || !slices.Equal(got.DNS, names.DNS) || !slices.Equal(got.Nodes, names.Nodes) || len(got.IPs) != 1 || !got.IPs[0].Equal(names.IPs[0]) {
		t.Errorf("got %v, %v, want %v", got, err, names)
	}
}

const oidHex = "0609 2b06010401920813 01"

func TestParseNames(t *testing.T) {
	for _, tc := range []struct{ name, hex, want string }{
		{"none", "3000", ""},
		{"IA5String", "3013 a011" + oidHex + "a004 1602 6e31", "n1"},
		{"PrintableString", "3013 a011" + oidHex + "a004 1302 6e31", "n1"},
		{"several, and another type between them", "302c a010" + oidHex + "a003 0c01 61" + "a006 0602 2a03 0500" + "a010" + oidHex + "a003 0c01 62", "a,b"},
		{"mail address and URI", "3010 8103 614062 8609 687474703a2f2f78 2f", ""},
		{"wrong string type", "3013 a011" + oidHex + "a004 1e02 0041", "!"},
		{"not UTF-8", "3012 a010" + oidHex + "a003 0c01 ff", "!"},
		{"IA5String over 7 bits", "3012 a010" + oidHex + "a003 1601 e4", "!"},
		{"empty", "3011 a00f" + oidHex + "a002 0c00", "!"},
		{"no [0] tag", "3010 a00e" + oidHex + "0c01 61", "!"},
		{"two values", "3015 a013" + oidHex + "a006 0c01 61 0c01 62", "!"},
		{"something behind the value", "3015 a013" + oidHex + "a003 0c01 61 0c01 62", "!"},
		{"no sequence", "0400", "!"},
		{"bytes behind the sequence", "3000 00", "!"},
		{"cut off", "3013 a011" + oidHex + "a004 1602 6e", "!"},
		{"not a general name", "3003 0c01 61", "!"},
		{"IP address of five bytes", "3007 8705 0102030405", "!"},
		{"empty input", "", "!"},
	} {
		names, err := ParseNames(unhex(t, tc.hex))
		got := ""
		if err != nil {
			got = "!"
		}
		for i, id := range names.Nodes {
			got += strings.Repeat(",", min(i, 1)) + string(id)
		}
		if got != tc.want {
			t.Errorf("%s: got %q (%v), want %q", tc.name, got, err, tc.want)
		}
	}
}

func TestLongNodeIDs(t *testing.T) {
	for _, n := range []int{1, 100, 112, 113, 127, 128, 255, 256, 70000} {
		want := nodes(wire.NodeID(strings.Repeat("ü", n/2) + strings.Repeat("x", n%2)))
		e, err := want.Extension()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseNames(e.Value); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%d bytes: got %v, %v", n, got, err)
		}
	}
}

func TestNamesThatCannotBe(t *testing.T) {
	for _, n := range []Names{nodes(""), nodes("a\xff"), {DNS: []string{"ü"}}, {DNS: []string{""}}, {IPs: []net.IP{{1}}}} {
		if e, err := n.Extension(); err == nil {
			t.Errorf("%v: got %x, want an error", n, e.Value)
		}
	}
}

// Whatever is read can be written and read again, and DER has one form only.
func FuzzParseNames(f *testing.F) {
	f.Add(unhex(f, "302982096c6f63616c686f737487047f000001a01606092b0601040192081301a0090c07747372762dc3bc"))
	f.Add(unhex(f, "3013 a011"+oidHex+"a004 1602 6e31"))
	f.Add(unhex(f, "3000"))
	f.Fuzz(func(t *testing.T, der []byte) {
		names, err := ParseNames(der)
		if err != nil {
			return
		}
		e, err := names.Extension()
		if err != nil {
			t.Fatalf("%v was read but cannot be written: %v", names, err)
		}
		again, err := ParseNames(e.Value)
		if err != nil || !reflect.DeepEqual(normal(again), normal(names)) {
			t.Fatalf("got %v, %v, want %v", again, err, names)
		}
		var v asn1.RawValue
		if rest, err := asn1.Unmarshal(e.Value, &v); err != nil || len(rest) > 0 {
			t.Fatalf("%x is not DER: %v", e.Value, err)
		}
	})
}

// normal has addresses in one form: a 16-byte one may stand for a 4-byte one.
func normal(n Names) Names {
	for i, ip := range n.IPs {
		n.IPs[i] = ip.To16()
	}
	return n
}
