package netceptor

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

const (
	// receiveLimit bounds the packets that wait for the reader of one socket, in bytes. Over it they are dropped.
	receiveLimit = 4 << 20
	// noticeBacklog is how many unreachable notices wait for the reader of one socket; further ones are dropped.
	noticeBacklog = 16
)

// ServiceAd makes a service known to the mesh.
type ServiceAd struct {
	Tags map[string]string // Free text; "type" says what kind of service it is.
}

// Notice is an unreachable notice about a packet of ours, and the node that sent it.
type Notice struct {
	wire.Unreachable
	Reporter wire.NodeID
}

// PacketConn is a datagram socket: a service name on this node. It implements net.PacketConn with [Addr] addresses, and
// all methods are safe for concurrent use. Datagrams are unreliable and unordered. One that arrives while 4 MiB wait to
// be read is dropped.
type PacketConn struct {
	node    *Node
	service wire.ServiceName
	ad      *advertised // nil if not advertised.
	hops    atomic.Uint32
	notices chan Notice
	noticed atomic.Pointer[func()]                    // Called when there is a new one; nil: nobody wants to know.
	refuses atomic.Pointer[func(payload []byte) bool] // Says which packets nobody here wants; nil: none.

	ctx  context.Context // Ends with the socket.
	stop context.CancelCauseFunc

	mu      sync.Mutex
	queue   []byte // Packets: length (u32), source hash (u64), source service (8 bytes), payload.
	dropped uint64
	arrived chan struct{}

	readMu   sync.Mutex
	reading  []byte // What the reader took from queue and has not returned yet; spare is its whole memory.
	spare    []byte
	lastFrom packetSource
	lastAddr net.Addr

	readDeadline  *deadline
	writeDeadline atomic.Pointer[time.Time] // nil: none. Read when a write starts.
}

type packetSource struct {
	node    wire.NodeHash
	service wire.ServiceName
}

const packetOverhead = 4 + 8 + wire.MaxService

// ListenPacket opens a datagram socket under a service name of up to eight bytes; an empty name takes a free ephemeral
// one. With an ad, the mesh is told. Errors: [ErrServiceInUse] (reserved names too), [wire.ErrServiceLength], [ErrClosed].
func (n *Node) ListenPacket(service string, ad *ServiceAd) (*PacketConn, error) {
	return n.listenPacket(service, ad, wire.ConnDatagram)
}

func (n *Node) listenPacket(service string, ad *ServiceAd, kind wire.ConnType) (*PacketConn, error) {
	name, err := wire.Service(service)
	if err != nil {
		return nil, err
	}
	pc := &PacketConn{node: n, notices: make(chan Notice, noticeBacklog), arrived: make(chan struct{}, 1), readDeadline: newDeadline()}
	pc.hops.Store(wire.MaxHops)
	pc.ctx, pc.stop = context.WithCancelCause(n.ctx)
	if err := n.bind(pc, name, service == ""); err != nil {
		pc.stop(err)
		return nil, err
	}
	if ad != nil {
		pc.ad = n.advertise(pc.service.String(), kind, ad.Tags)
	}
	return pc, nil
}

// bind registers the socket under its name, or under a free ephemeral one.
func (n *Node) bind(pc *PacketConn, name wire.ServiceName, ephemeral bool) error {
	n.socketsMu.Lock()
	defer n.socketsMu.Unlock()
	if n.ctx.Err() != nil {
		return ErrClosed
	}
	for ephemeral && (name == wire.ServiceName{} || n.sockets[name] != nil) {
		copy(name[:], randomName())
	}
	if reserved(name) || n.sockets[name] != nil {
		return fmt.Errorf("service %s: %w", name, ErrServiceInUse)
	}
	pc.service = name
	n.sockets[name] = pc
	return nil
}

const nameAlphabet = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// randomName returns eight random characters of 0-9a-zA-Z, for update IDs and ephemeral services.
func randomName() string {
	var b [8]byte
	for i := range b {
		b[i] = nameAlphabet[rand.IntN(len(nameAlphabet))]
	}
	return string(b[:])
}

// Service returns the service name.
func (pc *PacketConn) Service() string { return pc.service.String() }

// LocalAddr returns the node's ID and the service name as an [Addr].
func (pc *PacketConn) LocalAddr() net.Addr { return Addr{pc.node.id, pc.Service()} }

// SetHops sets the hop budget of packets sent from now on; the default is 30.
func (pc *PacketConn) SetHops(hops uint8) { pc.hops.Store(uint32(hops)) }

// Notices delivers what other nodes say about packets of this socket that could not be delivered. A notice that finds
// 16 unread is dropped. The channel is never closed; see Done.
func (pc *PacketConn) Notices() <-chan Notice { return pc.notices }

// Done is closed when the socket is.
func (pc *PacketConn) Done() <-chan struct{} { return pc.ctx.Done() }

