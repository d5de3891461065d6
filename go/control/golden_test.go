package control

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// step is one line of a transcript: ">" sends, "<" expects, ">EOF", "<EOF" and ">CLOSE".
type step struct {
	op   string
	data []byte
}

type transcript struct {
	name  string
	node  string
	steps []step
}

var stepLine = regexp.MustCompile(`^(?:@[0-9.]+ )?(>x|<x|>EOF|<EOF|>CLOSE|>|<)(?: (.*))?$`)

// readTranscript parses a file of recorded sessions: blocks divided by empty lines.
func readTranscript(t *testing.T, file string) []transcript {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	var all []transcript
	for block := range strings.SplitSeq(string(data), "\n\n") {
		var tr transcript
		for line := range strings.Lines(block) {
			line = strings.TrimSuffix(line, "\n")
			if remark, ok := strings.CutPrefix(line, "# "); ok {
				if node, ok := strings.CutPrefix(remark, "connect unix socket of node "); ok {
					tr.node = node
				} else if tr.name == "" {
					tr.name = remark
				}
				continue
			}
			m := stepLine.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			s := step{op: m[1]}
			switch s.op {
			case ">", "<":
				var text string
				if err := json.Unmarshal([]byte(m[2]), &text); err != nil {
					t.Fatalf("%s: %q: %v", file, line, err)
				}
				s.data = []byte(text)
			case ">x", "<x":
				s.op = s.op[:1]
				if s.data, err = hex.DecodeString(m[2]); err != nil {
					t.Fatalf("%s: %q: %v", file, line, err)
				}
			}
			tr.steps = append(tr.steps, s)
		}
		if len(tr.steps) > 0 {
			all = append(all, tr)
		}
	}
	return all
}

var volatile = []struct {
	from *regexp.Regexp
	to   string
}{
	{regexp.MustCompile(`"Time":\d+`), `"Time":NS`},
	{regexp.MustCompile(`"TimeStr":"[0-9.]+(ns|µs|ms|s)"`), `"TimeStr":"DURATION"`},
	{regexp.MustCompile(`"Time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)"`), `"Time":"TIME"`},
	{regexp.MustCompile(`"SystemCPUCount":[1-9]\d*`), `"SystemCPUCount":N`},
	{regexp.MustCompile(`"SystemMemoryMiB":[1-9]\d*`), `"SystemMemoryMiB":N`},
	{regexp.MustCompile(`with ID [0-9A-Za-z]{8}\.`), `with ID UNIT.`},
}

// pattern replaces what differs from run to run, and sorts the list whose order is not stable.
func pattern(b []byte) string {
	s := string(b)
	for _, v := range volatile {
		s = v.from.ReplaceAllString(s, v.to)
	}
	const head = `{"Advertisements":[`
	if rest, ok := strings.CutPrefix(s, head); ok {
		list, tail, _ := strings.Cut(rest, `],"Connections"`)
		ads := strings.Split(list, `,{"NodeID"`)
		ads[0] = strings.TrimPrefix(ads[0], `{"NodeID"`)
		slices.Sort(ads)
		s = head + strings.Join(ads, "\n") + `],"Connections"` + tail
	}
	return s
}

// replay plays a recorded client against the server. Where the recorded service sent two lines for a line of bad JSON, the
// second is not expected.
func replay(t *testing.T, c net.Conn, tr transcript) {
	t.Helper()
	in := bufio.NewReader(c)
	lastWasError := false
	for i, s := range tr.steps {
		wasError := false
		switch s.op {
		case ">":
			if _, err := c.Write(s.data); err != nil {
				t.Fatalf("step %d: %v", i, err)
			}
		case "<":
			if lastWasError && string(s.data) == "ERROR: Unknown command\n" {
				continue // One error line for one line of bad JSON.
			}
			got, err := receive(in, s.data)
			if pattern(got) != pattern(s.data) {
				t.Fatalf("step %d: %v\ngot  %q\nwant %q", i, err, pattern(got), pattern(s.data))
			}
			wasError = badJSON(s.data)
		case ">EOF":
			if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Fatal(err)
			}
		case "<EOF":
			if rest, err := io.ReadAll(in); len(rest) > 0 || err != nil {
				t.Fatalf("step %d: %q, %v; want the end", i, rest, err)
			}
		case ">CLOSE":
			c.Close()
		}
		lastWasError = wasError
	}
}

func badJSON(reply []byte) bool {
	return bytes.HasPrefix(reply, []byte("ERROR: ")) && !bytes.HasPrefix(reply, []byte("ERROR: Unknown command"))
}

// receive reads a line, or the raw bytes that are wanted.
func receive(in *bufio.Reader, want []byte) ([]byte, error) {
	if bytes.IndexByte(want, '\n') == len(want)-1 {
		return in.ReadBytes('\n')
	}
	got := make([]byte, len(want))
	n, err := io.ReadFull(in, got)
	return got[:n], err
}

