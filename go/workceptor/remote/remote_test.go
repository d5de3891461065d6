package remote

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// pipe is a Stream whose other side says one text and hears everything, also after its last word.
type pipe struct {
	net.Conn
	aborted atomic.Bool
}

func (p *pipe) Write(b []byte) (int, error) {
	if p.aborted.Load() {
		return 0, net.ErrClosed
	}
	return len(b), nil
}
func (p *pipe) CloseWrite() error  { return nil }
func (p *pipe) Abort(uint64) error { p.aborted.Store(true); return p.Conn.Close() }

func open(t *testing.T, says string) (*Conn, error) {
	t.Helper()
	near, far := net.Pipe()
	go func() { // It ends with the pipe.
		io.WriteString(far, says)
		if !strings.HasSuffix(says, "\n") {
			far.Close()
		}
	}()
	t.Cleanup(func() { near.Close(); far.Close() })
	return Open(t.Context(), &pipe{Conn: near}, "beta")
}

func TestGreeting(t *testing.T) {
	for says, ok := range map[string]bool{
		"Receptor Control, node beta\n":  true,
		"Receptor Control, node gamma\n": false,
		"Receptor Control, node beta":    false,
		"":                               false,
		strings.Repeat("beta", MaxLine):  false,
	} {
		if _, err := open(t, says); (err == nil) != ok {
			t.Errorf("%.40q: got %v", says, err)
		}
	}
}

func TestAnswers(t *testing.T) {
	for says, want := range map[string]error{
		`{"State":2,"Detail":"exit status 0","StdoutSize":12}`: nil,
		"ERROR: unknown work unit X":                           ErrUnknownUnit,
		"ERROR":                                                new(RefusedError),
		"ERROR: out of order":                                  new(RefusedError),
	} {
		c, err := open(t, "Receptor Control, node beta\n"+says+"\n")
		if err != nil {
			t.Fatal(err)
		}
		s, err := c.Status("X")
		_, wantRefused := errors.AsType[*RefusedError](want)
		if _, got := errors.AsType[*RefusedError](err); got != wantRefused || !wantRefused && !errors.Is(err, want) {
			t.Errorf("%q: got %+v, %v, want %v", says, s, err, want)
		}
	}
}

func TestContextEndsEverything(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	go func() { io.WriteString(far, "Receptor Control, node beta\n"); io.Copy(io.Discard, far) }()
	ctx, cancel := context.WithCancel(t.Context())
	c, err := Open(ctx, &pipe{Conn: near}, "beta")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := c.Status("X"); err == nil {
		t.Error("an answer came from nowhere")
	}
}

// endless never ends and cancels on the way.
type endless struct {
	n    int
	stop func()
}

func (r *endless) Read(p []byte) (int, error) {
	if r.n += len(p); r.n > 1<<20 {
		r.stop()
	}
	return len(p), nil
}

// TestHalfPayloadIsAborted: a payload that breaks off must not look like a whole one.
func TestHalfPayloadIsAborted(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	go func() {
		io.WriteString(far, "Receptor Control, node beta\nWork unit created with ID BRVFlI6d. Send stdin data and EOF.\n")
	}()
	ctx, cancel := context.WithCancel(t.Context())
	s := &pipe{Conn: near}
	c, err := Open(ctx, s, "beta")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Submit(Request{Node: "beta"}); err != nil {
		t.Fatal(err)
	}
	if err := c.SendPayload("beta", &endless{stop: cancel}); err == nil {
		t.Fatal("the payload ended")
	}
	c.Close()
	if !s.aborted.Load() {
		t.Error("the stream was closed as if the payload were whole")
	}
}

// deaf is a pipe whose other side takes no payload.
type deaf struct{ *pipe }

func (d deaf) Write(b []byte) (int, error) {
	if len(b) >= 1<<10 {
		return 0, errors.New("reset by the peer")
	}
	return d.pipe.Write(b)
}

