package netceptor

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// FuzzLink lets a peer say anything to a node that runs, before or after its introduction: the node goes on, and the link
// ends when the peer leaves.
func FuzzLink(f *testing.F) {
	n, err := New(Config{ID: "n"})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = n.Close() })
	for _, h := range hostileMessages() {
		var all wire.Batch
		for _, msg := range h.say[:min(len(h.say), 4)] {
			if len(msg) < 4096 {
				all = append(append(all, byte(len(msg)), byte(len(msg)>>8)), msg...)
			}
		}
		f.Add(false, []byte(all))
		f.Add(true, []byte(all))
	}
	f.Fuzz(func(t *testing.T, known bool, said []byte) {
		near, far := net.Pipe()
		b, err := n.AddLink(link.NewStream(near, "fuzz"), LinkOptions{Cost: 1})
		if err != nil {
			t.Fatal(err)
		}
		read := make(chan struct{})
		go func() {
			defer close(read)
			_, _ = io.Copy(io.Discard, far)
		}()
		if known {
			frame, err := wire.AppendFrame(nil, hello("p"))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = far.Write(frame)
		}
		_, _ = far.Write(said)
		_ = far.Close()
		<-read
		select {
		case <-b.Done():
		case <-time.After(time.Minute):
			t.Fatal("the link does not end")
		}
		if n.Err() != nil {
			t.Fatalf("the node ended: %v", n.Err())
		}
	})
}
