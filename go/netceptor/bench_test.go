package netceptor

import (
	"context"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

const chunk = 256 << 10

// pump writes b.N chunks into w while r is read to the end.
func pump(b *testing.B, w io.WriteCloser, r io.Reader) {
	b.Helper()
	b.SetBytes(chunk)
	done := make(chan int64)
	go func() {
		n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, make([]byte, chunk))
		done <- n
	}()
	buf := make([]byte, chunk)
	b.ResetTimer()
	before := cpuSeconds(b)
	for range b.N {
		if _, err := w.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	_ = w.Close()
	if n := <-done; n != int64(b.N)*chunk {
		b.Fatalf("%d bytes arrived, want %d", n, int64(b.N)*chunk)
	}
	b.ReportMetric((cpuSeconds(b)-before)/(float64(b.N)*chunk/1e9), "cpu-s/GB")
}

// cpuSeconds is what this process has used so far.
func cpuSeconds(b *testing.B) float64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

type writeCloser struct {
	*Stream
}

func (w writeCloser) Close() error { return w.CloseWrite() }

func benchStream(b *testing.B, from, to *Node) {
	ln, err := to.ListenStream("sink", nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	s, err := from.DialStream(b.Context(), to.ID(), "sink", nil)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	peer, err := ln.Accept()
	if err != nil {
		b.Fatal(err)
	}
	pump(b, writeCloser{s}, peer)
	b.Logf("from %+v\nto %+v", from.Counters(), to.Counters())
	b.Logf("quic %+v", s.qc.ConnectionStats())
}

func BenchmarkStreamTwoHops(b *testing.B) {
	nodes := chain(b, "laptop", "hub", "edge")
	benchStream(b, nodes[0], nodes[2])
	b.Logf("hub %+v", nodes[1].Counters())
}

func BenchmarkStreamOneHop(b *testing.B) {
	nodes := chain(b, "laptop", "hub")
	benchStream(b, nodes[0], nodes[1])
}

func BenchmarkStreamLoopback(b *testing.B) {
	n := testNode(b, "laptop")
	benchStream(b, n, n)
}

func BenchmarkRawTCP(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	peer, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	pump(b, c, peer)
}

// BenchmarkForward is what one packet of 1 KiB costs a relay between two links, system calls apart: from the read buffer
// of one to the send queue of the other.
func BenchmarkForward(b *testing.B) {
	nodes := chain(b, "a", "hub", "b")
	hub := nodes[1]
	payload := make([]byte, 1024)
	h := wire.Header{Hops: 10, From: wire.Hash("a"), To: wire.Hash("b"), FromService: mustService("x"), ToService: mustService("y")}
	msg := append(h.AppendTo(nil), payload...)
	var r receiver
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		wire.PatchHops(msg, 10)
		hub.receivePacket(&r, msg)
		r.flush()
	}
	if c := hub.Counters(); c.Forwarded == 0 {
		b.Fatalf("nothing was forwarded: %+v", c)
	}
}

// BenchmarkRelay is datagrams of 1 KiB from a sender through a relay to a receiver, three nodes over TCP in one process.
// Two thirds of the work are the ends'.
func BenchmarkRelay(b *testing.B) {
	nodes := chain(b, "a", "hub", "b")
	in, err := nodes[2].ListenPacket("in", nil)
	if err != nil {
		b.Fatal(err)
	}
	out, err := nodes[0].ListenPacket("", nil)
	if err != nil {
		b.Fatal(err)
	}
	payload := make([]byte, 1024)
	go func() {
		for {
			if _, err := out.WriteTo(payload, Addr{"b", "in"}); err != nil {
				return
			}
		}
	}()
	b.SetBytes(int64(len(payload)))
	buf := make([]byte, 2048)
	for b.Loop() {
		if _, _, err := in.ReadFrom(buf); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "packets/s")
}

// BenchmarkOpenStream opens streams over one hop, sixteen at a time, and closes them.
func BenchmarkOpenStream(b *testing.B) {
	for name, protocols := range map[string][]string{"shared": streamProtocols, "own": {streamALPN}} {
		b.Run(name, func(b *testing.B) {
			nodes := chain(b, "a", "b")
			nodes[0].protocols = protocols
			ln, err := nodes[1].ListenStream("svc", nil, nil)
			if err != nil {
				b.Fatal(err)
			}
			defer ln.Close()
			go func() {
				for {
					s, err := ln.Accept()
					if err != nil {
						return
					}
					_ = s.Close()
				}
			}()
			b.ReportAllocs()
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					s, err := nodes[0].DialStream(context.Background(), "b", "svc", nil)
					if err != nil {
						b.Error(err)
						return
					}
					_ = s.Close()
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "streams/s")
		})
	}
}
