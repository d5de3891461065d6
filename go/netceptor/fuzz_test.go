package netceptor

import (
	"bytes"
	"io"
	"net"
	"testing"
	"testing/iotest"
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

// FuzzMuxHeader: what a stream of a shared connection begins with, and its answer, are read exactly or refused, the bytes
// of the application behind them are left alone, and it makes no difference in what pieces they arrive.
func FuzzMuxHeader(f *testing.F) {
	for _, service := range []string{"", "control", "12345678", randomName()} {
		f.Add(muxQuestion(service))
		f.Add(append(muxQuestion(service), "what the application says"...))
	}
	f.Add([]byte{muxBeat, muxBeat, muxBeat})
	f.Add(append(muxAnswer(muxOpen, ""), "what the application answers"...))
	for _, status := range []byte{muxUnknown, muxIdentity, muxBusy, muxClosing} {
		f.Add(muxAnswer(status, errMuxBusy.Error()))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		text := len(said) > 1 && len(said) >= 2+int(said[1]) // As a header or an answer with a text, it is whole.

		reader := bytes.NewReader(said)
		kind, service, err := readMuxHeader(reader)
		if err == nil {
			want := []byte{muxBeat}
			if kind != muxBeat {
				want = muxQuestion(service)
			}
			if header := said[:len(said)-reader.Len()]; !bytes.Equal(header, want) {
				t.Errorf("% x was read as kind %d, service %q, whose header is % x", header, kind, service, want)
			}
		} else if len(said) > 0 && (said[0] == muxBeat || said[0] == muxService && text) {
			t.Errorf("the header % x was refused: %v", said, err)
		}
		kindAgain, serviceAgain, errAgain := readMuxHeader(iotest.OneByteReader(bytes.NewReader(said)))
		if kind != kindAgain || service != serviceAgain || (err == nil) != (errAgain == nil) {
			t.Errorf("% x is kind %d, service %q (%v), and byte by byte %d, %q (%v)", said, kind, service, err, kindAgain, serviceAgain, errAgain)
		}

		reader = bytes.NewReader(said)
		status, reason, err := readMuxAnswer(reader)
		if err == nil {
			if answer := said[:len(said)-reader.Len()]; !bytes.Equal(answer, muxAnswer(status, reason)) {
				t.Errorf("% x was read as status %d, %q, whose answer is % x", answer, status, reason, muxAnswer(status, reason))
			}
		} else if len(said) > 0 && (said[0] == muxOpen || text) {
			t.Errorf("the answer % x was refused: %v", said, err)
		}
	})
}
