package netceptor

import (
	"bytes"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/policy"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// logged is a log that is read while it is written.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) { l.mu.Lock(); defer l.mu.Unlock(); return l.b.Write(p) }
func (l *logged) String() string              { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

// brokenWriter panics when it has written a packet for p.
type brokenWriter struct{ link.Conn }

func (c brokenWriter) WriteBatch(parts ...wire.Batch) error {
	for _, p := range parts {
		if bytes.Contains(p, []byte("find the bug")) {
			panic("a bug in a transport")
		}
	}
	return c.Conn.WriteBatch(parts...)
}

// TestABugEndsOneLink: what a peer sends finds a bug where it is handled, and what is sent to it one in its transport.
// The link ends and the log names the peer; the node goes on, with other links and with the same peer.
func TestABugEndsOneLink(t *testing.T) {
	for name, find := range map[string]func(t *testing.T, n *Node, far link.Conn){
		"a handler": func(t *testing.T, _ *Node, far link.Conn) { say(t, far, packet("p", "me", "bug", "find the bug")) },
		"a run of packets": func(t *testing.T, _ *Node, far link.Conn) {
			one := packet("p", "me", "bug", "find the bug")
			put(t, far, one, one, one)
		},
		"a transport": func(t *testing.T, n *Node, _ link.Conn) {
			pc, err := n.ListenPacket("", nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := pc.WriteTo([]byte("find the bug"), Addr{"p", "me"}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			log := &logged{}
			n, err := New(Config{ID: "n", Logger: slog.New(slog.NewTextHandler(log, nil))})
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			bug, err := n.ListenPacket("bug", nil)
			if err != nil {
				t.Fatal(err)
			}
			panics := func([]byte) bool { panic("a bug in a handler") }
			bug.refuses.Store(&panics)
			join := func() (link.Conn, *Backend) {
				near, far := link.Pipe()
				b, err := n.AddLink(brokenWriter{near}, LinkOptions{Cost: 1})
				if err != nil {
					t.Fatal(err)
				}
				introduce(t, far)
				return far, b
			}
			far, b := join()
			find(t, n, far)
			<-b.Done()
			for {
				if _, err := far.ReadBatch(); err != nil {
					break
				}
			}
			if got := log.String(); !strings.Contains(got, `msg="internal fault" in=link err="a bug in a `) || !strings.Contains(got, "peer=p") || !strings.Contains(got, "stack=") {
				t.Errorf("the log does not name the fault and the peer:\n%s", got)
			}
			join() // It pings.
		})
	}
}

// faultyNode is a node whose log is read and that tells of its faults.
func faultyNode(t *testing.T, id wire.NodeID) (n *Node, log *logged, told func() []*fault.Error) {
	t.Helper()
	log = &logged{}
	var mu sync.Mutex
	var faults []*fault.Error
	n, err := New(Config{ID: id, Logger: slog.New(slog.NewTextHandler(log, nil)), OnPanic: func(e *fault.Error) {
		mu.Lock()
		defer mu.Unlock()
		faults = append(faults, e)
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n, log, func() []*fault.Error { mu.Lock(); defer mu.Unlock(); return faults }
}

func (n *Node) breakMux() {
	n.streamsMu.Lock()
	defer n.streamsMu.Unlock()
	n.muxes[&mux{node: n, local: Addr{n.id, "broken"}, remote: Addr{"far", "broken"}}] = struct{}{} // It has no connection.
}

// TestABugInTheEndOfANode: a node ends and tells of the bug, wherever in its end that is, and what comes after is done.
func TestABugInTheEndOfANode(t *testing.T) {
	for name, breaks := range map[string]func(n *Node){
		"a connection": (*Node).breakMux,
		"a stream": func(n *Node) {
			n.streamsMu.Lock()
			defer n.streamsMu.Unlock()
			n.streams[&Stream{node: n}] = struct{}{}
		},
		"a link": func(n *Node) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.pending[nil] = struct{}{}
		},
	} {
		t.Run(name, func(t *testing.T) {
			n, _, told := faultyNode(t, "n")
			sub := n.Subscribe(1)
			breaks(n)
			if err := n.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
			if len(told()) == 0 {
				t.Error("nobody was told of the fault")
			}
			if _, more := <-sub.C; more {
				t.Error("the subscription goes on")
			}
		})
	}
}

// TestABugInWhatRulesEnd: new firewall rules end a stream that cannot be ended.
func TestABugInWhatRulesEnd(t *testing.T) {
	n, _, told := faultyNode(t, "n")
	n.breakMux()
	n.SetPolicy(rules(t, policy.Rule{Action: "reject", ToService: "broken"}))
	if len(told()) == 0 {
		t.Error("nobody was told of the fault")
	}
}

// TestABugInAStreamSocket: the QUIC library's own goroutines read and write packets through code of ours. What that finds
// ends the service, and no other.
func TestABugInAStreamSocket(t *testing.T) {
	n, log, told := faultyNode(t, "n")
	echoOn(t, n, "good")
	ln, err := n.ListenStream("bad", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	pc := ln.socket.pc
	pc.mu.Lock()
	pc.queue = append(pc.queue, bytes.Repeat([]byte{0x7f}, packetOverhead)...) // A packet longer than the queue.
	pc.mu.Unlock()
	pc.wake()
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: got %v, want a closed listener", err)
	}
	exchange(t, n, "n", "good", "still here")

	sending, err := n.ListenPacket("", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newPlainSocket(sending).WriteTo([]byte("x"), &net.UDPAddr{}); err == nil {
		t.Error("a packet to an address that is none was sent")
	}
	<-sending.Done()
	exchange(t, n, "n", "good", "still here")
	if got := log.String(); strings.Count(got, `msg="internal fault" in=streams`) != 2 || !strings.Contains(got, "service=bad") {
		t.Errorf("the log does not name both faults:\n%s", got)
	}
	if len(told()) > 0 {
		t.Errorf("the node is to be given up for %v", told())
	}
}

// TestABugInAProfile: what a TLS profile asks is asked in goroutines of the QUIC library.
func TestABugInAProfile(t *testing.T) {
	bug := func(tls.ConnectionState) error { panic("a bug in a profile") }
	for name, broken := range map[string]func(client, server *tls.Config){
		"client's judgement": func(client, _ *tls.Config) { client.VerifyConnection = bug },
		"server's judgement": func(_, server *tls.Config) { server.VerifyConnection = bug },
		"server's choice": func(_, server *tls.Config) {
			server.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { panic("a bug in a profile") }
		},
		"server's chosen judgement": func(_, server *tls.Config) {
			chosen := server.Clone()
			chosen.VerifyConnection = bug
			server.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return chosen, nil }
		},
		"server's certificate": func(_, server *tls.Config) {
			server.Certificates = nil
			server.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { panic("a bug in a profile") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			n, log, _ := faultyNode(t, "n")
			cert, err := n.insecureCert()
			if err != nil {
				t.Fatal(err)
			}
			client := &tls.Config{InsecureSkipVerify: true} //nolint:gosec // Nothing is to be checked here.
			server := &tls.Config{Certificates: []tls.Certificate{cert}}
			broken(client, server)
			ln, err := n.ListenStream("svc", nil, server)
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			s, err := n.DialStream(t.Context(), "n", "svc", client)
			if err == nil {
				_, err = s.Read(make([]byte, 1)) // Of TLS 1.3, the client may be done before the server has judged.
			}
			if err == nil {
				t.Error("a stream whose profile is broken is open")
			}
			if got := log.String(); !strings.Contains(got, `msg="internal fault" in="handshake of a stream" err="a bug in a profile"`) {
				t.Errorf("the log does not name the fault:\n%s", got)
			}
			echoOn(t, n, "good")
			exchange(t, n, "n", "good", "still here")
		})
	}
}
