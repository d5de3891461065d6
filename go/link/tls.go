package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/socket"
)

const (
	tlsTimeout    = 15 * time.Second // For connect and handshake of a dialer, and for the handshake of a listener.
	maxHandshakes = 512              // Of one listener at a time; the oldest is given up for one more.
	acceptPause   = 50 * time.Millisecond
)

type tlsDialer struct {
	address string
	conf    *tls.Config
}

// DialTLS makes links over TLS to address, host:port, in 15 s each or not at all. The certificate must be for the host
// of the address, unless conf names another; a name (not an IP address) is also sent as SNI. No ALPN is sent.
func DialTLS(address string, conf *tls.Config) Dialer {
	return tlsDialer{address, forHost(conf, address)}
}

// forHost returns a copy of conf for links to address.
func forHost(conf *tls.Config, address string) *tls.Config {
	if conf = conf.Clone(); conf == nil {
		conf = &tls.Config{}
	}
	conf.NextProtos = nil
	if host, _, err := net.SplitHostPort(address); err == nil && conf.ServerName == "" {
		conf.ServerName, _, _ = strings.Cut(host, "%") // Without the zone of an IPv6 address.
	}
	return conf
}

func (d tlsDialer) String() string { return "tls " + d.address }

func (d tlsDialer) Dial(ctx context.Context) (Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, tlsTimeout)
	defer cancel()
	conn, err := d.handshake(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("dial tls %s: no connection and handshake in time: %w", d.address, err)
	}
	if err != nil {
		return nil, err
	}
	return NewStream(conn, "tls"), nil
}

func (d tlsDialer) handshake(ctx context.Context) (*tls.Conn, error) {
	raw, err := socket.Dialer().DialContext(ctx, "tcp", d.address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(newRecordConn(raw), d.conf)
	if err := shake(ctx, conn); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, nil
}

// shake makes the handshake. What the peer sends may find a bug: that ends this connection alone.
func shake(ctx context.Context, conn *tls.Conn) (err error) {
	defer fault.Into(&err)
	return explained(conn.HandshakeContext(ctx))
}

// explained says what an alert about a certificate means: this end has shown one that the other does not take.
func explained(err error) error {
	alert, ok := errors.AsType[*net.OpError](err)
	if !ok || alert.Op != "remote error" || !strings.Contains(alert.Err.Error(), "certificate") {
		return err
	}
	return fmt.Errorf("%w: the peer does not take the certificate of this node; its log says why", err)
}

type tlsListener struct{ *tlsAcceptor }

// ListenTLS accepts links over TLS on address, host:port. Handshakes run beside each other and have 15 s; a failed one
// is reported by Accept as a passing error. No ALPN is answered.
func ListenTLS(address string, conf *tls.Config) (Listener, error) {
	if conf == nil {
		return nil, fmt.Errorf("tls listener %s: no certificate", address)
	}
	l, err := socket.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	return tlsListener{newTLSAcceptor(l, conf)}, nil
}

func (l tlsListener) Accept() (Conn, error) {
	conn, err := l.accept()
	if err != nil {
		return nil, err
	}
	return NewStream(conn, "tls"), nil
}

// withALPN returns a copy of a listener's conf that answers these protocols and no others.
func withALPN(conf *tls.Config, protocols []string) *tls.Config {
	conf = conf.Clone()
	conf.NextProtos = protocols
	if choose := conf.GetConfigForClient; choose != nil {
		conf.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			c, err := choose(hello)
			if c != nil {
				c = c.Clone()
				c.NextProtos = protocols
			}
			return c, err
		}
	}
	return conf
}

// tlsAcceptor listens on TCP and hands out connections whose TLS handshake is done.
type tlsAcceptor struct {
	listener net.Listener
	conf     *tls.Config

	ready  chan *tls.Conn
	failed chan error // One slot: while nobody asks, the first failure stands for all.
	young  newest[net.Conn]

	ctx  context.Context
	stop context.CancelFunc
	once sync.Once
	wg   sync.WaitGroup
	err  error // Of closing.
}

func newTLSAcceptor(l net.Listener, conf *tls.Config, protocols ...string) *tlsAcceptor {
	a := &tlsAcceptor{
		listener: l, conf: withALPN(conf, protocols),
		ready: make(chan *tls.Conn), failed: make(chan error, 1), young: newest[net.Conn]{limit: maxHandshakes},
	}
	a.ctx, a.stop = context.WithCancel(context.Background())
	a.wg.Go(a.run)
	return a
}

func (a *tlsAcceptor) Addr() string { return a.listener.Addr().String() }

// accept prefers connections to failures: a stranger's failures must not delay others.
func (a *tlsAcceptor) accept() (*tls.Conn, error) {
	select {
	case conn := <-a.ready:
		return conn, nil
	default:
	}
	select {
	case conn := <-a.ready:
		return conn, nil
	case err := <-a.failed:
		return nil, err
	case <-a.ctx.Done():
		return nil, fmt.Errorf("tls listener %s: %w", a.Addr(), ErrClosed)
	}
}

func (a *tlsAcceptor) run() {
	for {
		conn, err := a.meet()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // Out of file descriptors, for example.
			a.report(err)
			select {
			case <-time.After(acceptPause):
			case <-a.ctx.Done():
			}
			continue
		}
		a.wg.Go(func() { a.handshake(conn) })
	}
}

// meet waits for the next connection, and makes room for it.
func (a *tlsAcceptor) meet() (conn net.Conn, err error) {
	defer fault.Into(&err)
	conn, err = a.listener.Accept()
	if err != nil {
		return nil, err
	}
	if old, full := a.young.add(conn); full {
		_ = old.Close()
	}
	return conn, nil
}

func (a *tlsAcceptor) handshake(conn net.Conn) {
	defer a.young.remove(conn)
	ctx, cancel := context.WithTimeout(a.ctx, tlsTimeout)
	defer cancel()
	secure := tls.Server(newRecordConn(conn), a.conf)
	if err := shake(ctx, secure); err != nil {
		_ = conn.Close()
		host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
		a.report(fmt.Errorf("tls handshake with %s: %w", host, err))
		return
	}
	select {
	case a.ready <- secure:
	case <-a.ctx.Done():
		_ = conn.Close()
	}
}

func (a *tlsAcceptor) report(err error) {
	select {
	case a.failed <- err:
	default:
	}
}

func (a *tlsAcceptor) Close() error {
	a.once.Do(func() {
		a.stop()
		a.err = a.listener.Close()
		a.wg.Wait()
	})
	return a.err
}