// Context ends when the socket does.
func (pc *PacketConn) Context() context.Context { return pc.ctx }

func (pc *PacketConn) notice(n Notice) {
	select {
	case pc.notices <- n:
	default:
	}
	if noticed := pc.noticed.Load(); noticed != nil {
		(*noticed)()
	}
}

// receive queues a packet for the reader; false means there was no room. It does not block.
func (pc *PacketConn) receive(from wire.NodeID, h wire.Header, payload []byte) bool {
	defer pc.wake()
	pc.mu.Lock()
	defer pc.mu.Unlock()
	if len(pc.queue) > receiveLimit || pc.ctx.Err() != nil {
		pc.dropped++
		return false
	}
	pc.queue = roomFor(pc.queue, packetOverhead+len(payload))
	pc.appendLocked(h, payload)
	return true
}

// receiveRun is receive for packets with the header h, as they came from a link, and returns how many of them it queued.
func (pc *PacketConn) receiveRun(h wire.Header, run wire.Batch) (queued int) {
	defer pc.wake()
	pc.mu.Lock()
	defer pc.mu.Unlock()
	if pc.ctx.Err() != nil {
		return 0
	}
	pc.queue = roomFor(pc.queue, len(run)) // A frame takes more than its packet will here.
	for msg, rest, ok := run.Next(); ok && len(pc.queue) <= receiveLimit; msg, rest, ok = rest.Next() {
		pc.appendLocked(h, msg[wire.HeaderSize:])
		queued++
	}
	return queued
}

// appendLocked appends a packet to the queue, which has room for it.
func (pc *PacketConn) appendLocked(h wire.Header, payload []byte) {
	pc.queue = binary.BigEndian.AppendUint32(pc.queue, uint32(len(payload)))
	pc.queue = binary.BigEndian.AppendUint64(pc.queue, uint64(h.From))
	pc.queue = append(pc.queue, h.FromService[:]...)
	pc.queue = append(pc.queue, payload...)
}

// wake tells the reader that something has arrived.
func (pc *PacketConn) wake() {
	select {
	case pc.arrived <- struct{}{}:
	default:
	}
}

// Dropped is how many packets found too much waiting to be read.
func (pc *PacketConn) Dropped() uint64 {
	pc.mu.Lock()
	defer pc.mu.Unlock()
	return pc.dropped
}

// ReadFrom waits for a datagram and copies it to p; what does not fit is lost. The address is an [Addr].
func (pc *PacketConn) ReadFrom(p []byte) (int, net.Addr, error) {
	pc.readMu.Lock()
	defer pc.readMu.Unlock()
	if err := pc.awaitPackets(); err != nil {
		return 0, nil, err
	}
	n, from := pc.nextPacket(p)
	return n, pc.addr(from), nil
}

// awaitPackets waits until reading has a packet. The caller holds readMu.
func (pc *PacketConn) awaitPackets() error {
	for len(pc.reading) == 0 && !pc.take() {
		if err := pc.await(); err != nil {
			return err
		}
	}
	return nil
}

// nextPacket takes a packet out of reading and copies it to p. The caller holds readMu.
func (pc *PacketConn) nextPacket(p []byte) (n int, from packetSource) {
	size := int(binary.BigEndian.Uint32(pc.reading))
	from.node = wire.NodeHash(binary.BigEndian.Uint64(pc.reading[4:]))
	from.service = wire.ServiceName(pc.reading[12:packetOverhead])
	n = copy(p, pc.reading[packetOverhead:packetOverhead+size])
	pc.reading = pc.reading[packetOverhead+size:]
	return n, from
}

// take swaps the queue for the memory of the packets read last.
func (pc *PacketConn) take() bool {
	pc.mu.Lock()
	defer pc.mu.Unlock()
	if len(pc.queue) == 0 {
		pc.queue, pc.spare = shrunk(pc.queue), shrunk(pc.spare) // Going idle.
		return false
	}
	pc.queue, pc.spare = pc.spare[:0], pc.queue
	pc.reading = pc.spare
	return true
}

func (pc *PacketConn) await() error {
	expired := pc.readDeadline.wait()
	if pc.ctx.Err() == nil {
		select {
		case <-expired:
			return os.ErrDeadlineExceeded
		default:
		}
		select {
		case <-pc.arrived:
			return nil
		case <-expired:
			return os.ErrDeadlineExceeded
		case <-pc.ctx.Done():
		}
	}
	return &net.OpError{Op: "read", Net: "receptor", Source: pc.LocalAddr(), Err: net.ErrClosed}
}

// addr turns a source into an address. Packets come in runs from one source, so the last one is kept.
func (pc *PacketConn) addr(src packetSource) net.Addr {
	if pc.lastAddr == nil || src != pc.lastFrom {
		pc.lastFrom, pc.lastAddr = src, Addr{pc.nodeName(src.node), src.service.String()}
	}
	return pc.lastAddr
}

