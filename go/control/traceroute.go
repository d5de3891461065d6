package control

import (
	"context"
	"errors"
	"strconv"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
)

var (
	errNoTraceTarget   = errors.New("no traceroute target")
	errTraceTargetType = errors.New("traceroute target must be string")
)

// traceroute probes one hop after the other and tells all at the end.
func (s *session) traceroute(req request) (any, error) {
	target, err := targetOf(req, errNoTraceTarget, errTraceTargetType)
	if err != nil {
		return nil, err
	}
	reply := map[string]map[string]any{}
	s.whileConnected(func(ctx context.Context) {
		s.srv.node.Traceroute(ctx, target, func(hop int, p netceptor.Pong) {
			entry := map[string]any{"From": p.From, "Time": p.RTT.Nanoseconds(), "TimeStr": p.RTT.String()}
			// Running out of hops is what all probes but the last are for.
			if p.Err != nil && !errors.Is(p.Err, netceptor.ErrExpired) {
				entry["Error"] = probeText(p.Err)
			}
			reply[strconv.Itoa(hop)] = entry
		})
	})
	return reply, nil
}
