package control

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// bubble is a server in a synctest bubble whose clients are in-memory pipes.
type bubble struct {
	*Server
	node *fakeNode
	work *fakeWork
}

func newBubble() *bubble {
	b := &bubble{node: &fakeNode{id: "alpha"}, work: newFakeWork()}
	b.node.ping = func(ctx context.Context) netceptor.Pong {
		<-ctx.Done()
		return netceptor.Pong{Err: context.Cause(ctx)}
	}
	b.Server = newServer(Config{Node: b.node, Dial: func(ctx context.Context, _ wire.NodeID, _, _ string) (workceptor.Stream, error) {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}}, b.work)
	return b
}

// connect returns the client's end of a new session, past the greeting.
func (b *bubble) connect(t *testing.T, kind Kind) net.Conn {
	near, far := net.Pipe()
	b.start(context.Background(), far, listening{kind: kind})
	if line, err := bufio.NewReaderSize(near, 29).ReadString('\n'); err != nil || line != "Receptor Control, node alpha\n" {
		t.Fatalf("greeting %q, %v", line, err)
	}
	return near
}

// drain reads a client's replies until the end, in the background.
func drain(c io.Reader) <-chan string {
	out := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(c)
		out <- string(b)
	}()
	return out
}

// sessionsLeft returns the stacks of goroutines that belong to sessions.
func sessionsLeft() string {
	buf := make([]byte, 1<<20)
	for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(stack, "control.(*session)") {
			return stack
		}
	}
	return ""
}

var commands = []string{
	"status\n", "ping beta\n", "ping silent\n", "traceroute gamma\n", "connect beta control\n", "reload\n", "work list\n", "work status u1\n",
	"work cancel u1\n", "work results running\n", "work results u1\nextra", "work submit localhost cat\npayload", "{\"command\":\"status\"}\n",
	"{\"command\":\"work\",\"subcommand\":\"submit\",\"node\":\"alpha\",\"worktype\":\"cat\",\"x\":\"y\"}\npayload", "\xff\xfe\x00{\n", "{\"\xff\":}\n",
	"version\n", "events link unit\n", "topology\n", "links\n", "{\"command\":\"events\",\"kinds\":[\"route\"]}\nmore",
	"{\"command\":\"work\",\"subcommand\":\"status\",\"unitid\":\"u1\",\"wait\":true,\"timeout\":9}\n",
	"{\"command\":\"work\",\"subcommand\":\"status\",\"unitid\":\"running\",\"wait\":true,\"timeout\":9}\n",
}

// TestDisconnectEverywhere closes the connection after every byte of every command. No goroutine may stay.
func TestDisconnectEverywhere(t *testing.T) {
	for _, command := range commands {
		for cut := range len(command) + 1 {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble()
				b.work.add("u1", "cat", workceptor.Succeeded, "output")
				b.work.add("running", "cat", workceptor.Running, "some")
				c := b.connect(t, TCP)
				got := drain(c)
				if _, err := c.Write([]byte(command[:cut])); err != nil {
					t.Fatalf("%q: %v", command[:cut], err)
				}
				synctest.Wait()
				c.Close()
				<-got
				if strings.Contains(command, "wait") { // The like; it ends with its limit.
					time.Sleep(10 * time.Second)
				}
				if strings.HasPrefix(command[:cut], "work results running") {
					// A pipe does not tell a half-closed connection from one that is gone: the next output finds out.
					u, _ := b.work.unit("running")
					synctest.Wait()
					u.write("more")
				}
				if strings.HasPrefix(command, "ping silent") || strings.HasPrefix(command, "connect") {
					b.stop() // The like: these end with their own time limits.
				}
				synctest.Wait()
				if left := sessionsLeft(); left != "" {
					t.Errorf("%q cut after %d: left behind:\n%s", command, cut, left)
				}
				b.Close()
			})
		}
	}
}

