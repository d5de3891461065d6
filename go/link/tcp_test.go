package link

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// scripted is a byte stream whose reads are given.
type scripted struct {
	net.Conn
	reads [][]byte
}

func (s *scripted) Read(p []byte) (int, error) {
	if len(s.reads) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.reads[0])
	if s.reads[0] = s.reads[0][n:]; len(s.reads[0]) == 0 {
		s.reads = s.reads[1:]
	}
	return n, nil
}

func (s *scripted) LocalAddr() net.Addr  { return &net.TCPAddr{} }
func (s *scripted) RemoteAddr() net.Addr { return &net.TCPAddr{} }
func (s *scripted) Close() error         { return nil }

// all reads messages, empty ones too, to the end.
func all(c Conn) (got []string, err error) {
	for {
		batch, err := c.ReadBatch()
		if err != nil {
			return got, err
		}
		for msg, rest, ok := batch.Next(); ok; msg, rest, ok = rest.Next() {
			got = append(got, string(msg))
		}
	}
}

func TestFramesSplitAnywhere(t *testing.T) {
	want := []string{"a", "", "bc", strings.Repeat("d", 300), "", "e"}
	var stream []byte
	for _, m := range want {
		stream = append(stream, byte(len(m)), byte(len(m)>>8))
		stream = append(stream, m...)
	}
	check := func(t *testing.T, reads ...[]byte) {
		t.Helper()
		got, err := all(NewStream(&scripted{reads: reads}, "tcp"))
		if !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("got %d messages %.60q, %v", len(got), got, err)
		}
	}
	for i := range stream {
		check(t, append([]byte(nil), stream[:i]...), append([]byte(nil), stream[i:]...))
	}
	var bytewise [][]byte
	for _, b := range stream {
		bytewise = append(bytewise, []byte{b})
	}
	check(t, bytewise...)
}

func TestEndInsideAFrame(t *testing.T) {
	whole := frames("first", "second")
	for i := len(frames("first")) + 1; i < len(whole); i++ {
		got, err := all(NewStream(&scripted{reads: [][]byte{whole[:i]}}, "tcp"))
		if !errors.Is(err, io.ErrUnexpectedEOF) || len(got) != 1 || got[0] != "first" {
			t.Errorf("cut at %d: %q, %v; want the first message and an unexpected EOF", i, got, err)
		}
	}
}

func TestManyFramesPerSegment(t *testing.T) {
	var stream wire.Batch
	var want []string
	for i := range 30000 {
		m := strings.Repeat("m", 1+i%40)
		if i%5000 == 0 {
			m = strings.Repeat("M", wire.MaxMessage)
		}
		want = append(want, m)
		stream = append(stream, frames(m)...)
	}
	got, err := all(NewStream(&scripted{reads: [][]byte{stream}}, "tcp"))
	if !errors.Is(err, io.EOF) || len(got) != len(want) {
		t.Fatalf("%d messages, %v; want %d", len(got), err, len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("message %d has %d bytes, want %d", i, len(got[i]), len(want[i]))
		}
	}
}

func FuzzStream(f *testing.F) {
	f.Add([]byte("\x01\x00a\x00\x00\x02\x00bc"), uint8(3))
	f.Add([]byte("\xff\xff"), uint8(0))
	f.Fuzz(func(t *testing.T, stream []byte, cut uint8) {
		at := min(int(cut), len(stream))
		one, err1 := all(NewStream(&scripted{reads: [][]byte{append([]byte(nil), stream...)}}, "tcp"))
		two, err2 := all(NewStream(&scripted{reads: [][]byte{append([]byte(nil), stream[:at]...), append([]byte(nil), stream[at:]...)}}, "tcp"))
		if strings.Join(one, "|") != strings.Join(two, "|") || len(one) != len(two) || !errors.Is(err1, err2) {
			t.Errorf("in one piece %q (%v), cut at %d %q (%v)", one, err1, at, two, err2)
		}
		if whole := wire.Batch(stream).Whole(); (whole == len(stream)) != errors.Is(err1, io.EOF) {
			t.Errorf("%d of %d bytes are whole frames, but the end is %v", whole, len(stream), err1)
		}
	})
}
