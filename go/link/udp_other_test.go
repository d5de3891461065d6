//go:build !linux

package link

import "net/netip"

// sender makes up the address of a peer.
func sender(i int) endpoint {
	return endpoint{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(i))}
}
