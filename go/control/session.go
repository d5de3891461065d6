package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"time"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/policy/access"
)

// linger is how long the end of a session waits for the client to close its side, so that no reply is lost with the
// connection, and lingerBytes how much more it listens to.
const (
	linger      = 2 * time.Second
	lingerBytes = 1 << 20
)

// errSessionOver ends a session after a command that takes the connection over.
var errSessionOver = errors.New("session is over")

// session is one client's connection.
type session struct {
	srv     *Server
	conn    net.Conn
	in      input
	kind    Kind
	trusted bool           // May give work without a signature.
	allow   *access.Rules  // nil: everything.
	who     *access.Client // nil: nobody has asked yet.
	denied  bool           // Was refused a command.
	ctx     context.Context
}

func newSession(srv *Server, conn net.Conn, of listening) *session {
	return &session{srv: srv, conn: conn, in: input{conn: conn, lines: &srv.lines}, kind: of.kind, trusted: of.kind == Unix, allow: of.allow}
}

// run speaks with the client until one of them has enough.
func (s *session) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.srv.ctx, cancel)()
	s.ctx = ctx
	defer s.in.drop()
	defer s.conn.Close()
	defer context.AfterFunc(ctx, func() { _ = s.conn.Close() })()
	if s.handshake() != nil || s.send([]byte("Receptor Control, node "+string(s.srv.node.ID())+"\n")) != nil {
		return
	}
	for {
		line, err := s.in.line()
		switch {
		case err == errLineTooLong, err == errNoLineRoom:
			err = s.refuse(err)
		case err == nil && len(line) > 0:
			err = s.serve(line)
		}
		if errors.Is(err, errSessionOver) {
			s.finish()
		}
		if err != nil {
			return
		}
	}
}

// handshake completes the TLS handshake, if there is one to make, within its time.
func (s *session) handshake() error {
	conn, ok := s.conn.(interface{ HandshakeContext(context.Context) error })
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.ctx, handshakeTimeout)
	defer cancel()
	return conn.HandshakeContext(ctx)
}

// serve executes one line and replies. An error ends the session.
func (s *session) serve(line []byte) error {
	s.srv.working(1)
	defer s.srv.working(-1)
	reply, err := s.execute(line)
	var broken *brokenError
	switch {
	case errors.Is(err, errSessionOver), errors.As(err, &broken):
		return err
	case err != nil:
		return s.refuse(err)
	}
	return s.reply(reply)
}

func (s *session) execute(line []byte) (any, error) {
	req, err := parseRequest(line)
	if err != nil {
		return nil, err
	}
	return s.dispatch(req)
}

// brokenError is a failure to write to the client, who cannot be told of it.
type brokenError struct{ error }

func (e *brokenError) Unwrap() error { return e.error }

// send writes to the client.
func (s *session) send(b []byte) error {
	if _, err := s.conn.Write(b); err != nil {
		return &brokenError{err}
	}
	return nil
}

// reply sends one line of JSON. Maps have their keys in byte order.
func (s *session) reply(v any) error {
	if b, ok := v.(encoded); ok {
		return s.send(append(b, '\n'))
	}
	b, err := json.Marshal(v)
	if err != nil {
		return s.refuse(err)
	}
	return s.send(append(b, '\n'))
}

// refuse sends an error line. A line is one line, whatever the text says.
func (s *session) refuse(err error) error {
	text := oneLine.Replace(clientText(err))
	s.srv.log.Debug("control command refused", "err", text)
	return s.send([]byte("ERROR: " + text + "\n"))
}

var oneLine = strings.NewReplacer("\n", " ", "\r", " ")

// clientText is what a client reads about an error.
func clientText(err error) string {
	if dial, ok := errors.AsType[*netceptor.DialError](err); ok && dial.Text != "" {
		return dial.Text
	}
	return err.Error()
}

// finish ends the session after the last reply: sending direction first, and the rest once the client has closed too or
// a moment has passed. Closing at once could destroy a reply that the client has not read yet, if the client has sent
// something that was not.
func (s *session) finish() {
	half, ok := s.conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	_ = s.conn.SetReadDeadline(time.Now().Add(linger))
	_, _ = io.CopyN(io.Discard, &s.in, lingerBytes)
}