func TestLines(t *testing.T) {
	for _, tc := range []struct{ name, send, want string }{
		{"nothing", "", ""},
		{"only newlines", "\n\r\n\n", ""},
		{"bad UTF-8 is echoed as it is in errors", "work status \xff\xfe\n", "ERROR: unknown work unit \xff\xfe\n"},
		{"bad UTF-8 in JSON", "{\"command\":\"work\",\"subcommand\":\"status\",\"unitid\":\"\xff\"}\n", "ERROR: unknown work unit \ufffd\n"},
		{"a newline in an error text", "{\"command\":\"work\",\"subcommand\":\"submit\",\"a\\nb\":1}\n", "ERROR: submit parameters must all be strings and a b is not\n"},
		{"one line for bad JSON", "{\nping\n", "ERROR: unexpected end of JSON input\nERROR: no ping target\n"},
		{"deep JSON", strings.Repeat(`{"a":`, 20000) + "\n", "ERROR: invalid character '{' exceeded max depth\n"},
		{"unit IDs cannot be paths", "work status ../../etc\nwork cancel .\nwork results a/b\n", "ERROR: unknown work unit ../../etc\nERROR: unknown work unit .\nERROR: unknown work unit a/b\n"},
		{"requested_fields null", `{"command":"status","requested_fields":null}` + "\n", "ERROR: requested_fields must be a list of strings\n"},
		{"requested_fields string", `{"command":"status","requested_fields":"x"}` + "\n", "ERROR: requested_fields must be a list of strings\n"},
		{"requested_fields number", `{"command":"status","requested_fields":1}` + "\n", "ERROR: requested_fields must be a list of strings\n"},
		{"requested_fields object", `{"command":"status","requested_fields":{}}` + "\n", "ERROR: requested_fields must be a list of strings\n"},
		{"requested_fields null element", `{"command":"status","requested_fields":[null]}` + "\n", "ERROR: each element of requested_fields must be a string\n"},
		{"command null", `{"command":null}` + "\n", "ERROR: command must be a string\n"},
		{"startpos wrong types", `{"command":"work","subcommand":"results","unitid":"u1","startpos":true}
{"command":"work","subcommand":"results","unitid":"u1","startpos":null}
{"command":"work","subcommand":"results","unitid":"u1","startpos":[1]}
{"command":"work","subcommand":"results","unitid":"u1","startpos":1e30}
`, `ERROR: field startpos value true is not convertible to an int
ERROR: field startpos value null is not convertible to an int
ERROR: field startpos value [1] is not convertible to an int
ERROR: field startpos value 1e30 is not convertible to an int
`},
		{"signature wrong type", `{"command":"work","subcommand":"cancel","unitid":"u1","signature":1}` + "\n", "ERROR: field signature must be a string\n"},
		{"empty unit ID", "work list \nwork status \n", "ERROR: unknown work unit \nERROR: unknown work unit \n"},
		{"results without a position", "work results u1 \n", "ERROR: error converting start position to integer: strconv.ParseInt: parsing \"\": invalid syntax\n"},
		{"submit with one word", "work submit \nwork submit localhost \n", "ERROR: work submit requires a target node and work type\nERROR: unknown work type \n"},
		{"last line without newline", "ping", "ERROR: no ping target\n"},
		{"a session goes on after an error", "nonsense\nwork cancel u1\n", "ERROR: Unknown command\n{\"cancelled\":\"u1\"}\n"},
		{"cancel and release pending", "work cancel r1\nwork release r1\nwork force-release r1\nwork list\n", `{"cancel pending":"r1"}
{"release pending":"r1"}
{"released":"r1"}
{"u1":{"Detail":"exit status 0","ExtraData":null,"State":2,"StateName":"Succeeded","StdoutSize":6,"WorkType":"cat"}}
`},
		{"reload without a file", "reload x\n", `{"Error":"no configuration file was provided, reload function not set ERRORCODE 4","Success":false}` + "\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			r.work.add("u1", "cat", workceptor.Succeeded, "output")
			if strings.Contains(tc.send, "r1") {
				r.work.add("r1", "remote", workceptor.Running, "")
			}
			c := r.dialUnix(t).(*net.UnixConn)
			got := drain(c)
			if _, err := c.Write([]byte(tc.send)); err != nil {
				t.Fatal(err)
			}
			c.CloseWrite()
			if reply := <-got; reply != "Receptor Control, node alpha\n"+tc.want {
				t.Errorf("got  %q\nwant %q", reply, tc.want)
			}
		})
	}
}

func TestWithoutWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := New(Config{Node: &fakeNode{id: "alpha"}})
		near, far := net.Pipe()
		srv.start(context.Background(), far, listening{kind: TCP})
		got := drain(near)
		near.Write([]byte("work list\nconnect beta control\nconnect beta control x\n"))
		synctest.Wait()
		srv.Close()
		if reply := <-got; reply != "Receptor Control, node alpha\nERROR: Unknown command\nERROR: this node opens no streams\nERROR: unknown TLS config x\n" {
			t.Errorf("got %q", reply)
		}
	})
}

