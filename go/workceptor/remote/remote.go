// Package remote speaks the control protocol with the node that executes a unit: the client's side of submit, status,
// results, cancel and release, one [Conn] per mesh stream. It reads no more of a line than it may, bounds every line
// and every wait, and never panics on what the other node sends. It does not decide what to do about an answer.
//
// It also has both sides of "work follow", which nodes of this implementation offer one another: status and output of a
// unit over one stream, pushed as they change. [FollowWriter] writes its records, [Conn.Follow] and [Following] read
// them. A node that does not offer it answers [ErrNotOffered], and the session can be used for the requests that every
// node knows. The bytes: go/control/README.md, "work follow".
package remote

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// Limits on the other node.
const (
	MaxLine       = 1 << 20 // Bytes of one answer.
	maxShown      = 1 << 10 // Bytes of an unexpected answer that get into an error.
	GreetingWait  = 5 * time.Second
	AnswerWait    = 10 * time.Second // To a status request.
	ActionWait    = 30 * time.Second // To a request that makes the other node do something.
	acceptWait    = 2 * time.Minute  // From the end of the payload to the final line: the unit may be passed on further.
	progressWait  = time.Minute      // For a block of payload to be taken.
	payloadBuffer = 64 << 10
	parting       = time.Second // For the last line of a node that takes no more payload: it was sent before that was told.
)

// Stream is the connection below. Abort ends it such that the other end sees a failure, not the end of data.
type Stream interface {
	net.Conn
	CloseWrite() error
	Abort(code uint64) error
}

// ErrUnknownUnit is the answer of a node that does not have the unit.
var ErrUnknownUnit = errors.New("unknown work unit")

// ErrUnknownType is a work type that a node does not have, as it says itself.
var ErrUnknownType = errors.New("unknown work type")

// RefusedError is an answer that says no: trying again would not help.
type RefusedError struct {
	Text string // What clients are told.
	Node string // Whose answer it is; "" where it is none of another node's words.
	Said string // Its error, without what stands before it in Text.
}

func (e *RefusedError) Error() string { return e.Text }

// Is makes errors.Is(err, ErrUnknownType) true where the other node has said that.
func (e *RefusedError) Is(target error) bool {
	return target == ErrUnknownType && strings.HasPrefix(e.Said, ErrUnknownType.Error())
}

// Conn is one session with the control service of another node. One goroutine uses it.
type Conn struct {
	s       Stream
	r       *bufio.Reader
	unlink  func() bool
	once    sync.Once
	sending atomic.Bool // From the request of a submit to the acceptance of its payload.
}

// Open takes over s, on which node must greet us. When ctx ends the stream is closed and every call fails.
func Open(ctx context.Context, s Stream, node string) (*Conn, error) {
	c := &Conn{s: s, r: bufio.NewReaderSize(s, 4<<10)}
	c.unlink = context.AfterFunc(ctx, c.end)
	line, err := c.answer(GreetingWait)
	if err == nil && !strings.Contains(line, node) {
		err = fmt.Errorf("greeting of another node: %s", shorten(line))
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("greeting from %s: %w", node, err)
	}
	return c, nil
}

// Close ends the session, and aborts it if a payload is under way.
func (c *Conn) Close() {
	c.unlink()
	c.end()
}

func (c *Conn) end() {
	if c.sending.Load() {
		c.Abort()
		return
	}
	c.once.Do(func() { c.s.Close() })
}

// Abort ends the session such that the other node cannot take what was sent for all that there is.
func (c *Conn) Abort() {
	c.once.Do(func() {
		_ = c.s.Abort(1)
		_ = c.s.Close()
	})
}

func shorten(line string) string {
	if len(line) > maxShown {
		return line[:maxShown] + "..."
	}
	return line
}

// send writes one line.
func (c *Conn) send(line []byte) error {
	c.s.SetWriteDeadline(time.Now().Add(AnswerWait))
	_, err := c.s.Write(append(line, '\n'))
	return err
}

func (c *Conn) sendJSON(keys map[string]any) error {
	line, err := json.Marshal(keys)
	if err != nil {
		return err
	}
	return c.send(line)
}

// answer reads one line, newline cut off.
func (c *Conn) answer(wait time.Duration) (string, error) {
	c.s.SetReadDeadline(time.Now().Add(wait))
	var line []byte
	for {
		part, err := c.r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return string(bytes.TrimRight(line, "\r\n")), nil
		case len(line) > MaxLine:
			return "", fmt.Errorf("answer is longer than %d bytes", MaxLine)
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return "", io.ErrUnexpectedEOF
		default:
			return "", err
		}
	}
}

