package link

import (
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What a socket that serves many peers learns beside datagrams: that a peer's system says nobody listens there any more
// (by ICMP; only connected sockets are told by themselves), and, where it listens on all addresses, to which one a peer
// has sent, so that the answers come from there.

// source is the local address that datagrams to one peer carry: a control message of sendmsg(2), or nothing.
type source struct {
	control [controlSize]byte
	length  int
}

const (
	controlSize    = unix.SizeofCmsghdr + (unix.SizeofInet6Pktinfo+7)&^7 // The larger of IP_PKTINFO and IPV6_PKTINFO.
	runControlSize = controlSize + unix.SizeofCmsghdr + 8                // With the size of the datagrams of a run.
)

// serve makes r the receiver of a listener.
func (r *udpReceiver) serve(conn *net.UDPConn) {
	r.serving = true
	r.everywhere = conn.LocalAddr().(*net.UDPAddr).IP.IsUnspecified()
	_ = r.raw.Control(func(fd uintptr) {
		// A system that has one of these not does without.
		_ = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_RECVERR, 1)
		_ = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_RECVERR, 1)
		if r.everywhere {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_PKTINFO, 1)
			_ = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1)
		}
	})
}

// local returns the address that run i of the last receive was sent to.
func (r *udpReceiver) local(i int) (s source) {
	if !r.everywhere {
		return s
	}
	r.control(i, func(about unix.Cmsghdr, data []byte) {
		switch {
		case about.Level == unix.SOL_IP && about.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			info := *(*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0]))
			info.Ifindex = 0 // The way back is the routing table's business.
			s.put(about, unsafe.Slice((*byte)(unsafe.Pointer(&info)), unix.SizeofInet4Pktinfo))
		case about.Level == unix.SOL_IPV6 && about.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			info := *(*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0]))
			if info.Addr[0] == 0xff {
				return // Sent to a group, which nobody can answer for.
			}
			if !(info.Addr[0] == 0xfe && info.Addr[1]&0xc0 == 0x80) { // A link-local address means nothing without.
				info.Ifindex = 0
			}
			s.put(about, unsafe.Slice((*byte)(unsafe.Pointer(&info)), unix.SizeofInet6Pktinfo))
		}
	})
	return s
}

// put makes one control message the whole of s.
func (s *source) put(about unix.Cmsghdr, data []byte) {
	*(*unix.Cmsghdr)(unsafe.Pointer(&s.control[0])) = about
	copy(s.control[unix.CmsgLen(0):], data)
	s.length = unix.CmsgSpace(len(data))
}

// refusals reads what ICMP has brought and notes the peers whose port is closed. Whoever can forge a datagram of a peer
// can forge this as well, so it may end a link as a reject would.
func (r *udpReceiver) refusals(fd uintptr) {
	var control [256]byte
	for range receiveMany {
		var from endpoint
		msg := unix.Msghdr{Name: (*byte)(unsafe.Pointer(&from.raw)), Namelen: unix.SizeofSockaddrInet6, Control: &control[0]}
		msg.SetControllen(len(control))
		_, _, errno := unix.Syscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&msg)), unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if errno != 0 {
			return
		}
		from.length = msg.Namelen
		if isRefusal(control[:min(int(msg.Controllen), len(control))]) {
			r.refused = append(r.refused, from)
		}
	}
}

// isRefusal reports whether control messages say that a port is closed.
func isRefusal(control []byte) bool {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return false
	}
	for _, m := range messages {
		about := m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_RECVERR ||
			m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if !about || len(m.Data) < int(unsafe.Sizeof(unix.SockExtendedErr{})) {
			continue
		}
		e := (*unix.SockExtendedErr)(unsafe.Pointer(&m.Data[0]))
		if unix.Errno(e.Errno) == unix.ECONNREFUSED {
			return true
		}
	}
	return false
}
