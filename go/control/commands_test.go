package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

// TestF144F236CustomCommands adds commands from the program and uses them over every transport.
func TestF144F236CustomCommands(t *testing.T) {
	eachTransport(t, func(t *testing.T, r *rig, c net.Conn, in *bufio.Reader) {
		for name, h := range map[string]Handler{
			"greet": func(_ context.Context, q *Request) (any, error) {
				return map[string]any{"params": q.Params, "keys": len(q.Keys), "listener": q.Client.Listener}, nil
			},
			"refuse": func(context.Context, *Request) (any, error) { return nil, errors.New("not\ntoday") },
			"upper": func(_ context.Context, q *Request) (any, error) {
				rw, err := q.Take("Go ahead")
				if err != nil {
					return nil, err
				}
				if _, err := q.Take("again"); err == nil {
					t.Error("taken twice")
				}
				all, err := io.ReadAll(rw)
				if err != nil {
					return nil, err
				}
				_, err = rw.Write([]byte(strings.ToUpper(string(all))))
				return map[string]any{"bytes": len(all)}, err
			},
		} {
			if err := r.Handle(name, h); err != nil {
				t.Fatal(err)
			}
		}
		listener := map[string]string{"unix": "unix", "tcp": "tcp", "tls": "tcp", "mesh": "mesh"}[strings.Split(t.Name(), "/")[1]]
		fmt.Fprint(c, "GREET  a b\n{\"command\":\"greet\",\"x\":1}\n{\"command\":\"Greet\"}\nrefuse\nversion\nupper\nsome ")
		wantLine(t, in, `{"keys":0,"listener":"`+listener+`","params":" a b"}`)
		wantLine(t, in, `{"keys":2,"listener":"`+listener+`","params":""}`)
		wantLine(t, in, "ERROR: Unknown command")
		wantLine(t, in, "ERROR: not today")
		if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, `"greet",`) {
			t.Errorf("version does not list the command: %s %v", line, err)
		}
		wantLine(t, in, "Go ahead")
		fmt.Fprint(c, "data")
		closeWrite(t, c)
		wantEnd(t, in, "SOME DATA{\"bytes\":9}\n")
	})
}

// TestHandlerClientGone ends the context of a handler whose client leaves.
func TestHandlerClientGone(t *testing.T) {
	r := newRig(t)
	started, ended := make(chan bool, 1), make(chan error, 1)
	if err := r.Handle("wait", func(ctx context.Context, _ *Request) (any, error) {
		started <- true
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return nil, ctx.Err()
	}); err != nil {
		t.Fatal(err)
	}
	c := r.dialUnix(t)
	wantLine(t, bufio.NewReader(c), "Receptor Control, node alpha")
	fmt.Fprintln(c, "wait")
	<-started
	c.Close()
	if err := <-ended; err == nil {
		t.Error("no cause")
	}
}

func TestHandleRefuses(t *testing.T) {
	r := newServer(Config{Node: &fakeNode{id: "alpha"}}, nil)
	defer r.Close()
	h := func(context.Context, *Request) (any, error) { return nil, nil }
	for _, name := range []string{"", "a b", "Upper", "{x", "status", "work", "line\nbreak"} {
		if err := r.Handle(name, h); err == nil {
			t.Errorf("%q is accepted", name)
		}
	}
	if err := r.Handle("mine", nil); err == nil {
		t.Error("no handler is accepted")
	}
	if err := r.Handle("mine", h); err != nil {
		t.Error(err)
	}
	if err := r.Handle("mine", h); err == nil {
		t.Error("the second one is accepted")
	}
}

func TestStats(t *testing.T) {
	r := newRig(t)
	for _, command := range []string{"status", "status", "status x", "work list", "work status x", "WORK nonsense", "nosuch", "{"} {
		r.ask(t, command)
	}
	got := r.Stats()
	for name, want := range map[string]CommandStats{
		"status": {Count: 3, Errors: 1}, "work list": {Count: 1}, "work status": {Count: 1, Errors: 1}, "work": {Count: 1, Errors: 1},
	} {
		if c := got.Commands[name]; c.Count != want.Count || c.Errors != want.Errors {
			t.Errorf("%s: %+v, want %+v", name, c, want)
		}
	}
	if len(got.Commands) != 4 || got.Accepted != 8 {
		t.Errorf("%+v", got)
	}
}
