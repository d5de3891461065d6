package attach

import (
	"bytes"
	"errors"
	"io"
	"syscall"
	"testing"
)

func TestFrames(t *testing.T) {
	long := bytes.Repeat([]byte("x"), MaxContent)
	text := Append(nil, Input, []byte("ls\n"))
	text = Append(text, Input, nil)
	text = AppendResize(text, Size{50, 300})
	text = Append(text, Stdout, long)
	want := []struct {
		kind    Kind
		content string
	}{{Input, "ls\n"}, {Input, ""}, {Resize, "\x00\x32\x01\x2c"}, {Stdout, string(long)}}
	if got, want := text[:6], "\x01\x00\x03ls\n"; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	r := NewReader(bytes.NewReader(text))
	for _, w := range want {
		kind, content, err := r.Next()
		if kind != w.kind || string(content) != w.content || err != nil {
			t.Fatalf("got %d with %d bytes, %v, want %d with %d", kind, len(content), err, w.kind, len(w.content))
		}
	}
	if _, _, err := r.Next(); err != io.EOF {
		t.Errorf("got %v, want the end", err)
	}
	for cut := 1; cut < 6; cut++ {
		if _, _, err := NewReader(bytes.NewReader(text[:cut])).Next(); err != io.ErrUnexpectedEOF {
			t.Errorf("after %d bytes: got %v", cut, err)
		}
	}
}

func TestContents(t *testing.T) {
	if size, err := ParseResize([]byte{0, 50, 1, 44}); size != (Size{50, 300}) || err != nil {
		t.Errorf("got %v, %v", size, err)
	}
	for _, bad := range []string{"", "\x00", "\x00\x01\x00\x01\x00"} {
		if _, err := ParseResize([]byte(bad)); !errors.Is(err, ErrFrame) {
			t.Errorf("%q: got %v", bad, err)
		}
	}
	if s, err := SignalOf([]byte("INT")); s != syscall.SIGINT || err != nil {
		t.Errorf("got %v, %v", s, err)
	}
	for _, bad := range []string{"", "int", "SIGINT", "9"} {
		if _, err := SignalOf([]byte(bad)); !errors.Is(err, ErrFrame) {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("\x01\x00\x03ls\n\x02\x00\x04\x00\x18\x00\x50"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r := NewReader(bytes.NewReader(text))
		var again []byte
		for {
			kind, content, err := r.Next()
			if err != nil {
				if !bytes.HasPrefix(text, again) || err == io.EOF && len(again) != len(text) {
					t.Fatalf("%q became %q", text, again)
				}
				return
			}
			again = Append(again, kind, content)
		}
	})
}