func TestGolden(t *testing.T) {
	for _, file := range []string{"01-status.txt", "02-ping.txt", "03-traceroute.txt", "04-connect.txt", "05-line-protocol.txt"} {
		t.Run(file, func(t *testing.T) {
			all := readTranscript(t, file)
			if len(all) < 8 {
				t.Fatalf("%d sessions", len(all))
			}
			for _, tr := range all {
				t.Run(tr.name, func(t *testing.T) {
					replay(t, newRig(t).dialUnix(t), tr)
				})
			}
		})
	}
}

// TestGoldenWork replays commands about a finished unit. The one difference is meant: a start position may be a string.
func TestGoldenWork(t *testing.T) {
	sessions := readTranscript(t, "work-01-local-basic.txt")
	r := newRig(t)
	r.work.add("5BWcFKon", "upper", workceptor.Succeeded, "HELLO WöRLD\nLINE 2\n")
	for _, tr := range sessions[1:] {
		if strings.Contains(tr.name, "numeric string is refused") {
			tr.steps = slices.DeleteFunc(tr.steps, func(s step) bool { return strings.HasPrefix(string(s.data), "ERROR") })
			tr.steps = slices.Insert(tr.steps, 2, step{"<", []byte("Streaming results for work unit 5BWcFKon\n")},
				step{"<", []byte("\nLINE 2\n")}, step{op: "<EOF"})
		}
		t.Run(tr.name, func(t *testing.T) { replay(t, r.dialUnix(t), tr) })
	}
}

// TestGoldenSubmit replays the first block, in which a second client asks while a payload is being sent.
func TestGoldenSubmit(t *testing.T) {
	tr := readTranscript(t, "work-01-local-basic.txt")[0]
	r := newRig(t)
	r.work.nextID = "5BWcFKon"
	c, other := r.dialUnix(t), r.dialUnix(t)
	in := bufio.NewReader(other)
	if greeting, err := in.ReadString('\n'); err != nil {
		t.Fatal(greeting, err)
	}
	ask := func() string {
		other.Write([]byte("work status 5BWcFKon\n"))
		reply, _ := in.ReadString('\n')
		return reply
	}
	replay(t, c, transcript{steps: tr.steps[:3]})
	if got, want := ask(), string(tr.steps[5].data); got != want {
		t.Errorf("while the payload is sent: got %s want %s", got, want)
	}
	end := slices.IndexFunc(tr.steps, func(s step) bool { return s.op == ">CLOSE" })
	replay(t, c, transcript{steps: tr.steps[6:end]})
	if got, want := ask(), string(tr.steps[len(tr.steps)-2].data); got != want {
		t.Errorf("at the end: got %s want %s", got, want)
	}
}

// TestGoldenSubmitErrors replays refusals. The list of what the recorded service left behind is not expected: nothing is.
func TestGoldenSubmitErrors(t *testing.T) {
	tr := readTranscript(t, "work-02-submit-errors.txt")[0]
	i := slices.IndexFunc(tr.steps, func(s step) bool { return string(s.data) == "work list\n" })
	tr.steps[i+1].data = []byte("{}\n")
	replay(t, newRig(t).dialUnix(t), tr)
}

// TestGoldenReload replays every reply of reload, with a reload function that has the recorded outcome.
func TestGoldenReload(t *testing.T) {
	for _, tr := range readTranscript(t, "07-reload.txt") {
		t.Run(tr.name, func(t *testing.T) {
			var outcomes []error
			for _, s := range tr.steps {
				var reply struct {
					Success *bool
					Error   string
				}
				if s.op != "<" || json.Unmarshal(s.data, &reply) != nil || reply.Success == nil {
					continue
				}
				text, code, failed := strings.Cut(reply.Error, " ERRORCODE ")
				switch {
				case !failed:
					outcomes = append(outcomes, nil)
				case code == "3":
					outcomes = append(outcomes, &ReloadError{ReloadNotReloadable, errors.New(text)})
				default:
					outcomes = append(outcomes, errors.New(text))
				}
			}
			r := newRig(t, func(c *Config) {
				c.Node = relNode{}
				c.Reload = reloader(outcomes)
				if strings.Contains(tr.name, "without a config file") {
					c.Reload = nil
				}
			})
			replay(t, r.dialUnix(t), tr)
		})
	}
}

func TestTimeStr(t *testing.T) {
	for ns, want := range map[time.Duration]string{650: "650ns", 15000: "15µs", 394579: "394.579µs", 1500 * time.Millisecond: "1.5s", 62500 * time.Millisecond: "1m2.5s"} {
		if got := ns.String(); got != want {
			t.Errorf("%d ns: %s, want %s", ns, got, want)
		}
	}
}