// TestRefusedPayload: a node that stops taking the payload has said why, or may be tried again.
func TestRefusedPayload(t *testing.T) {
	for says, want := range map[string]string{
		"ERROR: no space left on device\n": "error from remote: no space left on device",
		"":                                 "error sending stdin file: reset by the peer",
	} {
		near, far := net.Pipe()
		go func() {
			io.WriteString(far, "Receptor Control, node beta\nWork unit created with ID BRVFlI6d. Send stdin data and EOF.\n"+says)
			far.Close()
		}()
		c, err := Open(t.Context(), deaf{&pipe{Conn: near}}, "beta")
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.Submit(Request{Node: "beta"}); err != nil {
			t.Fatal(err)
		}
		err = c.SendPayload("beta", strings.NewReader(strings.Repeat("x", 1<<20)))
		refused, is := errors.AsType[*RefusedError](err)
		if err == nil || err.Error() != want || is != (says != "") {
			t.Errorf("got %v, want %s", err, want)
		}
		if is && (refused.Node != "beta" || refused.Said != "no space left on device") {
			t.Errorf("got %+v, want who has said what", refused)
		}
		c.Close()
	}
}

// TestRefusedSubmit: what clients are told is one text; who has refused, what it says and an unknown type can be told apart.
func TestRefusedSubmit(t *testing.T) {
	for says, want := range map[string]struct {
		node, said string
		unknown    bool
	}{
		"ERROR: unknown work type dog": {"beta", "unknown work type dog", true},
		"ERROR: write: no space":       {"beta", "write: no space", false},
		"hello":                        {},
	} {
		c, err := open(t, "Receptor Control, node beta\n"+says+"\n")
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = c.Submit(Request{Node: "beta", WorkType: "dog"})
		refused, is := errors.AsType[*RefusedError](err)
		if !is || refused.Text != "could not parse response: "+says || refused.Node != want.node || refused.Said != want.said {
			t.Errorf("%q: got %+v, want %+v", says, err, want)
		}
		if errors.Is(err, ErrUnknownType) != want.unknown {
			t.Errorf("%q: is it an unknown type? got %v", says, !want.unknown)
		}
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add([]byte(`{"Detail":"exit status 0","ExtraData":null,"State":2,"StateName":"Succeeded","StdoutSize":12,"WorkType":"upper"}`))
	f.Add([]byte(`{"State":1e3,"Detail":null,"StdoutSize":12.0}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		s, err := ParseStatus(line)
		if err == nil && (s.StdoutSize < 0 || len(s.Detail) > 70<<10) {
			t.Fatalf("accepted %+v", s)
		}
	})
}

// FuzzFollow lets the other node say anything while its unit is followed: there is a record, or an error, and never more
// output than was announced.
func FuzzFollow(f *testing.F) {
	f.Add([]byte("{\"Output\":3}\nabc{\"Status\":{\"State\":2,\"Detail\":\"x\",\"StdoutSize\":3}}\n{\"Released\":true}\n"))
	f.Add([]byte("{\"Output\":-1}\n"))
	f.Add([]byte("{\"Output\":1e9}\n{}\n[]\n"))
	f.Fuzz(func(t *testing.T, says []byte) {
		near, far := net.Pipe()
		defer near.Close()
		go func() {
			far.Write(append([]byte("Receptor Control, node beta\n"), says...))
			far.Close()
		}()
		c, err := Open(t.Context(), &pipe{Conn: near}, "beta")
		if err != nil {
			t.Fatal(err)
		}
		following, heard := &Following{c: c}, 0
		for {
			news, err := following.Next()
			if err != nil {
				return
			}
			n, err := io.Copy(io.Discard, following)
			if heard += int(n); n > int64(news.Output) || heard > len(says) || err == nil && n < int64(news.Output) {
				t.Fatalf("%d bytes of output were read where %d were announced, %v", n, news.Output, err)
			}
			if err != nil {
				return
			}
		}
	})
}

// TestOutputRecordsEndTogether wherever they have begun, so that whoever stores them writes whole blocks.
func TestOutputRecordsEndTogether(t *testing.T) {
	out, err := NewFollowWriter(io.Discard, "X")
	if err != nil {
		t.Fatal(err)
	}
	file := strings.NewReader(strings.Repeat("x", 3*outputSize))
	for from, want := range map[int64]int{0: outputSize, 1: outputSize - 1, outputSize - 1: 1, outputSize: outputSize, 2*outputSize + 5: outputSize - 5} {
		if n, err := out.Output(file, from, file.Size()); n != want || err != nil {
			t.Errorf("from %d: got a record of %d bytes, %v, want %d", from, n, err, want)
		}
	}
}

func TestFollowRecords(t *testing.T) {
	var said bytes.Buffer
	out, err := NewFollowWriter(&said, "X")
	if err != nil {
		t.Fatal(err)
	}
	pass := func(from, end int64) error {
		n, err := out.Output(strings.NewReader("ab\ncd"), from, end)
		if want := min(end, 5) - from; int64(n) != want {
			t.Errorf("from %d to %d: %d bytes were passed on, want %d", from, end, n, want)
		}
		return err
	}
	const status = `{"Detail":"exit status 3","ExitCode":3,"ExtraData":null,"Reason":"exit","State":3,"StateName":"Failed","StdoutSize":5,"WorkType":"sh"}`
	if err := errors.Join(out.Quiet(), pass(0, 4), pass(4, 9), pass(5, 9), out.Ended([]byte(status)), out.Status([]byte(status)), out.Released()); err != nil {
		t.Fatal(err)
	}
	want := "Following work unit X\n{}\n{\"Output\":4}\nab\nc{\"Output\":1}\nd{\"Ended\":" + status + "}\n{\"Status\":" + status + "}\n{\"Released\":true}\n"
	if said.String() != want {
		t.Fatalf("got %q, want %q", &said, want)
	}
	c, err := open(t, "Receptor Control, node beta\n"+said.String())
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.Follow("X", 0, "")
	if err != nil {
		t.Fatal(err)
	}
	var got []News
	var output []byte
	for range 6 {
		news, err := f.Next()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, news)
		if news.Output > 0 {
			if _, err := f.Next(); err == nil {
				t.Error("a record was read before the output of the one before")
			}
			part, err := io.ReadAll(f)
			if err != nil {
				t.Fatal(err)
			}
			output = append(output, part...)
		}
	}
	ended, s := got[3].Ended, got[4].Status
	if got[1].Output != 4 || got[2].Output != 1 || !got[5].Released || ended == nil || got[4].Ended != nil || got[3].Status != nil || string(output) != "ab\ncd" || s == nil {
		t.Fatalf("got %+v, %q", got, output)
	}
	if ended.State != unit.Failed || ended.StdoutSize != 5 {
		t.Errorf("got the end as %+v", ended)
	}
	if s.State != unit.Failed || s.StdoutSize != 5 || *s.Outcome.Code != 3 || s.Outcome.Reason != unit.ReasonExit {
		t.Errorf("got %+v", s)
	}
}

func TestFollowRefusals(t *testing.T) {
	for says, want := range map[string]error{
		"ERROR: bad command\n":              ErrNotOffered,
		"ERROR: Unknown command\n":          ErrNotOffered,
		"something else\n":                  ErrNotOffered,
		"Following work unit Y\n":           ErrNotOffered,
		"ERROR: unknown work unit X\n":      ErrUnknownUnit,
		"ERROR: signature is not to like\n": new(RefusedError),
	} {
		c, err := open(t, "Receptor Control, node beta\n"+says)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Follow("X", 0, "")
		refused, wanted := (*RefusedError)(nil), (*RefusedError)(nil)
		if !errors.Is(err, want) && !(errors.As(want, &wanted) && errors.As(err, &refused)) {
			t.Errorf("%q: got %v, want %v", says, err, want)
		}
	}
}

func TestHostileRecords(t *testing.T) {
	for says, want := range map[string]string{
		"{\"Output\":1048577}\n":       "at most 1048576 are taken",
		"{\"Output\":-1}\n":            "at most 1048576 are taken",
		"{\"Output\":\"x\"}\n":         "bad record",
		"garbage\n":                    "bad record",
		"{\"Status\":{\"State\":2}}\n": "State, Detail or StdoutSize is missing",
		"{\"Ended\":{\"State\":2}}\n":  "State, Detail or StdoutSize is missing",
		`{"Ended":{"State":1,"Detail":"","StdoutSize":0}}` + "\n": "it says that the unit has ended, and that it is Running",
		strings.Repeat("x", MaxLine+8192) + "\n":                  "answer is longer",
		"{\"Output\":5}\nab":                                      "unexpected EOF",
	} {
		c, err := open(t, "Receptor Control, node beta\nFollowing work unit X\n"+says)
		if err != nil {
			t.Fatal(err)
		}
		f, err := c.Follow("X", 0, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err = f.Next(); err == nil {
			_, err = io.ReadAll(f)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, want %s", says, err, want)
		}
	}
}
