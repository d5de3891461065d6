package netceptor

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pyreceptor/pyreceptor/go/policy"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// TestNewRulesEndOpenStreams: a rule that rejects a stream's packets ends it with an error at the dialer and, if the rule
// is at one of the ends, at both.
func TestNewRulesEndOpenStreams(t *testing.T) {
	for _, protocols := range [][]string{streamProtocols, {streamALPN}} {
		for _, node := range []wire.NodeID{"a", "b", "c"} {
			for _, rule := range []policy.Rule{{Action: "reject", ToService: "svc"}, {Action: "reject", FromService: "svc"}} {
				t.Run(fmt.Sprintf("%s %s %s", protocols[0], node, rule), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						l := newLine(t)
						defer l.close()
						l.nodes["a"].protocols = protocols
						near, far := streamPair(t, l.nodes["a"], l.nodes["c"], "svc")
						start := time.Now()
						l.nodes[node].SetPolicy(rules(t, rule))
						_, _ = near.Write([]byte("x"))
						_, _ = far.Write([]byte("x"))
						nearErr, farErr := readEnd(near), readEnd(far)
						took := time.Since(start)
						limit := time.Second
						if node == "b" { // One end is told; the other has to notice that nothing comes.
							limit = streamKeepAlive + streamIdle + time.Second
						}
						if took > limit {
							t.Errorf("the streams ended after %v, want at most %v", took, limit)
						}
						for end, err := range map[string]error{"dialer": nearErr, "listener": farErr} {
							if reset, ok := errors.AsType[*ResetError](err); !ok {
								t.Errorf("%s: got %v, want a *ResetError", end, err)
							} else if node != "b" && !reset.Remote && !errors.Is(err, ErrFirewall) && !errors.Is(err, errPeerGone) {
								t.Errorf("%s: got %v, want blocked by firewall, or that the other end is gone", end, err)
							}
						}
						if node == "b" && !errors.Is(nearErr, ErrFirewall) && !errors.Is(farErr, ErrFirewall) {
							t.Errorf("got %v and %v, want blocked by firewall at one end", nearErr, farErr)
						}
					})
				})
			}
		}
	}
}

