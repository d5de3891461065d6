package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

const (
	defaultBacklog = 64
	maxBacklog     = 1024
	// announceBytes is about what the kernel charges for the two messages of a stream that the program has not accepted yet.
	announceBytes = 2048
)

func opStreamListen(_ context.Context, s *session, req *request) (reply, error) {
	conf, err := s.host.acceptTLS(req.TLS)
	if err != nil {
		return failed(err)
	}
	ln, err := s.host.built().Node.ListenStream(req.Service, advert(req, true), conf)
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
		defer context.AfterFunc(h.ctx, func() { _ = near.Close() })()
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

// announcement is what a program learns of a stream that it may accept.
type announcement struct {
	Stream uint64  `json:"stream"`
	Peer   address `json:"peer"`
}

// announce sends a stream's descriptor with a message of one byte, and what it is once our copy of the descriptor is
// gone: a child that the program forks when it knows of the stream inherits none that keeps the stream open.
func announce(to *net.UnixConn, fd int, a announcement) error {
	msg, err := json.Marshal(a)
	if err == nil {
		_, _, err = to.WriteMsgUnix([]byte{'+'}, unix.UnixRights(fd), nil)
	}
	closeFD(fd)
	if err != nil {
		return err
	}
	_, err = to.Write(msg)
	return err
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
		err = announce(to, fd, announcement{st.id, addrReply(remote.RemoteAddr().(netceptor.Addr))})
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
	d := &datagrams{pc: pc, conn: near, log: h.log}
	h.mu.Lock()
	d.id = h.newIDLocked()
	h.datagrams[d.id] = d
	h.mu.Unlock()
	h.spawn("datagram socket", func() {
		d.run(h.ctx)
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.datagrams, d.id)
	})
	return reply{ok: map[string]any{"service": pc.Service(), "datagram": d.id}, fd: far}, nil
}

func opDatagramStatus(_ context.Context, s *session, req *request) (reply, error) {
	s.host.mu.Lock()
	d := s.host.datagrams[req.Datagram]
	s.host.mu.Unlock()
	if d == nil {
		return failed(badRequest(fmt.Sprintf("key \"datagram\": %d is not an open datagram socket", req.Datagram)))
	}
	return plain(map[string]any{"sent": d.sent.Load(), "received": d.received.Load(), "dropped": d.dropped.Load()})
}

// datagrams is a datagram socket of the mesh and the socket that a program uses it through.
type datagrams struct {
	id   uint64
	pc   *netceptor.PacketConn
	conn *net.UnixConn
	log  *slog.Logger

	sent, received atomic.Uint64
	dropped        atomic.Uint64 // The program did not read them in time.
}

// run carries datagrams both ways until the program closes its end, the mesh socket ends or ctx does.
func (d *datagrams) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(d.in)
	wg.Go(d.notices)
	end := func() { _ = d.conn.Close() }
	defer context.AfterFunc(d.pc.Context(), end)()
	defer context.AfterFunc(ctx, end)()
	d.out()
	_ = d.pc.Close()
	_ = d.conn.Close()
	wg.Wait()
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

// out sends what the program writes, until it closes its end.
func (d *datagrams) out() {
	buf := make([]byte, wire.MaxMessage+2*256+3)
	for {
		n, err := d.conn.Read(buf)
		if err != nil || n == 0 {
			return
		}
		to, payload, perr := parseDatagram(buf[:n])
		if perr == nil {
			_, perr = d.pc.WriteTo(payload, to)
		}
		if perr == nil {
			d.sent.Add(1)
			continue
		}
		header, ok := appendDatagramHeader(nil, datagramRefused, to)
		text, merr := json.Marshal(toError(perr, Internal))
		if ok && merr == nil {
			trySend(d.conn, append(header, text...))
		}
	}
}

// in passes packets to the program. What it does not read in time is dropped and counted, never waited for.
func (d *datagrams) in() {
	payload := make([]byte, wire.MaxPayload)
	for {
		n, from, err := d.pc.ReadFrom(payload)
		if err != nil {
			return
		}
		msg, ok := appendDatagramHeader(nil, datagramPayload, from.(netceptor.Addr))
		if ok && trySend(d.conn, append(msg, payload[:n]...)) {
			d.received.Add(1)
			continue
		}
		if d.dropped.Add(1) == 1 {
			d.log.Warn("datagrams are dropped: the program does not read them", "service", d.pc.Service())
		}
	}
}

func (d *datagrams) notices() {
	for {
		select {
		case n := <-d.pc.Notices():
			msg, ok := appendDatagramHeader(nil, datagramNotice, netceptor.Addr{Node: n.ToNode, Service: n.ToService})
			if ok {
				trySend(d.conn, append(msg, n.Problem...))
			}
		case <-d.pc.Done():
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
