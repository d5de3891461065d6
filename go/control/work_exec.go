package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
	"github.com/pyreceptor/pyreceptor/go/workceptor/attach"
)

const (
	execWorkType   = "exec" // Where the client names none.
	controlService = "control"

	execAnswerWait = 30 * time.Second // For the lines that another node answers an exec with.
	maxExecAnswer  = 64 << 10
)

var errExecForm = errors.New("work exec needs the JSON form")

// execRequest is a "work exec" as it was asked for.
type execRequest struct {
	node      wire.NodeID
	tlsClient string
	signWork  bool
	signature string
	run       workceptor.ExecRequest
}

// workExec makes the session the terminal, or the pipes, of a command on this node or another.
func (s *session) workExec(req request) error {
	if req.isText() {
		return errExecForm
	}
	x, err := execOf(req)
	if err != nil {
		return err
	}
	if x.node == s.srv.node.ID() || strings.EqualFold(string(x.node), "localhost") {
		return s.execHere(x)
	}
	return s.execThere(x)
}

func (s *session) execHere(x execRequest) error {
	if err := s.srv.work.VerifySubmit(x.run.WorkType, x.signature, s.trusted); err != nil {
		return err
	}
	unit, err := s.srv.work.Exec(x.run)
	if err != nil {
		return err
	}
	defer unit.Close()
	defer context.AfterFunc(s.ctx, func() { abort(unit) })()
	err = s.reply(map[string]any{"node": s.srv.node.ID(), "tty": x.run.Terminal != nil, "unitid": unit.ID()})
	if err != nil {
		return err
	}
	s.bridge(unit, true)
	return errSessionOver
}

// execThere asks another node, and then passes everything on.
func (s *session) execThere(x execRequest) error {
	signature, err := "", error(nil)
	if x.signWork {
		if signature, err = s.srv.work.Sign(x.node); err != nil {
			return err
		}
	}
	var stream workceptor.Stream
	var answer string
	s.whileConnected(func(ctx context.Context) {
		if stream, err = s.srv.dial(ctx, x.node, controlService, x.tlsClient); err != nil {
			return
		}
		defer context.AfterFunc(ctx, func() { abort(stream) })()
		if answer, err = askExec(stream, x, signature); err != nil {
			abort(stream)
		}
	})
	if err != nil {
		return err
	}
	defer stream.Close()
	defer context.AfterFunc(s.ctx, func() { abort(stream) })()
	if err := s.send([]byte(answer)); err != nil {
		abort(stream)
		return err
	}
	s.bridge(stream, true)
	return errSessionOver
}

// execInput is where the input of a command goes. A client that goes away is noticed although the command does not take what
// was sent before.
type execInput struct {
	s      *session
	stream workceptor.Stream
}

// stallWait is how long a command may take to read its input before somebody looks whether its client is still there.
const stallWait = time.Second

// Write implements io.Writer.
func (t execInput) Write(p []byte) (int, error) {
	_ = t.stream.SetWriteDeadline(time.Now().Add(stallWait))
	n, err := t.stream.Write(p)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return n, err
	}
	_ = t.stream.SetWriteDeadline(time.Time{})
	t.s.whileConnected(func(ctx context.Context) {
		defer context.AfterFunc(ctx, func() { abort(t.stream) })()
		defer t.whileHeard(func() { abort(t.stream) })()
		var more int
		more, err = t.stream.Write(p[n:])
		n += more
	})
	return n, err
}

// whileHeard calls f when a client on the mesh takes no more output, until stop is called: that is all that can be learnt of one
// whose data is not read.
func (t execInput) whileHeard(f func()) (stop func()) {
	c, ok := t.s.conn.(interface{ WriteClosed() <-chan struct{} })
	if !ok {
		return func() {}
	}
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-c.WriteClosed():
			f()
		case <-over:
		}
	})
	return func() { close(over); wg.Wait() }
}

