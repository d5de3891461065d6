package control

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// TestABugEndsOneSession: the client is disconnected, the log says why, and others go on.
func TestABugEndsOneSession(t *testing.T) {
	var log bytes.Buffer
	r := newRig(t, func(cfg *Config) { cfg.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	if err := r.Handle("break", func(context.Context, *Request) (any, error) { panic("a bug") }); err != nil {
		t.Fatal(err)
	}
	other := r.dialUnix(t)
	spared := bufio.NewReader(other)
	wantLine(t, spared, "Receptor Control, node alpha")
	c := r.dialUnix(t)
	in := bufio.NewReader(c)
	wantLine(t, in, "Receptor Control, node alpha")
	fmt.Fprintln(c, "break")
	if rest, err := io.ReadAll(in); len(rest) > 0 || err != nil {
		t.Errorf("the client got %q and %v, want the end", rest, err)
	}
	fmt.Fprintln(other, "ping")
	wantLine(t, spared, "ERROR: no ping target")
	r.Close()
	if got := log.String(); !strings.Contains(got, `msg="internal fault" in="control session" err="a bug"`) || !strings.Contains(got, "stack=") {
		t.Errorf("the log does not name the fault:\n%s", got)
	}
}

// buggyEnd is a stream that panics when its sending direction is closed.
type buggyEnd struct{ *meshStream }

func (buggyEnd) CloseWrite() error { panic("a bug") }

// TestABugInABridge: both its directions end, and the client's session with them.
func TestABugInABridge(t *testing.T) {
	var log bytes.Buffer
	r := newRig(t, func(cfg *Config) {
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		cfg.Dial = func(context.Context, wire.NodeID, string, string) (workceptor.Stream, error) {
			near, _ := socketPair(t)
			return buggyEnd{newMeshStream(near)}, nil
		}
	})
	c := r.dialUnix(t)
	in := bufio.NewReader(c)
	wantLine(t, in, "Receptor Control, node alpha")
	fmt.Fprintln(c, "connect beta echo")
	wantLine(t, in, "Connecting")
	closeWrite(t, c)
	if rest, err := io.ReadAll(in); len(rest) > 0 || err != nil {
		t.Errorf("the client got %q and %v, want the end", rest, err)
	}
	r.Close()
	if got := log.String(); !strings.Contains(got, `msg="internal fault" in="control session" err="a bug"`) {
		t.Errorf("the log does not name the fault:\n%s", got)
	}
}

// buggyListener makes connections of no known kind that panic when they have read something while armed.
type buggyListener struct {
	net.Listener
	armed *atomic.Bool
}

type buggyConn struct {
	net.Conn
	armed *atomic.Bool
}

func (l buggyListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return buggyConn{conn, l.armed}, err
}

func (c buggyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.armed.Load() {
		panic("a bug")
	}
	return n, err
}

// TestABugInALookAtAClient: it ends the command that goes on meanwhile, as the end of the client would.
func TestABugInALookAtAClient(t *testing.T) {
	var log bytes.Buffer
	r := newRig(t, func(cfg *Config) { cfg.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	armed := new(atomic.Bool)
	looking, ended := make(chan struct{}), make(chan error, 1)
	err := r.Handle("look", func(ctx context.Context, _ *Request) (any, error) {
		armed.Store(true)
		close(looking)
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return nil, context.Cause(ctx)
	})
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.listen(t, buggyListener{tcp, armed}, TCP)
	c, err := net.Dial("tcp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintln(c, "look")
	<-looking
	fmt.Fprintln(c, "something")
	if _, is := errors.AsType[*fault.Error](<-ended); !is {
		t.Error("the command did not end with the fault")
	}
	r.Close()
	if got := log.String(); !strings.Contains(got, `msg="internal fault" in="control session" err="a bug"`) {
		t.Errorf("the log does not name the fault:\n%s", got)
	}
}
