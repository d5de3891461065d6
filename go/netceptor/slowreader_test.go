package netceptor

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// slowReader is a writer's end and a reader's end of a stream of which the reader reads nothing yet.
type slowReader struct {
	*simulation
	writer, reader *Node
	in, out        *Stream
	text           []byte
}

// slowReaders runs f under virtual time for streams with and without a connection of their own, written to by the dialer or
// by who accepts them, once the writer has closed its end.
func slowReaders(t *testing.T, size int, f func(t *testing.T, r *slowReader, own bool)) {
	for _, way := range []struct {
		name          string
		own, accepted bool
	}{
		{"shared, dialer writes", false, false},
		{"shared, listener writes", false, true},
		{"own, dialer writes", true, false},
		{"own, listener writes", true, true},
	} {
		t.Run(way.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSimulation(t)
				a, b, near, far := s.stream(way.own)
				r := &slowReader{s, a, b, near, far, bytes.Repeat([]byte("0123456789abcdef"), size/16)}
				if way.accepted {
					r.writer, r.reader, r.in, r.out = b, a, far, near
				}
				if _, err := r.in.Write(r.text); err != nil {
					t.Fatal(err)
				}
				_ = r.in.Close()
				f(t, r, way.own)
				_ = r.out.Close()
				s.close()
			})
		})
	}
}

// readsAll reads what has been sent, in small steps.
func (r *slowReader) readsAll(t *testing.T) {
	t.Helper()
	var got bytes.Buffer
	if _, err := io.CopyBuffer(&got, struct{ io.Reader }{r.out}, make([]byte, 1000)); err != nil || !bytes.Equal(got.Bytes(), r.text) {
		t.Errorf("read %d bytes of %d, %v", got.Len(), len(r.text), err)
	}
}

// TestSlowReadersReadAll: what was written before a stream was closed can be read long after.
func TestSlowReadersReadAll(t *testing.T) {
	for size, pause := range map[int]time.Duration{1 << 10: 20 * time.Second, 1<<20 - 16: 5 * time.Minute} {
		slowReaders(t, size, func(t *testing.T, r *slowReader, _ bool) {
			time.Sleep(pause)
			r.readsAll(t)
		})
	}
}

// TestSlowReadersOutliveTheWritersNode: its end, its next life and the loss of the path to it take nothing from who has to read yet.
func TestSlowReadersOutliveTheWritersNode(t *testing.T) {
	for name, end := range map[string]func(r *slowReader){
		"closed": func(r *slowReader) { _ = r.writer.Close() },
		"started again": func(r *slowReader) {
			id := r.writer.ID()
			_ = r.writer.Close()
			r.cut("a", "b")
			r.add(id)
			r.link("a", "b", 1)
			r.settle("again", 5*time.Second)
		},
		"cut off": func(r *slowReader) {
			time.Sleep(time.Second)
			r.cut("a", "b")
		},
	} {
		t.Run(name, func(t *testing.T) {
			slowReaders(t, 1<<20-16, func(t *testing.T, r *slowReader, _ bool) {
				end(r)
				time.Sleep(15 * time.Second)
				r.readsAll(t)
			})
		})
	}
}

