package metrics

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/pyreceptor/pyreceptor/go/identity"
	"github.com/pyreceptor/pyreceptor/go/policy"
)

// odd has all that a label must escape, and what is no UTF-8.
const odd = "a\"b\\c\nd{e}=,\t \xff"

// full are the sources of a node that has something to tell in every family.
func full(t *testing.T) Sources {
	s := meshOf(t, 3, 2)
	s.Started = time.Unix(1000, 500_000_000)
	s.TLS = []identity.Status{{Name: odd, Server: true, Expiry: time.Unix(2000, 0), Refused: 3}, {Name: odd}, {Name: "q", Expiry: time.Unix(3000, 0)}}
	s.Control = &Control{Clients: 2, ClientsTotal: 5, Denied: 1, Commands: map[string]Command{
		"work status": {Count: 1 << 53, Errors: 1, Time: 1500 * time.Millisecond}, odd: {Count: 1},
	}}
	rules, err := policy.Compile([]policy.Rule{{Action: "accept", FromNode: "x"}})
	if err != nil {
		t.Fatal(err)
	}
	s.Node.SetPolicy(rules)
	return s
}

// parsed reads the text as Prometheus does.
func parsed(t *testing.T, text string) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return families
}

// value is that of the one metric of a family whose labels are these, names and values in turn.
func value(t *testing.T, families map[string]*dto.MetricFamily, name string, labels ...string) float64 {
	t.Helper()
	family := families["receptor_"+name]
	for _, m := range family.GetMetric() {
		var got []string
		for _, l := range m.GetLabel() {
			got = append(got, l.GetName(), l.GetValue())
		}
		if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", labels) {
			continue
		}
		if family.GetType() == dto.MetricType_COUNTER {
			return m.GetCounter().GetValue()
		}
		return m.GetGauge().GetValue()
	}
	t.Errorf("no %s%q in %v", name, labels, family)
	return -1
}

// TestPrometheusReadsIt: the library of Prometheus finds every number as it was meant, in no label set twice.
func TestPrometheusReadsIt(t *testing.T) {
	s := full(t)
	families := parsed(t, Text(s))
	valid := strings.ToValidUTF8(odd, "\ufffd")
	for _, want := range []struct {
		value  float64
		name   string
		labels []string
	}{
		{1000.5, "start_time_seconds", nil},
		{1, "links", nil},
		{1, "link_cost", []string{"peer", "p"}},
		{5, "known_nodes", nil},
		{4, "routes", nil},
		{2, "units", []string{"state", "succeeded", "worktype", "cat"}},
		{0, "firewall_packets_total", []string{"action", "accept", "rule", "0"}},
		{5, "control_clients_total", nil},
		{1 << 53, "control_commands_total", []string{"command", "work status"}},
		{1.5, "control_command_seconds_total", []string{"command", "work status"}},
		{1, "control_commands_total", []string{"command", valid}},
		{2000, "tls_certificate_expiry_seconds", []string{"profile", valid, "side", "server"}},
		{3, "tls_refused_total", []string{"profile", valid, "side", "server"}},
		{0, "tls_refused_total", []string{"profile", valid, "side", "client"}},
	} {
		if got := value(t, families, want.name, want.labels...); got != want.value {
			t.Errorf("%s%q is %v, want %v", want.name, want.labels, got, want.value)
		}
	}
	for name, family := range families {
		seen := map[string]bool{}
		for _, m := range family.GetMetric() {
			labels := fmt.Sprint(m.GetLabel())
			if seen[labels] {
				t.Errorf("%s{%s} twice", name, labels)
			}
			seen[labels] = true
		}
		if family.GetHelp() == "" || family.GetType() != dto.MetricType_COUNTER && family.GetType() != dto.MetricType_GAUGE {
			t.Errorf("%s: help %q, type %s", name, family.GetHelp(), family.GetType())
		}
	}
	if got := expfmt.ResponseFormat(map[string][]string{"Content-Type": {ContentType}}).FormatType(); got != expfmt.TypeTextPlain {
		t.Errorf("%s is format %v", ContentType, got)
	}
}

// TestPrometheusLint: names, units and suffixes are as Prometheus advises.
func TestPrometheusLint(t *testing.T) {
	problems, err := promlint.New(strings.NewReader(Text(full(t)))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestPrometheusWritesTheSame: what the library writes of the families it read is our text, but for order.
func TestPrometheusWritesTheSame(t *testing.T) {
	text := Text(full(t))
	for name, family := range parsed(t, text) {
		var theirs strings.Builder
		if _, err := expfmt.MetricFamilyToText(&theirs, family); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !strings.Contains(text, theirs.String()) {
			t.Errorf("%s: the library writes\n%sin\n%s", name, theirs.String(), text)
		}
	}
}
