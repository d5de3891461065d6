package daemon

import (
	"github.com/pyreceptor/pyreceptor/go/control"
	"github.com/pyreceptor/pyreceptor/go/metrics"
)

// directiveReply is an element of the reply of the control command config.
type directiveReply struct {
	Directive  string         `json:"directive"`
	Parameters map[string]any `json:"parameters"`
	Position   string         `json:"position,omitempty"`
}

// effective is the configuration in effect as the control command config tells it, without secrets.
func (d *Daemon) effective() any {
	cfg := d.Config()
	all := make([]directiveReply, 0, len(cfg.Directives))
	for i, item := range cfg.Effective() {
		directive := cfg.Directives[i]
		all = append(all, directiveReply{directive.Name, item[directive.Name], directive.Pos.String()})
	}
	return map[string]any{"directives": all, "node": d.Node.ID()}
}

// tlsReplies describes the TLS profiles for the control command links.
func (d *Daemon) tlsReplies() []control.TLSProfile {
	var all []control.TLSProfile
	for _, s := range d.TLSStatus() {
		p := control.TLSProfile{Name: s.Name, Server: s.Server, Serial: s.Serial, NodeIDs: append(s.NodeIDs[:0:0], s.NodeIDs...), Refused: s.Refused}
		if !s.Expiry.IsZero() {
			expiry := s.Expiry.UTC()
			p.Expiry = &expiry
		}
		if s.Err != nil {
			p.Error = s.Err.Error()
		}
		all = append(all, p)
	}
	return all
}

// Metrics returns the numbers of the node in the text format of Prometheus.
func (d *Daemon) Metrics() string {
	stats := d.Control.Stats()
	c := metrics.Control{Clients: stats.Sessions, ClientsTotal: stats.Accepted, Denied: stats.Denied, Commands: map[string]metrics.Command{}}
	for name, n := range stats.Commands {
		c.Commands[name] = metrics.Command{Count: n.Count, Errors: n.Errors, Time: n.Time}
	}
	return metrics.Text(metrics.Sources{Node: d.Node, Work: d.Work, TLS: d.TLSStatus(), Control: &c, Version: d.version, Started: d.started})
}
