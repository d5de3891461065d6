package netceptor

import (
	"cmp"
	"fmt"
	"log/slog"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// SetTrace says whether the node logs every packet, at level debug: from where to where, how many bytes of payload, how many
// hops it had left, the neighbour that it goes to (via), and what became of it. A packet of the node's own has a line when
// it is sent ("originated") and, if it is for the node itself, another one when it is delivered. The outcomes are the names
// of [Counters.ByOutcome], and "refused" with the reason. Tracing off costs a packet one load of a flag.
func (n *Node) SetTrace(on bool) { n.tracing.Store(on) }

// trace logs one packet that came by a link or is delivered here. Callers ask n.tracing first.
func (n *Node) trace(outcome string, from, to wire.NodeID, h wire.Header, payload int, more ...any) {
	if !n.log.Enabled(n.ctx, slog.LevelDebug) {
		return
	}
	n.log.Debug("packet", append([]any{
		"outcome", outcome,
		"from", string(from) + ":" + h.FromService.String(), "to", string(to) + ":" + h.ToService.String(),
		"bytes", payload, "hops", h.Hops,
	}, more...)...)
}

// traceUnknown is trace for a packet whose source or destination may have no known name; its hash stands for it.
func (n *Node) traceUnknown(outcome string, from, to *destination, h wire.Header, payload int) {
	name := func(d *destination, hash wire.NodeHash) wire.NodeID {
		if d == nil {
			return wire.NodeID(fmt.Sprintf("#%016x", uint64(hash)))
		}
		return d.name
	}
	n.trace(outcome, name(from, h.From), name(to, h.To), h, payload)
}

// traceSent logs packets of this node's own that have one header, the last one being shorter if size does not divide total.
func (n *Node) traceSent(to wire.NodeID, h wire.Header, total, size int, err error) {
	outcome, more := "originated", []any{}
	if dest := n.table.Load().byName(to); err != nil {
		outcome, more = "refused", []any{"err", err}
	} else if dest != nil && dest.next != nil {
		more = []any{"via", dest.next.id}
	}
	for first := true; first || total > 0; first = false {
		n.trace(outcome, n.id, to, h, min(total, size), more...)
		total -= cmp.Or(size, total)
	}
}
