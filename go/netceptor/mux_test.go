package netceptor

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// echoOn serves echo streams on a node until the test ends.
func echoOn(tb testing.TB, n *Node, service string) *StreamListener {
	tb.Helper()
	return echoAs(tb, n, service, nil)
}

// echoAs does so with a TLS profile.
func echoAs(tb testing.TB, n *Node, service string, profile *tls.Config) *StreamListener {
	tb.Helper()
	ln, err := n.ListenStream(service, nil, profile)
	if err != nil {
		tb.Fatal(err)
	}
	go func() {
		for {
			s, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(s, s)
				_ = s.Close()
			}()
		}
	}()
	tb.Cleanup(func() { _ = ln.Close() })
	return ln
}

func exchange(t *testing.T, from *Node, to wire.NodeID, service, text string) {
	t.Helper()
	s, err := from.DialStream(t.Context(), to, service, nil)
	if err != nil {
		t.Errorf("dial %s:%s: %v", to, service, err)
		return
	}
	defer s.Close()
	_, _ = io.WriteString(s, text)
	_ = s.CloseWrite()
	if got, err := io.ReadAll(s); err != nil || string(got) != text {
		t.Errorf("echo of %q from %s:%s gave %q, %v", text, to, service, got, err)
	}
}

func (n *Node) connections() (muxes, streams int) {
	n.streamsMu.Lock()
	defer n.streamsMu.Unlock()
	return len(n.muxes), len(n.streams)
}

func TestStreamsShareAConnection(t *testing.T) {
	nodes := chain(t, "a", "b", "c")
	echoOn(t, nodes[2], "one")
	echoOn(t, nodes[2], "two")
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { exchange(t, nodes[0], "c", "one", "hello") })
		wg.Go(func() { exchange(t, nodes[0], "c", "two", "there") })
	}
	wg.Wait()
	for _, n := range []*Node{nodes[0], nodes[2]} {
		if muxes, _ := n.connections(); muxes > 3 {
			t.Errorf("%s holds %d connections after 100 streams at once, want few", n.ID(), muxes)
		}
	}
	if _, err := nodes[0].DialStream(t.Context(), "c", "none", nil); !errors.Is(err, ErrServiceUnknown) {
		t.Errorf("dial of an unknown service over a shared connection: %v, want ErrServiceUnknown", err)
	}
}

// TestIdentitiesShareNoConnection: streams of one TLS profile share a connection, those of another have one of their own, and
// so have those without one.
func TestIdentitiesShareNoConnection(t *testing.T) {
	nodes := chain(t, "a", "b")
	for service, server := range map[string]*tls.Config{
		"secure": {Certificates: []tls.Certificate{certificate(t, "b", ecKey(t))}},
		"open":   nil,
	} {
		echoAs(t, nodes[1], service, server)
	}
	one, two := &tls.Config{InsecureSkipVerify: true}, &tls.Config{InsecureSkipVerify: true}
	muxes := map[*mux]string{}
	for _, c := range []struct {
		name, service string
		conf          *tls.Config
	}{{"one", "secure", one}, {"two", "secure", two}, {"none", "open", nil}, {"one", "secure", one}, {"two", "secure", two}, {"none", "open", nil}} {
		s, err := nodes[0].DialStream(t.Context(), "b", c.service, c.conf)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if owner, used := muxes[s.mux]; used && owner != c.name || s.mux == nil {
			t.Errorf("a stream of profile %s is on the connection of %q", c.name, owner)
		}
		muxes[s.mux] = c.name
	}
	if len(muxes) != 3 {
		t.Errorf("three profiles have %d connections, want one each", len(muxes))
	}
}

// TestOneDialsForMany: of those that need a connection at the same moment, one makes it and the others wait for it.
func TestOneDialsForMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &Node{shared: map[muxKey][]*mux{}, dialing: map[muxKey]chan struct{}{}}
		key := muxKey{node: "far", service: "echo"}
		const many = 100
		found, dial := make(chan *mux, many), make(chan func(), many)
		for range many {
			go func() {
				m, ends := n.muxTo(t.Context(), key)
				if m == nil {
					dial <- ends
					return
				}
				found <- m
			}()
		}
		synctest.Wait()
		if len(dial) != 1 || len(found) != 0 {
			t.Fatalf("%d of %d dial and %d have a connection that is not made yet; want one that dials", len(dial), many, len(found))
		}
		made := &mux{key: key}
		n.streamsMu.Lock()
		n.shared[key] = []*mux{made}
		n.streamsMu.Unlock()
		(<-dial)()
		synctest.Wait()
		if len(dial) != 0 || len(found) != many-1 || <-found != made {
			t.Errorf("%d have the connection and %d dial another; want %d and none", len(found), len(dial), many-1)
		}
	})
}