// TestTheEndOfANodeCutsOnlyWhatIsOpen: of two streams on a connection, the one that is open is reset at once.
func TestTheEndOfANodeCutsOnlyWhatIsOpen(t *testing.T) {
	slowReaders(t, 1<<20-16, func(t *testing.T, r *slowReader, own bool) {
		ln := listenStream(t, r.reader, "other")
		if own {
			r.writer.protocols = []string{streamALPN}
		}
		finished, err := r.writer.DialStream(t.Context(), r.reader.ID(), "other", nil)
		if err != nil {
			t.Fatal(err)
		}
		readers := []*Stream{accept(t, ln)}
		open, err := r.writer.DialStream(t.Context(), r.reader.ID(), "other", nil)
		if err != nil {
			t.Fatal(err)
		}
		readers = append(readers, accept(t, ln))
		for _, s := range []*Stream{finished, open} {
			if _, err := s.Write(r.text); err != nil {
				t.Fatal(err)
			}
		}
		_ = finished.Close()
		_ = r.writer.Close()
		start := time.Now()
		if _, err := io.Copy(io.Discard, readers[1]); time.Since(start) > time.Second {
			t.Errorf("the end took %v", time.Since(start))
		} else if reset, ok := errors.AsType[*ResetError](err); !ok || !reset.Remote || reset.Code != uint64(codePath) && !own {
			t.Errorf("the open stream ended with %v, want a reset by the peer", err)
		}
		time.Sleep(10 * time.Second)
		r.out = readers[0]
		r.readsAll(t)
	})
}

// TestWhatArrivedIsReadBeforeTheError: a stream that is not closed is a [ResetError] when its path is lost, behind what has
// arrived of it.
func TestWhatArrivedIsReadBeforeTheError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t)
		a, b, in, out := s.stream(false)
		if _, err := in.Write(make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		s.cut("a", "b")
		<-out.Done()
		got, err := io.ReadAll(out)
		if _, reset := errors.AsType[*ResetError](err); !reset || !errors.Is(err, errPathLost) || len(got) != 100_000 {
			t.Errorf("read %d bytes, %v; want 100000 and the loss of the path", len(got), err)
		}
		if _, err := out.Write([]byte("x")); !errors.Is(err, errPathLost) {
			t.Errorf("writing: %v, want the loss of the path", err)
		}
		_ = out.Close()
		_ = in.Close()
		synctest.Wait()
		wantNoConnections(t, a, b)
		s.close()
	})
}

// TestAPeerThatIsBackTakesNothing: a dialer that has not noticed that the path was lost for a while gets another connection
// for its next stream, and what has arrived on the one that the other side has given up can still be read.
func TestAPeerThatIsBackTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t)
		a, b, in, out := s.stream(false)
		ln := b.listeners["svc"]
		sent := make([]byte, 100_000)
		if _, err := in.Write(sent); err != nil {
			t.Fatal(err)
		}
		_ = in.Close()
		time.Sleep(time.Second)
		s.cut("a", "b")
		<-out.Done()
		s.link("a", "b", 1)
		s.settle("again", 5*time.Second)
		next, err := a.DialStream(t.Context(), "b", "svc", nil)
		if err != nil {
			t.Fatal(err)
		}
		far := accept(t, ln)
		if next.qc == in.qc {
			t.Error("the next stream is on the connection that the other side has given up")
		}
		if got, err := io.ReadAll(out); err != nil || len(got) != len(sent) {
			t.Errorf("read %d bytes of %d, %v", len(got), len(sent), err)
		}
		for _, st := range []*Stream{next, far, out} {
			_ = st.Close()
		}
		s.close()
	})
}

// TestSlowReadersAreBounded: connections are kept for so many of them, and not for ever.
func TestSlowReadersAreBounded(t *testing.T) {
	slowReaders(t, slowFrom, func(t *testing.T, r *slowReader, own bool) {
		if !own {
			return
		}
		_ = r.out.CloseWrite()
		time.Sleep(slowLimit - time.Second)
		if len(r.writer.slow) != 1 || r.in.qc.Context().Err() != nil {
			t.Errorf("%d connections are kept", len(r.writer.slow))
		}
		time.Sleep(10 * time.Second)
		if len(r.writer.slow) != 0 || r.in.qc.Context().Err() == nil {
			t.Errorf("%d connections are kept after the limit", len(r.writer.slow))
		}
		r.readsAll(t)
		for range slowPlaces { // From now on nobody is waited for.
			r.writer.slow <- struct{}{}
		}
		again := &Stream{node: r.writer}
		again.awaitReader()
	})
}
