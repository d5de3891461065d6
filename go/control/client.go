package control

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"slices"

	"github.com/pyreceptor/pyreceptor/go/identity"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/policy/access"
)

// DeniedError refuses a command to a client that no rule allows it to.
type DeniedError struct {
	Client  access.Client
	Command string
}

func (e *DeniedError) Error() string {
	return fmt.Sprintf("not allowed: %s may not use %s here", e.Client, e.Command)
}

// authorise refuses a command that the listener's rules do not allow to this client.
func (s *session) authorise(command string) error {
	if s.allow == nil || s.allow.Allow(s.client(), command) {
		return nil
	}
	denied := &DeniedError{s.client(), command}
	s.srv.stats.deny()
	level := slog.LevelWarn
	if s.denied { // Once for each client: who goes on asking does not fill the log.
		level = slog.LevelDebug
	}
	s.denied = true
	s.srv.log.Log(s.ctx, level, "control command not allowed", "command", command, "client", denied.Client.String())
	return denied
}

// client says who is at the other end. The operating system and the handshake are asked once.
func (s *session) client() access.Client {
	if s.who == nil {
		who := identify(s.conn, s.kind)
		s.who = &who
	}
	return *s.who
}

func identify(conn net.Conn, kind Kind) access.Client {
	c := access.Client{Listener: kind.String()}
	switch conn := conn.(type) {
	case *net.UnixConn:
		c.UID, c.Groups, c.Local = peerOf(conn)
	case *netceptor.Stream:
		if a, ok := netceptor.PeerOf(conn.RemoteAddr()); ok {
			c.Node = a.Node
		}
	}
	if state, ok := tlsState(conn); ok && len(state.PeerCertificates) > 0 {
		// Listeners ask for certificates only if they verify them.
		c.CertNodes, _ = identity.NodeIDs(state.PeerCertificates[0]) // One with broken names has none.
	}
	return c
}

func tlsState(conn net.Conn) (tls.ConnectionState, bool) {
	switch conn := conn.(type) {
	case *tls.Conn:
		return conn.ConnectionState(), true
	case *netceptor.Stream:
		return conn.TLS(), true
	}
	return tls.ConnectionState{}, false
}

// Option is a property of one listener.
type Option func(*listening)

// listening is what the sessions of one listener have in common.
type listening struct {
	kind  Kind
	allow *access.Rules
}

// Allow restricts the commands that clients of a listener may use. nil Rules allow all.
func Allow(rules *access.Rules) Option { return func(l *listening) { l.allow = rules } }

// checkRules warns of commands in the rules that do not exist: often slips of the pen that shut somebody out.
// Rules of several listeners are looked at once.
func (s *Server) checkRules(rules *access.Rules) {
	s.mu.Lock()
	again := rules == s.checked
	s.checked = rules
	s.mu.Unlock()
	if again {
		return
	}
	known := append(s.commandNames(), "*", "work")
	for _, name := range rules.Commands() {
		if !slices.Contains(known, name) {
			s.log.Warn("control service: a rule allows a command that does not exist", "command", name)
		}
	}
}
