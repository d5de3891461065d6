package metrics

import (
	"cmp"
	"maps"
	"runtime"
	"runtime/metrics"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/pyreceptor/pyreceptor/go/identity"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// Sources are what the numbers are taken from.
type Sources struct {
	Node    *netceptor.Node    // Required.
	Work    *workceptor.Engine // nil: none.
	TLS     []identity.Status
	Control *Control // nil: none.
	Version string
	Started time.Time
}

// Control are the numbers of the control service.
type Control struct {
	Clients, ClientsTotal, Denied uint64
	Commands                      map[string]Command
}

// Command are the numbers of one control command.
type Command struct {
	Count, Errors uint64
	Time          time.Duration
}

const (
	gauge   = "gauge"
	counter = "counter"
)

// Text returns all metrics.
func Text(s Sources) string {
	w := &writer{}
	s.process(w)
	s.links(w)
	s.mesh(w)
	s.packets(w)
	if s.Work != nil {
		s.units(w)
	}
	if s.Control != nil {
		s.control(w)
	}
	s.tls(w)
	return w.String()
}

func (s Sources) process(w *writer) {
	w.family("build_info", gauge, "Always 1; the labels say which program this is.")
	w.add(1, "go", runtime.Version(), "node", string(s.Node.ID()), "version", s.Version)
	w.one("start_time_seconds", gauge, "When the node was started, as unix time.", float64(s.Started.UnixNano())/1e9)
	w.one("goroutines", gauge, "Goroutines of the process.", float64(runtime.NumGoroutine()))
	memory := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(memory)
	w.one("memory_bytes", gauge, "Memory in use by the Go heap and stacks.", float64(memory[0].Value.Uint64()+memory[1].Value.Uint64()))
}

func (s Sources) links(w *writer) {
	links := s.Node.Links()
	at := time.Now()
	w.one("links", gauge, "Established links.", float64(len(links)))
	byPeer := func(name, help string, value func(netceptor.Link) float64) {
		w.family(name, gauge, help)
		for _, l := range links {
			w.add(value(l), "peer", string(l.Node))
		}
	}
	byPeer("link_cost", "Cost of the link to a neighbour.", func(l netceptor.Link) float64 { return l.Cost })
	byPeer("link_age_seconds", "Time since the link was established.", func(l netceptor.Link) float64 { return at.Sub(l.Since).Seconds() })
	byPeer("link_silence_seconds", "Time since the neighbour was heard.", func(l netceptor.Link) float64 { return max(0, at.Sub(l.Heard).Seconds()) })
	w.family("link_bytes_total", counter, "Bytes that the link has carried, framing included.")
	for _, l := range links {
		w.add(float64(l.Received), "direction", "received", "peer", string(l.Node))
		w.add(float64(l.Sent), "direction", "sent", "peer", string(l.Node))
	}

	states := map[netceptor.BackendState]int{
		netceptor.BackendUp: 0, netceptor.BackendListening: 0, netceptor.BackendDialing: 0, netceptor.BackendWaiting: 0,
		netceptor.BackendStandby: 0, netceptor.BackendStopped: 0,
	}
	type number struct{ tries, made uint64 }
	backends := map[string]number{} // Of backends with one name, the sum.
	for _, b := range s.Node.Backends() {
		states[b.State]++
		if b.Kind == "link" { // Made by the program, each under a name of its own.
			continue
		}
		n := backends[b.Name]
		backends[b.Name] = number{n.tries + b.Tries, n.made + b.Made}
	}
	w.family("backends", gauge, "Configured listeners and dialers by what they are doing.")
	each(w, "state", states, func(n int) float64 { return float64(n) })
	w.family("link_tries_total", counter, "Dials, or connections accepted.")
	each(w, "backend", backends, func(n number) float64 { return float64(n.tries) })
	w.family("links_made_total", counter, "Links established.")
	each(w, "backend", backends, func(n number) float64 { return float64(n.made) })
}

func (s Sources) mesh(w *writer) {
	known, routes := s.Node.Inspect()
	w.one("known_nodes", gauge, "Nodes that are known, this one included, reachable or not.", float64(len(known)))
	w.one("routes", gauge, "Nodes that can be reached.", float64(routes.Len()))
	w.one("services", gauge, "Advertised services, own ones included.", float64(len(s.Node.Services())))
	open, shared := s.Node.Streams()
	w.one("streams", gauge, "Open streams.", float64(open))
	w.one("stream_connections", gauge, "Connections that several streams share.", float64(shared))
}

func (s Sources) packets(w *writer) {
	const lost = "dropped_"
	drops, others := map[string]uint64{}, map[string]uint64{}
	for name, n := range s.Node.Counters().ByOutcome() {
		if cause, ok := strings.CutPrefix(name, lost); ok {
			drops[cause] = n
		} else {
			others[name] = n
		}
	}
	w.family("packets_total", counter, "Packets by what became of them.")
	each(w, "outcome", others, func(n uint64) float64 { return float64(n) })
	w.family("packets_dropped_total", counter, "Packets that were lost here, by cause.")
	each(w, "cause", drops, func(n uint64) float64 { return float64(n) })
	w.family("firewall_packets_total", counter, "Packets by the firewall rule that decided.")
	for _, h := range s.Node.Policy().Hits() {
		rule := "default"
		if h.Rule >= 0 {
			rule = strconv.Itoa(h.Rule)
		}
		w.add(float64(h.Packets), "action", strings.ToLower(h.Source.Action), "rule", rule)
	}
}

// maxTypes is how many work types are told apart.
const maxTypes = 100

func (s Sources) units(w *writer) {
	type group struct{ state, workType string }
	counts, types := map[group]int{}, map[string]bool{}
	for _, t := range s.Work.WorkTypes() {
		types[t.WorkType] = true
	}
	for _, status := range s.Work.List() {
		name := status.WorkType
		if !types[name] && len(types) >= maxTypes {
			name = "other"
		}
		types[name] = true
		counts[group{strings.ToLower(status.State.String()), name}]++
	}
	w.family("units", gauge, "Units of work by state and type.")
	groups := slices.Collect(maps.Keys(counts))
	sort.Slice(groups, func(i, j int) bool {
		a, b := groups[i], groups[j]
		return cmp.Or(cmp.Compare(a.state, b.state), cmp.Compare(a.workType, b.workType)) < 0
	})
	for _, g := range groups {
		w.add(float64(counts[g]), "state", g.state, "worktype", g.workType)
	}
}

func (s Sources) control(w *writer) {
	c := s.Control
	w.one("control_clients", gauge, "Clients of the control service that are connected.", float64(c.Clients))
	w.one("control_clients_total", counter, "Clients of the control service so far.", float64(c.ClientsTotal))
	w.one("control_denied_total", counter, "Control commands that rules did not allow.", float64(c.Denied))
	w.family("control_commands_total", counter, "Control commands.")
	each(w, "command", c.Commands, func(c Command) float64 { return float64(c.Count) })
	w.family("control_command_errors_total", counter, "Control commands that were answered by an error line.")
	each(w, "command", c.Commands, func(c Command) float64 { return float64(c.Errors) })
	w.family("control_command_seconds_total", counter, "Time that control commands took, streams to their end.")
	each(w, "command", c.Commands, func(c Command) float64 { return c.Time.Seconds() })
}

func (s Sources) tls(w *writer) {
	side := func(t identity.Status) string {
		if t.Server {
			return "server"
		}
		return "client"
	}
	w.family("tls_certificate_expiry_seconds", gauge, "End of the validity of a TLS profile's own certificate, as unix time.")
	for _, t := range s.TLS {
		if !t.Expiry.IsZero() {
			w.add(float64(t.Expiry.Unix()), "profile", t.Name, "side", side(t))
		}
	}
	w.family("tls_refused_total", counter, "Peers that a TLS profile refused.")
	for _, t := range s.TLS {
		w.add(float64(t.Refused), "profile", t.Name, "side", side(t))
	}
}
