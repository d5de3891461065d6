package service

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/fault"
)

// buggyStream panics when it is read.
type buggyStream struct{ *fakeStream }

func (buggyStream) Read([]byte) (int, error) { panic("a bug") }

// TestABugResetsOneBridge: both sides see a failure, not an end of data.
func TestABugResetsOneBridge(t *testing.T) {
	client, near := tcpPair(t)
	a, far := fakePair()
	done := Bridge(t.Context(), near, buggyStream{a})
	if _, ok := errors.AsType[*fault.Error](done.Err); !ok {
		t.Errorf("the bridge ended with %v, want the fault", done.Err)
	}
	if _, err := io.ReadAll(far); err == nil {
		t.Error("the mesh side took the end for a good one")
	}
	if _, err := io.ReadAll(client); err == nil {
		t.Error("the client took the end for a good one")
	}
}

// buggyEnds panics when its writing side, or all of it, is to end.
type buggyEnds struct{ *fakeStream }

func (buggyEnds) CloseWrite() error  { panic("a bug") }
func (buggyEnds) CloseRead() error   { panic("a bug") }
func (buggyEnds) Abort(uint64) error { panic("a bug") }

// TestABugInAnEnd: a bridge one of whose streams cannot be ended as it should ends all the same, and with the fault.
func TestABugInAnEnd(t *testing.T) {
	for name, end := range map[string]func(client *net.TCPConn, stop func()){
		"of data":          func(client *net.TCPConn, _ func()) { _ = client.CloseWrite() },
		"of a broken peer": func(client *net.TCPConn, _ func()) { _ = client.SetLinger(0); _ = client.Close() },
		"of the proxy":     func(_ *net.TCPConn, stop func()) { stop() },
	} {
		t.Run(name, func(t *testing.T) {
			client, near := tcpPair(t)
			a, far := fakePair()
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			go func() {
				_, _ = far.Read(make([]byte, 1))
				end(client, stop)
			}()
			mustWrite(t, client, "x")
			done := Bridge(ctx, near, buggyEnds{a})
			if _, is := errors.AsType[*fault.Error](done.Err); name == "of data" && !is || done.Err == nil {
				t.Errorf("the bridge ended with %v, want the fault, or what it was found after", done.Err)
			}
			_, _ = io.ReadAll(far) // It ends.
		})
	}
}

// TestABugEndsOneConnection: however many find it, the proxy goes on, and the log names the client.
func TestABugEndsOneConnection(t *testing.T) {
	log := &buffer{}
	l := &fakeListener{accept: make(chan Stream), closed: make(chan struct{})}
	var dials atomic.Int32
	dial := func(context.Context) (Stream, error) {
		if dials.Add(1) <= 2*maxDials {
			panic("a bug")
		}
		far, echo := fakePair()
		go func() { _, _ = io.Copy(echo, echo); _ = echo.CloseWrite() }()
		return far, nil
	}
	p := Start(l, dial, "Error connecting", slog.New(slog.NewTextHandler(log, nil)))
	defer p.Close()
	for range 2 * maxDials {
		client, near := tcpPair(t)
		l.accept <- near
		if _, err := io.ReadAll(client); err == nil {
			t.Fatal("a client took the end for a good one")
		}
		_ = client.Close()
	}
	if got := log.String(); !strings.Contains(got, `msg="internal fault" in=proxy err="a bug"`) || !strings.Contains(got, "client=127.0.0.1") {
		t.Errorf("the log does not name the fault and the client: %.2000s", got)
	}
	client, near := tcpPair(t)
	l.accept <- near
	mustWrite(t, client, "still here")
	_ = client.CloseWrite()
	mustRead(t, client, "still here")
}

// buggyAccepts panics when it accepts.
type buggyAccepts struct{ *fakeListener }

func (buggyAccepts) Accept() (Stream, error) { panic("a bug") }

// TestABugEndsOneProxy: where nothing can be accepted any more, who connects is told so, and the log.
func TestABugEndsOneProxy(t *testing.T) {
	log := &buffer{}
	l := &fakeListener{closed: make(chan struct{})}
	p := Start(buggyAccepts{l}, nil, "", slog.New(slog.NewTextHandler(log, nil)))
	<-l.closed
	_ = p.Close()
	if got := log.String(); !strings.Contains(got, `msg="internal fault" in=proxy err="a bug"`) {
		t.Errorf("the log does not name the fault: %s", got)
	}
}

type closes chan struct{}

func (c closes) Close() error { close(c); return nil }

// TestABugEndsOneUDPProxy: the like for datagrams.
func TestABugEndsOneUDPProxy(t *testing.T) {
	log := &buffer{}
	clients := newMappings[int](0)
	clients.failures = &changes{log: slog.New(slog.NewTextHandler(log, nil))}
	near := make(closes)
	p := serveUDP(clients, near, func([]byte) (int, int, error) { panic("a bug") })
	<-near
	p.wg.Wait()
	if got := log.String(); !strings.Contains(got, `msg="internal fault" in=proxy err="a bug"`) {
		t.Errorf("the log does not name the fault: %s", got)
	}
}
