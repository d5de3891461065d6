package netceptor

import (
	"sync"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/link"
)

// TestLastWordsAreReadByWhoIsWriting: a node that is closed takes its services along also where a neighbour is sending to it at
// that moment, and finds the connection closed by that.
func TestLastWordsAreReadByWhoIsWriting(t *testing.T) {
	for range 20 {
		a, b := testNode(t, "a"), testNode(t, "b")
		l, err := link.ListenTCP("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Listen(l, LinkOptions{Cost: 1}); err != nil {
			t.Fatal(err)
		}
		offer(t, a, "svc")
		events := b.Subscribe(1000)
		if _, err := a.Dial(link.DialTCP(l.Addr()), LinkOptions{Cost: 1}); err != nil {
			t.Fatal(err)
		}
		for e := range events.C {
			if e.Kind == ServiceSeen && e.Service == "svc" {
				break
			}
		}
		if _, _, err := b.WaitRoute(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		pc, err := b.ListenPacket("from", nil)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		var senders sync.WaitGroup
		for range 2 {
			senders.Go(func() {
				data := make([]byte, 16000)
				for {
					select {
					case <-done:
						return
					default:
						_, _ = pc.WriteTo(data, Addr{Node: "a", Service: "svc"})
					}
				}
			})
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		gone := false
		for e := range events.C {
			gone = gone || e.Kind == ServiceGone && e.Node == "a" && e.Service == "svc"
			if e.Kind == PeerDown {
				break
			}
		}
		close(done)
		senders.Wait()
		if !gone {
			t.Error("the link was down, and the service was not withdrawn")
		}
		events.Close()
		_ = b.Close()
	}
}
