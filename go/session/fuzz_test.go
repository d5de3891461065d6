package session

import (
	"bytes"
	"testing"
)

// FuzzFrame reads what a program may send: frames that are whole become requests, everything else an error, and never is
// more read than the frames have.
func FuzzFrame(f *testing.F) {
	for _, r := range []any{
		request{ID: 1, Op: "node.open", Config: &openConfig{}},
		map[string]any{"id": 2, "op": "stream.dial", "node": "b", "service": "echo", "timeout": 1.5, "tls": "name"},
		map[string]any{"id": 3, "op": "backend.add", "tls": map[string]any{"cert": "x"}, "nodecost": map[string]any{"a": 1}},
		map[string]any{"id": "no number"},
	} {
		frame, err := appendFrame(nil, r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frame)
		f.Add(append(frame, frame[:len(frame)/2]...))
	}
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, '{'})
	f.Fuzz(func(t *testing.T, sent []byte) {
		in := bytes.NewReader(sent)
		for {
			before := in.Len()
			var r request
			err := readFrame(in, &r)
			if err == nil {
				if size := before - in.Len(); size <= frameHeader {
					t.Fatalf("a request was made of %d bytes", size)
				}
				continue
			}
			if why, known := badFrame(err); known {
				if why == "" {
					t.Fatalf("no reason for %v", err)
				}
				continue // The session goes on.
			}
			return
		}
	})
}

// FuzzDatagram: what is taken of a datagram message is what would be written of it.
func FuzzDatagram(f *testing.F) {
	f.Add([]byte{datagramVersion, datagramPayload, 1, 'b', 4, 'e', 'c', 'h', 'o', 'x'})
	f.Add([]byte{datagramVersion, datagramPayload, 255, 'b'})
	f.Add([]byte{datagramVersion, datagramPayload, 0, 0})
	f.Fuzz(func(t *testing.T, msg []byte) {
		header, payload, err := splitDatagram(msg)
		if err != nil {
			return
		}
		to := datagramAddress(header)
		again, ok := appendDatagramHeader(nil, datagramPayload, to)
		if again = append(again, payload...); !ok || !bytes.Equal(again, msg) {
			t.Fatalf("%x was taken as %v with %x", msg, to, payload)
		}
	})
}
