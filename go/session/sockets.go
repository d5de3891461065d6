package session

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// datagramBuffer is the socket buffer asked for between a program and a datagram socket, each way.
const datagramBuffer = 1 << 20

// name is what a program keeps for itself: that of a service, or that of a work type.
type name struct{ service, workType string }

// holding is the socket that keeps a name for the program.
type holding struct {
	conn *net.UnixConn
	done chan struct{} // Closed once the name is free.
}

// hold notes who keeps a name; the result says that it is free.
func (h *host) hold(n name, conn *net.UnixConn) (free func()) {
	held := &holding{conn: conn, done: make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.names[n] = held
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.names[n] == held {
			delete(h.names, n)
		}
		close(held.done)
	}
}

// take opens something that has a name. Where a socket has that name which the program has closed already, it waits until
// the node has noticed that: a program closes one and opens the next.
func take[S any](ctx context.Context, h *host, n name, open func() (S, error)) (S, error) {
	for {
		held := h.holder(n)
		s, err := open()
		taken := errors.Is(err, netceptor.ErrServiceInUse) || errors.Is(err, workceptor.ErrRegistered)
		if !taken || !held.isGone() {
			return s, err
		}
		if err := held.awaitFree(ctx); err != nil {
			return s, err
		}
	}
}

// holder is who keeps a name; nil if nobody does.
func (h *host) holder(n name) *holding {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.names[n]
}

// isGone reports whether the program has closed the socket, which the node may not have noticed yet.
func (held *holding) isGone() bool { return held != nil && isHungUp(held.conn) }

// awaitFree waits until the node has noticed.
func (held *holding) awaitFree(ctx context.Context) error {
	select {
	case <-held.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// The kinds of messages on a datagram socket.
const (
	datagramVersion = 1
	datagramPayload = 0
	datagramNotice  = 1
	datagramRefused = 2
)

func opDatagramOpen(ctx context.Context, s *session, req *request) (reply, error) {
	pc, err := take(ctx, s.host, name{service: req.Service}, func() (*netceptor.PacketConn, error) {
		return s.host.built().Node.ListenPacket(req.Service, advert(req, false))
	})
	if err != nil {
		return failed(err)
	}
	near, far, err := socketPair(unix.SOCK_SEQPACKET)
	if err != nil {
		_ = pc.Close()
		return failed(err)
	}
	_ = near.SetWriteBuffer(datagramBuffer)
	_ = unix.SetsockoptInt(far, unix.SOL_SOCKET, unix.SO_SNDBUF, datagramBuffer)
	h := s.host
	d := &datagrams{host: h, pc: pc, conn: near}
	h.mu.Lock()
	d.id = h.newIDLocked()
	h.datagrams[d.id] = d
	h.mu.Unlock()
	free := h.hold(name{service: pc.Service()}, near)
	h.spawn("datagram socket", func() {
		defer free()
		defer func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			delete(h.datagrams, d.id)
		}()
		d.run(h.ctx)
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
	return plain(map[string]any{"sent": d.sent.Load(), "received": d.received.Load(), "dropped": d.pc.Dropped()})
}

// datagrams is a datagram socket of the mesh and the socket that a program uses it through.
type datagrams struct {
	host *host
	id   uint64
	pc   *netceptor.PacketConn
	conn *net.UnixConn

	sent, received atomic.Uint64
}

// run carries datagrams both ways until the program closes its end, the mesh socket ends or ctx does.
func (d *datagrams) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	end := func() { _ = d.conn.Close() }
	defer end()
	defer d.pc.Close() //nolint:errcheck // Ends the goroutines below.
	defer context.AfterFunc(d.pc.Context(), end)()
	defer context.AfterFunc(ctx, end)()
	for _, carry := range []func(){d.in, d.notices} {
		wg.Go(func() {
			defer fault.Catch(d.host.faulted("datagram socket", end))
			carry()
		})
	}
	d.out()
}

// maxDatagramHeader is the longest header of a datagram message.
const maxDatagramHeader = 3 + 255 + 1 + 255

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

var errDatagram = badRequest("datagram message: want version 1, kind 0, node, service, payload")

// splitDatagram takes a message of the program's apart.
func splitDatagram(msg []byte) (header, payload []byte, err error) {
	if len(msg) < 4 || msg[0] != datagramVersion || msg[1] != datagramPayload {
		return nil, nil, errDatagram
	}
	end := 3 + int(msg[2])
	if len(msg) <= end || len(msg) < end+1+int(msg[end]) {
		return nil, nil, errDatagram
	}
	end += 1 + int(msg[end])
	return msg[:end], msg[end:], nil
}

// datagramAddress reads the address out of a whole header.
func datagramAddress(header []byte) netceptor.Addr {
	end := 3 + int(header[2])
	return netceptor.Addr{Node: wire.NodeID(header[3:end]), Service: string(header[end+1:])}
}

// out sends what the program writes, until it closes its end. It waits where the mesh does, and so does the program.
func (d *datagrams) out() {
	buf := make([]byte, maxDatagramHeader+wire.MaxMessage)
	var last []byte // Programs send many datagrams to one address.
	var to net.Addr
	for {
		n, err := readMessage(d.conn, buf)
		if err != nil || n == 0 {
			return
		}
		header, payload, perr := splitDatagram(buf[:n])
		if perr == nil {
			if !bytes.Equal(header, last) {
				last, to = append(last[:0], header...), datagramAddress(header)
			}
			_, perr = d.pc.WriteTo(payload, to)
		}
		if perr == nil {
			d.sent.Add(1)
			continue
		}
		var address netceptor.Addr
		if header != nil {
			address = datagramAddress(header)
		}
		refusal, ok := appendDatagramHeader(nil, datagramRefused, address)
		text, merr := json.Marshal(toError(perr, Internal))
		if ok && merr == nil {
			trySend(d.conn, append(refusal, text...))
		}
	}
}

// in passes packets to the program and waits until it reads them. What comes meanwhile waits in the mesh socket, and is
// dropped and counted there once too much does: the node itself never waits.
func (d *datagrams) in() {
	buf := make([]byte, maxDatagramHeader+wire.MaxPayload)
	var from net.Addr // Of the header, which ends where payloads begin.
	var header []byte
	warned := false
	for {
		n, source, err := d.pc.ReadFrom(buf[maxDatagramHeader:])
		if err != nil {
			return
		}
		if source != from {
			made, ok := appendDatagramHeader(nil, datagramPayload, source.(netceptor.Addr))
			if !ok {
				continue
			}
			from, header = source, made
		}
		start := maxDatagramHeader - len(header)
		copy(buf[start:], header)
		_, err = d.conn.Write(buf[start : maxDatagramHeader+n])
		if !warned && d.pc.Dropped() > 0 {
			warned = true
			d.host.log.Warn("datagrams were dropped: the program does not read them", "service", d.pc.Service())
		}
		if err != nil {
			return
		}
		d.received.Add(1)
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

// trySend sends one message unless that would wait, for the socket or for a Write that waits.
func trySend(conn *net.UnixConn, msg []byte) {
	rc, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = rc.Control(func(fd uintptr) {
		_ = unix.Sendto(int(fd), msg, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
	})
}
