package session

import (
	"io"
	"testing"
)

// bridged is a stream of a host of its own, whose program has closed it, after both ends are over.
func bridged(t *testing.T, remote meshStream) (*host, *stream) {
	t.Helper()
	h := newHost("test", "sidecar", nil)
	t.Cleanup(h.close)
	s, fd, err := h.bridge(remote, nil)
	if err != nil {
		t.Fatal(err)
	}
	closeFD(fd)
	h.wg.Wait()
	return h, s
}

// TestWhatIsKeptOfAStream: of thousands of streams that are over, no more is kept than what can be asked.
func TestWhatIsKeptOfAStream(t *testing.T) {
	h, s := bridged(t, &brokenStream{})
	kept, how, err := h.stream(s.id)
	if err != nil {
		t.Fatal(err)
	}
	if kept != nil {
		t.Error("a stream that is over is kept with its ends")
	}
	if _, err := opStreamAbort(t.Context(), &session{host: h}, &request{Stream: s.id, ErrorCode: 7}); err != nil {
		t.Errorf("abort of a stream that is over: %v", err)
	}
	if got := how.status(); got.State != "reset" || got.Err == nil || got.Err.Code != Internal {
		t.Errorf("got status %+v, want a fault", got)
	}
}

// brokenAtLast finds a bug when the program's data has ended.
type brokenAtLast struct{ brokenStream }

func (*brokenAtLast) Read([]byte) (int, error) { return 0, io.EOF }
func (*brokenAtLast) CloseWrite() error        { panic("an end") }

// TestAFaultInAnEnd: a stream whose end did not get through has not ended in good order.
func TestAFaultInAnEnd(t *testing.T) {
	_, s := bridged(t, &brokenAtLast{})
	if got := s.status(); got.State != "reset" || got.Err == nil || got.Err.Code != Internal {
		t.Errorf("got status %+v, want a fault", got)
	}
}
