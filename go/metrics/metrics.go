// Package metrics tells the numbers of a node in the text format of Prometheus, which most collectors read.
//
//	text := metrics.Text(metrics.Sources{Node: node, Work: engine, Version: "1.0"})
//
// The control command metrics sends it, and a program may serve it over HTTP with the type [ContentType]. Every call
// looks at the node as it is; nothing is collected in between, so it costs nothing while nobody asks.
//
// # Metrics
//
//	receptor_build_info{go,node,version}             always 1
//	receptor_start_time_seconds                      unix time
//	receptor_goroutines, receptor_memory_bytes       of the process (memory: of the Go heap and stacks)
//	receptor_links, receptor_link_cost{peer}         established links
//	receptor_link_age_seconds{peer}, receptor_link_silence_seconds{peer}
//	receptor_link_bytes_total{direction,peer}        received, sent
//	receptor_backends{state}                         up, listening, dialing, waiting, standby, stopped
//	receptor_link_tries_total{backend}               dials, or connections accepted
//	receptor_links_made_total{backend}
//	receptor_known_nodes, receptor_routes            nodes heard of; nodes that can be reached
//	receptor_services                                advertised services, own ones included
//	receptor_packets_total{outcome}                  forwarded, delivered, originated
//	receptor_packets_dropped_total{cause}            unknown_node, no_route, queue_full, expired, malformed, ...
//	receptor_firewall_packets_total{rule,action}     by rule, counted from 0; the last one is the default
//	receptor_streams, receptor_stream_connections    open streams; connections that several of them share
//	receptor_units{state,worktype}                   units of work
//	receptor_control_clients                         connected now
//	receptor_control_clients_total
//	receptor_control_commands_total{command}, receptor_control_command_errors_total{command}
//	receptor_control_command_seconds_total{command}  time spent
//	receptor_control_denied_total                    commands refused by rules
//	receptor_tls_certificate_expiry_seconds{profile,side}   unix time
//	receptor_tls_refused_total{profile,side}         peers refused in the handshake
//
// A Grafana dashboard that shows all of them is in examples/deploy/grafana.json.
//
// # Decisions
//
// The text is made here rather than by the client library of Prometheus, which brings protocol buffers and reflection along.
// Measured with client_golang 1.25 on amd64: its registry and encoder add 1.7 MB to the daemon and 1.9 MB to the C
// library, and the wheel, which is to stay below 10 MB, grows from 9.37 MB to 10.42 MB; with the encoder alone (client_model
// and expfmt) to 10.26 MB. Every start of a process would take 0.5 ms of processor more than its 2.7 ms, that of each unit's
// runner too, whether anybody asks for metrics or not. It cannot be left to the daemon alone: a node in a Python process serves the same
// files and commands. The format is a page long. That what is written is what Prometheus reads is not
// taken on trust: the tests read it with the library, compare every number, let the library write the same families
// again, and lint the names.
//
// Units are grouped by state and type; of types beyond a hundred the rest is counted as "other", so that nobody who
// submits work can make a collector's database grow.
package metrics

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// ContentType is the format's name in HTTP.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// writer makes the text, family by family.
type writer struct {
	strings.Builder
	name string // Of the family.
}

// family begins a metric.
func (w *writer) family(name, kind, help string) {
	w.name = "receptor_" + name
	fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", w.name, helpText.Replace(help), w.name, kind)
}

// add writes one value; labels are names and values in turn.
func (w *writer) add(value float64, labels ...string) {
	w.WriteString(w.name)
	for i := 0; i < len(labels); i += 2 {
		w.WriteByte("{,"[min(i, 1)])
		w.WriteString(labels[i] + `="` + labelText.Replace(strings.ToValidUTF8(labels[i+1], "\ufffd")) + `"`)
	}
	if len(labels) > 0 {
		w.WriteByte('}')
	}
	w.WriteByte(' ')
	w.WriteString(strconv.FormatFloat(value, 'g', -1, 64))
	w.WriteByte('\n')
}

// one is a family of one value.
func (w *writer) one(name, kind, help string, value float64) {
	w.family(name, kind, help)
	w.add(value)
}

// each is a family with one label.
func each[K cmp.Ordered, V any](w *writer, label string, values map[K]V, value func(V) float64) {
	for _, key := range slices.Sorted(maps.Keys(values)) {
		w.add(value(values[key]), label, fmt.Sprint(key))
	}
}

var (
	helpText  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	labelText = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)
