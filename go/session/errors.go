package session

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// Code is a stable error code of the protocol; README.md has the table.
type Code string

// The codes.
const (
	BadRequest     Code = "bad_request"
	BadConfig      Code = "config"
	Closed         Code = "closed"
	Cancelled      Code = "cancelled"
	Timeout        Code = "timeout"
	NoRoute        Code = "no_route"
	ServiceUnknown Code = "service_unknown"
	Expired        Code = "expired"
	Firewall       Code = "firewall"
	Refused        Code = "refused"
	Reset          Code = "reset"
	TooLarge       Code = "too_large"
	InUse          Code = "in_use"
	TooMany        Code = "too_many"
	UnitUnknown    Code = "unit_unknown"
	WorkType       Code = "work_type"
	Work           Code = "work"
	Internal       Code = "internal"
)

// Error is an error as the protocol carries it.
type Error struct {
	Code      Code   `json:"code"`
	Msg       string `json:"msg"`
	Node      string `json:"node,omitempty"`
	Remote    *bool  `json:"remote,omitempty"`
	ErrorCode uint64 `json:"error_code,omitempty"`

	closed bool // The node is, and nothing else is said: see closedError.
}

func (e *Error) Error() string { return e.Msg }

func badRequest(msg string) *Error { return &Error{Code: BadRequest, Msg: msg} }

// causes maps what other packages return to codes; the first that matches counts.
var causes = []struct {
	err  error
	code Code
}{
	{netceptor.ErrNoRoute, NoRoute},
	{netceptor.ErrNoNextHop, NoRoute},
	{netceptor.ErrServiceUnknown, ServiceUnknown},
	{netceptor.ErrExpired, Expired},
	{netceptor.ErrFirewall, Firewall},
	{netceptor.ErrTimeout, Timeout},
	{netceptor.ErrServiceInUse, InUse},
	{netceptor.ErrPayloadSize, TooLarge},
	{wire.ErrServiceLength, BadRequest},
	{workceptor.ErrUnknownUnit, UnitUnknown},
	{workceptor.ErrUnknownType, WorkType},
	{workceptor.ErrUnknownTLS, BadConfig},
	{context.DeadlineExceeded, Timeout},
	{os.ErrDeadlineExceeded, Timeout},
	{context.Canceled, Cancelled},
	{netceptor.ErrDuplicateNode, Closed},
	{netceptor.ErrClosed, Closed},
	{workceptor.ErrClosed, Closed},
	{net.ErrClosed, Closed},
	{unix.EADDRINUSE, InUse},
	{fs.ErrNotExist, BadConfig},
	{fs.ErrPermission, BadConfig},
}

// closedError says of which node a request has come too late.
func (h *host) closedError() *Error {
	d := h.built()
	if d == nil {
		return &Error{Code: Closed, Msg: "the node is closed"}
	}
	id := string(d.Node.ID())
	return &Error{Code: Closed, Msg: fmt.Sprintf("node %q is closed", id), Node: id}
}

// toError makes a protocol error of any error; fallback is the code where none fits.
func toError(err error, fallback Code) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	e := &Error{Code: fallback, Msg: err.Error()}
	if _, ok := errors.AsType[*config.Error](err); ok {
		e.Code = BadConfig
		return e
	}
	if refused, ok := errors.AsType[*workceptor.RefusedError](err); ok && refused.Node != "" {
		e.Node, e.Msg = refused.Node, fmt.Sprintf("node %s: %s", refused.Node, refused.Said)
	}
	if reset, ok := errors.AsType[*netceptor.ResetError](err); ok {
		e.Code, e.Node, e.Remote, e.ErrorCode = Reset, string(reset.Peer.Node), &reset.Remote, reset.Code
		return e
	}
	dial, dialled := errors.AsType[*netceptor.DialError](err)
	if dialled {
		e.Node = string(dial.Addr.Node)
		e.Code = Refused
	}
	for _, c := range causes {
		if dialled && c.err == net.ErrClosed { //nolint:errorlint // The table's own entry.
			continue // What was closed is the connection that the far side refused, not this node.
		}
		if errors.Is(err, c.err) {
			e.Code = c.code
			if c.err == context.DeadlineExceeded { //nolint:errorlint // The table's own entry.
				e.Msg = "no answer within the time given"
			}
			if err == netceptor.ErrClosed || err == workceptor.ErrClosed { //nolint:errorlint // With nothing said about what was done.
				e.closed, e.Msg = true, "the node is closed" // A program knows no parts of it.
			}
			break
		}
	}
	return e
}
