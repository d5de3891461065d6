package netceptor

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
)

// memPackets is one end of a pair of packet connections in memory, as plain as can be: the measure for what the mesh adds
// to QUIC. It takes runs of packets in one piece and gives them out in batches, so the library is at its best.
type memPackets struct {
	segmentSocket // Only for what the library asks of UDP sockets.
	in, out       chan memRun
	pool          chan []byte
	addr          *net.UDPAddr
	done          chan struct{}
	run           memRun // What is being read; rest is left of it.
	rest          []byte
}

type memRun struct {
	data []byte
	size int
}

func inMemory() segmentSocket { return segmentSocket{quicSocket: newPlainSocket(nil)} }

func (m *memPackets) ReadBatch(ms []ipv4.Message, _ int) (int, error) {
	if len(m.rest) == 0 {
		if m.run.data != nil {
			select {
			case m.pool <- m.run.data:
			default:
			}
		}
		select {
		case m.run = <-m.in:
			m.rest = m.run.data
		case <-m.done:
			return 0, net.ErrClosed
		}
	}
	m.pace()
	n := 0
	for ; n < len(ms) && len(m.rest) > 0; n++ {
		size := min(m.run.size, len(m.rest))
		ms[n].N, ms[n].NN, ms[n].Addr = copy(ms[n].Buffers[0], m.rest[:size]), 0, m.addr
		m.count(packetSource{})
		m.rest = m.rest[size:]
	}
	return n, nil
}

func (m *memPackets) WriteMsgUDP(p, oob []byte, _ *net.UDPAddr) (int, int, error) {
	size := segmentSize(oob)
	if size == 0 {
		size = len(p)
	}
	var b []byte
	select {
	case b = <-m.pool:
	default:
		b = make([]byte, 0, 20<<10)
	}
	select {
	case m.out <- memRun{append(b[:0], p...), size}:
	case <-m.done:
	}
	return len(p), len(oob), nil
}

func (m *memPackets) Close() error        { return nil }
func (m *memPackets) LocalAddr() net.Addr { return m.addr }

// plainPackets is one end of a pair of packet connections in memory that carry one packet at a time, as any
// net.PacketConn does.
type plainPackets struct {
	in, out chan []byte
	pool    chan []byte
	addr    net.Addr
	done    chan struct{}
}

func (m *plainPackets) ReadFrom(p []byte) (int, net.Addr, error) {
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

func (m *plainPackets) WriteTo(p []byte, _ net.Addr) (int, error) {
	var b []byte
	select {
	case b = <-m.pool:
	default:
		b = make([]byte, 0, mostPacket)
	}
	select {
	case m.out <- append(b[:0], p...):
	case <-m.done:
	}
	return len(p), nil
}

func (m *plainPackets) Close() error                     { return nil }
func (m *plainPackets) LocalAddr() net.Addr              { return m.addr }
func (m *plainPackets) SetReadBuffer(int) error          { return nil }
func (m *plainPackets) SetWriteBuffer(int) error         { return nil }
func (m *plainPackets) SetDeadline(time.Time) error      { return nil }
func (m *plainPackets) SetReadDeadline(time.Time) error  { return nil }
func (m *plainPackets) SetWriteDeadline(time.Time) error { return nil }

// inMemoryQUIC is a QUIC server and a client whose packets never leave memory.
type inMemoryQUIC struct {
	ln   *quic.Listener
	dial func() (*quic.Conn, error)
}

func newInMemoryQUIC(b *testing.B, near, far net.PacketConn) *inMemoryQUIC {
	b.Helper()
	n := testNode(b, "x")
	m := &inMemoryQUIC{}
	conf, err := n.serverTLS(nil)
	if err != nil {
		b.Fatal(err)
	}
	server := &quic.Transport{Conn: far, ConnectionIDLength: 4}
	if m.ln, err = server.Listen(conf, n.quicConfig(false)); err != nil {
		b.Fatal(err)
	}
	client := &quic.Transport{Conn: near, ConnectionIDLength: 4}
	m.dial = func() (*quic.Conn, error) {
		return client.Dial(b.Context(), near.LocalAddr(), n.clientTLS(nil), n.quicConfig(true))
	}
	return m
}

// batchedPair is a pair of connections that take and give many packets at a time.
func batchedPair(b *testing.B) (near, far *memPackets) {
	b.Helper()
	ab, ba := make(chan memRun, 16), make(chan memRun, 16)
	pool := make(chan []byte, 64)
	done := make(chan struct{})
	b.Cleanup(func() { close(done) })
	addr := quicAddrOf(Addr{"x", "y"})
	near = &memPackets{segmentSocket: inMemory(), in: ba, out: ab, pool: pool, addr: addr, done: done}
	far = &memPackets{segmentSocket: inMemory(), in: ab, out: ba, pool: pool, addr: addr, done: done}
	return near, far
}

// BenchmarkQUICInMemory is the most that streams made of QUIC can reach on this machine.
func BenchmarkQUICInMemory(b *testing.B) {
	near, far := batchedPair(b)
	m := newInMemoryQUIC(b, near, far)
	m.pump(b, func(client, server *quic.Conn) {
		near.follow(client, packetSource{})
		far.follow(server, packetSource{})
	})
}

// BenchmarkQUICPlain is the same over packet connections as plain as the library takes them.
func BenchmarkQUICPlain(b *testing.B) {
	ab, ba := make(chan []byte, 1024), make(chan []byte, 1024)
	pool := make(chan []byte, 2048)
	done := make(chan struct{})
	b.Cleanup(func() { close(done) })
	addr := quicAddrOf(Addr{"x", "y"})
	m := newInMemoryQUIC(b, &plainPackets{ba, ab, pool, addr, done}, &plainPackets{ab, ba, pool, addr, done})
	m.pump(b, func(_, _ *quic.Conn) {})
}

// pump measures one stream; made is called with the connections.
func (m *inMemoryQUIC) pump(b *testing.B, made func(client, server *quic.Conn)) {
	b.Helper()
	qc, err := m.dial()
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
	sc, err := m.ln.Accept(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	made(qc, sc)
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

// BenchmarkQUICConnections is the most that streams with a connection each can reach on this machine: dialled, opened,
// accepted and closed, as many at a time as in BenchmarkOpenStream.
func BenchmarkQUICConnections(b *testing.B) {
	near, far := batchedPair(b)
	m := newInMemoryQUIC(b, near, far)
	go func() {
		for {
			qc, err := m.ln.Accept(context.Background())
			if err != nil {
				return
			}
			go func() {
				if s, err := qc.AcceptStream(context.Background()); err == nil {
					_, _ = io.Copy(s, s)
					_ = s.Close()
				}
			}()
		}
	}()
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			qc, err := m.dial()
			if err != nil {
				b.Error(err)
				return
			}
			s, err := qc.OpenStreamSync(context.Background())
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = s.Write([]byte{0})
			_ = s.Close()
			if _, err := io.Copy(io.Discard, s); err != nil {
				b.Error(err)
			}
			_ = qc.CloseWithError(0, "")
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "streams/s")
}
