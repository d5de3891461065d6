package daemon

import (
	"context"
	"fmt"
	"io"
	"net"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/identity"
	"github.com/pyreceptor/pyreceptor/go/service"
	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor/runner"
)

// tcpServer starts a proxy from a TCP port to a service in the mesh.
func (d *Daemon) tcpServer(s config.TCPServer) (io.Closer, error) {
	conf, err := d.serverTLS(s.TLSServer, (*identity.ServerProfile).SocketConfig)
	if err != nil {
		return nil, err
	}
	mesh, err := d.proxyMesh(s.TLSClient, "")
	if err != nil {
		return nil, err
	}
	l, err := d.listenStream(endpoints(s)[0])
	if err != nil {
		return nil, err
	}
	return keep(service.StartTCPServer(mesh, service.TCPServer{Listener: l, Node: s.RemoteNode, Service: s.RemoteService, TLS: conf}, d.area("services")))
}

// tcpClient starts a proxy from a service in the mesh to a TCP address.
func (d *Daemon) tcpClient(s config.TCPClient) (io.Closer, error) {
	host, _, err := net.SplitHostPort(s.Address)
	if err != nil {
		return nil, err
	}
	conf, err := d.clientTLS(s.TLSClient, host)
	if err != nil {
		return nil, err
	}
	mesh, err := d.proxyMesh("", s.TLSServer)
	if err != nil {
		return nil, err
	}
	return keep(service.StartTCPClient(mesh, service.TCPClient{Service: s.Service, Address: s.Address, TLS: conf}, d.area("services")))
}

// udpServer starts a proxy from a UDP port to a service in the mesh.
func (d *Daemon) udpServer(s config.UDPServer) (io.Closer, error) {
	socket, err := d.listenUDP(endpoints(s)[0])
	if err != nil {
		return nil, err
	}
	return keep(service.StartUDPServer(d.Node, service.UDPServer{Socket: socket, Node: s.RemoteNode, Service: s.RemoteService}, d.area("services")))
}

// unixServer starts a proxy from a Unix socket to a service in the mesh.
func (d *Daemon) unixServer(s config.UnixServer) (io.Closer, error) {
	mesh, err := d.proxyMesh(s.TLS, "")
	if err != nil {
		return nil, err
	}
	l, err := d.listenStream(endpoints(s)[0])
	if err != nil {
		return nil, err
	}
	return service.StartUnixServer(mesh, service.UnixServer{Listener: l, Node: s.RemoteNode, Service: s.RemoteService}, d.area("services")), nil
}

// unixClient starts a proxy from a service in the mesh to a Unix socket.
func (d *Daemon) unixClient(s config.UnixClient) (io.Closer, error) {
	mesh, err := d.proxyMesh("", s.TLS)
	if err != nil {
		return nil, err
	}
	return keep(service.StartUnixClient(mesh, service.UnixClient{Service: s.Service, Filename: s.Filename}, d.area("services")))
}

// commandService starts a service whose streams are terminals.
func (d *Daemon) commandService(s config.CommandService) (io.Closer, error) {
	mesh, err := d.proxyMesh("", s.TLS)
	if err != nil {
		return nil, err
	}
	args, err := commandLine(s)
	if err != nil {
		return nil, err
	}
	return keep(service.StartCommand(mesh, service.Command{Service: s.Service, Args: args}, d.area("services")))
}

func commandLine(s config.CommandService) ([]string, error) {
	args, err := runner.Split(s.Command)
	if err != nil {
		return nil, fmt.Errorf("command %q: %w", s.Command, err)
	}
	return args, nil
}

// ipRouter starts an interface of an IP network in the mesh.
func (d *Daemon) ipRouter(s config.IPRouter) (io.Closer, error) {
	router := service.IPRouter{Network: s.NetworkName, Interface: s.Interface, Local: s.LocalNet, Routes: s.Routes}
	return keep(service.StartIPRouter(d.Node, router, d.area("services")))
}

// keep is what the start of a service returned, without a nil pointer in an interface.
func keep[C io.Closer](c C, err error) (io.Closer, error) {
	if err != nil {
		return nil, err
	}
	return c, nil
}

// proxyMesh is the node as proxies see it, with the TLS profiles of their side in the mesh; "" for none.
func (d *Daemon) proxyMesh(tlsClient, tlsServer string) (service.Mesh, error) {
	if _, err := d.ClientProfile(tlsClient); err != nil {
		return nil, err
	}
	conf, err := d.serverStreamTLS(tlsServer)
	if err != nil {
		return nil, err
	}
	return profiledMesh{service.OnNodeTLS(d.Node, nil, conf), d, tlsClient}, nil
}

// profiledMesh dials with a TLS profile as it is at that time.
type profiledMesh struct {
	service.Mesh
	daemon    *Daemon
	tlsClient string
}

func (m profiledMesh) DialStream(ctx context.Context, node wire.NodeID, name string) (service.Stream, error) {
	s, err := m.daemon.openStream(ctx, node, name, m.tlsClient)
	if err != nil {
		return nil, err // Not a nil *Stream in an interface.
	}
	return s, nil
}
