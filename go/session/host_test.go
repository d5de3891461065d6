package session

import "testing"

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
