package service

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// setInterface gives the point-to-point interface name its two addresses and brings it up.
func setInterface(name string, self, peer netip.Addr) (index int, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request); err != nil {
		return 0, fmt.Errorf("error finding interface %s: %w", name, err)
	}
	index = int(request.Uint32())
	for _, set := range []struct {
		command int
		address netip.Addr
	}{{unix.SIOCSIFADDR, self}, {unix.SIOCSIFDSTADDR, peer}} {
		if err = request.SetInet4Addr(set.address.AsSlice()); err == nil {
			err = unix.IoctlIfreq(fd, uint(set.command), request)
		}
		if err != nil {
			return 0, fmt.Errorf("error setting the address %s of %s: %w", set.address, name, err)
		}
	}
	err = unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, request)
	if err == nil {
		request.SetUint16(request.Uint16() | unix.IFF_UP)
		err = unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
	}
	if err != nil {
		return 0, fmt.Errorf("error bringing up %s: %w", name, err)
	}
	return index, nil
}

// listRoutes returns the networks of the main table that lie behind the interface.
func listRoutes(index int) ([]netip.Prefix, error) {
	dump, err := syscall.NetlinkRIB(unix.RTM_GETROUTE, unix.AF_UNSPEC)
	if err != nil {
		return nil, fmt.Errorf("error listing routes: %w", os.NewSyscallError("netlink", err))
	}
	messages, err := syscall.ParseNetlinkMessage(dump)
	if err != nil {
		return nil, fmt.Errorf("error listing routes: %w", err)
	}
	var found []netip.Prefix
	for _, m := range messages {
		if m.Header.Type != unix.RTM_NEWROUTE || len(m.Data) < unix.SizeofRtMsg {
			continue
		}
		family, bits, table := m.Data[0], int(m.Data[1]), m.Data[4]
		if table != unix.RT_TABLE_MAIN || binary.NativeEndian.Uint32(m.Data[8:])&unix.RTM_F_CLONED != 0 {
			continue
		}
		attributes, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil {
			return nil, fmt.Errorf("error listing routes: %w", err)
		}
		to, behind := netip.IPv4Unspecified(), 0 // A default route has no address.
		if family == unix.AF_INET6 {
			to = netip.IPv6Unspecified()
		}
		for _, a := range attributes {
			switch a.Attr.Type {
			case unix.RTA_DST:
				to, _ = netip.AddrFromSlice(a.Value)
			case unix.RTA_OIF:
				behind = int(binary.NativeEndian.Uint32(a.Value))
			}
		}
		if prefix := netip.PrefixFrom(to, bits); behind == index && prefix.IsValid() {
			found = append(found, prefix)
		}
	}
	return found, nil
}

// addRoute sends a network to the interface, through a gateway if there is one. One that is there already is no error.
func addRoute(index int, to netip.Prefix, gateway netip.Addr) error {
	err := changeRoute(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, unix.RT_SCOPE_UNIVERSE, index, to, gateway)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("route to %s: %w", to, err)
	}
	return nil
}

func removeRoute(index int, to netip.Prefix) error {
	if err := changeRoute(unix.RTM_DELROUTE, 0, unix.RT_SCOPE_NOWHERE, index, to, netip.Addr{}); err != nil {
		return fmt.Errorf("removing the route to %s: %w", to, err)
	}
	return nil
}

// changeRoute asks the kernel for a change of its main table, as rtnetlink(7) has it, and waits for the answer.
func changeRoute(kind, flags uint16, scope uint8, index int, to netip.Prefix, gateway netip.Addr) error {
	family := uint8(unix.AF_INET6)
	if to.Addr().Is4() {
		family = unix.AF_INET
	}
	native := binary.NativeEndian
	m := native.AppendUint32(nil, 0) // The length, when it is known.
	m = native.AppendUint16(m, kind)
	m = native.AppendUint16(m, flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	m = native.AppendUint32(m, 1) // Number of the message.
	m = native.AppendUint32(m, 0) // To the kernel.
	m = append(m, family, uint8(to.Bits()), 0, 0, unix.RT_TABLE_MAIN, 0, scope, 0)
	if kind == unix.RTM_NEWROUTE { // To remove, any protocol and type will do.
		m[len(m)-3], m[len(m)-1] = unix.RTPROT_BOOT, unix.RTN_UNICAST
	}
	m = native.AppendUint32(m, 0)
	attribute := func(name uint16, value []byte) { // All values are multiples of 4 bytes: no padding.
		m = native.AppendUint16(m, uint16(unix.SizeofRtAttr+len(value)))
		m = append(native.AppendUint16(m, name), value...)
	}
	attribute(unix.RTA_DST, to.Masked().Addr().AsSlice())
	attribute(unix.RTA_OIF, native.AppendUint32(nil, uint32(index)))
	if gateway.IsValid() {
		attribute(unix.RTA_GATEWAY, gateway.AsSlice())
	}
	native.PutUint32(m, uint32(len(m)))
	return askKernel(m)
}

// askKernel sends one request to the kernel and returns what it says about it.
func askKernel(request []byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return os.NewSyscallError("recvfrom", err)
	}
	messages, err := syscall.ParseNetlinkMessage(answer[:n])
	if err != nil {
		return err
	}
	for _, m := range messages {
		if m.Header.Type == unix.NLMSG_ERROR && len(m.Data) >= 4 {
			if code := int32(binary.NativeEndian.Uint32(m.Data)); code != 0 {
				return syscall.Errno(-code)
			}
			return nil
		}
	}
	return errors.New("netlink: no acknowledgement")
}
