package netceptor

import (
	"errors"
	"fmt"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// TestRunsOfPackets: packets that come behind each other with one header are handled as one where they simply pass, and
// nobody can tell.
func TestRunsOfPackets(t *testing.T) {
	n := testNode(t, "n")
	ends := map[wire.NodeID]link.Conn{}
	for _, id := range []wire.NodeID{"p", "q"} {
		near, far := link.Pipe()
		n.wg.Go(func() { _, _ = n.runLink(near, LinkOptions{Cost: 1}, nil) })
		t.Cleanup(func() { _ = far.Close() })
		say(t, far, hello(id))
		say(t, far, update(id, id, 2, map[wire.NodeID]float64{"n": 1}))
		waitRoute(t, n, id)
		ends[id] = far
	}
	in, err := n.ListenPacket("in", nil)
	if err != nil {
		t.Fatal(err)
	}
	var batch wire.Batch
	packets := func(count int, from, to wire.NodeID, service string, hops uint8, reserved byte) {
		h := wire.Header{Hops: hops, From: wire.Hash(from), To: wire.Hash(to), FromService: mustService("out"), ToService: mustService(service)}
		for i := range count {
			head := h.AppendTo(nil)
			head[2], head[3] = reserved, reserved
			if batch, err = wire.AppendFrame(batch, head, fmt.Appendf(nil, "%s %d", service, i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	packets(2, "q", "p", "late", 0, 0)
	packets(3, "n", "p", "forged", 5, 0)
	packets(4, "q", "unknown", "svc", 5, 0)
	packets(5, "q", "n", "nobody", 5, 0)
	packets(3, "q", "n", "in", 5, 0)
	packets(2, "q", "p", "far", 5, 7)
	packets(1, "q", "p", "far", 4, 0)
	packets(2, "q", "p", "far", 5, 0)
	arrived := listen(ends["p"], wire.TypeData)
	if err := ends["q"].WriteBatch(batch); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		hops uint8
		text string
	}{{4, "far 0"}, {4, "far 1"}, {3, "far 0"}, {4, "far 0"}, {4, "far 1"}} {
		msg := <-arrived
		if msg[1] != want.hops || msg[2]|msg[3] != 0 || string(msg[wire.HeaderSize:]) != want.text {
			t.Errorf("got %q, want %q with %d hops left", msg, want.text, want.hops)
		}
	}
	for i := range 3 {
		buf := make([]byte, 20)
		size, from, err := in.ReadFrom(buf)
		if want := fmt.Sprintf("in %d", i); err != nil || string(buf[:size]) != want || from != (Addr{"q", "out"}) {
			t.Errorf("got %q from %v, %v, want %q", buf[:size], from, err, want)
		}
	}
	c := n.Counters()
	if c.Forwarded != 5 || c.Delivered != 3 || c.DropExpired != 2 || c.DropSpoofed != 3 || c.DropUnknownHash != 4 {
		t.Errorf("counted %+v", c)
	}
	if c.Originated != 7 { // A notice for each of the two that are late and the five that nobody wants.
		t.Errorf("%d packets sent, want 7 notices", c.Originated)
	}
}

// TestFullQueuesTakeWhatFits: of a run that does not fit as a whole, the packets that fit are kept.
func TestFullQueuesTakeWhatFits(t *testing.T) {
	h := wire.Header{Hops: 5, From: wire.Hash("q"), To: wire.Hash("p"), FromService: mustService("out"), ToService: mustService("svc")}
	run, err := wire.AppendFrame(nil, h.AppendTo(nil), make([]byte, 60_000))
	if err != nil {
		t.Fatal(err)
	}
	run = append(run, run...)
	q := newSendQueue()
	for err == nil {
		err = q.pushTransit(run, 4)
	}
	if !errors.Is(err, errQueueFull) || len(q.data) > transitLimit || len(q.data)+len(run) <= transitLimit {
		t.Fatalf("%v with %d bytes in the queue", err, len(q.data))
	}
	q.close()
	if err := q.pushTransit(run, 4); !errors.Is(err, errQueueClosed) {
		t.Errorf("closed: %v", err)
	}

	pc, err := testNode(t, "n").ListenPacket("in", nil)
	if err != nil {
		t.Fatal(err)
	}
	for pc.receiveRun(h, run) > 0 {
	}
	if waits := len(pc.queue); waits <= receiveLimit || waits > receiveLimit+len(run)/2 {
		t.Errorf("%d bytes wait, want %d and what is left of the packet that is the last", waits, receiveLimit)
	}
	_ = pc.Close()
	if got := pc.receiveRun(h, run); got != 0 {
		t.Errorf("a closed socket takes %d packets", got)
	}
}