// streamPair opens a stream between two nodes and accepts it.
func streamPair(t *testing.T, from, to *Node, service string) (near, far *Stream) {
	t.Helper()
	ln, err := to.ListenStream(service, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	if near, err = from.DialStream(t.Context(), to.ID(), service, nil); err != nil {
		t.Fatal(err)
	}
	if far, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	return near, far
}

// readEnd reads to the end of a stream and returns what that is.
func readEnd(s *Stream) error {
	for b := make([]byte, 64); ; {
		if _, err := s.Read(b); err != nil {
			return err
		}
	}
}

// TestRulesThatDoNotRejectLeaveStreamsAlone: so do those that drop, which look like a lost path.
func TestRulesThatDoNotRejectLeaveStreamsAlone(t *testing.T) {
	nodes := chain(t, "a", "b")
	near, far := streamPair(t, nodes[0], nodes[1], "svc")
	for _, n := range nodes {
		n.SetPolicy(rules(t, policy.Rule{Action: "reject", ToService: "other"}, policy.Rule{Action: "accept"}))
	}
	_, _ = io.WriteString(near, "hello")
	_ = near.CloseWrite()
	if got, err := io.ReadAll(far); string(got) != "hello" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestTrustIsJudgedAtEachStream: whoever changes its mind about the other's certificate gets no more streams on a shared
// connection, and open streams go on.
func TestTrustIsJudgedAtEachStream(t *testing.T) {
	refused := errors.New("the pin has changed")
	for _, who := range []string{"server", "chosen server", "client"} {
		t.Run(who, func(t *testing.T) {
			var distrust atomic.Bool
			verify := func(tls.ConnectionState) error {
				if distrust.Load() {
					return refused
				}
				return nil
			}
			server := &tls.Config{Certificates: []tls.Certificate{certificate(t, "b", ecKey(t))}}
			client := &tls.Config{InsecureSkipVerify: true}
			switch who {
			case "server":
				server.VerifyConnection = verify
			case "chosen server":
				inner := server.Clone()
				inner.VerifyConnection = verify
				server.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
					if peer, ok := PeerOf(hello.Conn.RemoteAddr()); !ok || peer.Node != "a" {
						t.Errorf("asked about %v, want node a", hello.Conn.RemoteAddr())
					}
					return inner, nil
				}
			case "client":
				client.VerifyConnection = verify
			}
			nodes := chain(t, "a", "b")
			ln, err := nodes[1].ListenStream("svc", nil, server)
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			open := func() (near, far *Stream) {
				t.Helper()
				near, err := nodes[0].DialStream(t.Context(), "b", "svc", client)
				if err != nil {
					t.Fatal(err)
				}
				far, err = ln.Accept()
				if err != nil {
					t.Fatal(err)
				}
				return near, far
			}
			near, far := open()
			first := near.mux
			if second, _ := open(); second.mux != first {
				t.Error("a second stream took another connection")
			}
			distrust.Store(true)
			if _, err := nodes[0].DialStream(t.Context(), "b", "svc", client); err == nil {
				t.Error("a stream was opened to one who is not trusted any more")
			}
			distrust.Store(false)
			if third, _ := open(); third.mux == first {
				t.Error("a stream took the connection that was not trusted")
			}
			_, _ = io.WriteString(near, "still here")
			_ = near.CloseWrite()
			if got, err := io.ReadAll(far); string(got) != "still here" || err != nil {
				t.Errorf("the stream that was open got %q, %v", got, err)
			}
		})
	}
}

// TestDialWhileTheServiceCloses: whatever moment the end comes at, the dialer learns that the service is closing or gone.
func TestDialWhileTheServiceCloses(t *testing.T) {
	for _, protocols := range [][]string{streamProtocols, {streamALPN}} {
		t.Run(protocols[0], func(t *testing.T) {
			nodes := chain(t, "a", "b")
			nodes[0].protocols = protocols
			for range 30 {
				ln, err := nodes[1].ListenStream("svc", nil, nil)
				if err != nil {
					t.Fatal(err)
				}
				ends := make(chan error)
				for range 8 {
					go func() {
						s, err := nodes[0].DialStream(t.Context(), "b", "svc", nil)
						if err == nil {
							err = readEnd(s)
						}
						ends <- err
					}()
				}
				if _, err := ln.Accept(); err != nil {
					t.Fatal(err)
				}
				closed := make(chan struct{})
				go func() { _ = ln.Close(); close(closed) }()
				<-closed
				accepted := 1
				for i := range 8 - accepted {
					err := <-ends
					reset, wasReset := errors.AsType[*ResetError](err)
					switch {
					case errors.Is(err, ErrServiceClosing), errors.Is(err, ErrServiceUnknown):
					case wasReset && (reset.Code == 500 || errors.Is(err, errPeerGone)):
					default:
						t.Fatalf("dial %d: got %v, want that the service is closing or unknown, or a reset with code 500", i, err)
					}
				}
				nodes[1].failStreams(ErrClosed, func(*Stream) bool { return true })
				<-ends
			}
		})
	}
}

// TestServicesEndWhole: a service whose last stream has ended can be offered again at once, as its name is free by then.
func TestServicesEndWhole(t *testing.T) {
	nodes := chain(t, "a", "b")
	nodes[0].protocols = []string{streamALPN} // Each stream holds the socket for itself.
	name, err := wire.Service("svc")
	if err != nil {
		t.Fatal(err)
	}
	b := nodes[1]
	for i := range 200 {
		ln, err := b.ListenStream("svc", nil, nil)
		if err != nil {
			t.Fatalf("time %d: %v", i, err)
		}
		if _, err := nodes[0].DialStream(t.Context(), "b", "svc", nil); err != nil {
			t.Fatal(err)
		}
		if _, err := ln.Accept(); err != nil {
			t.Fatal(err)
		}
		_ = ln.Close()
		go b.failStreams(ErrClosed, func(*Stream) bool { return true })
		for over := false; !over; {
			b.streamsMu.Lock()
			over = b.streamSockets["svc"] == nil
			b.socketsMu.Lock()
			bound := b.sockets[name] != nil
			b.socketsMu.Unlock()
			b.streamsMu.Unlock()
			if over && bound {
				t.Fatalf("time %d: nobody has the service, and its name is in use", i)
			}
		}
	}
}

// TestServicesOfferedAgain: while a listener closes, another finds the name taken or has it, and nothing in between.
func TestServicesOfferedAgain(t *testing.T) {
	n := chain(t, "a")[0]
	ln, err := n.ListenStream("svc", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 300 {
		old := ln
		go old.Close()
		for {
			if ln, err = n.ListenStream("svc", nil, nil); err == nil {
				break
			}
			if !errors.Is(err, ErrServiceInUse) {
				t.Fatal(err)
			}
		}
	}
	_ = ln.Close()
}
