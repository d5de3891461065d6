package control

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// waiter sends one request about unit unitAAAA in a bubble and returns where its reply will come.
func waiter(t *testing.T, b *bubble, keys string) (net.Conn, <-chan string) {
	c := b.connect(t, TCP)
	replies := make(chan string, 10)
	go func() {
		defer close(replies)
		in := bufio.NewReader(c)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			replies <- strings.TrimSuffix(line, "\n")
		}
	}()
	if _, err := fmt.Fprintf(c, `{"command":"work","subcommand":"status","unitid":"unitAAAA"%s}`+"\n", keys); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return c, replies
}

func quiet(t *testing.T, replies <-chan string) {
	t.Helper()
	synctest.Wait()
	select {
	case got := <-replies:
		t.Fatalf("answered too early: %s", got)
	default:
	}
}

func answered(t *testing.T, replies <-chan string, want string) {
	t.Helper()
	synctest.Wait()
	select {
	case got := <-replies:
		if !strings.Contains(got, want) {
			t.Fatalf("got %s, want %s in it", got, want)
		}
	default:
		t.Fatalf("no answer, want %s", want)
	}
}

func TestWorkStatusWait(t *testing.T) {
	state := func(s workceptor.State) func(*fakeUnit) {
		return func(u *fakeUnit) { u.change(func() { u.status.State = s }) }
	}
	text := func(text string) func(*fakeUnit) { return func(u *fakeUnit) { u.write(text) } }
	for _, tc := range []struct {
		keys       string
		early, end func(*fakeUnit) // What does not end the wait, and what does.
		want       string
	}{
		{`,"wait":true`, state(workceptor.Running), state(workceptor.Failed), `"StateName":"Failed"`},
		{`,"wait":"complete"`, text("output"), state(workceptor.Canceled), `"StateName":"Canceled"`},
		{`,"wait":"Running"`, text("output"), state(workceptor.Running), `"StateName":"Running"`},
		{`,"wait":"running"`, nil, state(workceptor.Succeeded), `"StateName":"Succeeded"`},
		{`,"wait":"succeeded"`, state(workceptor.Running), state(workceptor.Failed), `"StateName":"Failed"`},
		{`,"wait":"change"`, nil, text("x"), `"StdoutSize":1`},
		{`,"wait":"change"`, nil, func(u *fakeUnit) { u.change(func() { u.status.QueuePosition = 1 }) }, `"State":0`},
		{`,"wait":"change","timeout":null`, nil, state(workceptor.Running), `"StateName":"Running"`},
	} {
		t.Run(tc.keys, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble()
				defer b.Close()
				u := b.work.add("unitAAAA", "cat", workceptor.Pending, "")
				b.work.add("other", "cat", workceptor.Pending, "")
				c, replies := waiter(t, b, tc.keys)
				defer c.Close()
				quiet(t, replies)
				if tc.early != nil {
					tc.early(u)
					quiet(t, replies)
				}
				time.Sleep(1000 * time.Hour)
				quiet(t, replies)
				tc.end(u)
				answered(t, replies, tc.want)
			})
		})
	}
}

func TestWorkStatusWaitAtOnce(t *testing.T) {
	for keys, want := range map[string]string{
		`,"wait":true`:                     `"State":2`,
		`,"wait":"change"`:                 `"State":2`, // There will be none.
		`,"wait":false`:                    `"State":2`,
		`,"wait":null`:                     `"State":2`,
		`,"wait":"pending","timeout":1`:    `"State":2`,
		`,"wait":1`:                        `ERROR: field wait must be true, false, "complete", "change" or the name of a state, and 1 is not`,
		`,"wait":"soon"`:                   `ERROR: field wait must be true, false, "complete", "change" or the name of a state, and "soon" is not`,
		`,"wait":true,"timeout":-1`:        `ERROR: field timeout must be a number of seconds or a text such as 1m30s, and -1 is not`,
		`,"wait":true,"timeout":"a while"`: `ERROR: field timeout must be a number of seconds or a text such as 1m30s, and "a while" is not`,
		`,"wait":true,"timeout":[]`:        `ERROR: field timeout must be a number of seconds or a text such as 1m30s, and [] is not`,
		`,"wait":true,"timeout":1e300`:     `"State":2`,
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBubble()
			defer b.Close()
			b.work.add("unitAAAA", "cat", workceptor.Succeeded, "")
			c, replies := waiter(t, b, keys)
			defer c.Close()
			answered(t, replies, want)
		})
	}
}

func TestWorkStatusWaitTimeout(t *testing.T) {
	for _, limit := range []string{`90`, `"1m30s"`, `"90"`, `9e1`} {
		synctest.Test(t, func(t *testing.T) {
			b := newBubble()
			defer b.Close()
			b.work.add("unitAAAA", "cat", workceptor.Running, "")
			c, replies := waiter(t, b, `,"wait":true,"timeout":`+limit)
			defer c.Close()
			time.Sleep(90*time.Second - time.Nanosecond)
			quiet(t, replies)
			time.Sleep(time.Nanosecond)
			answered(t, replies, `"StateName":"Running","StdoutSize":0,"WorkType":"cat","TimedOut":true}`)
			if _, err := c.Write([]byte("work status unitAAAA\n")); err != nil { // The session goes on.
				t.Fatal(err)
			}
			answered(t, replies, `"WorkType":"cat"}`)
		})
	}
}

func TestWorkStatusWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble()
		b.work.add("unitAAAA", "cat", workceptor.Running, "")
		c, replies := waiter(t, b, `,"wait":true`)
		if _, err := b.work.Release(t.Context(), "unitAAAA", true); err != nil {
			t.Fatal(err)
		}
		answered(t, replies, "ERROR: unknown work unit unitAAAA")
		c.Close()

		b.work.add("unitAAAA", "cat", workceptor.Running, "")
		_, replies = waiter(t, b, `,"wait":true`)
		b.Close() // Ends sessions that wait.
		if got, more := <-replies; more {
			t.Errorf("told %s at the end of the server", got)
		}
		if left := sessionsLeft(); left != "" {
			t.Errorf("left behind:\n%s", left)
		}
	})
}

// TestWorkStatusWaitClientGone ends the wait of a client that leaves.
func TestWorkStatusWaitClientGone(t *testing.T) {
	r := newRig(t)
	r.work.add("unitAAAA", "cat", workceptor.Running, "")
	c := r.dialUnix(t)
	in := bufio.NewReader(c)
	wantLine(t, in, "Receptor Control, node alpha")
	fmt.Fprintln(c, "work status unitAAAA\n"+`{"command":"work","subcommand":"status","unitid":"unitAAAA","wait":true}`)
	if _, err := in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	c.Close()
	for deadline := time.Now().Add(time.Minute); r.Stats().Sessions > 0; {
		if time.Now().After(deadline) {
			t.Fatalf("the session is still there:\n%s", sessionsLeft())
		}
		time.Sleep(time.Millisecond) // Nothing tells of the end of a session.
	}
}

// TestAskWaits waits for the program itself, which has no connection.
func TestAskWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble()
		defer b.Close()
		u := b.work.add("unitAAAA", "cat", workceptor.Running, "")
		go func() {
			time.Sleep(time.Hour)
			u.end()
		}()
		reply, err := b.Ask(t.Context(), `{"command":"work","subcommand":"status","unitid":"unitAAAA","wait":true}`)
		if status, ok := reply.(workceptor.Status); err != nil || !ok || status.State != workceptor.Succeeded {
			t.Errorf("%v, %v", reply, err)
		}
	})
}
