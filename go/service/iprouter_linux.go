package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

const (
	routerType    = "IP Router"
	routerPeriod  = 10 * time.Second // Between two looks at the advertisements when nothing says that they have changed.
	routerBacklog = 64               // Changes of the mesh that wait to be looked at; more are one look as well.
)

// IPRouter makes an IP network of nodes: a TUN interface on each, with a small network of its own, and kernel routes to
// the networks that the others say they reach.
type IPRouter struct {
	Network   string         // Name of the network, and of its datagram service on every node.
	Interface string         // Name of the interface; empty: the kernel chooses tunN.
	Local     netip.Prefix   // An IPv4 /30: its first host is this node, its second the way into the mesh.
	Routes    []netip.Prefix // Networks that others reach through this node.
}

// Router is a running [IPRouter].
type Router struct {
	node  *netceptor.Node
	cfg   IPRouter
	log   *slog.Logger
	tun   *os.File
	name  string // Of the interface, and its number.
	index int
	mesh  *netceptor.PacketConn
	table atomic.Pointer[[]ipRoute]
	sends *changes

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup
}

// ipRoute is a network behind a node.
type ipRoute struct {
	prefix netip.Prefix
	node   wire.NodeID
	cost   float64
}

// StartIPRouter makes the interface, which needs CAP_NET_ADMIN, and begins to route.
func StartIPRouter(n *netceptor.Node, cfg IPRouter, log *slog.Logger) (*Router, error) {
	log = log.With("network", cfg.Network)
	r := &Router{node: n, cfg: cfg, log: log, sends: &changes{log: log, failed: "Error sending on Receptor network", recovered: "Sending works again"}}
	r.table.Store(&[]ipRoute{})
	r.ctx, r.stop = context.WithCancel(context.Background())
	if err := r.openInterface(); err != nil {
		_ = r.Close()
		return nil, err
	}
	tags := map[string]string{"type": routerType, "network": cfg.Network, "route_local": cfg.Local.String()}
	for i, prefix := range cfg.Routes {
		tags["route_"+strconv.Itoa(i)] = prefix.String()
	}
	mesh, err := n.ListenPacket(cfg.Network, &netceptor.ServiceAd{Tags: tags})
	if err != nil {
		_ = r.Close()
		return nil, fmt.Errorf("error listening on service %s: %w", cfg.Network, err)
	}
	r.mesh = mesh
	r.run(r.fromInterface)
	r.run(r.fromMesh)
	r.run(r.follow)
	return r, nil
}

// run runs a part of the routing. A bug that it finds ends all of it.
func (r *Router) run(part func()) {
	r.wg.Go(func() {
		defer fault.Catch(func(e *fault.Error) {
			fault.Log(r.log, e, "IP router", "interface", r.name)
			r.end()
		})
		part()
	})
}

// Name is that of the interface.
func (r *Router) Name() string { return r.name }

// Close takes the interface and its routes away and waits for the end of routing.
func (r *Router) Close() error {
	r.end()
	r.wg.Wait()
	return nil
}

func (r *Router) end() {
	r.stop()
	if r.mesh != nil {
		_ = r.mesh.Close()
	}
	if r.tun != nil {
		_ = r.tun.Close() // The kernel removes the interface with its last user, and its routes with it.
	}
}

func (r *Router) openInterface() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("error opening tun device: %w", err)
	}
	request, err := unix.NewIfreq(cmp.Or(r.cfg.Interface, "tun%d"))
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("error opening tun device %s (it needs CAP_NET_ADMIN): %w", r.cfg.Interface, err)
	}
	r.tun = os.NewFile(uintptr(fd), "/dev/net/tun") // After the ioctl: only an attached device can be waited for.
	r.name = request.Name()
	r.index, err = setInterface(r.name, r.self(), r.peer())
	return err
}

func (r *Router) self() netip.Addr { return r.cfg.Local.Masked().Addr().Next() }
func (r *Router) peer() netip.Addr { return r.self().Next() }

