//go:build !linux

package link

import (
	"errors"
	"net"
	"net/netip"
	"syscall"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// endpoint is the address of a peer.
type endpoint struct{ netip.AddrPort }

// udpReceiver reads datagrams, one at a time.
type udpReceiver struct {
	conn *net.UDPConn
	buf  []byte
	from endpoint
	n    int

	refused []endpoint // Always empty: this system does not tell who is gone.
}

// source is the local address that datagrams to one peer carry: the system's choice.
type source struct{}

func (r *udpReceiver) serve(*net.UDPConn) {}

func (r *udpReceiver) local(int) source { return source{} }

func newUDPReceiver(conn *net.UDPConn) (*udpReceiver, error) {
	return &udpReceiver{conn: conn, buf: make([]byte, 1<<16)}, nil
}

func (r *udpReceiver) receive() (int, error) {
	n, from, err := r.conn.ReadFromUDPAddrPort(r.buf)
	r.n, r.from = n, endpoint{netip.AddrPortFrom(from.Addr().Unmap(), from.Port())}
	return 1, err
}

func (r *udpReceiver) run(int) (from endpoint, run []byte, size int) { return r.from, r.buf[:r.n], r.n }

// udpSender writes datagrams, one at a time.
type udpSender struct {
	conn *net.UDPConn
	from source
}

func newUDPSender(conn *net.UDPConn) (*udpSender, error) { return &udpSender{conn: conn}, nil }

// send writes every message of parts as one datagram, to the peer or, if that is nil, to where the socket is connected.
// Messages that are too large are left out and reported by a *TooLargeError at the end.
func (s *udpSender) send(to *endpoint, parts []wire.Batch) error {
	large := 0
	for _, b := range parts {
		for msg, rest, ok := b.Next(); ok; msg, rest, ok = rest.Next() {
			err := error(syscall.EMSGSIZE)
			switch {
			case len(msg) == 0:
				continue
			case len(msg) > MaxUDPMessage:
			case to == nil:
				_, err = s.conn.Write(msg)
			default:
				_, err = s.conn.WriteToUDPAddrPort(msg, to.AddrPort)
			}
			switch {
			case errors.Is(err, syscall.EMSGSIZE):
				large++
			case err != nil && !errors.Is(err, syscall.ENOBUFS):
				return err
			}
		}
	}
	return tooLarge(large)
}