// TestEndlessLine sends more than a command line may hold: it is refused, what follows its newline is not.
func TestEndlessLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble()
		c := b.connect(t, TCP)
		replies := bufio.NewReader(c)
		chunk := bytes.Repeat([]byte{'x'}, 1<<20)
		for range maxLine/len(chunk) + 1 {
			c.Write(chunk)
		}
		if line, err := replies.ReadString('\n'); err != nil || line != "ERROR: "+errLineTooLong.Error()+"\n" {
			t.Fatalf("got %q, %v", line, err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 64 {
			c.Write(chunk)
		}
		runtime.ReadMemStats(&after)
		if grown := int64(after.TotalAlloc - before.TotalAlloc); grown > maxLine {
			t.Errorf("%d bytes were allocated for a line that was refused", grown)
		}
		c.Write([]byte("\nping alpha\n"))
		if line, err := replies.ReadString('\n'); err != nil || !strings.HasPrefix(line, `{"From":"alpha"`) {
			t.Errorf("after the long line: got %q, %v", line, err)
		}
		c.Close()
		b.Close()
	})
}

// TestManyEndlessLines: clients that all send long lines without an end do not fill the memory together, and who is refused, or has
// gone, holds nothing.
func TestManyEndlessLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble()
		b.lines.most = 4 << 20
		chunk := bytes.Repeat([]byte{'x'}, 1<<20)
		var clients []net.Conn
		for range 2 {
			c := b.connect(t, TCP)
			c.Write(chunk)
			clients = append(clients, c)
		}
		synctest.Wait() // They hold 2 MiB each by now.
		late := b.connect(t, TCP)
		replies := bufio.NewReader(late)
		go late.Write(append(chunk, "\nping alpha\n"...))
		if line, err := replies.ReadString('\n'); err != nil || line != "ERROR: "+errNoLineRoom.Error()+"\n" {
			t.Fatalf("got %q, %v", line, err)
		}
		if line, err := replies.ReadString('\n'); err != nil || !strings.HasPrefix(line, `{"From":"alpha"`) {
			t.Errorf("after the long line: got %q, %v", line, err)
		}
		for _, c := range clients {
			c.Close()
		}
		late.Close()
		synctest.Wait()
		if held := b.lines.held.Load(); held != 0 {
			t.Errorf("%d bytes are held by nobody", held)
		}
		b.Close()
	})
}

// TestLongestLine sends a command line of exactly the limit.
func TestLongestLine(t *testing.T) {
	in := input{conn: readConn{r: io.MultiReader(strings.NewReader(strings.Repeat("y", maxLine)), strings.NewReader("\nrest"))}}
	line, err := in.line()
	if err != nil || len(line) != maxLine {
		t.Fatalf("%d bytes, %v", len(line), err)
	}
	if line, err = in.line(); err != nil || string(line) != "rest" {
		t.Errorf("got %q, %v", line, err)
	}
	if _, err = in.line(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	if len(in.buf) > idleBuffer {
		t.Errorf("%d bytes of buffer are kept", len(in.buf))
	}
}

// readConn is a connection that can only be read.
type readConn struct {
	net.Conn
	r io.Reader
}

func (c readConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// TestCloseEndsEverything closes the server while clients do all sorts of things.
func TestCloseEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble()
		b.work.add("running", "cat", workceptor.Running, "some")
		var clients []<-chan string
		for _, command := range append(commands, "", "half a line") {
			c := b.connect(t, OverMesh)
			clients = append(clients, drain(c))
			c.Write([]byte(command))
		}
		synctest.Wait()
		b.Close()
		b.Close()
		for _, c := range clients {
			<-c
		}
		near, far := net.Pipe()
		b.start(context.Background(), far, listening{kind: TCP})
		if _, err := near.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("a closed server serves: %v", err)
		}
	})
}

// failingListener fails a few times before it is closed.
type failingListener struct {
	failures int
	calls    chan time.Time
	closed   chan struct{}
}

func (l *failingListener) Accept() (net.Conn, error) {
	l.calls <- time.Now()
	if l.failures--; l.failures >= 0 {
		return nil, errors.New("too many open files")
	}
	<-l.closed
	return nil, net.ErrClosed
}
func (l *failingListener) Close() error   { close(l.closed); return nil }
func (l *failingListener) Addr() net.Addr { return netceptor.Addr{} }

// TestAcceptRests checks the pauses of a listener that cannot accept, and that ending the context ends Serve.
func TestAcceptRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &failingListener{failures: 12, calls: make(chan time.Time, 20), closed: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		b := newBubble()
		done := make(chan error)
		start := time.Now()
		go func() { done <- b.Serve(ctx, l, TCP) }()
		time.Sleep(time.Minute)
		if len(l.calls) != 13 {
			t.Errorf("%d tries", len(l.calls))
		}
		var last time.Time
		for range 13 {
			last = <-l.calls
		}
		// 5, 10 ... 640 ms are 1275 ms; then a second each.
		if got, want := last.Sub(start), 1275*time.Millisecond+4*time.Second; got != want {
			t.Errorf("the last try came after %v, want %v", got, want)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		b.Close()
		if err := b.Serve(t.Context(), &failingListener{closed: make(chan struct{})}, TCP); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Serve after Close: %v", err)
		}
	})
}

