package session

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

const (
	defaultBacklog = 64
	maxBacklog     = 1024
	// announceBytes is about what the kernel charges for one announced stream that the program has not accepted yet.
	announceBytes = 1024
)

func opStreamListen(_ context.Context, s *session, req *request) (reply, error) {
	ln, err := s.host.built().Node.ListenStream(req.Service, advert(req, true), nil)
	if err != nil {
		return failed(err)
	}
	near, far, err := socketPair(unix.SOCK_SEQPACKET)
	if err != nil {
		_ = ln.Close()
		return failed(err)
	}
	backlog := min(max(req.Backlog, 0), maxBacklog)
	if backlog == 0 {
		backlog = defaultBacklog
	}
	_ = near.SetWriteBuffer(backlog * announceBytes)
	h := s.host
	h.spawn("listener", func() {
		var wg sync.WaitGroup
		defer wg.Wait()
		defer near.Close() //nolint:errcheck // Ends the watcher.
		wg.Go(func() {
			awaitEnd(near)
			_ = near.Close()
			_ = ln.Close()
		})
		h.acceptStreams(ln, near)
	})
	return reply{ok: map[string]any{"service": ln.Service()}, fd: far}, nil
}

// awaitEnd waits until the program has closed a socket on which it sends nothing.
func awaitEnd(conn *net.UnixConn) {
	var b [1]byte
	for {
		if n, err := conn.Read(b[:]); err != nil || n == 0 {
			return
		}
	}
}

// acceptStreams announces every stream to the program. It waits while the backlog is full, and so does the mesh.
func (h *host) acceptStreams(ln *netceptor.StreamListener, to *net.UnixConn) {
	defer ln.Close() //nolint:errcheck // Nothing can be done about it.
	for {
		remote, err := ln.Accept()
		if err != nil {
			return
		}
		st, fd, err := h.bridge(remote)
		if err != nil {
			h.log.Error("stream refused: no socket for the program", "service", ln.Service(), "err", err)
			continue
		}
		msg, err := json.Marshal(map[string]any{"stream": st.id, "peer": addrReply(remote.RemoteAddr().(netceptor.Addr))})
		if err == nil {
			_, _, err = to.WriteMsgUnix(msg, unix.UnixRights(fd), nil)
		}
		closeFD(fd)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, unix.EPIPE) {
			return
		}
		if err != nil {
			h.log.Error("stream refused: it cannot be handed to the program", "service", ln.Service(), "err", err)
		}
	}
}

// The kinds of messages on a datagram socket.
const (
	datagramVersion = 1
	datagramPayload = 0
	datagramNotice  = 1
	datagramRefused = 2
)

func opDatagramOpen(_ context.Context, s *session, req *request) (reply, error) {
	pc, err := s.host.built().Node.ListenPacket(req.Service, advert(req, false))
	if err != nil {
		return failed(err)
	}
	near, far, err := socketPair(unix.SOCK_SEQPACKET)
	if err != nil {
		_ = pc.Close()
		return failed(err)
	}
	h := s.host
	h.spawn("datagram socket", func() {
		var wg sync.WaitGroup
		wg.Go(func() { h.datagramsIn(pc, near) })
		wg.Go(func() { noticesIn(pc, near) })
		defer context.AfterFunc(pc.Context(), func() { _ = near.Close() })()
		datagramsOut(pc, near)
		_ = pc.Close()
		_ = near.Close()
		wg.Wait()
	})
	return reply{ok: map[string]any{"service": pc.Service()}, fd: far}, nil
}

// appendDatagramHeader writes the header of a datagram message; false if the address does not fit.
func appendDatagramHeader(dst []byte, kind byte, a netceptor.Addr) ([]byte, bool) {
	if len(a.Node) > 255 || len(a.Service) > 255 {
		return dst, false
	}
	dst = append(dst, datagramVersion, kind, byte(len(a.Node)))
	dst = append(dst, a.Node...)
	dst = append(dst, byte(len(a.Service)))
	return append(dst, a.Service...), true
}

// parseDatagram reads a message of the program's.
func parseDatagram(msg []byte) (to netceptor.Addr, payload []byte, err error) {
	bad := badRequest("datagram message: want version 1, kind 0, node, service, payload")
	if len(msg) < 3 || msg[0] != datagramVersion || msg[1] != datagramPayload {
		return to, nil, bad
	}
	rest := msg[3:]
	if len(rest) < int(msg[2])+1 {
		return to, nil, bad
	}
	to.Node, rest = wire.NodeID(rest[:msg[2]]), rest[msg[2]:]
	size := int(rest[0])
	if rest = rest[1:]; len(rest) < size {
		return to, nil, bad
	}
	to.Service = string(rest[:size])
	return to, rest[size:], nil
}

// datagramsOut sends what the program writes, until it closes its end.
func datagramsOut(pc *netceptor.PacketConn, from *net.UnixConn) {
	buf := make([]byte, wire.MaxMessage+2*256+3)
	for {
		n, err := from.Read(buf)
		if err != nil || n == 0 {
			return
		}
		to, payload, perr := parseDatagram(buf[:n])
		if perr == nil {
			_, perr = pc.WriteTo(payload, to)
		}
		if perr == nil {
			continue
		}
		header, ok := appendDatagramHeader(nil, datagramRefused, to)
		text, merr := json.Marshal(toError(perr, Internal))
		if ok && merr == nil {
			trySend(from, append(header, text...))
		}
	}
}

// datagramsIn passes packets to the program. What it does not read in time is dropped and counted, never waited for.
func (h *host) datagramsIn(pc *netceptor.PacketConn, to *net.UnixConn) {
	payload := make([]byte, wire.MaxPayload)
	dropped := 0
	for {
		n, from, err := pc.ReadFrom(payload)
		if err != nil {
			return
		}
		msg, ok := appendDatagramHeader(nil, datagramPayload, from.(netceptor.Addr))
		if ok && trySend(to, append(msg, payload[:n]...)) {
			continue
		}
		if dropped++; dropped == 1 {
			h.log.Warn("datagrams are dropped: the program does not read them", "service", pc.Service())
		}
	}
}

func noticesIn(pc *netceptor.PacketConn, to *net.UnixConn) {
	for {
		select {
		case n := <-pc.Notices():
			msg, ok := appendDatagramHeader(nil, datagramNotice, netceptor.Addr{Node: n.ToNode, Service: n.ToService})
			if ok {
				trySend(to, append(msg, n.Problem...))
			}
		case <-pc.Done():
			return
		}
	}
}

// trySend sends one message unless that would wait.
func trySend(conn *net.UnixConn, msg []byte) bool {
	rc, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	var sendErr error
	if err := rc.Write(func(fd uintptr) bool {
		sendErr = unix.Sendto(int(fd), msg, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
		return true
	}); err != nil {
		return false
	}
	return sendErr == nil
}