// refusal tells an error line from an answer.
func refusal(line string) (text string, refused bool) {
	text, refused = strings.CutPrefix(line, "ERROR")
	return strings.TrimPrefix(strings.TrimPrefix(text, ":"), " "), refused
}

// Request is what is submitted.
type Request struct {
	Node, WorkType, TLSClient string
	Params                    map[string]string
	Signature                 string // "" sends none.
	Submission                string // "" is for nodes that do not know names of submissions.
}

var prompt = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`with ID ([a-zA-Z0-9]+)\.`)
})

// Submit asks for a unit and returns its ID; the payload is sent next. begun: the other node has all it needs, from an earlier
// submission of that name; nothing is to be sent. A [*RefusedError] is final. After [ErrNotOffered], which
// is for a Submission only, the session may be used for the same request without.
func (c *Conn) Submit(req Request) (id unit.ID, begun bool, err error) {
	keys := map[string]any{}
	for name, value := range req.Params {
		keys[name] = value
	}
	keys["command"], keys["subcommand"], keys["node"], keys["worktype"] = "work", "submit", req.Node, req.WorkType
	keys["tlsclient"] = req.TLSClient
	if req.Submission != "" {
		keys["subcommand"], keys["submission"] = "submit-once", req.Submission
	}
	sign(keys, req.Signature)
	// From here on the other node may wait for the payload, and a plain close would be its end.
	c.sending.Store(true)
	if err := c.sendJSON(keys); err != nil {
		return "", false, fmt.Errorf("write error sending to %s: %w", req.Node, err)
	}
	line, err := c.answer(ActionWait)
	if err != nil {
		return "", false, fmt.Errorf("read error reading from %s: %w", req.Node, err)
	}
	if text, refused := refusal(line); refused && req.Submission != "" && unknownCommand(text) {
		c.sending.Store(false)
		return "", false, ErrNotOffered
	}
	if id, ok := begunUnit(line); ok && req.Submission != "" {
		c.sending.Store(false)
		return id, true, nil
	}
	match := prompt().FindStringSubmatch(line)
	if match == nil || !unit.ID(match[1]).Valid() {
		refused := &RefusedError{Text: "could not parse response: " + shorten(line)}
		if said, is := refusal(line); is {
			refused.Node, refused.Said = req.Node, shorten(said)
		}
		return "", false, refused
	}
	return unit.ID(match[1]), false, nil
}

// begunUnit reads the last line of a submit where the first is expected.
func begunUnit(line string) (unit.ID, bool) {
	var last struct {
		Result string  `json:"result"`
		UnitID unit.ID `json:"unitid"`
	}
	err := json.Unmarshal([]byte(line), &last)
	return last.UnitID, err == nil && last.Result != "" && last.UnitID.Valid()
}

func sign(keys map[string]any, signature string) {
	if signature != "" {
		keys["signature"] = signature
	}
}

// SendPayload sends r up to its end and waits until the other node has accepted it. A node that takes no more of it, because its
// disk is full, say, has said why: that is a [*RefusedError], as at the end.
func (c *Conn) SendPayload(node string, r io.Reader) error {
	c.s.SetReadDeadline(time.Time{})
	w := &progressWriter{s: c.s}
	if _, err := io.CopyBuffer(w, struct{ io.Reader }{r}, make([]byte, payloadBuffer)); err != nil {
		if w.err != nil {
			if line, none := c.answer(parting); none == nil {
				if refused := remoteRefusal(node, line); refused != nil {
					return refused
				}
			}
		}
		return fmt.Errorf("error sending stdin file: %w", err)
	}
	if err := c.s.CloseWrite(); err != nil {
		return fmt.Errorf("write error sending to %s: %w", node, err)
	}
	line, err := c.answer(acceptWait)
	if err != nil {
		return fmt.Errorf("read error reading from %s: %w", node, err)
	}
	if err := remoteRefusal(node, line); err != nil {
		return err
	}
	c.sending.Store(false)
	return nil
}

// remoteRefusal makes an error of the last line of a submit that is one.
func remoteRefusal(node, line string) error {
	if _, text, refused := strings.Cut(line, "ERROR: "); refused {
		said := shorten(text)
		return &RefusedError{Text: "error from remote: " + said, Node: node, Said: said}
	}
	return nil
}

// progressWriter gives every block its own deadline: a payload of any size may be sent, a peer that stalls is left.
type progressWriter struct {
	s   Stream
	err error // Of the last Write.
}

func (w *progressWriter) Write(p []byte) (n int, err error) {
	w.s.SetWriteDeadline(time.Now().Add(progressWait))
	n, w.err = w.s.Write(p)
	return n, w.err
}

