package remote

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
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
type FollowWriter struct{ w io.Writer }

// NewFollowWriter writes the banner.
func NewFollowWriter(w io.Writer, id unit.ID) (*FollowWriter, error) {
	_, err := io.WriteString(w, followBanner+string(id)+"\n")
	return &FollowWriter{w}, err
}

// Status tells the status of the unit; text is a reply to "work status".
func (f *FollowWriter) Status(text []byte) error {
	return f.record(`{"Status":` + string(text) + "}\n")
}

// Ended tells how the unit has ended before its status is complete: the checksum of its output follows.
func (f *FollowWriter) Ended(text []byte) error {
	return f.record(`{"Ended":` + string(text) + "}\n")
}

// outputs hold records of output that are on their way; its head ends where the content begins.
var outputs = sync.Pool{New: func() any { return new([outputHead + outputSize]byte) }}

const (
	outputSize = 128 << 10 // The longest output record that is written. It ends where a multiple of that does in the file.
	outputHead = 64
)

// Output passes on a part of what file has from byte from on, up to byte end: as much as one record holds. It returns how many
// bytes that were, 0 if there are none.
func (f *FollowWriter) Output(file io.ReaderAt, from, end int64) (int, error) {
	buf := outputs.Get().(*[outputHead + outputSize]byte)
	defer outputs.Put(buf)
	n, err := file.ReadAt(buf[outputHead:][:min(outputSize-from%outputSize, end-from)], from)
	if n == 0 {
		if err == io.EOF {
			err = nil
		}
		return 0, err
	}
	head := `{"Output":` + strconv.Itoa(n) + "}\n"
	record := buf[outputHead-copy(buf[outputHead-len(head):], head) : outputHead+n]
	_, err = f.w.Write(record)
	return n, err
}

// Quiet tells that there is nothing new.
func (f *FollowWriter) Quiet() error { return f.record("{}\n") }

// Released tells that the unit is gone.
func (f *FollowWriter) Released() error { return f.record("{\"Released\":true}\n") }

func (f *FollowWriter) record(text string) error {
	_, err := io.WriteString(f.w, text)
	return err
}

// Following is the submitter's side of "work follow".
type Following struct {
	c     *Conn
	left  int       // Bytes of the last output record that have not been read.
	until time.Time // The deadline for them.
}

// News is one record. The zero value says that there is nothing new.
type News struct {
	Status   *Status
	Ended    *Status // The unit is complete but for the checksum of its output, all of which has come. A last Status follows.
	Output   int     // So many bytes of output come next, from [Following.Read].
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
		Ended    json.RawMessage
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
	if news.Status, err = statusIn(record.Status); err != nil {
		return News{}, err
	}
	if news.Ended, err = statusIn(record.Ended); err != nil {
		return News{}, err
	}
	if news.Ended != nil && !news.Ended.State.Complete() {
		return News{}, fmt.Errorf("bad record: it says that the unit has ended, and that it is %v", news.Ended.State)
	}
	f.left = record.Output
	return news, nil
}

// statusIn is nil without one.
func statusIn(text json.RawMessage) (*Status, error) {
	if len(text) == 0 {
		return nil, nil
	}
	s, err := ParseStatus(text)
	return &s, err
}

// Read reads the output that the last record has announced; io.EOF is the end of that.
func (f *Following) Read(p []byte) (int, error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	if now := time.Now(); f.until.Sub(now) < beatWait-time.Second { // It need not be exact, and there are many reads.
		f.until = now.Add(beatWait)
		f.c.s.SetReadDeadline(f.until)
	}
	n, err := f.c.r.Read(p[:min(len(p), f.left)])
	f.left -= n
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
