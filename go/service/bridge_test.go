package service

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
)

// bridged returns a TCP client and a mesh stream that are joined, and what the bridge will report.
func bridged(t *testing.T, ctx context.Context) (client interface {
	Stream
	SetLinger(int) error
}, far *fakeStream, done <-chan Carried) {
	client, near := tcpPair(t)
	a, far := fakePair()
	ch := make(chan Carried, 1)
	go func() { ch <- Bridge(ctx, near, a) }()
	return client, far, ch
}

func mustRead(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got, err := io.ReadAll(r)
	if err != nil || string(got) != want {
		t.Fatalf("got %q, %v, want %q and a clean end", got, err, want)
	}
}

func mustWrite(t *testing.T, w io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatal(err)
	}
}

func TestHalfCloseFromTCP(t *testing.T) {
	client, far, done := bridged(t, t.Context())
	mustWrite(t, client, "request")
	_ = client.CloseWrite()
	mustRead(t, far, "request")
	mustWrite(t, far, "late answer")
	_ = far.CloseWrite()
	mustRead(t, client, "late answer")
	if got := <-done; got != (Carried{AB: 7, BA: 11}) {
		t.Errorf("got %+v", got)
	}
}

func TestHalfCloseFromMesh(t *testing.T) {
	client, far, done := bridged(t, t.Context())
	mustWrite(t, far, "request")
	_ = far.CloseWrite()
	mustRead(t, client, "request")
	mustWrite(t, client, "late answer")
	_ = client.CloseWrite()
	mustRead(t, far, "late answer")
	if got := <-done; got != (Carried{AB: 11, BA: 7}) {
		t.Errorf("got %+v", got)
	}
}

func TestResetFromTCPReachesMesh(t *testing.T) {
	client, far, done := bridged(t, t.Context())
	mustWrite(t, client, "part")
	if _, err := io.ReadFull(far, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	_ = client.SetLinger(0)
	_ = client.Close()
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, errReset) {
		t.Errorf("got %v, want a reset", err)
	}
	if _, err := far.Write([]byte("x")); !errors.Is(err, errReset) {
		t.Errorf("got %v, want a reset", err)
	}
	if got := <-done; !errors.Is(got.Err, syscall.ECONNRESET) {
		t.Errorf("got %v, want connection reset", got.Err)
	}
}

func TestResetFromMeshReachesTCP(t *testing.T) {
	client, far, done := bridged(t, t.Context())
	_ = far.Abort(0)
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want connection reset", err)
	}
	if got := <-done; got.Err == nil {
		t.Error("no error reported")
	}
}

// A server that answers early and goes: the answer arrives, the sender learns that nobody reads any more.
func TestAnswerSurvivesRefusedInput(t *testing.T) {
	client, far, done := bridged(t, t.Context())
	_ = far.CloseRead()
	mustWrite(t, client, "nobody reads this")
	mustWrite(t, far, "answer")
	_ = far.CloseWrite()
	mustRead(t, client, "answer")
	if got := <-done; !errors.Is(got.Err, errReset) || got.BA != 6 {
		t.Errorf("got %+v, want the write error and 6 bytes back", got)
	}
}

func TestRefusedInputIsToldToMesh(t *testing.T) {
	near, server := tcpPair(t)
	a, far := fakePair()
	done := make(chan Carried, 1)
	go func() { done <- Bridge(t.Context(), a, near) }()
	mustWrite(t, server, "answer")
	_ = server.Close()
	mustRead(t, far, "answer")
	for {
		if _, err := far.Write(make([]byte, 1000)); err != nil {
			break // The bridge's writes to the server failed, so it refuses ours.
		}
	}
	if got := <-done; got.Err == nil || got.BA != 6 {
		t.Errorf("got %+v, want a write error and 6 bytes back", got)
	}
}

func TestCancelledBridgeResetsBoth(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	client, far, done := bridged(t, ctx)
	mustWrite(t, far, "x")
	if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	why := errors.New("shutdown")
	cancel(why)
	if got := <-done; !errors.Is(got.Err, why) {
		t.Errorf("got %v, want %v", got.Err, why)
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("TCP side: got %v, want connection reset", err)
	}
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, errReset) {
		t.Errorf("mesh side: got %v, want a reset", err)
	}
}

func TestBytesArriveUnchanged(t *testing.T) {
	client, far, done := bridged(t, t.Context())
	seed := rand.Uint64()
	data := make([]byte, 3<<20)
	random := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = random.Read(data)
	var wg sync.WaitGroup
	send := func(s Stream) {
		wg.Go(func() {
			for rest := data; len(rest) > 0; {
				n, err := s.Write(rest[:min(len(rest), 1+int(rest[0])*700)])
				if err != nil {
					t.Error(err)
					return
				}
				rest = rest[n:]
			}
			_ = s.CloseWrite()
		})
	}
	receive := func(s Stream) {
		wg.Go(func() {
			if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, data) {
				t.Errorf("seed %d: got %d bytes, %v; want the %d bytes sent", seed, len(got), err, len(data))
			}
		})
	}
	send(client)
	send(far)
	receive(client)
	receive(far)
	wg.Wait()
	if got := <-done; got != (Carried{AB: 3 << 20, BA: 3 << 20}) {
		t.Errorf("got %+v", got)
	}
}