// Status is what another node says about its unit. All but the first three are of nodes of this implementation; zero if not told.
type Status struct {
	State             unit.State
	Detail            string
	StdoutSize        int64
	Started, Finished time.Time
	Outcome           unit.Outcome
	QueuePosition     int // 0 if it does not wait for other units.
}

// Status asks for a unit: ErrUnknownUnit, another [*RefusedError], or an error of the connection.
func (c *Conn) Status(id unit.ID) (Status, error) {
	if err := c.send([]byte("work status " + string(id))); err != nil {
		return Status{}, err
	}
	line, err := c.answer(AnswerWait)
	if err != nil {
		return Status{}, err
	}
	if err := asError(line); err != nil {
		return Status{}, err
	}
	return ParseStatus([]byte(line))
}

// asError makes an error of a line that is one.
func asError(line string) error {
	text, refused := refusal(line)
	switch {
	case !refused:
		return nil
	case strings.Contains(text, ErrUnknownUnit.Error()):
		return ErrUnknownUnit
	}
	return &RefusedError{Text: shorten(text)}
}

// ParseStatus reads an answer to "work status". The numbers must be plain integers.
func ParseStatus(line []byte) (Status, error) {
	var keys struct {
		State      *unit.State
		Detail     *string
		StdoutSize *int64
	}
	if err := json.Unmarshal(line, &keys); err != nil {
		return Status{}, fmt.Errorf("bad status: %w", err)
	}
	if keys.State == nil || keys.Detail == nil || keys.StdoutSize == nil {
		return Status{}, fmt.Errorf("bad status: State, Detail or StdoutSize is missing: %s", shorten(string(line)))
	}
	if *keys.StdoutSize < 0 {
		return Status{}, fmt.Errorf("bad status: StdoutSize is negative: %d", *keys.StdoutSize)
	}
	const maxDetail = 64 << 10 // It is stored and shown again and again.
	detail := *keys.Detail
	if len(detail) > maxDetail {
		detail = strings.ToValidUTF8(detail[:maxDetail], "") + "..."
	}
	s := Status{State: *keys.State, Detail: detail, StdoutSize: *keys.StdoutSize}
	s.takeMore(line)
	return s, nil
}

// takeMore reads what only nodes of this implementation tell. It is for people to see, so what makes no sense is passed over.
func (s *Status) takeMore(line []byte) {
	var keys map[string]json.RawMessage
	if json.Unmarshal(line, &keys) != nil {
		return
	}
	take(keys["QueuePosition"], &s.QueuePosition)
	take(keys["Started"], &s.Started)
	take(keys["Finished"], &s.Finished)
	take(keys["ExitCode"], &s.Outcome.Code)
	take(keys["Signal"], &s.Outcome.Signal)
	take(keys["Reason"], &s.Outcome.Reason)
	take(keys["StdoutSHA256"], &s.Outcome.SHA256)
}

func take[T any](raw json.RawMessage, to *T) {
	const longest = 64 // A sum, in hexadecimal, is as long as that.
	var value T
	if len(raw) > 0 && len(raw) <= longest+2 && json.Unmarshal(raw, &value) == nil {
		*to = value
	}
}

// Results asks for output from offset on and returns it as it comes; reading may wait for ever, until ctx of [Open]
// ends or Close.
func (c *Conn) Results(id unit.ID, offset int64, signature string) (io.Reader, error) {
	keys := map[string]any{"command": "work", "subcommand": "results", "unitid": string(id), "startpos": offset}
	sign(keys, signature)
	if err := c.sendJSON(keys); err != nil {
		return nil, err
	}
	line, err := c.answer(ActionWait)
	if err != nil {
		return nil, err
	}
	if err := asError(line); err != nil {
		return nil, err
	}
	if !strings.Contains(line, "Streaming results") {
		return nil, fmt.Errorf("unexpected answer to a request for results: %s", shorten(line))
	}
	return c.r, c.s.SetReadDeadline(time.Time{})
}

// Act sends "cancel" or "release" for a unit. ErrUnknownUnit: there is nothing left to do. pending: the answer does not say that
// it is done.
func (c *Conn) Act(action string, id unit.ID, signature string) (pending bool, err error) {
	keys := map[string]any{"command": "work", "subcommand": action, "unitid": string(id)}
	sign(keys, signature)
	if err := c.sendJSON(keys); err != nil {
		return false, err
	}
	line, err := c.answer(ActionWait)
	if err != nil {
		return false, err
	}
	var done struct{ Cancelled, Released unit.ID }
	json.Unmarshal([]byte(line), &done)
	return done.Cancelled != id && done.Released != id, asError(line)
}
