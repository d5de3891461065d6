package netceptor

import (
	"io"
	"net"
	"testing"

	"github.com/quic-go/quic-go"

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
	for range b.N {
		if _, err := w.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	_ = w.Close()
	if n := <-done; n != int64(b.N)*chunk {
		b.Fatalf("%d bytes arrived, want %d", n, int64(b.N)*chunk)
	}
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

// memPackets is a pair of packet connections in memory, as plain as can be: the measure for what the mesh adds to QUIC.
type memPackets struct {
	net.PacketConn // Only for the methods nobody calls.
	in, out        chan []byte
	pool           chan []byte
	addr           net.Addr
	done           chan struct{}
}

func (m *memPackets) ReadFrom(p []byte) (int, net.Addr, error) {
	select {
	case b := <-m.in:
		n := copy(p, b)
		select {
		case m.pool <- b:
		default:
		}
		return n, m.addr, nil
	case <-m.done:
		return 0, nil, net.ErrClosed
	}
}

func (m *memPackets) WriteTo(p []byte, _ net.Addr) (int, error) {
	var b []byte
	select {
	case b = <-m.pool:
	default:
		b = make([]byte, 0, 1500)
	}
	select {
	case m.out <- append(b[:0], p...):
	case <-m.done:
	}
	return len(p), nil
}

func (m *memPackets) Close() error             { return nil }
func (m *memPackets) LocalAddr() net.Addr      { return m.addr }
func (m *memPackets) SetReadBuffer(int) error  { return nil }
func (m *memPackets) SetWriteBuffer(int) error { return nil }

func BenchmarkQUICInMemory(b *testing.B) {
	n := testNode(b, "x")
	ab, ba := make(chan []byte, 256), make(chan []byte, 256)
	pool := make(chan []byte, 512)
	done := make(chan struct{})
	defer close(done)
	addr := newStreamAddr(Addr{"x", "y"})
	near := &memPackets{in: ba, out: ab, pool: pool, addr: addr, done: done}
	far := &memPackets{in: ab, out: ba, pool: pool, addr: addr, done: done}
	conf, err := n.serverTLS(nil)
	if err != nil {
		b.Fatal(err)
	}
	server := &quic.Transport{Conn: far, ConnectionIDLength: 4}
	ln, err := server.Listen(conf, quicConfig(false))
	if err != nil {
		b.Fatal(err)
	}
	client := &quic.Transport{Conn: near, ConnectionIDLength: 4}
	qc, err := client.Dial(b.Context(), addr, n.clientTLS(nil), quicConfig(true))
	if err != nil {
		b.Fatal(err)
	}
	s, err := qc.OpenStreamSync(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	if _, err := s.Write([]byte{0}); err != nil {
		b.Fatal(err)
	}
	sc, err := ln.Accept(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	ss, err := sc.AcceptStream(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	if _, err := io.ReadFull(ss, make([]byte, 1)); err != nil {
		b.Fatal(err)
	}
	pump(b, s, ss)
	b.Logf("quic %+v", qc.ConnectionStats())
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
