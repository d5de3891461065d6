package control

import (
	"time"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/policy"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

type backendReply struct {
	Backend      string                  `json:"backend"`
	Kind         string                  `json:"kind"`
	Cost         float64                 `json:"cost"`
	NodeCosts    map[wire.NodeID]float64 `json:"node_costs,omitempty"`
	AllowedPeers *[]wire.NodeID          `json:"allowed_peers,omitempty"`
	State        netceptor.BackendState  `json:"state"`
	Peers        []wire.NodeID           `json:"peers"`
	Tries        uint64                  `json:"tries"`
	LinksMade    uint64                  `json:"links_made"`
	LastError    *linkErrorReply         `json:"last_error,omitempty"`
	NextTryS     *float64                `json:"next_try_s,omitempty"`
}

type linkErrorReply struct {
	Kind string      `json:"kind"`
	Peer wire.NodeID `json:"peer,omitempty"`
	Text string      `json:"text"`
	Time time.Time   `json:"time"`
}

type linkReply struct {
	Node          wire.NodeID `json:"node"`
	Cost          float64     `json:"cost"`
	Link          string      `json:"link"`
	Backend       string      `json:"backend,omitempty"`
	Since         time.Time   `json:"since"`
	HeardS        float64     `json:"heard_s"`
	KeepAlive     bool        `json:"keep_alive"`
	SentBytes     uint64      `json:"sent_bytes"`
	ReceivedBytes uint64      `json:"received_bytes"`
}

type firewallReply struct {
	Rules          []firewallRuleReply `json:"rules"`
	DefaultPackets uint64              `json:"default_packets"`
}

type firewallRuleReply struct {
	Rule    string `json:"rule"`
	Packets uint64 `json:"packets"`
}

// TLSProfile describes a TLS profile in the reply of the command links.
type TLSProfile struct {
	Name    string        `json:"name"`
	Server  bool          `json:"server"`
	Expiry  *time.Time    `json:"expiry,omitempty"` // Of the own certificate; nil if there is none.
	Serial  string        `json:"serial,omitempty"`
	NodeIDs []wire.NodeID `json:"node_ids"`
	Refused uint64        `json:"refused"`
	Error   string        `json:"error,omitempty"`
}

// links tells all that this node knows of why it is, or is not, connected.
func (s *session) links(req request) (any, error) {
	if req.params != "" {
		return nil, errLinksParameters
	}
	node, at := s.observed(), now()
	reply := map[string]any{
		"node": s.srv.node.ID(), "time": at,
		"backends": backendReplies(node.Backends(), at),
		"links":    linkReplies(node.Links(), at),
		"packets":  node.Counters().ByOutcome(),
		"tls":      []TLSProfile{},
	}
	if p := node.Policy(); p.Len() > 0 {
		reply["firewall"] = firewallOf(p)
	}
	if s.srv.tls != nil {
		reply["tls"] = append([]TLSProfile{}, s.srv.tls()...)
	}
	return reply, nil
}

func backendReplies(backends []netceptor.BackendStatus, at time.Time) []backendReply {
	list := make([]backendReply, 0, len(backends))
	for _, b := range backends {
		r := backendReply{
			Backend: b.Name, Kind: b.Kind, Cost: b.Options.Cost, NodeCosts: b.Options.NodeCost,
			State: b.State, Peers: append([]wire.NodeID{}, b.Peers...), Tries: b.Tries, LinksMade: b.Made,
		}
		if b.Options.AllowedPeers != nil {
			r.AllowedPeers = &b.Options.AllowedPeers
		}
		if f := b.Failure; f != nil {
			r.LastError = &linkErrorReply{netceptor.LinkErrorKind(f.Err), f.Peer, f.Err.Error(), f.Time.UTC()}
		}
		if !b.NextTry.IsZero() {
			r.NextTryS = new(max(0, seconds(b.NextTry.Sub(at))))
		}
		list = append(list, r)
	}
	return list
}

func linkReplies(links []netceptor.Link, at time.Time) []linkReply {
	list := make([]linkReply, 0, len(links))
	for _, l := range links {
		list = append(list, linkReply{l.Node, l.Cost, l.Address, l.Backend, l.Since.UTC(), seconds(at.Sub(l.Heard)), l.KeepAlive, l.Sent, l.Received})
	}
	return list
}

func firewallOf(p *policy.Policy) firewallReply {
	f := firewallReply{Rules: []firewallRuleReply{}}
	for _, h := range p.Hits() {
		if h.Rule < 0 {
			f.DefaultPackets = h.Packets
			continue
		}
		f.Rules = append(f.Rules, firewallRuleReply{h.Source.String(), h.Packets})
	}
	return f
}
