package link

import (
	"strings"
	"testing"
	"time"
)

// TestLastWordsAreRead: a peer that is still writing when this end has said its last reads that, and may go on writing.
func TestLastWordsAreRead(t *testing.T) {
	each(t, func(t *testing.T, tr transport) {
		if tr.name == "memory" || tr.lossy { // Nothing is reset there.
			return
		}
		peer, conn := tr.link(t)
		if err := conn.WriteBatch(frames("the last word")); err != nil {
			t.Fatal(err)
		}
		finished := make(chan error, 1)
		go func() { finished <- Finish(conn, hang) }()
		if got := read(t, peer, 1); got[0] != "the last word" {
			t.Errorf("the peer reads %q", got)
		}
		if _, err := peer.ReadBatch(); err == nil || strings.Contains(err.Error(), "reset") {
			t.Errorf("then it reads %v, want the end", err)
		}
		if err := peer.WriteBatch(frames(strings.Repeat("more ", 10_000), strings.Repeat("more ", 10_000))); err != nil {
			t.Errorf("what the peer still writes: %v", err)
		}
		_ = peer.Close()
		if err := <-finished; err != nil {
			t.Error(err)
		}
	})
}

// TestFinishEnds with the patience for a peer that says nothing, and with the bytes of one that goes on.
func TestFinishEnds(t *testing.T) {
	each(t, func(t *testing.T, tr transport) {
		_, conn := tr.link(t)
		if err := Finish(conn, time.Millisecond); err != nil {
			t.Errorf("a peer that says nothing: %v", err)
		}
		if tr.lossy {
			return
		}
		peer, conn := tr.link(t)
		written := make(chan error, 1)
		go func() {
			much, err := frames(strings.Repeat("x", 60_000)), error(nil)
			for err == nil {
				err = peer.WriteBatch(much)
			}
			written <- err
		}()
		_ = Finish(conn, hang)
		<-written
	})
}
