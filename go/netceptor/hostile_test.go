package netceptor

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// What a message does to the link that it comes by.
type fate int

const (
	lives fate = iota
	ends
	notTried
)

// hostile is a kind of bad input: the messages of an attacker, and what becomes of the link.
type hostile struct {
	name          string
	say           [][]byte
	before, after fate // The attacker has introduced itself as p.
	then          func(t *testing.T, n *Node, c link.Conn)
}

func route(json string) []byte { return append([]byte{byte(wire.TypeRoute)}, json...) }

func advert(json string) []byte { return append([]byte{byte(wire.TypeAdvert)}, json...) }
func gone(json string) []byte   { return append([]byte{byte(wire.TypeGone)}, json...) }

// packet is a data message to n with an empty or given payload.
func packet(from wire.NodeID, fromService, toService string, payload string) []byte {
	h := wire.Header{Hops: 5, From: wire.Hash(from), To: wire.Hash("n"), FromService: mustService(fromService), ToService: mustService(toService)}
	return append(h.AppendTo(nil), payload...)
}

func several(msgs ...[]byte) [][]byte { return msgs }

// hostileMessages are the bad inputs that PEERS.md lists, by the names that they have there.
func hostileMessages() []hostile {
	us := map[wire.NodeID]float64{"n": 1}
	reserved := wire.Header{Hops: 5, From: wire.Hash("p"), To: wire.Hash("p"), FromService: mustService("a"), ToService: mustService("b")}.AppendTo(nil)
	reserved[2], reserved[3] = 0xaa, 0xbb
	longID, _ := (&wire.RouteUpdate{NodeID: "longid", UpdateID: strings.Repeat("u", 60_000), UpdateEpoch: 1, UpdateSequence: 1,
		Connections: us, ForwardingNode: "p"}).Append(nil)
	forged := wire.RouteUpdate{NodeID: "n", UpdateID: "forged01", UpdateEpoch: 1, UpdateSequence: 1, ForwardingNode: "p"}
	return []hostile{
		{name: "empty message", say: several(nil, nil, nil)},
		{name: "route message of nothing", say: several(route(""))},
		{name: "route message cut short", say: several(route("{"), route(`{"NodeID":"p","Upda`), route(`{"NodeID":"p"`))},
		{name: "route message that is no object", say: several(route("[]"), route("nul"), route("7"), route(`"p"`), route("null "+strings.Repeat(" ", 1000)+"x"))},
		{name: "route message with wrong types", say: several(route(`{"NodeID":5}`), route(`{"Connections":[1]}`), route(`{"Connections":{"n":"1"}}`), route(`{"ForwardingNode":{}}`))},
		{name: "integers that are none", say: several(route(`{"UpdateEpoch":1.5}`), route(`{"UpdateSequence":-1}`), route(`{"UpdateEpoch":1e3}`), route(`{"SuspectedDuplicate":18446744073709551616}`))},
		{name: "nested a thousand deep", say: several(route(`{"x":`+strings.Repeat("[", 9000)), route(strings.Repeat(`{"a":`, 9000)), advert(strings.Repeat("[", 60000)))},
		{name: "route message without a node ID", say: several(route("{}")), before: ends, after: ends},
		{name: "advertisement cut short", say: several(advert(""), advert("{"), advert(`{"NodeID":5}`))},
		{name: "advertisement of nothing", say: several(advert("{}"), advert(`{"Cancel":true}`))},
		{name: "withdrawal of what nobody offers", say: several(advert(`{"NodeID":"x","Service":"s","Time":"2026-01-01T00:00:00Z","Cancel":true}`), advert(`{"NodeID":"x","Service":"s","Time":"2026-01-01T00:00:00Z","Cancel":true}`))},
		{name: "withdrawal cut short", say: several(gone(""), gone("{"), gone(`{"NodeID":5}`), gone(`{"NodeID":"x"}`), gone(`{"NodeID":"x","Service":"ninebytes"}`))},
		{name: "withdrawal among us of what nobody offers", say: several(gone(`{"NodeID":"x","Service":"s","Time":"2026-01-01T00:00:00Z"}`), gone(`{"NodeID":"x","Service":"s","Time":"2026-01-01T00:00:00Z"}`))},
		{name: "reject", say: several([]byte{3}), before: ends, after: ends},
		{name: "reject with something behind it", say: several([]byte("\x03not json\xff")), before: ends, after: ends},
		{name: "unknown type", say: several([]byte{9}, []byte("\xff\xfe"), append([]byte{9}, make([]byte, link.MaxUDPMessage-1)...))},
		{name: "packet shorter than its header", say: several([]byte{0}, make([]byte, 35))},
		{name: "packet of unknown nodes", say: several(make([]byte, 36), make([]byte, link.MaxUDPMessage), packet("nobody", "a", "b", ""))},
		{name: "reserved bytes", say: several(reserved), before: notTried, then: func(t *testing.T, _ *Node, c link.Conn) {
			if msg := next(t, c, wire.TypeData); msg[2] != 0 || msg[3] != 0 || msg[1] != 4 {
				t.Errorf("a packet was passed on as % x, want reserved bytes of zero and one hop less", msg[:4])
			}
		}},
		{name: "notice that is no notice", say: several(packet("p", "unreach", "unreach", ""), packet("p", "unreach", "unreach", "{"), packet("p", "unreach", "unreach", `{"Problem":5}`))},
		{name: "unknown fields and other letter case", say: several(route(`{"nodeid":"p","UPDATEID":"otherlet","updateepoch":1,"UpdateSequence":9,"connections":{"n":1},"forwardingnode":"p","suspectedduplicate":0,"New":[{}]}`)),
			before: notTried},
		{name: "peer that lists nobody", say: several(route(`{"NodeID":"p","UpdateID":"nullnull","UpdateEpoch":1,"UpdateSequence":7,"Connections":null,"ForwardingNode":"p","SuspectedDuplicate":0}`))},
		{name: "peer that does not list us any more", say: several(update("p", "p", 7, us), update("p", "p", 8, nil)), before: notTried, after: ends},
		{name: "peer that lists us at another cost", say: several(update("p", "p", 7, map[wire.NodeID]float64{"n": 1.5})), before: notTried, after: ends},
		{name: "peer that changes its name", say: several(update("p", "q", 7, us)), before: notTried, after: ends},
		{name: "peer with our name", say: several(hello("n")), before: ends, after: ends},
		{name: "update about nobody", say: several(update("", "p", 7, us)), before: notTried},
		{name: "update out of order", say: several(update("p", "p", 9, us), update("p", "p", 7, us), update("p", "p", 8, us))},
		{name: "costs that are none", say: several(
			update("x", "p", 7, map[wire.NodeID]float64{"p": -1}), update("y", "p", 7, map[wire.NodeID]float64{"p": 0}), update("z", "p", 7, map[wire.NodeID]float64{"p": 1e300}),
			route(`{"NodeID":"v","UpdateID":"toolarge","UpdateEpoch":1,"UpdateSequence":7,"Connections":{"p":1e999},"ForwardingNode":"p","SuspectedDuplicate":0}`),
		), before: notTried, then: func(t *testing.T, n *Node, _ link.Conn) {
			for _, id := range []wire.NodeID{"x", "y", "z", "v"} {
				if costs := n.Status().KnownConnectionCosts[id]; len(costs) != 0 {
					t.Errorf("costs of %s that nobody may announce were taken: %v", id, costs)
				}
			}
		}},
		{name: "empty name among the neighbours", say: several(update("p", "p", 7, map[wire.NodeID]float64{"n": 1, "": 1}))},
		{name: "update ID that came before", say: several(update("p", "p", 7, us), update("p", "p", 7, us), update("w", "p", 1, us), update("w", "p", 1, us))},
		{name: "update ID without end", say: several(longID), then: func(t *testing.T, n *Node, _ link.Conn) {
			if _, known := n.Status().KnownConnectionCosts["longid"]; known {
				t.Error("the update was taken")
			}
		}},
		{name: "advertisement of a service that no packet can name", say: several(advert(`{"NodeID":"p","Service":"ninebytes","Time":"2026-01-02T03:04:05Z"}`)), then: func(t *testing.T, n *Node, _ link.Conn) {
			if got := n.Status().Advertisements; len(got) != 0 {
				t.Errorf("it was taken: %v", got)
			}
		}},
		{name: "updates that claim to be ours", say: several(forgery(forged, 0), forgery(forged, 1), forgery(forged, ^uint64(0))), before: notTried},
		{name: "ping from a ping", say: several(packet("p", "ping", "ping", ""), packet("n", "ping", "ping", ""), packet("n", "me", "ping", "")), before: notTried},
		{name: "packet without hops", say: several([]byte("\x00\x00" + string(packet("p", "a", "none", "")[2:])))},
		{name: "listener that does not read", before: notTried, say: func() (msgs [][]byte) {
			for range 6000 {
				msgs = append(msgs, packet("p", "a", "stuck", strings.Repeat("x", 1000)))
			}
			return msgs
		}()},
		{name: "keep-alive message with something behind it", say: several([]byte{4}, []byte("\x04\xff\xff"), []byte{4, 0})},
	}
}

