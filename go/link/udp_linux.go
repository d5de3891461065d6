package link

import (
	"encoding/binary"
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

// Many datagrams of one size to one peer pass the kernel as one large one, which the device (or the kernel, right before
// it) splits (UDP_SEGMENT), and those that come one behind the other from one peer are joined again (UDP_GRO): a run.
// On the network nothing differs. Several runs go by one system call.

const (
	receiveMany = 32 // Runs per system call.
	sendMany    = 64
	sendPieces  = 256     // Datagrams per system call.
	maxSegments = 64      // Datagrams of a run that is sent: what every kernel takes.
	slotSize    = 1 << 16 // For one received run. Only pages that were written to take memory.
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
	raw   syscall.RawConn
	call  func(fd uintptr) bool
	job   *receiveJob // nil while nothing has arrived.
	n     int
	errno syscall.Errno

	serving    bool       // See serve.
	everywhere bool       // On all addresses of the host.
	refused    []endpoint // Who does not listen any more, as of the last receive.
}

// receiveJob is the memory of one call of receive.
type receiveJob struct {
	headers  [receiveMany]mmsghdr
	iovecs   [receiveMany]unix.Iovec
	from     [receiveMany]endpoint
	controls [receiveMany][runControlSize]byte // Sizes of datagrams, and where they were sent to.
	buf      []byte
}

var receiveJobs = sync.Pool{New: func() any {
	j := &receiveJob{buf: make([]byte, receiveMany*slotSize)}
	for i := range j.headers {
		j.iovecs[i].Base = &j.buf[i*slotSize]
		j.iovecs[i].SetLen(slotSize)
		h := &j.headers[i].header
		h.Name = (*byte)(unsafe.Pointer(&j.from[i].raw))
		h.Iov = &j.iovecs[i]
		h.SetIovlen(1)
		h.Control = &j.controls[i][0]
	}
	return j
}}

func newUDPReceiver(conn *net.UDPConn) (*udpReceiver, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	r := &udpReceiver{raw: raw}
	r.call = r.recvmmsg
	_ = raw.Control(func(fd uintptr) { // A system that has it not does without.
		_ = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, 1)
	})
	return r, nil
}

// receive waits for datagrams and returns how many runs of them there are; they stay until the next call. There may be
// none, but refused peers.
func (r *udpReceiver) receive() (int, error) {
	r.refused = r.refused[:0]
	if err := r.raw.Read(r.call); err != nil {
		r.release()
		return 0, err
	}
	if r.errno != 0 {
		return 0, fmt.Errorf("recvmmsg: %w", r.errno)
	}
	return r.n, nil
}

func (r *udpReceiver) release() {
	if r.job != nil {
		receiveJobs.Put(r.job)
		r.job = nil
	}
}

func (r *udpReceiver) recvmmsg(fd uintptr) bool {
	if r.job == nil {
		r.job = receiveJobs.Get().(*receiveJob)
	}
	for i := range r.job.headers {
		h := &r.job.headers[i].header
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(runControlSize)
	}
	for {
		// This waits for nothing, so the scheduler is not told: see [socket.Direct]. A relay between two links takes 8 %
		// less of the processor for it.
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.job.headers)), receiveMany, unix.MSG_DONTWAIT, 0, 0)
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
			r.release()
			return false
		}
		r.n, r.errno = int(n), errno
		return true
	}
}

// run returns run i of the last receive: datagrams one behind the other, all of size bytes but the last, which may be
// shorter; and, on a socket that is not connected, their sender.
func (r *udpReceiver) run(i int) (from endpoint, run []byte, size int) {
	h := &r.job.headers[i]
	from.length = h.header.Namelen
	copy(from.raw[:], r.job.from[i].raw[:from.length]) // Behind it may stand what was longer.
	start := i * slotSize
	run = r.job.buf[start : start+int(min(h.length, slotSize))]
	size = len(run)
	r.control(i, func(about unix.Cmsghdr, data []byte) {
		if about.Level == unix.SOL_UDP && about.Type == unix.UDP_GRO && len(data) >= 4 {
			if told := int(binary.NativeEndian.Uint32(data)); told > 0 {
				size = told
			}
		}
	})
	return from, run, size
}

// control calls f for what the kernel says about run i of the last receive.
func (r *udpReceiver) control(i int, f func(about unix.Cmsghdr, data []byte)) {
	rest := r.job.controls[i][:min(int(r.job.headers[i].header.Controllen), runControlSize)]
	for len(rest) > 0 {
		about, data, more, err := unix.ParseOneSocketControlMessage(rest)
		if err != nil {
			return
		}
		f(about, data)
		rest = more
	}
}

// udpSender writes datagrams, many per system call.
type udpSender struct {
	raw   syscall.RawConn
	from  source // Of what goes to one of many peers.
	whole int    // Datagrams of this size and above do not travel in runs.
}

func newUDPSender(conn *net.UDPConn) (*udpSender, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &udpSender{raw: raw}
	_ = raw.Control(func(fd uintptr) {
		if _, err := unix.GetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT); err == nil {
			s.whole = MaxUDPMessage
		}
	})
	return s, nil
}