// TestListenerClosedByOthers ends accepting only: sessions go on until the server is closed.
func TestListenerClosedByOthers(t *testing.T) {
	b := newBubble()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- b.Serve(t.Context(), l, TCP) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	in.ReadString('\n')
	l.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve: %v", err)
	}
	c.Write([]byte("ping alpha\n"))
	if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, "alpha") {
		t.Errorf("got %q, %v", line, err)
	}
	b.Close()
	if _, err := in.ReadString('\n'); err == nil {
		t.Error("the session outlives the server")
	}
}

// TestSlowClient lets a client that never reads its results hold up nobody else.
func TestSlowClient(t *testing.T) {
	r := newRig(t)
	r.work.add("big", "cat", workceptor.Succeeded, strings.Repeat("z", 8<<20))
	slow := r.dialUnix(t)
	slow.Write([]byte("work results big\n"))
	c := r.dialUnix(t)
	in := bufio.NewReader(c)
	in.ReadString('\n')
	for range 100 {
		c.Write([]byte("work status big\n"))
		if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, "Succeeded") {
			t.Fatalf("got %q, %v", line, err)
		}
	}
	if got := <-drain(slow); len(got) != 8<<20+len("Receptor Control, node alpha\nStreaming results for work unit big\n") {
		t.Errorf("the slow client got %d bytes", len(got))
	}
}

// FuzzRequest checks that any line is answered by one line or by a change of mode, and that parsing keeps its promises.
func FuzzRequest(f *testing.F) {
	for _, c := range commands {
		f.Add([]byte(strings.SplitAfter(c, "\n")[0]))
	}
	for _, file := range []string{"01-status.txt", "02-ping.txt", "04-connect.txt", "05-line-protocol.txt", "work-01-local-basic.txt", "work-02-submit-errors.txt"} {
		for _, tr := range readTranscript(&testing.T{}, file) {
			for _, s := range tr.steps {
				if s.op == ">" {
					f.Add(s.data)
				}
			}
		}
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		in := input{conn: readConn{r: bytes.NewReader(line)}}
		for {
			got, err := in.line()
			if err != nil {
				if err != io.EOF {
					t.Fatal(err)
				}
				return
			}
			if bytes.ContainsAny(got, "\r\n") {
				t.Fatalf("line %q", got)
			}
			if len(got) == 0 {
				continue
			}
			checkReply(t, got)
		}
	})
}

// checkReply executes one line in a session of which only the writing direction exists.
func checkReply(t *testing.T, line []byte) {
	var out bytes.Buffer
	w := newFakeWork()
	w.add("u1", "cat", workceptor.Succeeded, "output")
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	srv := newServer(Config{Node: &fakeNode{id: "alpha", ping: func(context.Context) netceptor.Pong { return netceptor.Pong{Err: netceptor.ErrTimeout} }},
		Dial: func(context.Context, wire.NodeID, string, string) (workceptor.Stream, error) {
			return nil, errors.New("no\nstreams")
		}}, w)
	s := newSession(srv, &bufferConn{out: &out}, listening{kind: Unix})
	s.ctx = ended
	err := s.serve(line)
	reply := out.String()
	switch {
	case errors.Is(err, errSessionOver):
		if !strings.HasPrefix(reply, "Streaming results") && !strings.HasPrefix(reply, "Work unit created") {
			t.Fatalf("%q: session over after %q", line, reply)
		}
	case err != nil:
		t.Fatalf("%q: %v", line, err)
	case strings.Count(reply, "\n") != 1 || !strings.HasSuffix(reply, "\n"):
		t.Fatalf("%q: reply %q", line, reply)
	case !strings.HasPrefix(reply, "{") && !strings.HasPrefix(reply, "ERROR: "):
		t.Fatalf("%q: reply %q", line, reply)
	}
}

// bufferConn is the server's end of a client that has sent all.
type bufferConn struct {
	net.Conn
	out *bytes.Buffer
}

func (c *bufferConn) Read([]byte) (int, error)        { return 0, io.EOF }
func (c *bufferConn) Write(p []byte) (int, error)     { return c.out.Write(p) }
func (c *bufferConn) SetReadDeadline(time.Time) error { return nil }
