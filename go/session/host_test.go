package session

import (
	"io"
	"testing"
)

// TestWhatRemainsOfAStream: of thousands of streams that are over, no more is kept than what can be asked.
func TestWhatRemainsOfAStream(t *testing.T) {
	h := newHost("test", "sidecar", nil)
	defer h.close()
	s, fd, err := h.bridge(&brokenStream{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	closeFD(fd)
	h.wg.Wait()
	kept, err := h.stream(s.id)
	if err != nil {
		t.Fatal(err)
	}
	if kept.remote != nil || kept.local != nil {
		t.Errorf("the ends of a stream that is over are kept: %v, %v", kept.remote, kept.local)
	}
	kept.abort(7)
	got, want := kept.status(), s.status()
	if got.State != "reset" || got.Err == nil || got.Err.Code != Internal || got.BytesIn != want.BytesIn || got.BytesOut != want.BytesOut {
		t.Errorf("got status %+v, want %+v", got, want)
	}
}

// brokenAtLast finds a bug when the program's data has ended.
type brokenAtLast struct{ brokenStream }

func (*brokenAtLast) Read([]byte) (int, error) { return 0, io.EOF }
func (*brokenAtLast) CloseWrite() error        { panic("an end") }

// TestAFaultInAnEnd: a stream whose end did not get through has not ended in good order.
func TestAFaultInAnEnd(t *testing.T) {
	h := newHost("test", "sidecar", nil)
	defer h.close()
	s, fd, err := h.bridge(&brokenAtLast{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	closeFD(fd)
	<-s.done
	if got := s.status(); got.State != "reset" || got.Err == nil || got.Err.Code != Internal {
		t.Errorf("got status %+v, want a fault", got)
	}
}