// sendJob is what one call of send needs beside its sender.
type sendJob struct {
	call     func(fd uintptr) bool
	headers  [sendMany]mmsghdr
	controls [sendMany][runControlSize]byte
	iovecs   [sendPieces]unix.Iovec
	n        int // Headers filled: runs.
	pieces   int // Iovecs filled: datagrams.
	size     int // Of the datagrams of the last run; 0 if it takes no more.
	total    int // Bytes of the last run.
	sent     int // Of the runs.
	passing  int // How many errors may be another peer's.
	errno    syscall.Errno
}

// passingErrors is how often one call may meet the error of another peer that shares the socket, and try again.
const passingErrors = 8

var sendJobs = sync.Pool{New: func() any {
	j := new(sendJob)
	j.call = j.sendmmsg
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
			if err := s.add(j, to, msg, &large); err != nil {
				return err
			}
		}
	}
	if err := s.flush(j, to, &large); err != nil {
		return err
	}
	return tooLarge(large)
}

// add puts msg behind what j holds, and sends that first if there is no room.
func (s *udpSender) add(j *sendJob, to *endpoint, msg []byte, large *int) error {
	joins := len(msg) <= j.size && j.size < s.whole && j.total+len(msg) <= MaxUDPMessage &&
		j.headers[j.n-1].header.Iovlen < maxSegments
	if j.pieces == sendPieces || !joins && j.n == sendMany {
		if err := s.flush(j, to, large); err != nil {
			return err
		}
		joins = false
	}
	piece := &j.iovecs[j.pieces]
	piece.Base = &msg[0]
	piece.SetLen(len(msg))
	j.pieces++
	if joins {
		j.join(s.from.length, len(msg))
		return nil
	}
	h := &j.headers[j.n].header
	h.Iov, h.Control = piece, &j.controls[j.n][0]
	h.SetIovlen(1)
	h.SetControllen(copy(j.controls[j.n][:], s.from.control[:s.from.length]))
	if to != nil {
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&to.raw)), to.length
		j.passing = passingErrors
	}
	j.n++
	j.size, j.total = len(msg), len(msg)
	return nil
}

// join counts the last datagram, of size bytes, to the last run. Before what the kernel is told about runs come control
// bytes of others.
func (j *sendJob) join(before, size int) {
	h := &j.headers[j.n-1].header
	h.SetIovlen(int(h.Iovlen) + 1)
	if h.Iovlen == 2 {
		about := j.controls[j.n-1][before:]
		header := unix.Cmsghdr{Level: unix.SOL_UDP, Type: unix.UDP_SEGMENT}
		header.SetLen(unix.CmsgLen(2))
		*(*unix.Cmsghdr)(unsafe.Pointer(&about[0])) = header
		binary.NativeEndian.PutUint16(about[unix.CmsgLen(0):], uint16(j.size))
		h.SetControllen(before + unix.CmsgSpace(2))
	}
	j.total += size
	if size < j.size {
		j.size = 0
	}
}

// flush sends what was added. A datagram for which there is no memory is lost, as on the way.
func (s *udpSender) flush(j *sendJob, to *endpoint, large *int) error {
	for j.sent = 0; j.sent < j.n; {
		if err := s.raw.Write(j.call); err != nil {
			return err
		}
		if j.errno == 0 {
			continue
		}
		switch h := &j.headers[j.sent].header; {
		case h.Iovlen > 1 && (errors.Is(j.errno, unix.EINVAL) || errors.Is(j.errno, unix.EMSGSIZE) || errors.Is(j.errno, unix.EIO)):
			if err := s.sendSingly(h, to, large); err != nil {
				return err
			}
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
	j.reset()
	return nil
}

// sendSingly sends the datagrams of a run that the kernel does not take as such: they are larger than what the network
// carries unfragmented, or the device cannot do it. From now on such datagrams travel alone.
func (s *udpSender) sendSingly(run *unix.Msghdr, to *endpoint, large *int) error {
	pieces := unsafe.Slice(run.Iov, run.Iovlen)
	s.whole = min(s.whole, int(pieces[0].Len))
	j := sendJobs.Get().(*sendJob)
	defer j.release()
	for _, p := range pieces {
		if err := s.add(j, to, unsafe.Slice(p.Base, p.Len), large); err != nil {
			return err
		}
	}
	return s.flush(j, to, large)
}

func (j *sendJob) sendmmsg(fd uintptr) bool {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&j.headers[j.sent])), uintptr(j.n-j.sent), unix.MSG_DONTWAIT, 0, 0)
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

// reset forgets what was added, so that j holds on to nobody's memory.
func (j *sendJob) reset() {
	clear(j.headers[:j.n])
	clear(j.iovecs[:j.pieces])
	j.n, j.pieces, j.size, j.passing = 0, 0, 0, 0
}

func (j *sendJob) release() {
	j.reset()
	sendJobs.Put(j)
}