// awaitHangup aborts the stream when the client, which has ended its data, goes away before over.
func (s *session) awaitHangup(stream workceptor.Stream, over <-chan struct{}) {
	s.whileConnected(func(ctx context.Context) {
		select {
		case <-ctx.Done():
			abort(stream)
		case <-over:
		}
	})
}

// askExec gives the request to the control service of another node and returns its answer, a line.
func askExec(stream workceptor.Stream, x execRequest, signature string) (string, error) {
	if err := stream.SetReadDeadline(time.Now().Add(execAnswerWait)); err != nil {
		return "", err
	}
	greeting, err := readLine(stream)
	if err != nil {
		return "", fmt.Errorf("control service of node %s: %w", x.node, err)
	}
	if want := "Receptor Control, node " + string(x.node); strings.TrimRight(greeting, "\r\n") != want {
		return "", fmt.Errorf("node %s greets with %q, want %q", x.node, greeting, want)
	}
	if _, err := stream.Write(x.line(signature)); err != nil {
		return "", fmt.Errorf("write error sending to %s: %w", x.node, err)
	}
	answer, err := readLine(stream)
	if err != nil {
		return "", fmt.Errorf("read error reading from %s: %w", x.node, err)
	}
	if text, refused := strings.CutPrefix(answer, "ERROR: "); refused {
		return "", fmt.Errorf("node %s: %s", x.node, strings.TrimSpace(text))
	}
	return answer, stream.SetReadDeadline(time.Time{})
}

// line is the request as it goes to the node that executes it.
func (x execRequest) line(signature string) []byte {
	keys := map[string]any{
		"command": "work", "subcommand": "exec", "node": x.node, "worktype": x.run.WorkType, "params": x.run.Params,
		"tty": x.run.Terminal != nil,
	}
	if x.run.Terminal != nil {
		keys["rows"], keys["cols"], keys["term"] = x.run.Terminal.Rows, x.run.Terminal.Cols, x.run.Term
	}
	if signature != "" {
		keys["signature"] = signature
	}
	line, _ := json.Marshal(keys) // Strings and numbers have a JSON form.
	return append(line, '\n')
}

// readLine reads one line and not a byte more.
func readLine(r io.Reader) (string, error) {
	var line []byte
	var b [1]byte
	for len(line) < maxExecAnswer {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return "", err
		}
		if line = append(line, b[0]); b[0] == '\n' {
			return string(line), nil
		}
	}
	return "", fmt.Errorf("line is longer than %d bytes", maxExecAnswer)
}

func execOf(req request) (execRequest, error) {
	x := execRequest{run: workceptor.ExecRequest{WorkType: execWorkType, Term: "xterm"}}
	size := attach.Size{Rows: 24, Cols: 80}
	var node, signWork string
	terminal := false
	texts := map[string]*string{
		"node": &node, "worktype": &x.run.WorkType, "params": &x.run.Params, "tlsclient": &x.tlsClient,
		"signwork": &signWork, "signature": &x.signature, "term": &x.run.Term,
	}
	for _, key := range []string{"node", "worktype", "params", "tlsclient", "signwork", "signature", "term"} {
		if value, found, isString := req.text(key); found && !isString {
			return x, fmt.Errorf("%s must be a string", key)
		} else if found {
			*texts[key] = value
		}
	}
	if raw, found := req.keys["tty"]; found && json.Unmarshal(raw, &terminal) != nil {
		return x, errors.New("tty must be a boolean")
	}
	numbers := map[string]*uint16{"rows": &size.Rows, "cols": &size.Cols}
	for _, key := range []string{"rows", "cols"} {
		if raw, found := req.keys[key]; found && (json.Unmarshal(raw, numbers[key]) != nil || *numbers[key] == 0) {
			return x, fmt.Errorf("%s must be an integer from 1 to 65535", key)
		}
	}
	if node == "" {
		return x, errNodeMissing
	}
	x.node, x.signWork = wire.NodeID(node), signWork == "true"
	if terminal {
		x.run.Terminal = &size
	}
	return x, nil
}
