package remote

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// Limits of "work follow".
const (
	// Beat is how long the executor lets a follower wait for a record: it says that there is nothing new.
	Beat = 10 * time.Second
	// beatWait is how long the submitter waits for one before it gives the session up.
	beatWait = 3 * Beat
	// MaxOutput is the longest output record, in bytes, that is taken.
	MaxOutput = 1 << 20
)

// ErrNotOffered is the answer of a node that does not know "work follow" or "work submit-once". The session goes on.
var ErrNotOffered = errors.New("the node offers only what all nodes do")

const followBanner = "Following work unit "

// FollowWriter writes the executor's side of "work follow": the banner, then records as they come. Every method makes
// one Write.
type FollowWriter struct {
	w   io.Writer
	buf []byte
}

// NewFollowWriter writes the banner.
func NewFollowWriter(w io.Writer, id unit.ID) (*FollowWriter, error) {
	_, err := io.WriteString(w, followBanner+string(id)+"\n")
	return &FollowWriter{w: w}, err
}

// Status tells the status of the unit; text is a reply to "work status".
func (f *FollowWriter) Status(text []byte) error {
	return f.record(`{"Status":`, text, "}\n")
}

// Output passes on what follows the output before it. It may keep up to its length in memory for the next time.
func (f *FollowWriter) Output(p []byte) error {
	return f.record(`{"Output":`+strconv.Itoa(len(p))+"}\n", p, "")
}

// Quiet tells that there is nothing new.
func (f *FollowWriter) Quiet() error { return f.record("{}\n", nil, "") }

// Released tells that the unit is gone.
func (f *FollowWriter) Released() error { return f.record("{\"Released\":true}\n", nil, "") }

func (f *FollowWriter) record(before string, content []byte, after string) error {
	f.buf = append(append(append(f.buf[:0], before...), content...), after...)
	_, err := f.w.Write(f.buf)
	return err
}

// Rest gives memory back while nothing happens.
func (f *FollowWriter) Rest() { f.buf = nil }

// Following is the submitter's side of "work follow".
type Following struct {
	c    *Conn
	left int // Bytes of the last output record that have not been read.
}

// News is one record. The zero value says that there is nothing new.
type News struct {
	Status   *Status
	Output   int // So many bytes of output come next, from [Following.Read].
	Released bool
}

func unknownCommand(text string) bool { return text == "bad command" || text == "Unknown command" }

// Follow asks the other node to push status and output of a unit, from offset on. After [ErrNotOffered], or another
// refusal, the session may be used for other requests.
func (c *Conn) Follow(id unit.ID, offset int64, signature string) (*Following, error) {
	keys := map[string]any{"command": "work", "subcommand": "follow", "unitid": string(id), "startpos": offset}
	sign(keys, signature)
	if err := c.sendJSON(keys); err != nil {
		return nil, err
	}
	line, err := c.answer(ActionWait)
	if err != nil {
		return nil, err
	}
	switch text, refused := refusal(line); {
	case refused && unknownCommand(text):
		return nil, ErrNotOffered
	case refused:
		return nil, asError(line)
	case line != followBanner+string(id):
		return nil, fmt.Errorf("%w: it answered %s", ErrNotOffered, shorten(line))
	}
	return &Following{c: c}, nil
}

// Next waits for the next record. The output of the one before must have been read. io.EOF is the end that the other
// node has made: the last status says whether there is more to come on another session.
func (f *Following) Next() (News, error) {
	if f.left > 0 {
		return News{}, fmt.Errorf("%d bytes of output have not been read", f.left)
	}
	line, err := f.c.answer(beatWait)
	if errors.Is(err, io.ErrUnexpectedEOF) && line == "" {
		return News{}, io.EOF
	}
	if err != nil {
		return News{}, err
	}
	var record struct {
		Status   json.RawMessage
		Output   int
		Released bool
	}
	if err := json.Unmarshal([]byte(line), &record); err != nil {
		return News{}, fmt.Errorf("bad record: %w: %s", err, shorten(line))
	}
	if record.Output < 0 || record.Output > MaxOutput {
		return News{}, fmt.Errorf("bad record: %d bytes of output, at most %d are taken", record.Output, MaxOutput)
	}
	news := News{Output: record.Output, Released: record.Released}
	if len(record.Status) > 0 {
		s, err := ParseStatus(record.Status)
		if err != nil {
			return News{}, err
		}
		news.Status = &s
	}
	f.left = record.Output
	return news, nil
}

// Read reads the output that the last record has announced; io.EOF is the end of that.
func (f *Following) Read(p []byte) (int, error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	f.c.s.SetReadDeadline(time.Now().Add(beatWait))
	n, err := f.c.r.Read(p[:min(len(p), f.left)])
	f.left -= n
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
