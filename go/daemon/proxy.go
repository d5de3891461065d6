package daemon

import (
	"fmt"
	"io"
	"net"
	"strconv"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/control"
	"github.com/pyreceptor/pyreceptor/go/service"
	"github.com/pyreceptor/pyreceptor/go/workceptor/runner"
)

// tcpServer starts a proxy from a TCP port to a service in the mesh.
func (d *Daemon) tcpServer(s config.TCPServer) error {
	proxy := service.TCPServer{
		Address: net.JoinHostPort(s.BindAddr, strconv.Itoa(s.Port)), Node: s.RemoteNode, Service: s.RemoteService,
	}
	server, err := d.ServerProfile(s.TLSServer)
	if err != nil {
		return err
	}
	if server != nil {
		proxy.TLS = server.SocketConfig()
	}
	client, err := d.clientStreamTLS(s.TLSClient, s.RemoteNode)
	if err != nil {
		return err
	}
	return d.keep(service.StartTCPServer(service.OnNodeTLS(d.Node, client, nil), proxy, d.log))
}

// tcpClient starts a proxy from a service in the mesh to a TCP address.
func (d *Daemon) tcpClient(s config.TCPClient) error {
	proxy := service.TCPClient{Service: s.Service, Address: s.Address}
	client, err := d.ClientProfile(s.TLSClient)
	if err != nil {
		return err
	}
	if client != nil {
		host, _, err := net.SplitHostPort(s.Address)
		if err != nil {
			return err
		}
		proxy.TLS = client.LinkConfig(host)
	}
	server, err := d.serverStreamTLS(s.TLSServer)
	if err != nil {
		return err
	}
	return d.keep(service.StartTCPClient(service.OnNodeTLS(d.Node, nil, server), proxy, d.log))
}

// udpServer starts a proxy from a UDP port to a service in the mesh.
func (d *Daemon) udpServer(s config.UDPServer) error {
	proxy := service.UDPServer{Address: net.JoinHostPort(s.BindAddr, strconv.Itoa(s.Port)), Node: s.RemoteNode, Service: s.RemoteService}
	return d.keep(service.StartUDPServer(d.Node, proxy, d.log))
}

// unixServer starts a proxy from a Unix socket to a service in the mesh.
func (d *Daemon) unixServer(s config.UnixServer) error {
	client, err := d.clientStreamTLS(s.TLS, s.RemoteNode)
	if err != nil {
		return err
	}
	l, err := control.ListenUnix(s.Filename, s.Permissions)
	if err != nil {
		return fmt.Errorf("error opening Unix socket: %w", err)
	}
	proxy := service.UnixServer{Listener: l, Node: s.RemoteNode, Service: s.RemoteService}
	d.opened(service.StartUnixServer(service.OnNodeTLS(d.Node, client, nil), proxy, d.log))
	return nil
}

// unixClient starts a proxy from a service in the mesh to a Unix socket.
func (d *Daemon) unixClient(s config.UnixClient) error {
	server, err := d.serverStreamTLS(s.TLS)
	if err != nil {
		return err
	}
	proxy := service.UnixClient{Service: s.Service, Filename: s.Filename}
	return d.keep(service.StartUnixClient(service.OnNodeTLS(d.Node, nil, server), proxy, d.log))
}

// commandService starts a service whose streams are terminals.
func (d *Daemon) commandService(s config.CommandService) error {
	server, err := d.serverStreamTLS(s.TLS)
	if err != nil {
		return err
	}
	args, err := runner.Split(s.Command)
	if err != nil {
		return fmt.Errorf("command %q: %w", s.Command, err)
	}
	return d.keep(service.StartCommand(service.OnNodeTLS(d.Node, nil, server), service.Command{Service: s.Service, Args: args}, d.log))
}

// ipRouter starts an interface of an IP network in the mesh.
func (d *Daemon) ipRouter(s config.IPRouter) error {
	router := service.IPRouter{Network: s.NetworkName, Interface: s.Interface, Local: s.LocalNet, Routes: s.Routes}
	return d.keep(service.StartIPRouter(d.Node, router, d.log))
}

// keep takes what the start of a service returns.
func (d *Daemon) keep(s io.Closer, err error) error {
	if err == nil {
		d.opened(s)
	}
	return err
}