// TestManyStreamsOpen opens more than fit on one connection and leaves them open.
func TestManyStreamsOpen(t *testing.T) {
	nodes := chain(t, "a", "b")
	echoOn(t, nodes[1], "echo")
	var open []*Stream
	for i := range 250 {
		s, err := nodes[0].DialStream(t.Context(), "b", "echo", nil)
		if err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
		open = append(open, s)
	}
	for i, s := range open {
		_, _ = s.Write([]byte{byte(i)})
		var b [1]byte
		if _, err := io.ReadFull(s, b[:]); err != nil || b[0] != byte(i) {
			t.Fatalf("stream %d echoed %d, %v", i, b[0], err)
		}
		_ = s.Close()
	}
}

func TestASlowReaderHoldsBackOnlyItself(t *testing.T) {
	nodes := chain(t, "a", "b")
	ln, err := nodes[1].ListenStream("stuck", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() { // Echoes what comes after five streams that it never reads.
		for i := 0; ; i++ {
			s, err := ln.Accept()
			if err != nil {
				return
			}
			if i >= 5 {
				go func() { _, _ = io.Copy(s, s); _ = s.Close() }()
			}
		}
	}()
	for range 5 { // Five full streams are more than one connection's window was, once.
		s, err := nodes[0].DialStream(t.Context(), "b", "stuck", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		_ = s.SetWriteDeadline(time.Now().Add(2 * time.Second))
		buf := make([]byte, 1<<20)
		for {
			if _, err := s.Write(buf); err != nil {
				break // Nobody reads.
			}
		}
	}
	exchange(t, nodes[0], "b", "stuck", "still moving")
	if muxes, streams := nodes[0].connections(); muxes != 1 || streams < 5 {
		t.Errorf("%d connections with %d streams, want one with all of them", muxes, streams)
	}
}

// TestStreamsWithExistingNodes plays a node that knows only the base protocol, as dialler and as listener.
func TestStreamsWithExistingNodes(t *testing.T) {
	nodes := chain(t, "old", "new")
	nodes[0].protocols = []string{streamALPN}
	echoOn(t, nodes[0], "echo")
	echoOn(t, nodes[1], "echo")
	exchange(t, nodes[0], "new", "echo", "from old to new")
	exchange(t, nodes[1], "old", "echo", "from new to old")
	for _, n := range nodes {
		if muxes, _ := n.connections(); muxes != 0 {
			t.Errorf("%s shares %d connections with a node that cannot", n.ID(), muxes)
		}
	}
}

// TestALostPathIsAnError cuts the link under an open stream, without anybody saying goodbye.
func TestALostPathIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t)
		a, hub, b := s.add("a"), s.add("hub"), s.add("b")
		_, _ = hub, b
		s.link("hub", "a", 1)
		s.link("hub", "b", 1)
		s.settle("start", 5*time.Second)
		ln, err := b.ListenStream("svc", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		st, err := a.DialStream(t.Context(), "b", "svc", nil)
		if err != nil {
			t.Fatal(err)
		}
		far, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // An idle stream lives.
		_, _ = st.Write([]byte("x"))
		if _, err := io.ReadFull(far, make([]byte, 1)); err != nil {
			t.Fatalf("after a minute of silence: %v", err)
		}
		s.cut("hub", "b")
		start := time.Now()
		var wg sync.WaitGroup
		for _, end := range []*Stream{st, far} {
			wg.Go(func() {
				_, err := end.Read(make([]byte, 1))
				if _, reset := errors.AsType[*ResetError](err); !reset {
					t.Errorf("%s read %v after its path was lost, want a ResetError", end.LocalAddr(), err)
				}
				if took := time.Since(start); took > 10*time.Second {
					t.Errorf("%s noticed its lost path after %v", end.LocalAddr(), took)
				}
			})
		}
		wg.Wait()
		_ = ln.Close()
		s.close()
	})
}

