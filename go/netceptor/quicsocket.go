package netceptor

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// meshPort marks a *net.UDPAddr that stands for a mesh address. No UDP socket has such a port.
const meshPort = 1 << 16

// quicAddr is a mesh address as the QUIC library takes it: that of a UDP socket, which it compares and passes on without
// cost. The sixteen bytes of the IP are the hash of the node and the service, as packets carry them, and the zone is the
// node's ID.
func quicAddr(node wire.NodeID, hash wire.NodeHash, service wire.ServiceName) *net.UDPAddr {
	ip := binary.BigEndian.AppendUint64(make(net.IP, 0, net.IPv6len), uint64(hash))
	return &net.UDPAddr{IP: append(ip, service[:]...), Port: meshPort, Zone: string(node)}
}

// quicAddrOf is the [quicAddr] of an address that was checked.
func quicAddrOf(a Addr) *net.UDPAddr {
	service, _ := wire.Service(a.Service)
	return quicAddr(a.Node, wire.Hash(a.Node), service)
}

// meshAddress takes a quicAddr apart.
func meshAddress(a *net.UDPAddr) (to wire.NodeID, hash wire.NodeHash, service wire.ServiceName) {
	return wire.NodeID(a.Zone), wire.NodeHash(binary.BigEndian.Uint64(a.IP)), wire.ServiceName(a.IP[8:])
}

// PeerOf returns the mesh address behind an address of the QUIC library, such as that of the connection in a
// tls.ClientHelloInfo.
func PeerOf(a net.Addr) (Addr, bool) {
	switch a := a.(type) {
	case *net.UDPAddr:
		if a.Port != meshPort || len(a.IP) != net.IPv6len {
			return Addr{}, false
		}
		node, _, service := meshAddress(a)
		return Addr{node, service.String()}, true
	case Addr:
		return a, true
	default:
		return Addr{}, false
	}
}

// peerOf is PeerOf for a connection of ours.
func peerOf(a net.Addr) Addr {
	addr, _ := PeerOf(a)
	return addr
}

// meshSocket is what QUIC transports are made on.
type meshSocket interface {
	net.PacketConn
	followConn(qc *quic.Conn)
	hushConn(qc *quic.Conn)
}

// quicSocket is a PacketConn for the QUIC library. Its addresses are made by [quicAddr].
type quicSocket struct {
	*PacketConn
	*intake
	*hushed
}

func newPlainSocket(pc *PacketConn) quicSocket { return quicSocket{pc, &intake{}, &hushed{}} }

// followConn keeps packets waiting that a connection of this socket is too slow for.
func (s quicSocket) followConn(qc *quic.Conn) {
	if a, ok := qc.RemoteAddr().(*net.UDPAddr); ok {
		_, hash, service := meshAddress(a)
		s.follow(qc, packetSource{hash, service})
	}
}

// hushed are the far ends that are not told how their connections end.
type hushed struct {
	some atomic.Bool // There are any.
	mu   sync.Mutex
	ends map[packetSource]struct{}
}

// hushConn lets a connection that has its far end's address for itself end without a word: that end finds out when it has
// heard nothing for its idle timeout.
func (s quicSocket) hushConn(qc *quic.Conn) {
	a, ok := qc.RemoteAddr().(*net.UDPAddr)
	if !ok {
		return
	}
	_, hash, service := meshAddress(a)
	end, stats := packetSource{hash, service}, qc.ConnectionStats()
	said := closingProbes*(stats.SmoothedRTT+4*stats.MeanDeviation+maxAckDelay) + time.Second
	s.hushed.add(end)
	context.AfterFunc(qc.Context(), func() { time.AfterFunc(said, func() { s.hushed.remove(end) }) })
}

func (h *hushed) add(end packetSource) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ends == nil {
		h.ends = map[packetSource]struct{}{}
	}
	h.ends[end] = struct{}{}
	h.some.Store(true)
}

func (h *hushed) remove(end packetSource) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.ends, end)
	h.some.Store(len(h.ends) > 0)
}

func (h *hushed) has(end packetSource) bool {
	if !h.some.Load() {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_, is := h.ends[end]
	return is
}

// WriteTo sends one packet.
func (s quicSocket) WriteTo(p []byte, addr net.Addr) (int, error) {
	return s.writeSegments(p, 0, addr.(*net.UDPAddr))
}

// broken ends a socket in which the QUIC library's goroutines have found a bug of ours, which is the end of its streams. The
// library has no means against a panic: its calls of us are the last place that can stop one.
func (s quicSocket) broken(e *fault.Error) error {
	fault.Log(s.node.log, e, "streams", "service", s.Service())
	_ = s.Close()
	return e
}

// writeSegments sends packets that lie one behind the other and have all the same size but the last, which may be
// shorter; 0 stands for a single packet. What cannot go now is lost, as on any network: QUIC recovers or times out.
func (s quicSocket) writeSegments(p []byte, size int, addr *net.UDPAddr) (n int, err error) {
	defer fault.Catch(func(e *fault.Error) { err = s.broken(e) })
	node, hash, service := meshAddress(addr)
	if s.has(packetSource{hash, service}) {
		return len(p), nil
	}
	h := wire.Header{Hops: uint8(s.hops.Load()), From: s.node.hash, To: hash, FromService: s.service, ToService: service}
	if size == 0 {
		size = len(p)
	}
	switch err := s.node.originateRun(s.ctx, node, h, p, size); {
	case err == nil:
	case s.ctx.Err() != nil:
		return 0, &net.OpError{Op: "write", Net: "receptor", Source: s.LocalAddr(), Err: net.ErrClosed}
	case errors.Is(err, ErrServiceUnknown): // On this node, so nobody sends a notice.
		s.node.noticeOwn(node, h, wire.ProblemServiceUnknown)
	}
	return len(p), nil
}

// ReadFrom waits for one packet.
func (s quicSocket) ReadFrom(p []byte) (_ int, _ net.Addr, err error) {
	defer fault.Catch(func(e *fault.Error) { err = s.broken(e) })
	s.readMu.Lock()
	defer s.readMu.Unlock()
	s.pace()
	if err := s.awaitPackets(); err != nil {
		return 0, nil, err
	}
	n, from := s.nextPacket(p)
	s.count(from)
	return n, s.peer(from), nil
}

// peer turns a source into an address. Packets come in runs from one source, so the last one is kept.
func (s quicSocket) peer(src packetSource) net.Addr {
	addr, ok := s.lastAddr.(*net.UDPAddr)
	if !ok || src != s.lastFrom {
		addr = quicAddr(s.nodeName(src.node), src.node, src.service)
		s.lastFrom, s.lastAddr = src, addr
	}
	return addr
}

// SetReadBuffer tells the QUIC library that the socket's buffers are large enough as they are.
func (quicSocket) SetReadBuffer(int) error { return nil }

// SetWriteBuffer is the like for sending.
func (quicSocket) SetWriteBuffer(int) error { return nil }
