package control

import (
	"context"
	"errors"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

var (
	errNoPingTarget   = errors.New("no ping target")
	errPingTargetType = errors.New("ping target must be string")
)

// ping sends one probe and tells who answered, and when.
func (s *session) ping(req request) (any, error) {
	target, err := targetOf(req, errNoPingTarget, errPingTargetType)
	if err != nil {
		return nil, err
	}
	var pong netceptor.Pong
	s.whileConnected(func(ctx context.Context) { pong = s.srv.node.Ping(ctx, target, wire.MaxHops) })
	if pong.Err != nil {
		return map[string]any{"Success": false, "Error": probeText(pong.Err)}, nil
	}
	return map[string]any{"Success": true, "From": pong.From, "Time": pong.RTT.Nanoseconds(), "TimeStr": pong.RTT.String()}, nil
}

// targetOf reads the one parameter of ping and traceroute. In JSON it may be an empty string, the name of no node.
func targetOf(req request, missing, wrongType error) (wire.NodeID, error) {
	if req.isText() {
		if req.params == "" {
			return "", missing
		}
		return wire.NodeID(req.params), nil
	}
	target, found, isString := req.text("target")
	switch {
	case !found:
		return "", missing
	case !isString:
		return "", wrongType
	}
	return wire.NodeID(target), nil
}

// probeText is the text of a probe's error as clients know it, without what was added on the way.
func probeText(err error) string {
	for _, known := range []error{
		netceptor.ErrNoRoute, netceptor.ErrTimeout, netceptor.ErrServiceUnknown, netceptor.ErrExpired,
		netceptor.ErrFirewall, netceptor.ErrNoNextHop, netceptor.ErrClosed, errClientGone,
	} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	if errors.Is(err, context.Canceled) {
		return errClientGone.Error()
	}
	return err.Error()
}
