package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

const (
	defaultIdle = 5 * time.Minute // As RFC 4787 recommends for address translation.
	maxMappings = 1024            // Of one proxy; over it the one that has been quiet for longest makes room.
	datagramMax = 1 << 16
)

// UDPServer is a UDP port whose datagrams go to a service in the mesh.
type UDPServer struct {
	Address string       // host:port to listen on.
	Socket  *net.UDPConn // What has a port already, in place of Address; the proxy's from the start on.
	Node    wire.NodeID
	Service string
	Idle    time.Duration // A client that is quiet for so long is forgotten; 0 is five minutes.
}

// UDPClient is a service in the mesh whose datagrams go to a UDP address.
type UDPClient struct {
	Service string
	Address string        // host:port; a name is resolved for every new client.
	Idle    time.Duration // A client that is quiet for so long is forgotten; 0 is five minutes.
}

// UDPProxy gives each source of datagrams on one side a socket of its own on the other, so that answers find their way
// back. Datagrams get lost as they do in the mesh; one of more than 65,499 bytes does not fit and is dropped.
type UDPProxy struct {
	near io.Closer
	addr net.Addr

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup
}

// Addr is where a server listens, nil for a client.
func (p *UDPProxy) Addr() net.Addr { return p.addr }

// Close ends the proxy and waits for it.
func (p *UDPProxy) Close() error {
	p.stop()
	err := p.near.Close()
	p.wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// StartUDPServer opens the port and serves it.
func StartUDPServer(n *netceptor.Node, cfg UDPServer, log *slog.Logger) (*UDPProxy, error) {
	socket := cfg.Socket
	if socket == nil {
		addr, err := net.ResolveUDPAddr("udp", cfg.Address)
		if err != nil {
			return nil, fmt.Errorf("could not resolve address %s: %w", cfg.Address, err)
		}
		if socket, err = net.ListenUDP("udp", addr); err != nil {
			return nil, fmt.Errorf("error listening on UDP: %w", err)
		}
	}
	log = log.With("node", cfg.Node, "service", cfg.Service)
	far := netceptor.Addr{Node: cfg.Node, Service: cfg.Service}
	if strings.EqualFold(string(far.Node), "localhost") {
		far.Node = n.ID() // Which its answers come from.
	}
	clients := newMappings[netip.AddrPort](cfg.Idle)
	clients.open = func(netip.AddrPort) (packetSocket, error) { return n.ListenPacket("", nil) }
	clients.out = func(s packetSocket, p []byte) error {
		_, err := s.WriteTo(p, far)
		return err
	}
	clients.back = func(client netip.AddrPort, from net.Addr, p []byte) error {
		if from != net.Addr(far) {
			return nil // Nobody but the service may answer.
		}
		_, err := socket.WriteToUDPAddrPort(p, client)
		return err
	}
	clients.failures = &changes{log: log, failed: "Error sending on Receptor network", recovered: "Sending works again"}
	receive := func(p []byte) (int, netip.AddrPort, error) { return socket.ReadFromUDPAddrPort(p) }
	proxy := serveUDP(clients, socket, receive)
	proxy.addr = socket.LocalAddr()
	return proxy, nil
}

// StartUDPClient offers the service.
func StartUDPClient(n *netceptor.Node, cfg UDPClient, log *slog.Logger) (*UDPProxy, error) {
	if _, err := net.ResolveUDPAddr("udp", cfg.Address); err != nil {
		return nil, fmt.Errorf("could not resolve UDP address %s: %w", cfg.Address, err)
	}
	near, err := n.ListenPacket(cfg.Service, &netceptor.ServiceAd{Tags: map[string]string{"type": "UDP Proxy", "address": cfg.Address}})
	if err != nil {
		return nil, fmt.Errorf("error listening on service %s: %w", cfg.Service, err)
	}
	clients := newMappings[netceptor.Addr](cfg.Idle)
	clients.open = func(netceptor.Addr) (packetSocket, error) {
		c, err := net.Dial("udp", cfg.Address)
		if err != nil {
			return nil, err
		}
		return connected{c.(*net.UDPConn)}, nil
	}
	clients.out = func(s packetSocket, p []byte) error {
		_, err := s.WriteTo(p, nil)
		return err
	}
	clients.back = func(client netceptor.Addr, _ net.Addr, p []byte) error {
		_, err := near.WriteTo(p, client)
		return err
	}
	clients.failures = &changes{log: log.With("service", cfg.Service), failed: "Error sending via UDP", recovered: "Sending works again"}
	receive := func(p []byte) (int, netceptor.Addr, error) {
		got, from, err := near.ReadFrom(p)
		if err != nil {
			return 0, netceptor.Addr{}, err
		}
		return got, from.(netceptor.Addr), nil
	}
	return serveUDP(clients, near, receive), nil
}

// packetSocket is the far side's socket of one client.
type packetSocket interface {
	ReadFrom(p []byte) (int, net.Addr, error)
	WriteTo(p []byte, to net.Addr) (int, error)
	SetReadDeadline(t time.Time) error
	Close() error
}

// connected is a UDP socket that has one peer.
type connected struct{ *net.UDPConn }

func (c connected) WriteTo(p []byte, _ net.Addr) (int, error) { return c.Write(p) }

// mappings are the clients of a proxy, by their addresses.
type mappings[Client comparable] struct {
	idle     time.Duration
	open     func(Client) (packetSocket, error)
	out      func(packetSocket, []byte) error
	back     func(client Client, from net.Addr, p []byte) error
	failures *changes

	mu   sync.Mutex
	byID map[Client]*mapping
}

type mapping struct {
	socket packetSocket
	made   time.Time
	last   atomic.Int64 // When something last passed, in nanoseconds since it was made: dates move when a clock is set.
}

func newMapping(socket packetSocket) *mapping { return &mapping{socket: socket, made: time.Now()} }

// touch notes that something passes.
func (m *mapping) touch() { m.last.Store(int64(time.Since(m.made))) }

// touched is when something last passed.
func (m *mapping) touched() time.Time { return m.made.Add(time.Duration(m.last.Load())) }

func newMappings[Client comparable](idle time.Duration) *mappings[Client] {
	if idle == 0 {
		idle = defaultIdle
	}
	return &mappings[Client]{idle: idle, byID: map[Client]*mapping{}}
}

// serveUDP takes datagrams from the near side until its socket is closed.
func serveUDP[Client comparable](clients *mappings[Client], near io.Closer, receive func([]byte) (int, Client, error)) *UDPProxy {
	proxy := &UDPProxy{near: near}
	proxy.ctx, proxy.stop = context.WithCancel(context.Background())
	proxy.wg.Go(func() {
		defer clients.closeAll()
		defer fault.Catch(func(e *fault.Error) {
			clients.failures.note(e)
			_ = near.Close()
		})
		buffer := make([]byte, datagramMax)
		for {
			n, client, err := receive(buffer)
			if proxy.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // About one datagram: too long, or an answer to what was sent before.
			}
			clients.failures.note(clients.send(client, proxy, buffer[:n]))
		}
	})
	return proxy
}