// forgery is an update in our name that says of its epoch, and whom it suspects.
func forgery(u wire.RouteUpdate, suspect uint64) []byte {
	u.SuspectedDuplicate, u.UpdateID = suspect, randomName()
	msg, _ := u.Append(nil)
	return msg
}

// put sends messages as they are, also empty ones.
func put(t *testing.T, c link.Conn, msgs ...[]byte) {
	t.Helper()
	for _, msg := range msgs {
		if len(msg) > 0 {
			say(t, c, msg)
		} else if err := c.WriteBatch(wire.Batch{0, 0}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHostileMessages tries every bad input on a node that runs, over every kind of link, before and after the handshake:
// the node goes on, the link does or does not as it must, and when the attacker has left nothing of it is left.
func TestHostileMessages(t *testing.T) {
	for _, k := range append(linkKinds(t), linkKind{name: "external"}) {
		t.Run(k.name, func(t *testing.T) {
			n := testNode(t, "n")
			dial := attackers(t, k, n)
			leave := func(c link.Conn) {
				_ = c.WriteBatch(wire.Batch{1, 0, byte(wire.TypeReject)}) // Over UDP nothing else is noticed soon.
				_ = c.Close()
				awaitNoLinks(t, n)
			}
			round := func() {
				stuck, err := n.ListenPacket("stuck", nil)
				if err != nil {
					t.Fatal(err)
				}
				defer stuck.Close()
				for _, h := range hostileMessages() {
					t.Run(h.name+"/before", func(t *testing.T) { attackBefore(t, k, h, n, dial, leave) })
					t.Run(h.name+"/after", func(t *testing.T) { attackAfter(t, k, h, n, dial, leave) })
				}
			}
			round()
			before := holdings()
			round()
			awaitHoldings(t, before)
		})
	}
}

// TestAttackersThatVanish: connections that are cut without a word, in every state that a link can be in, leave nothing.
func TestAttackersThatVanish(t *testing.T) {
	for _, k := range append(linkKinds(t), linkKind{name: "external"}) {
		t.Run(k.name, func(t *testing.T) {
			n := testNode(t, "n")
			events := n.Subscribe(1000)
			defer events.Close()
			dial := attackers(t, k, n)
			round := func() {
				var all []link.Conn
				for i := range 20 {
					c := dial()
					all = append(all, c)
					switch i % 4 {
					case 0: // Says nothing.
					case 1:
						say(t, c, []byte{9})
					case 2:
						_ = c.WriteBatch(wire.Batch{0xff, 0xff, 1}) // More is announced than comes.
					case 3:
						say(t, c, hello(wire.NodeID(string('a'+rune(i)))))
					}
				}
				for range 5 {
					for e := <-events.C; e.Kind != PeerUp; e = <-events.C {
						continue
					}
				}
				for _, c := range all {
					_ = c.Close()
				}
				strangers(t, k, n)
				awaitNoLinks(t, n)
			}
			round()
			before := holdings()
			round()
			awaitHoldings(t, before)
		})
	}
}

// strangers connect to the listeners and do not speak as its links do.
func strangers(t *testing.T, k linkKind, n *Node) {
	t.Helper()
	for _, b := range n.Backends() {
		addr, listens := strings.CutPrefix(b.Name, "listener ")
		if !listens || k.name == "udp" || k.name == "memory" {
			continue
		}
		for _, say := range []string{"", "\x16\x03\x01\xff\xff", "GET / HTTP/1.1\r\n\r\n", strings.Repeat("\xff", 70000)} {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c, say) // It may be cut off before its end.
			_ = c.Close()
		}
	}
}

func attackBefore(t *testing.T, k linkKind, h hostile, n *Node, dial func() link.Conn, leave func(link.Conn)) {
	if h.before == notTried {
		t.Skip("makes sense only for a peer that is known")
	}
	c := dial()
	defer leave(c)
	put(t, c, h.say...)
	if h.before == ends {
		awaitEnd(t, k, n, c)
		c = dial()
		defer leave(c)
	}
	introduce(t, c)
}

func attackAfter(t *testing.T, k linkKind, h hostile, n *Node, dial func() link.Conn, leave func(link.Conn)) {
	c := dial()
	defer func() { leave(c) }()
	introduce(t, c)
	for part := range slices.Chunk(h.say, 20) {
		put(t, c, part...)
		if len(h.say) > 20 {
			pingOver(t, c) // Over UDP what comes too fast would be lost, also the last ping.
		}
	}
	if h.then != nil {
		defer h.then(t, n, c)
	}
	if h.after == ends {
		awaitEnd(t, k, n, c)
		leave(c)
		c = dial()
		introduce(t, c)
	}
	if h.then == nil {
		pingOver(t, c)
	}
}

// introduce makes a link as p of it, whatever was said before.
func introduce(t *testing.T, c link.Conn) {
	t.Helper()
	say(t, c, hello("p"))
	pingOver(t, c)
}

// awaitEnd waits until the node has ended the link. Over UDP that cannot be seen from outside.
func awaitEnd(t *testing.T, k linkKind, n *Node, c link.Conn) {
	t.Helper()
	if k.name == "udp" {
		awaitNoLinks(t, n)
		return
	}
	for {
		if _, err := c.ReadBatch(); err != nil {
			return
		}
	}
}

func awaitNoLinks(t *testing.T, n *Node) {
	t.Helper()
	await(t, "the links to be gone", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return len(n.links)+len(n.pending) == 0
	})
}

// await waits for something that nobody tells of.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for give := time.Now().Add(time.Minute); !done(); <-tick.C {
		if time.Now().After(give) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

// holding is what a process holds of the machine.
type holding struct {
	goroutines, descriptors int
	heap                    int64
}

func holdings() holding {
	files, _ := os.ReadDir("/proc/self/fd") // Where there is none, there is nothing to compare.
	return holding{runtime.NumGoroutine(), len(files), heapInUse()}
}

func awaitHoldings(t *testing.T, before holding) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for give := time.Now().Add(time.Minute); ; <-tick.C {
		now := holdings()
		if now.goroutines <= before.goroutines && now.descriptors <= before.descriptors && now.heap <= before.heap+512<<10 {
			return
		}
		if time.Now().After(give) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("the attacker left, and the process holds %+v; before it had %+v\n%s", now, before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// attackers returns how an attacker connects to n by a kind of link: with connections of its own where those of package
// link would not send what it sends.
func attackers(t *testing.T, k linkKind, n *Node) func() link.Conn {
	t.Helper()
	if k.name == "external" {
		return func() link.Conn {
			near, far := socketPair(t)
			if _, err := n.AddLink(link.NewStream(near, "external"), LinkOptions{Cost: 1}); err != nil {
				t.Fatal(err)
			}
			return link.NewStream(far, "attacker")
		}
	}
	l, err := k.listen()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Listen(l, LinkOptions{Cost: 1}); err != nil {
		t.Fatal(err)
	}
	return func() link.Conn {
		c, err := attacker(t.Context(), k, l.Addr())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
}

func attacker(ctx context.Context, k linkKind, addr string) (link.Conn, error) {
	switch k.name {
	case "udp":
		c, err := net.Dial("udp", addr)
		return &bareUDP{Conn: c}, err
	case "ws", "wss":
		d := websocket.Dialer{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		c, answer, err := d.DialContext(ctx, k.name+"://"+addr, nil)
		if err == nil {
			err = answer.Body.Close()
		}
		return &bareWebSocket{Conn: c}, err
	}
	d, err := k.dialer(addr)
	if err != nil {
		return nil, err
	}
	return d.Dial(ctx)
}

// socketPair is a connection of the program's own.
func socketPair(t *testing.T) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if far, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if near, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return near, far
}

// bareUDP sends every message as a datagram, also empty ones.
type bareUDP struct{ net.Conn }

func (c *bareUDP) String() string { return "attacker" }

func (c *bareUDP) ReadBatch() (wire.Batch, error) {
	buf := make([]byte, wire.MaxMessage)
	n, err := c.Read(buf)
	if err != nil {
		return nil, err
	}
	return wire.AppendFrame(nil, buf[:n])
}

func (c *bareUDP) WriteBatch(parts ...wire.Batch) error {
	return eachMessage(parts, func(msg []byte) error {
		_, err := c.Write(msg)
		return err
	})
}

// bareWebSocket sends every message as a binary one, also empty ones.
type bareWebSocket struct{ *websocket.Conn }

func (c *bareWebSocket) String() string { return "attacker" }

func (c *bareWebSocket) ReadBatch() (wire.Batch, error) {
	_, r, err := c.NextReader()
	if err != nil {
		return nil, err
	}
	msg, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	return wire.AppendFrame(nil, msg)
}

func (c *bareWebSocket) WriteBatch(parts ...wire.Batch) error {
	return eachMessage(parts, func(msg []byte) error { return c.WriteMessage(websocket.BinaryMessage, msg) })
}

func eachMessage(parts []wire.Batch, send func([]byte) error) error {
	for _, batch := range parts {
		for len(batch) >= wire.FrameOverhead {
			size := min(int(batch[0])|int(batch[1])<<8, len(batch)-wire.FrameOverhead)
			if err := send(batch[wire.FrameOverhead : wire.FrameOverhead+size]); err != nil {
				return err
			}
			batch = batch[wire.FrameOverhead+size:]
		}
	}
	return nil
}

// TestStrangersAreBounded: of those who connect and do not introduce themselves only so many are kept, the newest, and
// whoever does introduce itself gets its link.
func TestStrangersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := link.NewMemory()
		l, err := network.Listen("hub")
		if err != nil {
			t.Fatal(err)
		}
		n, err := New(Config{ID: "n"})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		if _, err := n.Listen(l, LinkOptions{Cost: 1}); err != nil {
			t.Fatal(err)
		}
		const more = 10
		var conns []link.Conn
		for range maxStrangers + more {
			time.Sleep(time.Millisecond)
			c, err := network.Dialer("hub").Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			conns = append(conns, c)
		}
		say(t, conns[len(conns)-1], hello("p"))
		synctest.Wait()
		closed := 0
		for i, c := range conns {
			b, _ := wire.AppendFrame(nil, hello("p"))
			if c.WriteBatch(b) == nil {
				continue
			}
			closed++
			if i >= more {
				t.Errorf("connection %d was closed, want only the first %d", i, more)
			}
		}
		if closed != more {
			t.Errorf("%d connections were closed, want %d", closed, more)
		}
		if got := n.Status().Connections; len(got) != 1 || got[0].NodeID != "p" {
			t.Errorf("links %v, want that of p", got)
		}
	})
}

// TestPortsMakeNoNews: connections that fail alike, each from a port of its own, are logged once for each host.
func TestPortsMakeNoNews(t *testing.T) {
	var log bytes.Buffer
	n, err := New(Config{ID: "n", Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	b, err := n.newBackend("listener", "listener", LinkOptions{Cost: 1})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		b.report("", fmt.Errorf("read: %w", &net.OpError{
			Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ECONNRESET),
			Source: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 27199},
			Addr:   &net.TCPAddr{IP: net.IPv4(192, 0, 2, byte(2+i%2)), Port: 1000 + i},
		}), false)
	}
	for port := range 100 {
		b.report("", fmt.Errorf("dial tcp: %w", &net.DNSError{Name: "hub", Server: "192.0.2.53:53",
			Err: fmt.Sprintf("read udp [2001:db8::1]:%d->[2001:db8::35]:53: i/o timeout", 10000+port)}), true)
	}
	if got := strings.Count(log.String(), "\n"); got != 3 {
		t.Errorf("300 failures were logged in %d lines, want one for each of two hosts and one for the name server:\n%.1000s", got, &log)
	}
	if !strings.Contains(log.String(), "read: 192.0.2.3: read: connection reset by peer") {
		t.Errorf("the host or the reason is not logged:\n%.1000s", &log)
	}
}

