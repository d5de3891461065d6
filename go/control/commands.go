package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pyreceptor/pyreceptor/go/policy/access"
)

// builtin is a command of this package.
type builtin struct {
	run     func(*session, request) (any, error)
	offered func(*Server) bool // nil: always.
}

// builtins are the commands by name.
var builtins map[string]builtin

func init() {
	builtins = map[string]builtin{ // Not an initializer: version lists them.
		"config":     {run: (*session).config, offered: func(s *Server) bool { return s.config != nil }},
		"connect":    {run: func(s *session, r request) (any, error) { return nil, s.connect(r) }},
		"events":     {run: func(s *session, r request) (any, error) { return nil, s.events(r) }, offered: (*Server).observing},
		"links":      {run: (*session).links, offered: (*Server).observing},
		"metrics":    {run: (*session).metrics, offered: func(s *Server) bool { return s.metrics != nil }},
		"ping":       {run: (*session).ping},
		"reload":     {run: func(s *session, r request) (any, error) { return s.reload(r) }},
		"session":    {run: func(s *session, r request) (any, error) { return nil, s.handOver() }, offered: func(s *Server) bool { return s.session != nil }},
		"status":     {run: (*session).status},
		"topology":   {run: (*session).topology, offered: (*Server).observing},
		"traceroute": {run: (*session).traceroute},
		"version":    {run: (*session).version},
		"work":       {run: (*session).workCommand, offered: func(s *Server) bool { return s.work != nil }},
	}
}

// Handler answers a command that the program has added. What it returns is sent as one line of JSON, an error as an error
// line. ctx ends when the client goes away or the server is closed.
type Handler func(ctx context.Context, r *Request) (reply any, err error)

// Request is a command that was given to a [Handler].
type Request struct {
	Command string
	Params  string                     // Text form: what follows the first space, to the letter.
	Keys    map[string]json.RawMessage // JSON form; nil in the text form.
	Client  access.Client              // Who asks.

	session *session
	watch   *watch
	taken   bool
}

// Take sends a line and makes the connection the handler's, for a dialogue or bulk data: what the client sends is read
// from the returned value, up to [io.EOF] when it has closed its sending direction, and what is written goes to the client
// as it is. When the handler returns the connection is closed; its reply, if it is not nil, and its error are sent before
// that. From Take on the handler's context does not end with the client: reading and writing tell.
func (r *Request) Take(line string) (io.ReadWriter, error) {
	if r.taken {
		return nil, errors.New("the connection was taken already")
	}
	r.watch.stop()
	r.taken = true
	if err := r.session.send([]byte(oneLine.Replace(line) + "\n")); err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Writer
	}{&r.session.in, r.session.conn}, nil
}

// Handle adds a command. Its name is matched in any letter case in the text form and to the letter in JSON; it has no
// blanks and no upper case letters, and does not begin with a brace. The names of this package's commands are taken.
func (s *Server) Handle(name string, h Handler) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, taken := builtins[name]
	_, twice := s.custom[name]
	switch {
	case name == "" || strings.ContainsAny(name, " \r\n") || name[0] == '{' || name != strings.ToLower(name):
		return fmt.Errorf("control command %q: a name has no blanks, no line breaks and no upper case letters, and does not begin with a brace", name)
	case h == nil:
		return fmt.Errorf("control command %s: no handler", name)
	case taken || twice:
		return fmt.Errorf("control command %s exists already", name)
	}
	if s.custom == nil {
		s.custom = map[string]Handler{}
	}
	s.custom[name] = h
	return nil
}

func (s *Server) handler(name string) Handler {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.custom[name]
}

// commandNames returns all commands that the server offers, sorted.
func (s *Server) commandNames() []string {
	var all []string
	for name, b := range builtins {
		switch {
		case b.offered != nil && !b.offered(s):
		case name == "work":
			for _, sub := range workSubcommands {
				all = append(all, "work "+sub)
			}
		default:
			all = append(all, name)
		}
	}
	s.mu.Lock()
	all = slices.AppendSeq(all, maps.Keys(s.custom))
	s.mu.Unlock()
	slices.Sort(all)
	return all
}

// NoCommands returns the names in rules that are commands of no server, unless the program adds them.
func NoCommands(rules *access.Rules) []string {
	return slices.DeleteFunc(rules.Commands(), func(name string) bool {
		sub, ofWork := strings.CutPrefix(name, "work ")
		_, known := builtins[name]
		return name == "*" || known || ofWork && slices.Contains(workSubcommands, sub)
	})
}

// dispatch executes a request.
func (s *session) dispatch(req request) (any, error) {
	b, known := builtins[req.command]
	if known && b.offered != nil && !b.offered(s.srv) {
		return nil, errUnknownCommand
	}
	var h Handler
	if !known {
		if h = s.srv.handler(req.command); h == nil {
			return nil, errUnknownCommand
		}
	}
	name := req.fullName()
	if err := s.authorise(name); err != nil {
		return nil, err
	}
	started := time.Now()
	var reply any
	var err error
	if known {
		reply, err = b.run(s, req)
	} else {
		reply, err = s.custom(h, req)
	}
	s.srv.stats.note(name, time.Since(started), err)
	return reply, err
}

// fullName is the command with its sub-command, as rules, statistics and version name it.
func (r request) fullName() string {
	if r.command != "work" {
		return r.command
	}
	sub, _, err := subcommand(r)
	if sub == submitOnce {
		sub = "submit"
	}
	if err == nil && slices.Contains(workSubcommands, sub) {
		return "work " + sub
	}
	return "work" // What is no sub-command gets its error.
}

// custom runs a command of the program around this package.
func (s *session) custom(h Handler, req request) (any, error) {
	w := s.watchClient()
	r := &Request{Command: req.command, Params: req.params, Keys: req.keys, Client: s.client(), session: s, watch: w}
	reply, err := h(w.ctx, r)
	w.stop()
	w.cancel(nil)
	if !r.taken {
		return reply, err
	}
	var sendErr error
	switch {
	case err != nil:
		sendErr = s.refuse(err)
	case reply != nil:
		sendErr = s.reply(reply)
	}
	if sendErr != nil {
		return nil, sendErr
	}
	return nil, errSessionOver
}