// TestTheEndOfANodeIsAReset: who has a stream to a node that is closed has not closed it. The QUIC library's errors say so.
func TestTheEndOfANodeIsAReset(t *testing.T) {
	for name, own := range map[string]bool{"shared connection": false, "connection of its own": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSimulation(t)
				_, b, st, _ := s.stream(own)
				_ = b.Close()
				_, err := st.Read(make([]byte, 1))
				reset, ok := errors.AsType[*ResetError](err)
				if !ok || !reset.Remote || errors.Is(err, net.ErrClosed) {
					t.Errorf("read %v, want a reset by the peer that is no close of ours", err)
				}
				s.close()
			})
		})
	}
}

// TestARestartedNodeIsDialledAnew: a shared connection to a node's former life is not waited for.
func TestARestartedNodeIsDialledAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t)
		a := s.add("a")
		s.add("b")
		s.link("a", "b", 1)
		s.settle("start", 5*time.Second)
		echoOn(t, s.nodes["b"], "echo")
		exchange(t, a, "b", "echo", "before")
		s.cut("a", "b")
		_ = s.nodes["b"].Close()
		time.Sleep(time.Second)
		s.add("b")
		s.link("a", "b", 1)
		s.settle("again", 5*time.Second)
		echoOn(t, s.nodes["b"], "echo")
		start := time.Now()
		exchange(t, a, "b", "echo", "after")
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("the dial took %v", took)
		}
		s.close()
	})
}

// wantNoConnections checks that the nodes keep nothing of their streams.
func wantNoConnections(t *testing.T, nodes ...*Node) {
	t.Helper()
	for _, n := range nodes {
		if muxes, streams := n.connections(); muxes != 0 || streams != 0 {
			t.Errorf("%s still holds %d connections and %d streams", n.ID(), muxes, streams)
		}
	}
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t)
		a, b := s.add("a"), s.add("b")
		s.link("a", "b", 1)
		s.settle("start", 5*time.Second)
		ln := echoOn(t, b, "echo")
		exchange(t, a, "b", "echo", "hello")
		time.Sleep(muxRest + pathLost + 2*beatEvery + time.Second)
		synctest.Wait()
		wantNoConnections(t, a, b)
		_ = ln.Close()
		s.close()
	})
}

func TestResetsAreExact(t *testing.T) {
	nodes := chain(t, "a", "b")
	for _, protocols := range [][]string{streamProtocols, {streamALPN}} {
		nodes[0].protocols = protocols
		ln, err := nodes[1].ListenStream("svc", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		st, err := nodes[0].DialStream(t.Context(), "b", "svc", nil)
		if err != nil {
			t.Fatal(err)
		}
		far, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = far.CloseRead() // The dialler's writes fail, its reads go on.
		for err == nil {
			_, err = st.Write(make([]byte, 1000))
		}
		if reset, ok := errors.AsType[*ResetError](err); !ok || !reset.Remote || reset.Code != 499 {
			t.Errorf("%v: write after the peer stopped reading: %v", protocols, err)
		}
		_, _ = io.WriteString(far, "answer")
		_ = far.CloseWrite()
		if got, err := io.ReadAll(st); err != nil || string(got) != "answer" {
			t.Errorf("%v: read %q, %v", protocols, got, err)
		}
		_ = st.Close()
		_ = ln.Close()
	}
}

// Streams that are open and still are kept, however many share a connection.
func TestConnectionsFullOfStillStreamsLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t)
		defer s.close()
		a, b := s.add("a"), s.add("b")
		s.link("a", "b", 1)
		s.settle("start", 5*time.Second)
		echoOn(t, b, "echo")
		var streams []*Stream
		for range 5 * maxStreams / 2 {
			st, err := a.DialStream(t.Context(), "b", "echo", nil)
			if err != nil {
				t.Fatal(err)
			}
			streams = append(streams, st)
		}
		time.Sleep(10 * pathLost)
		for i, st := range streams {
			_, err := st.Write([]byte("x"))
			if err == nil {
				_, err = io.ReadFull(st, make([]byte, 1))
			}
			if err != nil {
				t.Fatalf("stream %d after %v: %v", i, 10*pathLost, err)
			}
			_ = st.Close()
		}
		if muxes, _ := a.connections(); muxes != 3 {
			t.Errorf("%d streams take %d connections, want 3", len(streams), muxes)
		}
	})
}