// fromInterface sends what the kernel routes to the interface into the mesh.
func (r *Router) fromInterface() {
	buffer := make([]byte, datagramMax)
	for {
		n, err := r.tun.Read(buffer)
		if err != nil {
			if r.ctx.Err() == nil {
				r.log.Error("Error reading from interface", "interface", r.Name(), "err", err)
			}
			return
		}
		to, ok := destination(buffer[:n])
		if !ok {
			continue
		}
		for _, route := range *r.table.Load() {
			if route.prefix.Contains(to) {
				_, err := r.mesh.WriteTo(buffer[:n], netceptor.Addr{Node: route.node, Service: r.cfg.Network})
				r.sends.note(err)
				break
			}
		}
	}
}

// destination is the address an IP packet is for.
func destination(packet []byte) (netip.Addr, bool) {
	switch {
	case len(packet) >= 20 && packet[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(packet[16:20])), true
	case len(packet) >= 40 && packet[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(packet[24:40])), true
	}
	return netip.Addr{}, false
}

// fromMesh hands what other nodes send to the kernel.
func (r *Router) fromMesh() {
	buffer := make([]byte, datagramMax)
	for {
		n, _, err := r.mesh.ReadFrom(buffer)
		if err != nil {
			return
		}
		if _, ok := destination(buffer[:n]); ok {
			_, _ = r.tun.Write(buffer[:n]) // What the kernel does not take is lost, as a packet may be.
		}
	}
}

// follow keeps the kernel's routes like those that the others advertise.
func (r *Router) follow() {
	changed := r.node.Subscribe(routerBacklog)
	defer changed.Close()
	period := time.NewTicker(routerPeriod)
	defer period.Stop()
	failures := &changes{log: r.log, failed: "Error setting routes", recovered: "Setting routes works again"}
	for {
		routes := advertisedRoutes(r.node.Status(), r.cfg.Network, r.costs())
		r.table.Store(&routes)
		failures.note(r.setRoutes(routes))
		select {
		case <-r.ctx.Done():
			return
		case <-period.C:
		case _, ok := <-changed.C:
			if !ok {
				return
			}
			for len(changed.C) > 0 { // One look is enough for all of them.
				<-changed.C
			}
		}
	}
}

func (r *Router) costs() func(wire.NodeID) (float64, bool) {
	table := r.node.Routes()
	return func(node wire.NodeID) (float64, bool) {
		route, ok := table.Route(node)
		return route.Cost, ok
	}
}

// advertisedRoutes are the networks behind the reachable routers of a network: longest prefixes first, then what costs
// least.
func advertisedRoutes(st netceptor.Status, network string, cost func(wire.NodeID) (float64, bool)) []ipRoute {
	var routes []ipRoute
	for _, ad := range st.Advertisements {
		price, reachable := cost(ad.NodeID)
		if ad.NodeID == st.NodeID || !reachable || ad.Tags["type"] != routerType || ad.Tags["network"] != network {
			continue
		}
		for key, text := range ad.Tags {
			if prefix, err := netip.ParsePrefix(text); err == nil && strings.HasPrefix(key, "route") {
				routes = append(routes, ipRoute{prefix.Masked(), ad.NodeID, price})
			}
		}
	}
	sort.Slice(routes, func(i, j int) bool {
		a, b := routes[i], routes[j]
		return cmp.Or(cmp.Compare(b.prefix.Bits(), a.prefix.Bits()), cmp.Compare(a.cost, b.cost), cmp.Compare(a.node, b.node)) < 0
	})
	return routes
}

// setRoutes adds the kernel routes that are missing on the interface and removes those that are not wanted any more. The
// interface's own network and link-local addresses stay.
func (r *Router) setRoutes(routes []ipRoute) error {
	wanted := map[netip.Prefix]bool{}
	for _, route := range routes {
		if !route.prefix.Overlaps(r.cfg.Local) {
			wanted[route.prefix] = true
		}
	}
	present, err := listRoutes(r.index)
	if err != nil {
		return err
	}
	var problems []error
	for _, prefix := range present {
		switch {
		case prefix.Overlaps(r.cfg.Local), prefix.Addr().IsLinkLocalUnicast(), prefix.Addr().IsMulticast():
		case wanted[prefix]:
			delete(wanted, prefix)
		default:
			problems = append(problems, removeRoute(r.index, prefix))
		}
	}
	for prefix := range wanted {
		var gateway netip.Addr
		if prefix.Addr().Is4() {
			gateway = r.peer()
		}
		problems = append(problems, addRoute(r.index, prefix, gateway))
	}
	return errors.Join(problems...)
}
