package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

const (
	receiveMany = 32 // Datagrams per system call.
	sendMany    = 64
	slotSize    = 1 << 16 // For one received datagram. Only pages that were written to take memory.
)

// mmsghdr is struct mmsghdr of recvmmsg(2) and sendmmsg(2).
type mmsghdr struct {
	header unix.Msghdr
	length uint32
}

// endpoint is the address of a peer as the kernel writes it: struct sockaddr_in or sockaddr_in6, zeros behind.
type endpoint struct {
	raw    [unix.SizeofSockaddrInet6]byte
	length uint32
}

func (e endpoint) String() string {
	port := uint16(e.raw[2])<<8 | uint16(e.raw[3])
	if *(*uint16)(unsafe.Pointer(&e.raw)) == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(e.raw[4:8])), port).String()
	}
	addr := netip.AddrFrom16([16]byte(e.raw[8:24])).Unmap()
	if scope := *(*uint32)(unsafe.Pointer(&e.raw[24])); scope != 0 {
		addr = addr.WithZone(fmt.Sprint(scope))
	}
	return netip.AddrPortFrom(addr, port).String()
}

// udpReceiver reads datagrams, as many as have arrived.
type udpReceiver struct {
	raw     syscall.RawConn
	call    func(fd uintptr) bool
	headers [receiveMany]mmsghdr
	iovecs  [receiveMany]unix.Iovec
	from    [receiveMany]endpoint
	buf     []byte
	n       int
	errno   syscall.Errno

	serving  bool                            // See serve.
	controls *[receiveMany][controlSize]byte // Says where datagrams were sent to.
	refused  []endpoint                      // Who does not listen any more, as of the last receive.
}

func newUDPReceiver(conn *net.UDPConn) (*udpReceiver, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	r := &udpReceiver{raw: raw, buf: make([]byte, receiveMany*slotSize)}
	r.call = r.recvmmsg
	for i := range r.headers {
		r.iovecs[i].Base = &r.buf[i*slotSize]
		r.iovecs[i].SetLen(slotSize)
		h := &r.headers[i].header
		h.Name = (*byte)(unsafe.Pointer(&r.from[i].raw))
		h.Iov = &r.iovecs[i]
		h.SetIovlen(1)
	}
	return r, nil
}

// receive waits for datagrams and returns how many there are; they stay until the next call. There may be none, but
// refused peers.
func (r *udpReceiver) receive() (int, error) {
	r.refused = r.refused[:0]
	if err := r.raw.Read(r.call); err != nil {
		return 0, err
	}
	if r.errno != 0 {
		return 0, fmt.Errorf("recvmmsg: %w", r.errno)
	}
	return r.n, nil
}

func (r *udpReceiver) recvmmsg(fd uintptr) bool {
	for i := range r.headers {
		h := &r.headers[i].header
		h.Namelen = unix.SizeofSockaddrInet6
		if r.controls != nil {
			h.Control = &r.controls[i][0]
			h.SetControllen(controlSize)
		}
	}
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.headers)), receiveMany, unix.MSG_DONTWAIT, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 && r.serving { // The error may be a peer's, not the socket's.
			r.refusals(fd)
			if len(r.refused) > 0 {
				n, errno = 0, 0
			}
		}
		if errno == unix.EAGAIN {
			return false
		}
		r.n, r.errno = int(n), errno
		return true
	}
}

// datagram returns datagram i of the last receive and, on a socket that is not connected, its sender.
func (r *udpReceiver) datagram(i int) (endpoint, []byte) {
	h := &r.headers[i]
	r.from[i].length = h.header.Namelen
	start := i * slotSize
	return r.from[i], r.buf[start : start+int(min(h.length, slotSize))]
}

// udpSender writes datagrams, many per system call.
type udpSender struct {
	raw  syscall.RawConn
	from source // Of what goes to one of many peers.
}

func newUDPSender(conn *net.UDPConn) (*udpSender, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &udpSender{raw: raw}, nil
}

// sendJob is what one call of send needs beside its sender.
type sendJob struct {
	call    func(fd uintptr) bool
	headers [sendMany]mmsghdr
	iovecs  [sendMany]unix.Iovec
	n       int // Filled.
	sent    int // Of them.
	passing int // How many errors may be another peer's.
	errno   syscall.Errno
}

// passingErrors is how often one call may meet the error of another peer that shares the socket, and try again.
const passingErrors = 8

var sendJobs = sync.Pool{New: func() any {
	j := new(sendJob)
	j.call = j.sendmmsg
	for i := range j.headers {
		j.headers[i].header.Iov = &j.iovecs[i]
		j.headers[i].header.SetIovlen(1)
	}
	return j
}}

// send writes every message of parts as one datagram, to the peer or, if that is nil, to where the socket is connected.
// Messages that are too large are left out and reported by a *TooLargeError at the end.
func (s *udpSender) send(to *endpoint, parts []wire.Batch) error {
	j := sendJobs.Get().(*sendJob)
	defer j.release()
	large := 0
	for _, b := range parts {
		for msg, rest, ok := b.Next(); ok; msg, rest, ok = rest.Next() {
			switch {
			case len(msg) == 0:
				continue
			case len(msg) > MaxUDPMessage:
				large++
				continue
			}
			j.add(to, &s.from, msg)
			if j.n == sendMany {
				if err := j.flush(s.raw, &large); err != nil {
					return err
				}
			}
		}
	}
	if err := j.flush(s.raw, &large); err != nil {
		return err
	}
	return tooLarge(large)
}

func (j *sendJob) add(to *endpoint, from *source, msg []byte) {
	j.iovecs[j.n].Base = &msg[0]
	j.iovecs[j.n].SetLen(len(msg))
	h := &j.headers[j.n].header
	h.Name, h.Namelen, h.Control = nil, 0, nil
	h.SetControllen(0)
	if to != nil {
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&to.raw)), to.length
		j.passing = passingErrors
	}
	if from.length > 0 {
		h.Control = &from.control[0]
		h.SetControllen(from.length)
	}
	j.n++
}

// flush sends what was added. A datagram for which there is no memory is lost, as on the way.
func (j *sendJob) flush(raw syscall.RawConn, large *int) error {
	for j.sent = 0; j.sent < j.n; {
		if err := raw.Write(j.call); err != nil {
			return err
		}
		switch {
		case j.errno == 0:
			continue
		case j.passing > 0 && (errors.Is(j.errno, unix.ECONNREFUSED) || errors.Is(j.errno, unix.EHOSTUNREACH) || errors.Is(j.errno, unix.ENETUNREACH)):
			j.passing--
			continue
		case errors.Is(j.errno, unix.EMSGSIZE):
			*large++
		case errors.Is(j.errno, unix.ENOBUFS) || errors.Is(j.errno, unix.ENOMEM):
		default:
			return fmt.Errorf("sendmmsg: %w", j.errno)
		}
		j.sent++
	}
	j.n = 0
	return nil
}

func (j *sendJob) sendmmsg(fd uintptr) bool {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&j.headers[j.sent])), uintptr(j.n-j.sent), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		case 0:
			j.sent += int(n)
		}
		j.errno = errno
		return true
	}
}

// release gives the job back, holding on to nobody's memory.
func (j *sendJob) release() {
	clear(j.iovecs[:])
	for i := range j.headers {
		j.headers[i].header.Name, j.headers[i].header.Control = nil, nil
	}
	j.n, j.passing = 0, 0
	sendJobs.Put(j)
}
