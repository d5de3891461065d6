package control

import (
	"errors"
	"net"
)

var (
	errNotLocal = errors.New("session is for programs on the node's Unix socket: descriptors pass through no other")
	errTooEarly = errors.New("session: wait for the greeting before anything else is sent")
	errHandedOn = &brokenError{errors.New("the connection was handed on")}
)

// handOver makes the connection a session of the session protocol, which begins with its greeting.
func (s *session) handOver() error {
	conn, ok := s.conn.(*net.UnixConn)
	if !ok {
		return errNotLocal
	}
	if s.in.w > s.in.r {
		return errTooEarly
	}
	s.srv.session(s.ctx, conn)
	return errHandedOn
}