// send passes a datagram on. A client that is just being forgotten gets a new mapping: its datagram is not lost for that.
func (c *mappings[Client]) send(client Client, proxy *UDPProxy, datagram []byte) (err error) {
	defer fault.Into(&err)
	for {
		m, err := c.of(client, proxy)
		if err != nil {
			return err
		}
		m.touch()
		err = c.out(m.socket, datagram)
		if !errors.Is(err, net.ErrClosed) || proxy.ctx.Err() != nil {
			return err
		}
		c.forget(client, m)
	}
}

// of returns the mapping of a client, a new one if need be.
func (c *mappings[Client]) of(client Client, proxy *UDPProxy) (*mapping, error) {
	c.mu.Lock()
	m := c.byID[client]
	c.mu.Unlock()
	if m != nil {
		return m, nil
	}
	socket, err := c.open(client)
	if err != nil {
		return nil, err
	}
	m = newMapping(socket)
	c.mu.Lock()
	if len(c.byID) >= maxMappings {
		c.evict()
	}
	c.byID[client] = m
	c.mu.Unlock()
	proxy.wg.Go(func() { c.answer(client, m) })
	return m, nil
}

// evict makes room by closing the socket that has been quiet for longest; its reader then forgets it.
func (c *mappings[Client]) evict() {
	var oldest *mapping
	var who Client
	for client, m := range c.byID {
		if oldest == nil || m.touched().Before(oldest.touched()) {
			oldest, who = m, client
		}
	}
	delete(c.byID, who)
	_ = oldest.socket.Close()
}

// answer carries what comes back to one client, until the client has been idle or the socket is closed.
func (c *mappings[Client]) answer(client Client, m *mapping) {
	defer func() {
		c.forget(client, m)
		_ = m.socket.Close()
	}()
	defer fault.Catch(func(e *fault.Error) { c.failures.note(e) })
	buffer := make([]byte, datagramMax)
	for {
		_ = m.socket.SetReadDeadline(m.touched().Add(c.idle))
		n, from, err := m.socket.ReadFrom(buffer)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if time.Since(m.touched()) >= c.idle {
				return
			}
		case errors.Is(err, net.ErrClosed):
			return
		case err == nil:
			m.touch()
			_ = c.back(client, from, buffer[:n])
		}
	}
}

func (c *mappings[Client]) forget(client Client, m *mapping) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byID[client] == m {
		delete(c.byID, client)
	}
}

func (c *mappings[Client]) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.byID {
		_ = m.socket.Close()
	}
}
