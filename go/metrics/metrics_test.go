package metrics

import (
	"strings"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/identity"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
)

// TestText has names that the format must escape.
func TestText(t *testing.T) {
	n, err := netceptor.New(netceptor.Config{ID: "a\"b\\c\nd\xff"})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	text := Text(Sources{
		Node: n, Version: "1", Started: time.Unix(1000, 0),
		TLS:     []identity.Status{{Name: "p", Server: true, Expiry: time.Unix(2000, 0), Refused: 3}, {Name: "q"}},
		Control: &Control{Clients: 2, Commands: map[string]Command{"work status": {Count: 4, Errors: 1, Time: 1500 * time.Millisecond}}},
	})
	for _, want := range []string{
		`node="a\"b\\c\nd` + "\ufffd" + `",version="1"} 1`,
		"receptor_start_time_seconds 1000\n",
		`receptor_tls_certificate_expiry_seconds{profile="p",side="server"} 2000` + "\n",
		`receptor_tls_refused_total{profile="p",side="server"} 3` + "\n",
		`receptor_tls_refused_total{profile="q",side="client"} 0` + "\n",
		`receptor_control_command_seconds_total{command="work status"} 1.5` + "\n",
		"receptor_control_clients 2\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if strings.Contains(text, `profile="q",side="client"} -`) || strings.Contains(text, "receptor_units") {
		t.Errorf("a number that nobody has in\n%s", text)
	}
	seen := map[string]bool{}
	for line := range strings.SplitSeq(text, "\n") {
		if name, ok := strings.CutPrefix(line, "# TYPE "); ok {
			if seen[name] {
				t.Errorf("%s twice", name)
			}
			seen[name] = true
		}
	}
}
