package netceptor

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/policy"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// lockedBuffer is a log that can be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// packets returns the lines about packets since the last call.
func (l *lockedBuffer) packets() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := slices.Collect(strings.Lines(l.b.String()))
	l.b.Reset()
	return slices.DeleteFunc(all, func(line string) bool { return !strings.HasPrefix(line, "level=DEBUG msg=packet ") })
}

func TestF045PacketTrace(t *testing.T) {
	log := &lockedBuffer{}
	noTime := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	n, err := New(Config{ID: "n", Trace: true, Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: noTime}))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	a, b := testNode(t, "a"), testNode(t, "b")
	joinTCP(t, n, a)
	joinTCP(t, n, b)
	waitRoute(t, a, "b")
	waitRoute(t, n, "a")
	waitRoute(t, n, "b")
	in, err := n.ListenPacket("in", nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := n.ListenPacket("out", nil)
	if err != nil {
		t.Fatal(err)
	}
	rules, err := policy.Compile([]policy.Rule{{Action: "drop", ToService: "closed"}})
	if err != nil {
		t.Fatal(err)
	}
	n.SetPolicy(rules)
	log.packets()

	var r receiver
	packet := func(from, to wire.NodeID, service string, hops uint8) func() {
		h := wire.Header{Hops: hops, From: wire.Hash(from), To: wire.Hash(to), FromService: mustService("me"), ToService: mustService(service)}
		return func() { n.receivePacket(&r, append(h.AppendTo(nil), "hello"...)); r.flush() }
	}
	write := func(to wire.NodeID, service string) func() {
		return func() { _, _ = out.WriteTo([]byte("hello"), Addr{to, service}) }
	}
	for _, test := range []struct {
		do   func()
		want []string
	}{
		{packet("a", "b", "svc", 7), []string{"outcome=forwarded from=a:me to=b:svc bytes=5 hops=7 via=b"}},
		{packet("a", "n", "in", 7), []string{"outcome=delivered from=a:me to=n:in bytes=5 hops=7"}},
		{packet("a", "n", "ping", 7), []string{
			"outcome=originated from=n:ping to=a:me bytes=0 hops=30 via=a", "outcome=delivered from=a:me to=n:ping bytes=5 hops=7"}},
		{packet("a", "nobody", "svc", 7), []string{
			fmt.Sprintf("outcome=dropped_unknown_node from=a:me to=#%016x:svc bytes=5 hops=7", uint64(wire.Hash("nobody")))}},
		{packet("n", "b", "svc", 7), []string{"outcome=dropped_spoofed from=n:me to=b:svc bytes=5 hops=7"}},
		{packet("a", "b", "closed", 7), []string{"outcome=dropped_firewall from=a:me to=b:closed bytes=5 hops=7"}},
		{func() { n.receivePacket(&r, []byte{0, 1, 2}) }, []string{`outcome=dropped_malformed bytes=3 err="message too short: data message of 3 bytes, header needs 36"`}},
		{write("b", "svc"), []string{"outcome=originated from=n:out to=b:svc bytes=5 hops=30 via=b"}},
		{write("n", "in"), []string{"outcome=delivered from=n:out to=n:in bytes=5 hops=30", "outcome=originated from=n:out to=n:in bytes=5 hops=30"}},
		{write("nowhere", "svc"), []string{`outcome=refused from=n:out to=nowhere:svc bytes=5 hops=30 err="no route to node"`}},
		{func() { n.SetTrace(false); write("b", "svc")(); packet("a", "b", "svc", 7)(); n.SetTrace(true) }, nil},
	} {
		test.do()
		got := log.packets()
		// Neighbours answer some of these on their own time, from the service that a notice comes from.
		got = slices.DeleteFunc(got, func(line string) bool { return strings.Contains(line, ":unreach") })
		for i, line := range got {
			got[i] = strings.TrimSpace(strings.TrimPrefix(line, "level=DEBUG msg=packet "))
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(test.want, "\n\t"))
		}
	}
	_ = in.Close()
	packet("a", "b", "svc", 0)()
	if got := log.packets(); !slices.ContainsFunc(got, func(l string) bool {
		return strings.Contains(l, "outcome=dropped_expired from=a:me to=b:svc bytes=5 hops=0 via=b")
	}) {
		t.Errorf("a packet without hops left: %q", got)
	}
}
