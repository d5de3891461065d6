package wire

import "testing"

func TestPeekRoute(t *testing.T) {
	cases := []struct {
		name, body, node, id string
		ok                   bool
	}{
		{"as nodes write it", `{"NodeID":"a","UpdateID":"12345678","UpdateEpoch":1}`, "a", "12345678", true},
		{"not ASCII", `{"NodeID":"é","UpdateID":"x"}`, "é", "x", true},
		{"escapes", `{"NodeID":"a\"","UpdateID":"x"}`, "", "", false},
		{"escaped ID", `{"NodeID":"a","UpdateID":"\u0041"}`, "", "", false},
		{"another order", `{"UpdateID":"x","NodeID":"a"}`, "", "", false},
		{"blanks", `{ "NodeID":"a","UpdateID":"x"}`, "", "", false},
		{"cut off", `{"NodeID":"a","UpdateID":"x`, "", "", false},
		{"nothing", ``, "", "", false},
	}
	for _, c := range cases {
		node, id, ok := PeekRoute(append([]byte{byte(TypeRoute)}, c.body...))
		if string(node) != c.node || string(id) != c.id || ok != c.ok {
			if ok || c.ok {
				t.Errorf("%s: %q, %q, %v; want %q, %q, %v", c.name, node, id, ok, c.node, c.id, c.ok)
			}
		}
	}
}

// FuzzPeekRoute: what is found without parsing is what parsing finds, in any message that a node writes.
func FuzzPeekRoute(f *testing.F) {
	f.Add("a", "12345678", []byte{})
	f.Add("é<&>\"", "x\\", []byte("\x01{\"NodeID\":\"a\",\"UpdateID\":\"b\"}"))
	f.Fuzz(func(t *testing.T, node, id string, raw []byte) {
		PeekRoute(raw) // Anything is survived.
		u := RouteUpdate{NodeID: NodeID(node), UpdateID: id, ForwardingNode: "x"}
		msg, err := u.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		gotNode, gotID, ok := PeekRoute(msg)
		parsed, err := ParseRouteUpdate(msg)
		if err != nil {
			t.Fatal(err)
		}
		if ok && (string(gotNode) != string(parsed.NodeID) || string(gotID) != parsed.UpdateID) {
			t.Errorf("peeked %q, %q in %q", gotNode, gotID, msg)
		}
	})
}