// nodeName is the name behind a hash, or the hash itself if the node was forgotten since its packet arrived.
func (pc *PacketConn) nodeName(hash wire.NodeHash) wire.NodeID {
	if d := pc.node.table.Load().byHash(hash); d != nil {
		return d.name
	}
	return wire.NodeID(fmt.Sprintf("%016x", uint64(hash)))
}

// awaitAnswer waits for any packet or notice, for a probe that this socket has sent.
func (pc *PacketConn) awaitAnswer(ctx context.Context) (from wire.NodeID, err error) {
	for {
		if pc.take() {
			return pc.nodeName(wire.NodeHash(binary.BigEndian.Uint64(pc.reading[4:]))), nil
		}
		select {
		case <-pc.arrived:
		case n := <-pc.notices:
			return n.Reporter, problemError(n.Problem)
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-pc.ctx.Done():
			return "", ErrClosed
		}
	}
}

// problemError turns a notice's problem into the package's error, or into one with the peer's own text.
func problemError(p wire.Problem) error {
	switch p {
	case wire.ProblemServiceUnknown:
		return ErrServiceUnknown
	case wire.ProblemExpired:
		return ErrExpired
	case wire.ProblemFirewall:
		return ErrFirewall
	default:
		return fmt.Errorf("%.200s", string(p))
	}
}

// WriteTo sends p to addr, an [Addr]. It waits while the link to the next hop has too much to send already. Errors:
// [ErrNoRoute], [ErrNoNextHop], [ErrPayloadSize], [ErrServiceUnknown] (on this node), [ErrFirewall] (of this node),
// os.ErrDeadlineExceeded. That a packet was sent does not mean that it arrives.
func (pc *PacketConn) WriteTo(p []byte, addr net.Addr) (int, error) {
	to, ok := addr.(Addr)
	if !ok {
		return 0, fmt.Errorf("address %v is not a mesh address", addr)
	}
	service, err := wire.Service(to.Service)
	if err != nil {
		return 0, err
	}
	return pc.send(p, to.Node.At(pc.node.id), service)
}

func (pc *PacketConn) send(p []byte, to wire.NodeID, service wire.ServiceName) (int, error) {
	if pc.ctx.Err() != nil {
		return 0, &net.OpError{Op: "write", Net: "receptor", Source: pc.LocalAddr(), Err: net.ErrClosed}
	}
	h := wire.Header{Hops: uint8(pc.hops.Load()), FromService: pc.service, ToService: service}
	ctx := pc.ctx
	if at := pc.writeDeadline.Load(); at != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, *at, os.ErrDeadlineExceeded)
		defer cancel()
		if ctx.Err() != nil {
			return 0, os.ErrDeadlineExceeded
		}
	}
	if err := pc.node.originate(ctx, to, h, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close ends the socket; blocked calls return an error that wraps net.ErrClosed.
func (pc *PacketConn) Close() error {
	pc.node.unbind(pc)
	pc.stop(net.ErrClosed)
	return nil
}

func (n *Node) unbind(pc *PacketConn) {
	n.socketsMu.Lock()
	mine := n.sockets[pc.service] == pc
	if mine {
		delete(n.sockets, pc.service)
	}
	n.socketsMu.Unlock()
	if mine && pc.ad != nil {
		n.withdraw(pc.ad)
	}
}

// SetDeadline implements net.PacketConn.
func (pc *PacketConn) SetDeadline(t time.Time) error {
	_ = pc.SetWriteDeadline(t)
	return pc.SetReadDeadline(t)
}

// SetReadDeadline implements net.PacketConn.
func (pc *PacketConn) SetReadDeadline(t time.Time) error {
	pc.readDeadline.set(t)
	return nil
}

// SetWriteDeadline implements net.PacketConn; it holds for writes that start after it.
func (pc *PacketConn) SetWriteDeadline(t time.Time) error {
	at := &t
	if t.IsZero() {
		at = nil
	}
	pc.writeDeadline.Store(at)
	return nil
}

// deadline is a point in time that waiters see as a channel.
type deadline struct {
	mu      sync.Mutex
	timer   *time.Timer
	expired chan struct{} // Closed once the deadline has passed; replaced when a new one is set after that.
}

func newDeadline() *deadline { return &deadline{expired: make(chan struct{})} }

// wait returns a channel that is closed when the deadline passes.
func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.expired
}

// set moves the deadline, also for those who wait already. The zero time means none.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.expired // The timer has fired: let it finish.
	}
	d.timer = nil
	passed := false
	select {
	case <-d.expired:
		passed = true
	default:
	}
	left := time.Until(t)
	if t.IsZero() || left > 0 {
		if passed {
			d.expired = make(chan struct{})
		}
		if !t.IsZero() {
			expired := d.expired
			d.timer = time.AfterFunc(left, func() { close(expired) })
		}
		return
	}
	if !passed {
		close(d.expired)
	}
}
