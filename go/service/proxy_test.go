package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

var quiet = slog.New(slog.DiscardHandler)

func started(t *testing.T, p *Proxy, err error) *Proxy {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func dialTCP(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(time.Minute)) // A hang becomes a failure.
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

// echoServer answers each connection with what it got, after the end of data.
func echoServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				data, err := io.ReadAll(c)
				if err == nil {
					_, _ = c.Write(data)
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return l.Addr().String()
}

func TestF122F123F237TCPProxies(t *testing.T) {
	node, err := netceptor.New(netceptor.Config{ID: "a"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = node.Close() })
	for name, mesh := range map[string]Mesh{"fake mesh": newFakeMesh(), "one node": OnNode(node)} {
		t.Run(name, func(t *testing.T) {
			p, err := StartTCPClient(mesh, TCPClient{Service: "echo", Address: echoServer(t)}, quiet)
			started(t, p, err)
			p, err = StartTCPServer(mesh, TCPServer{Address: "127.0.0.1:0", Node: "a", Service: "echo"}, quiet)
			server := started(t, p, err)
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() {
					c := dialTCP(t, server.Addr().String())
					text := strings.Repeat(fmt.Sprint("hello ", i), 10_000)
					mustWrite(t, c, text)
					_ = c.CloseWrite()
					mustRead(t, c, text)
				})
			}
			wg.Wait()
		})
	}
}

func TestF131ServiceTags(t *testing.T) {
	mesh := newFakeMesh()
	p, err := StartTCPClient(mesh, TCPClient{Service: "web", Address: "h:80"}, quiet)
	started(t, p, err)
	if got := mesh.services["web"].tags; got["type"] != "TCP Proxy" || got["address"] != "h:80" || len(got) != 2 {
		t.Errorf("got tags %v", got)
	}
	_, err = StartTCPClient(mesh, TCPClient{Service: "web", Address: "h:80"}, quiet)
	if want := "error listening on Receptor network: service web is already listening"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestListenFailure(t *testing.T) {
	_, err := StartTCPServer(newFakeMesh(), TCPServer{Address: "127.0.0.1:99999"}, quiet)
	if want := "error listening on TCP: listen tcp: address 99999: invalid port"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// buffer is a log that may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) { b.mu.Lock(); defer b.mu.Unlock(); return b.b.Write(p) }
func (b *buffer) String() string              { b.mu.Lock(); defer b.mu.Unlock(); return b.b.String() }

func TestFailedDialResetsClientAndIsLoggedOnce(t *testing.T) {
	log := &buffer{}
	p, err := StartTCPServer(newFakeMesh(), TCPServer{Address: "127.0.0.1:0", Node: "b", Service: "none"}, slog.New(slog.NewTextHandler(log, nil)))
	started(t, p, err)
	for range 5 {
		c, err := net.Dial("tcp", p.Addr().String())
		if err == nil { // Else the reset came before the dial was done.
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			_, err = c.Read(make([]byte, 1))
			_ = c.Close()
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %v, want connection reset", err)
		}
	}
	if got := strings.Count(log.String(), "Error connecting on Receptor network"); got != 1 {
		t.Errorf("logged %d times, want once:\n%s", got, log)
	}
}

func TestRefusedTargetResetsMeshClient(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	mesh := newFakeMesh()
	p, err := StartTCPClient(mesh, TCPClient{Service: "web", Address: address}, quiet)
	started(t, p, err)
	s, err := mesh.DialStream(t.Context(), "a", "web")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, errReset) {
		t.Errorf("got %v, want a reset", err)
	}
}

// slowMesh answers dials to "slow" only when released.
type slowMesh struct {
	*fakeMesh
	waiting chan struct{}
}

func (m slowMesh) DialStream(ctx context.Context, node wire.NodeID, service string) (Stream, error) {
	if service == "slow" {
		m.waiting <- struct{}{}
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return m.fakeMesh.DialStream(ctx, node, service)
}

func TestSlowDialsDoNotDelayOthers(t *testing.T) {
	mesh := slowMesh{newFakeMesh(), make(chan struct{})}
	p, err := StartTCPServer(mesh, TCPServer{Address: "127.0.0.1:0", Node: "b", Service: "slow"}, quiet)
	started(t, p, err)
	for range 3 {
		dialTCP(t, p.Addr().String())
	}
	for range 3 {
		<-mesh.waiting // All three dials run at once, or this hangs.
	}
}

func TestCloseEndsEverything(t *testing.T) {
	mesh := newFakeMesh()
	far, err := mesh.ListenStream("idle", nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := StartTCPServer(mesh, TCPServer{Address: "127.0.0.1:0", Node: "b", Service: "idle"}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	client := dialTCP(t, p.Addr().String())
	if _, err := far.Accept(); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want connection reset", err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// failingListener fails until its error is taken away.
type failingListener struct {
	*fakeListener
	tries chan error
}

func (l failingListener) Accept() (Stream, error) {
	if err := <-l.tries; err != nil {
		return nil, err
	}
	return l.fakeListener.Accept()
}

func TestAcceptErrorsBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &buffer{}
		inner := &fakeListener{accept: make(chan Stream), closed: make(chan struct{})}
		l := failingListener{inner, make(chan error)}
		dial := func(context.Context) (Stream, error) { return nil, errors.New("not reached") }
		p := Start(l, dial, "Error connecting", slog.New(slog.NewTextHandler(log, nil)))
		var waits []time.Duration
		for range 10 {
			began := time.Now()
			l.tries <- syscall.EMFILE
			waits = append(waits, time.Since(began))
		}
		if waits[0] != 0 || waits[1] != 5*time.Millisecond || waits[2] != 10*time.Millisecond || waits[9] != time.Second {
			t.Errorf("got pauses %v, want 5ms doubling to 1s", waits)
		}
		l.tries <- nil
		a, _ := fakePair()
		inner.accept <- a
		close(l.tries)
		_ = p.Close()
		if got := log.String(); strings.Count(got, "Error accepting") != 1 || strings.Count(got, "Accepting connections again") != 1 {
			t.Errorf("got log\n%s", got)
		}
	})
}
