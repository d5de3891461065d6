package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/socket"
)

const (
	headerTimeout   = 5 * time.Second  // For the header of a request.
	requestTimeout  = 10 * time.Second // For all of it, and for the answer.
	maxHeaderBytes  = 64 << 10
	maxHTTPRequests = 512 // At a time, those that became links not counted; the oldest is given up for one more.
)

type webSocketListener struct {
	listener net.Listener
	path     string
	server   *http.Server
	upgrader websocket.Upgrader

	ready  chan Conn
	failed chan error // One slot.
	young  newest[net.Conn]

	mu     sync.Mutex // Nothing joins wg once closed is true.
	closed bool
	wg     sync.WaitGroup

	ctx  context.Context
	stop context.CancelFunc
	once sync.Once
	err  error // Of closing.
}

// ListenWebSocket accepts links over WebSocket on address, host:port, with TLS if conf is not nil. path is what requests
// must ask for: "/" admits every path, one that ends in a slash everything below it, any other exactly itself. A request
// that comes from a web page (it has an Origin) must come from a page of the same host and port.
func ListenWebSocket(address, path string, conf *tls.Config) (Listener, error) {
	if !strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf("websocket listener %s: path %q must begin with /", address, path)
	}
	tcp, err := socket.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	return ServeWebSocket(tcp, path, conf)
}

// ServeWebSocket accepts links over WebSocket on a listener that somebody else has opened; it owns tcp from then on. path
// and conf are those of [ListenWebSocket].
func ServeWebSocket(tcp net.Listener, path string, conf *tls.Config) (Listener, error) {
	if !strings.HasPrefix(path, "/") {
		_ = tcp.Close()
		return nil, fmt.Errorf("websocket listener %s: path %q must begin with /", tcp.Addr(), path)
	}
	l := &webSocketListener{
		path:  path,
		ready: make(chan Conn), failed: make(chan error, 1), young: newest[net.Conn]{limit: maxHTTPRequests},
	}
	l.listener = tellingListener{tcp, l.report}
	if conf != nil {
		l.listener = secureListener{newTLSAcceptor(tcp, conf, "http/1.1"), l.report}
	}
	l.ctx, l.stop = context.WithCancel(context.Background())
	l.upgrader = websocket.Upgrader{
		HandshakeTimeout: headerTimeout,
		ReadBufferSize:   webSocketBuffer,
		WriteBufferSize:  minReadBuffer,
		CheckOrigin:      sameOrigin,
		Error:            refuse,
	}
	l.server = &http.Server{
		Handler:                      http.HandlerFunc(l.serve),
		ReadHeaderTimeout:            headerTimeout,
		ReadTimeout:                  requestTimeout,
		WriteTimeout:                 requestTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		ErrorLog:                     log.New(io.Discard, "", 0),
		ConnState:                    l.track,
		TLSNextProto:                 map[string]func(*http.Server, *tls.Conn, http.Handler){}, // No HTTP/2.
		DisableGeneralOptionsHandler: true,
	}
	l.server.SetKeepAlivesEnabled(false)
	l.wg.Go(func() {
		if err := fault.Try(func() error { return l.server.Serve(l.listener) }); !errors.Is(err, http.ErrServerClosed) {
			l.report(err)
		}
	})
	return l, nil
}

// tellingListener tells why nothing can be accepted, file descriptors that have run out, say. The HTTP server says
// nothing and tries again by itself, after a rest.
type tellingListener struct {
	net.Listener
	report func(error)
}

func (t tellingListener) Accept() (net.Conn, error) {
	conn, err := t.Listener.Accept()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		t.report(err)
	}
	return conn, err
}

// secureListener is a TLS acceptor as the HTTP server wants it: what goes wrong with one connection is told elsewhere.
type secureListener struct {
	*tlsAcceptor
	report func(error)
}

func (s secureListener) Addr() net.Addr { return s.listener.Addr() }

func (s secureListener) Accept() (net.Conn, error) {
	for {
		conn, err := s.accept()
		switch {
		case err == nil:
			return conn, nil
		case errors.Is(err, ErrClosed):
			return nil, net.ErrClosed
		}
		s.report(err)
	}
}

func (l *webSocketListener) report(err error) {
	select {
	case l.failed <- err:
	default:
	}
}

// track bounds the connections that are not links yet.
func (l *webSocketListener) track(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if old, full := l.young.add(conn); full {
			_ = hangUp(old)
		}
	case http.StateHijacked, http.StateClosed:
		l.young.remove(conn)
	}
}

func (l *webSocketListener) serve(w http.ResponseWriter, r *http.Request) {
	defer fault.Catch(func(e *fault.Error) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		l.report(fmt.Errorf("websocket request of %s: %w", host, e))
		panic(http.ErrAbortHandler) // The server closes the connection.
	})
	switch {
	case !l.serves(r.URL.Path):
		refuse(w, r, http.StatusNotFound, errors.New("no WebSocket on this path"))
		return
	case r.Method != http.MethodGet:
		refuse(w, r, http.StatusMethodNotAllowed, errors.New("a WebSocket is asked for by GET"))
		return
	}
	if !l.join() {
		return
	}
	defer l.wg.Done()
	ws, err := l.upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // Answered already.
	}
	conn := newWebSocketConn(ws, false)
	select {
	case l.ready <- conn:
	case <-l.ctx.Done():
		_ = conn.Close()
	}
}

// join makes Close wait for one more; false if it is too late.
func (l *webSocketListener) join() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.wg.Add(1)
	return true
}

func (l *webSocketListener) serves(path string) bool {
	return path == l.path || strings.HasSuffix(l.path, "/") && strings.HasPrefix(path, l.path)
}

func refuse(w http.ResponseWriter, _ *http.Request, status int, reason error) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now()) // Nobody waits for a body.
	header := w.Header()
	switch status {
	case http.StatusMethodNotAllowed:
		header.Set("Allow", http.MethodGet)
	case http.StatusBadRequest:
		header.Set("Sec-Websocket-Version", "13")
	}
	http.Error(w, http.StatusText(status)+": "+strings.TrimPrefix(reason.Error(), "websocket: "), status)
}

// sameOrigin admits programs, which send no Origin or their own address, and pages that came from this very address.
func sameOrigin(r *http.Request) bool {
	origins := r.Header["Origin"]
	if len(origins) == 0 {
		return true
	}
	u, err := url.Parse(origins[0])
	return err == nil && len(origins) == 1 && strings.EqualFold(u.Host, r.Host)
}

func (l *webSocketListener) Addr() string { return l.listener.Addr().String() }

func (l *webSocketListener) Accept() (Conn, error) {
	select {
	case conn := <-l.ready:
		return conn, nil
	default:
	}
	select {
	case conn := <-l.ready:
		return conn, nil
	case err := <-l.failed:
		return nil, err
	case <-l.ctx.Done():
		return nil, fmt.Errorf("websocket listener %s: %w", l.Addr(), ErrClosed)
	}
}

// Close ends the listener and the requests that are under way; links go on.
func (l *webSocketListener) Close() error {
	l.once.Do(func() {
		l.mu.Lock()
		l.closed = true
		l.mu.Unlock()
		l.stop()
		l.err = l.server.Close()
		l.wg.Wait()
	})
	return l.err
}
