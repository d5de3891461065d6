package service

import (
	"bytes"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
)

// peer is one end user of a bridge: it writes random data, reads all there is, and ends in a random way.
type peer struct {
	stream  *fakeStream
	sent    []byte
	clean   bool // It closed its sending direction and never reset the stream.
	got     []byte
	readErr error // nil after a clean end of data.
}

// act plays the sending side.
func (p *peer) act(r *rand.Rand) {
	for range r.IntN(6) {
		data := bytes.Repeat([]byte{byte(r.Uint32())}, 1+r.IntN(9000))
		n, err := p.stream.Write(data)
		p.sent = append(p.sent, data[:n]...)
		if err != nil {
			_ = p.stream.Abort(0)
			return
		}
	}
	switch r.IntN(8) {
	case 0:
		_ = p.stream.Abort(0)
	case 1:
		_ = p.stream.CloseRead()
		fallthrough
	default:
		p.clean = true
		_ = p.stream.CloseWrite()
	}
}

func (p *peer) read(limit int) {
	buf := make([]byte, 700)
	for {
		n, err := p.stream.Read(buf)
		p.got = append(p.got, buf[:n]...)
		if err == io.EOF {
			return
		}
		if err != nil {
			p.readErr = err
			return
		}
		if len(p.got) > limit {
			_ = p.stream.CloseRead()
		}
	}
}

// Whatever two peers do, a bridge between them ends, and neither sees a clean end of anything but the whole data of a
// peer that ended cleanly.
func TestBridgeNeverForgesACleanEnd(t *testing.T) {
	seed := rand.Uint64()
	for i := range uint64(500) {
		synctest.Test(t, func(t *testing.T) {
			a, nearA := fakePair()
			b, nearB := fakePair()
			peers := [2]*peer{{stream: a}, {stream: b}}
			done := make(chan Carried, 1)
			go func() { done <- Bridge(t.Context(), nearA, nearB) }()
			var wg sync.WaitGroup
			for k, p := range peers {
				r := rand.New(rand.NewPCG(seed+i, uint64(k)))
				limit := 1 << 30
				if r.IntN(4) == 0 {
					limit = r.IntN(20000)
				}
				wg.Go(func() { p.act(r) })
				wg.Go(func() { p.read(limit) })
			}
			wg.Wait()
			<-done
			for k, p := range peers {
				from := peers[1-k]
				if !bytes.HasPrefix(from.sent, p.got) {
					t.Errorf("seed %d round %d: peer %d got bytes that were not sent", seed, i, k)
				}
				if p.readErr == nil && (!from.clean || !bytes.Equal(p.got, from.sent)) {
					t.Errorf("seed %d round %d: peer %d saw a clean end after %d of %d bytes (sender ended cleanly: %v)",
						seed, i, k, len(p.got), len(from.sent), from.clean)
				}
			}
		})
	}
}
