package daemon

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/workceptor/attach"
)

// execSession gives a "work exec" to a new session; answer is the first line.
func execSession(t *testing.T, network, addr, line string) (c net.Conn, in *bufio.Reader, answer string) {
	t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	in = bufio.NewReader(c)
	if _, err := in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		t.Fatal(err)
	}
	answer, err = in.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return c, in, answer
}

// TestExecOverTheMesh: a terminal on another node, from a Unix socket and from TCP, behaves as one here.
func TestExecOverTheMesh(t *testing.T) {
	exec := []string{"--work-command", "worktype=exec", "command=sh", "params=-c", "allowruntimeparams=true", "allowpty=true"}
	_, public := signingKeys(t)
	socket, tcp, _, _ := workAt(t, exec, append(exec, "--work-limits", "maxrunning=8", "--work-verification", public))
	const run = `{"command":"work","subcommand":"exec","node":"b","params":"'stty size; read x; echo got $x; exit 7'","tty":true,"rows":40,"cols":100,"tlsclient":"cli"}`
	for name, at := range map[string]struct{ network, addr, line, node string }{
		"here":            {"unix", socket, strings.NewReplacer(`"b"`, `"localhost"`, `,"tlsclient":"cli"`, "").Replace(run), "a"},
		"from a socket":   {"unix", socket, run, "b"},
		"there, from TCP": {"tcp", tcp, strings.NewReplacer(`,"tlsclient":"cli"`, "").Replace(run), "b"},
	} {
		c, in, answer := execSession(t, at.network, at.addr, at.line)
		if !strings.HasPrefix(answer, `{"node":"`+at.node+`","tty":true,"unitid":"`) {
			t.Errorf("%s: got answer %q", name, answer)
			continue
		}
		if _, err := c.Write(attach.Append(nil, attach.Input, []byte("hello\r"))); err != nil {
			t.Fatal(err)
		}
		var stdout, last string
		frames := attach.NewReader(in)
		for {
			kind, content, err := frames.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: after %q: %v", name, stdout, err)
			}
			if kind == attach.Exit {
				last += string(content)
				if len(content) == 0 {
					_ = c.Close()
					break
				}
				continue
			}
			if kind == attach.Stdout {
				stdout += string(content)
			}
		}
		// What the terminal echoes comes before or after the first line.
		if stdout = strings.Replace(stdout, "hello\r\n", "", 1); stdout != "40 100\r\ngot hello\r\n" {
			t.Errorf("%s: got %q", name, stdout)
		}
		var status struct{ ExitCode int }
		if err := json.Unmarshal([]byte(last), &status); err != nil || status.ExitCode != 7 {
			t.Errorf("%s: got status %q, %v", name, last, err)
		}
	}
}

// TestExecRefusals: a refusal leaves the session as it was.
func TestExecRefusals(t *testing.T) {
	_, public := signingKeys(t)
	socket, _, _, _ := workAt(t, nil, []string{"--work-verification", public})
	for line, want := range map[string]string{
		`work exec b`:                                                                             "ERROR: work exec needs the JSON form\n",
		`{"command":"work","subcommand":"exec"}`:                                                  "ERROR: field node missing\n",
		`{"command":"work","subcommand":"exec","node":7}`:                                         "ERROR: node must be a string\n",
		`{"command":"work","subcommand":"exec","node":"a","tty":"yes"}`:                           "ERROR: tty must be a boolean\n",
		`{"command":"work","subcommand":"exec","node":"a","rows":0}`:                              "ERROR: rows must be an integer from 1 to 65535\n",
		`{"command":"work","subcommand":"exec","node":"a","cols":70000}`:                          "ERROR: cols must be an integer from 1 to 65535\n",
		`{"command":"work","subcommand":"exec","node":"a"}`:                                       "ERROR: unknown work type exec\n",
		`{"command":"work","subcommand":"exec","node":"b","tlsclient":"nix"}`:                     "ERROR: unknown TLS config nix\n",
		`{"command":"work","subcommand":"exec","node":"b","tlsclient":"cli","worktype":"plain"}`:  "ERROR: node b: work type plain does not allow exec\n",
		`{"command":"work","subcommand":"exec","node":"b","tlsclient":"cli","worktype":"secure"}`: "ERROR: node b: could not verify signature: signature is empty\n",
		`{"command":"work","subcommand":"exec","node":"b","tlsclient":"cli","signwork":"true"}`:   "ERROR: cannot sign work: signing key is empty\n",
		`{"command":"work","subcommand":"exec","node":"ghost"}`:                                   "",
	} {
		c, in, answer := execSession(t, "unix", socket, line)
		if !strings.HasPrefix(answer, "ERROR: ") || want != "" && answer != want {
			t.Errorf("%s: got %q, want %q", line, answer, want)
		}
		if _, err := io.WriteString(c, "work list\n"); err != nil {
			t.Fatal(err)
		}
		if next, err := in.ReadString('\n'); next != "{}\n" || err != nil {
			t.Errorf("%s: afterwards got %q, %v", line, next, err)
		}
	}
}
