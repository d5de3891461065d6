package workceptor

import (
	"errors"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// TestFillerGathers: what comes a little at a time is handed on together, and nothing is lost with an error behind it.
func TestFillerGathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		buf := make([]byte, 8)
		n, err := filler{iotest.OneByteReader(strings.NewReader("0123456789"))}.Read(buf)
		if string(buf[:n]) != "01234567" || err != nil {
			t.Errorf("got %q, %v, want all that there is room for", buf[:n], err)
		}
		broken := errors.New("broken")
		n, err = filler{iotest.OneByteReader(errorReader{strings.NewReader("012"), broken})}.Read(buf)
		if string(buf[:n]) != "012" || err != broken {
			t.Errorf("got %q, %v, want what came before the error, and the error", buf[:n], err)
		}
		slow := slowReader{strings.NewReader("0123")}
		if n, err := (filler{slow}).Read(buf); n != 1 || err != nil {
			t.Errorf("got %d bytes, %v, want the first of a slow reader at once", n, err)
		}
	})
}

// errorReader ends with err.
type errorReader struct {
	*strings.Reader
	err error
}

func (r errorReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil {
		err = r.err
	}
	return n, err
}

// slowReader brings a byte each time after fillTime.
type slowReader struct{ *strings.Reader }

func (r slowReader) Read(p []byte) (int, error) {
	time.Sleep(fillTime)
	return r.Reader.Read(p[:1])
}
