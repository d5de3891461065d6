package daemon

import (
	"net"
	"strconv"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/service"
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
	return d.proxy(service.StartTCPServer(service.OnNodeTLS(d.Node, client, nil), proxy, d.log))
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
	return d.proxy(service.StartTCPClient(service.OnNodeTLS(d.Node, nil, server), proxy, d.log))
}

func (d *Daemon) proxy(p *service.Proxy, err error) error {
	if err != nil {
		return err
	}
	d.opened(p)
	return nil
}
