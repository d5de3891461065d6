package netceptor

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/fault"
)

// segmentSocket is a quicSocket that takes and gives many packets at a time. The QUIC library does that only with what
// looks like a UDP socket whose kernel splits large writes into packets (UDP_SEGMENT). What it says to such a socket in
// control messages is understood here; what it asks the kernel is asked of a UDP socket that exists no longer than the
// question and never carries anything.
type segmentSocket struct {
	quicSocket
	asked int // Calls of SyscallConn.
}

// newQUICSocket makes the socket under a QUIC transport. Where there are no UDP sockets, a plain one has to do.
func newQUICSocket(pc *PacketConn) meshSocket {
	plain := newPlainSocket(pc)
	if withUDPSocket(func(uintptr) {}) != nil {
		return plain
	}
	return &segmentSocket{quicSocket: plain}
}

var _ quic.OOBCapablePacketConn = (*segmentSocket)(nil)

// bufferQuestions is how often the library asks for the descriptor just to see how large the buffers are.
const bufferQuestions = 2

// SyscallConn answers the library's first questions, about the size of buffers, with an error: it then believes what
// SetReadBuffer says.
func (s *segmentSocket) SyscallConn() (syscall.RawConn, error) {
	s.asked++
	if s.asked <= bufferQuestions {
		return nil, fmt.Errorf("mesh sockets: %w", syscall.ENOTSUP)
	}
	return lentSocket{}, nil
}

// lentSocket is a syscall.RawConn that makes a UDP socket for each call.
type lentSocket struct{}

func (lentSocket) Control(f func(fd uintptr)) error { return withUDPSocket(f) }

func (lentSocket) Read(func(fd uintptr) (done bool)) error { return syscall.ENOTSUP }

func (lentSocket) Write(func(fd uintptr) (done bool)) error { return syscall.ENOTSUP }

func withUDPSocket(f func(fd uintptr)) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	f(uintptr(fd))
	return nil
}

// WriteMsgUDP sends one packet, or a run of them whose size is in a control message.
func (s *segmentSocket) WriteMsgUDP(p, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	n, err = s.writeSegments(p, segmentSize(oob), addr)
	return n, len(oob), err
}

func segmentSize(oob []byte) int {
	for len(oob) > 0 {
		h, body, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return 0
		}
		if h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_SEGMENT && len(body) >= 2 {
			return int(binary.NativeEndian.Uint16(body))
		}
		oob = rest
	}
	return 0
}

// ReadBatch waits for packets and returns as many as there are and fit, without control messages.
func (s *segmentSocket) ReadBatch(ms []ipv4.Message, _ int) (n int, err error) {
	defer fault.Catch(func(e *fault.Error) { err = s.broken(e) })
	s.readMu.Lock()
	defer s.readMu.Unlock()
	s.pace()
	if err := s.awaitPackets(); err != nil {
		return 0, err
	}
	for n < len(ms) && (len(s.reading) > 0 || n > 0 && s.take()) {
		m := &ms[n]
		var from packetSource
		m.N, from = s.nextPacket(m.Buffers[0])
		m.NN, m.Addr = 0, s.peer(from)
		s.count(from)
		n++
	}
	return n, nil
}

// ReadMsgUDP is not used by the library, which reads in batches.
func (s *segmentSocket) ReadMsgUDP(p, _ []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	n, from, err := s.ReadFrom(p)
	if err == nil {
		addr = from.(*net.UDPAddr)
	}
	return n, 0, 0, addr, err
}