// endless is a listener to which strangers come who say nothing, and whose connections take long to end.
type endless struct {
	came   atomic.Int64
	most   int64
	closed chan struct{}
}

func (e *endless) Addr() string { return "endless" }

func (e *endless) Accept() (link.Conn, error) {
	if e.came.Add(1) > e.most {
		<-e.closed
		return nil, link.ErrClosed
	}
	return e, nil
}

func (e *endless) String() string { return "stranger" }

func (e *endless) ReadBatch() (wire.Batch, error) {
	<-e.closed
	return nil, link.ErrClosed
}

func (e *endless) WriteBatch(...wire.Batch) error { return nil }

func (e *endless) Close() error { return nil }

// TestStrangersThatLingerAreBounded: when connections come faster than those before them end, the listener has to wait.
func TestStrangersThatLingerAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := New(Config{ID: "n"})
		if err != nil {
			t.Fatal(err)
		}
		const room = maxStrangers + acceptAhead
		e := &endless{most: 2 * room, closed: make(chan struct{})}
		if _, err := n.Listen(e, LinkOptions{Cost: 1}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if came := e.came.Load(); came != room+1 { // The last one waits.
			t.Errorf("%d connections were accepted, want %d", came, room+1)
		}
		close(e.closed)
		synctest.Wait()
		if came := e.came.Load(); came <= e.most {
			t.Errorf("once connections had ended only %d were accepted in all", came)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
}
