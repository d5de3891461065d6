package control

import (
	"context"
	"errors"

	"github.com/pyreceptor/pyreceptor/go/policy/access"
)

var errNeedsConnection = errors.New("this command needs a connection")

// Ask executes one command line for the program that the service is part of, without a connection and whatever the
// rules of listeners say. The reply marshals to JSON as a client would read it. Commands that stream are refused.
func (s *Server) Ask(ctx context.Context, line string) (any, error) {
	req, err := parseRequest([]byte(line))
	if err != nil {
		return nil, err
	}
	if !askable[req.fullName()] {
		return nil, errNeedsConnection
	}
	return (&session{srv: s, kind: Unix, trusted: true, who: &access.Client{Listener: "program"}, ctx: ctx}).dispatch(req)
}

// askable are the commands that only reply.
var askable = map[string]bool{
	"config": true, "links": true, "metrics": true, "status": true, "topology": true, "version": true,
	"work list": true, "work status": true,
}
