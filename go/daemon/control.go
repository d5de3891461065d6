package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/control"
	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/identity"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/policy/access"
)

// controlService opens the listeners of one control-service directive. Closing what it returns ends the listeners;
// clients that are connected stay, with the rules
// of their time.
func (d *Daemon) controlService(s config.ControlService) (_ io.Closer, err error) {
	var open listeners
	defer func() {
		if err != nil {
			_ = open.Close()
		}
	}()
	var allow *access.Rules
	if s.Allow != nil {
		if allow, err = access.Compile(s.Allow); err != nil {
			return nil, err
		}
	}
	for _, e := range endpoints(s) {
		l, err := d.listenStream(e)
		if err != nil {
			return nil, err
		}
		open = append(open, l)
		kind := control.Unix
		if e.network == "tcp" {
			kind = control.TCP
			if l, err = d.controlTCP(s, l); err != nil {
				return nil, err
			}
		}
		d.serve(func() error { return d.Control.Serve(d.ctx, l, kind, control.Allow(allow)) })
	}
	if s.Service != "" {
		conf, err := d.serverStreamTLS(s.TLS)
		if err != nil {
			return nil, err
		}
		l, err := d.Node.ListenStream(s.Service, &netceptor.ServiceAd{Tags: map[string]string{"type": "Control Service"}}, conf)
		if err != nil {
			return nil, fmt.Errorf("error listening on Receptor network: %w", err)
		}
		open = append(open, l)
		d.serve(func() error { return d.Control.ServeMesh(d.ctx, l, control.Allow(allow)) })
	}
	d.log.Info("Running control service " + s.Service)
	return open, nil
}

// listeners close as one.
type listeners []io.Closer

func (l listeners) Close() (err error) {
	for _, c := range l {
		err = errors.Join(err, c.Close())
	}
	return err
}

// controlTCP is the TCP listener of a control service, with TLS if it names a profile.
func (d *Daemon) controlTCP(s config.ControlService, l net.Listener) (net.Listener, error) {
	profile, err := d.ServerProfile(s.TCPTLS)
	if err != nil {
		return nil, err
	}
	if s.TLS != "" && profile == nil {
		d.log.Warn(fmt.Sprintf("Control service %s has TLS configured on the Receptor listener but not the TCP listener.", s.Service))
	}
	a, isTCP := l.Addr().(*net.TCPAddr)
	if isTCP && !a.IP.IsLoopback() && (profile == nil || !profile.AsksClients()) {
		d.log.Warn("Control service accepts anyone who can reach its TCP address", "service", s.Service, "address", a.String())
	}
	if profile == nil {
		return l, nil
	}
	conf, err := d.serverTLS(s.TCPTLS, (*identity.ServerProfile).SocketConfig)
	if err != nil {
		return nil, err
	}
	return tls.NewListener(l, conf), nil
}

// session is what the control command of that name hands a connection to.
func (d *Daemon) session(opts Options) func(context.Context, *net.UnixConn) {
	if opts.Session == nil {
		return nil
	}
	return func(ctx context.Context, conn *net.UnixConn) { opts.Session(ctx, d, conn) }
}

// serve runs a control service that ends when the Daemon closes.
func (d *Daemon) serve(f func() error) {
	d.wg.Go(func() { d.runServer("Control service", f) })
}

// runServer runs a server to its end, and tells of one that is not the Daemon's.
func (d *Daemon) runServer(name string, f func() error) {
	if err := fault.Try(f); err != nil && d.ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
		d.log.Error(name+" ended", "err", err)
		fault.Log(d.log, err, name)
	}
}
