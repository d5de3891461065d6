package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/control"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
)

// controlService opens the listeners of one control-service directive.
func (d *Daemon) controlService(s config.ControlService) error {
	if s.Filename != "" {
		l, err := control.ListenUnix(s.Filename, s.Permissions)
		if err != nil {
			return fmt.Errorf("error opening Unix socket: %w", err)
		}
		d.serve(func() error { return d.Control.Serve(d.ctx, l, control.Unix) })
	}
	if s.TCPListen != "" {
		l, err := d.controlTCP(s)
		if err != nil {
			return err
		}
		d.serve(func() error { return d.Control.Serve(d.ctx, l, control.TCP) })
	}
	if s.Service != "" {
		conf, err := d.serverStreamTLS(s.TLS)
		if err != nil {
			return err
		}
		l, err := d.Node.ListenStream(s.Service, &netceptor.ServiceAd{Tags: map[string]string{"type": "Control Service"}}, conf)
		if err != nil {
			return fmt.Errorf("error listening on Receptor network: %w", err)
		}
		d.serve(func() error { return d.Control.ServeMesh(d.ctx, l) })
	}
	d.log.Info("Running control service " + s.Service)
	return nil
}

// controlTCP opens the TCP listener of a control service, with TLS if it names a profile.
func (d *Daemon) controlTCP(s config.ControlService) (net.Listener, error) {
	profile, err := d.ServerProfile(s.TCPTLS)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", s.TCPListen)
	if err != nil {
		return nil, fmt.Errorf("error listening on TCP socket: %w", err)
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
	return tls.NewListener(l, profile.SocketConfig()), nil
}

// session is what the control command of that name hands a connection to.
func (d *Daemon) session(opts Options) func(context.Context, *net.UnixConn) {
	if opts.Session == nil {
		return nil
	}
	return func(ctx context.Context, conn *net.UnixConn) { opts.Session(ctx, d, conn) }
}

// serve runs a server that ends when the Daemon closes.
func (d *Daemon) serve(f func() error) {
	d.wg.Go(func() {
		if err := f(); err != nil && d.ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
			d.log.Error("Control service ended", "err", err)
		}
	})
}

var errNoReload = errors.New("this daemon does not read its configuration again while it runs: restart it (work units go on)")

// reload is what the control command of that name does: say that it is not offered, or, without a configuration file,
// let the control service say so.
func (d *Daemon) reload() func(context.Context) error {
	for _, directive := range d.cfg.Directives {
		if directive.Pos.File != "" {
			return func(context.Context) error { return &control.ReloadError{Code: 4, Err: errNoReload} }
		}
	}
	return nil
}
