package netceptor

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/link"
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
