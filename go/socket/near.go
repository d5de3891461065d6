package socket

import (
	"context"
	"net"
	"net/netip"
	"syscall"
)

// Near is the Control function of a [net.Dialer] or a [net.ListenConfig] whose TCP connections carry bulk data. On those
// that stay on this machine, because the address is a loopback address, it has the kernel send as fast as the other end
// reads. It changes nothing elsewhere.
//
// Many machines are set to BBR, which spaces out what it sends by a timer, to suit a network. Between two processes there
// is none: a stream over two links on one machine then takes a quarter more of the processor. An algorithm can only be
// exchanged without a trace before the connection is made, hence at this point; a listener passes it on to what it accepts.
func Near(_, address string, c syscall.RawConn) error {
	if at, err := netip.ParseAddrPort(address); err == nil && at.Addr().Unmap().IsLoopback() {
		unpaced(c)
	}
	return nil
}

// Dialer returns a dialer of connections that carry bulk data, see [Near].
func Dialer() *net.Dialer { return &net.Dialer{Control: Near} }

// Listen is [net.Listen] for connections that carry bulk data, see [Near].
func Listen(network, address string) (net.Listener, error) {
	conf := net.ListenConfig{Control: Near}
	return conf.Listen(context.Background(), network, address)
}
