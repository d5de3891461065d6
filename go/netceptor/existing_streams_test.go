package netceptor

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// The tests of this file open and accept streams as an existing node does: with the QUIC library alone, one connection
// per stream, and nothing of package netceptor but a datagram socket for the packets.

// existing is the QUIC endpoint of an existing node.
type existing struct {
	t      *testing.T
	socket *countingSocket
	tr     *quic.Transport
}

// countingSocket notes the sizes of packets and refuses those that an existing node would cut off.
type countingSocket struct {
	quicSocket
	mu             sync.Mutex
	sent, received []int
}

func (s *countingSocket) WriteTo(p []byte, to net.Addr) (int, error) {
	s.mu.Lock()
	s.sent = append(s.sent, len(p))
	s.mu.Unlock()
	return s.quicSocket.WriteTo(p, to)
}

func (s *countingSocket) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		n, from, err := s.quicSocket.ReadFrom(p)
		s.mu.Lock()
		s.received = append(s.received, n)
		s.mu.Unlock()
		if err != nil || n <= 1452 {
			return n, from, err
		}
	}
}

// ethernetPayload is what a frame of 1500 bytes leaves behind the headers of IPv6, UDP and a mesh packet. It is less than
// the 1452 bytes that an existing node takes.
const ethernetPayload = 1500 - 40 - 8 - wire.HeaderSize

func (s *countingSocket) sizes() (sent, received []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.sent), slices.Clone(s.received)
}

func existingOn(t *testing.T, n *Node, service string) *existing {
	t.Helper()
	pc, err := n.ListenPacket(service, nil)
	if err != nil {
		t.Fatal(err)
	}
	socket := &countingSocket{quicSocket: newPlainSocket(pc)}
	e := &existing{t: t, socket: socket, tr: &quic.Transport{Conn: socket, ConnectionIDLength: 4}}
	t.Cleanup(func() { _ = pc.Close(); _ = e.tr.Close() })
	return e
}

// existingQUIC is what existing nodes are seen to use.
func existingQUIC() *quic.Config {
	return &quic.Config{
		Versions:                []quic.Version{quic.Version1},
		HandshakeIdleTimeout:    15 * time.Second,
		MaxIdleTimeout:          30 * time.Second,
		InitialPacketSize:       1200,
		DisablePathMTUDiscovery: true,
	}
}

// existingClient is the TLS side of a dialler without a profile.
func existingClient(id string) *tls.Config {
	return &tls.Config{
		ServerName: id, InsecureSkipVerify: true, NextProtos: []string{"netceptor"}, MinVersion: tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521},
		VerifyPeerCertificate: func(certs [][]byte, _ [][]*x509.Certificate) error {
			for _, der := range certs {
				if c, err := x509.ParseCertificate(der); err == nil && c.Subject.CommonName == "netceptor-insecure-common-name" {
					return nil
				}
			}
			return errors.New("insecure connection to secure service")
		},
	}
}

// certificate is a self-signed one as listeners without a profile have it.
func certificate(t *testing.T, name string, key crypto.Signer) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func rsaKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func ecKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func existingServer(cert tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"netceptor"}, MinVersion: tls.VersionTLS13}
}

// dial opens a connection to a service as existing nodes do, but for what conf and qconf say.
func (e *existing) dial(to Addr, conf *tls.Config, qconf *quic.Config) (*quic.Conn, error) {
	if conf == nil {
		conf = existingClient("old")
	}
	if qconf == nil {
		qconf = existingQUIC()
		qconf.KeepAlivePeriod = 15 * time.Second
	}
	return e.tr.Dial(e.t.Context(), quicAddrOf(to), conf, qconf)
}

func (e *existing) open(to Addr, first ...byte) (*quic.Conn, *quic.Stream) {
	e.t.Helper()
	qc, err := e.dial(to, nil, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	qs, err := qc.OpenStream()
	if err != nil {
		e.t.Fatal(err)
	}
	if _, err := qs.Write(first); err != nil {
		e.t.Fatal(err)
	}
	return qc, qs
}

// wantClose waits for the peer's CONNECTION_CLOSE.
func wantClose(t *testing.T, qc *quic.Conn, code quic.ApplicationErrorCode, reason string) {
	t.Helper()
	<-qc.Context().Done()
	app, ok := errors.AsType[*quic.ApplicationError](context.Cause(qc.Context()))
	if !ok || !app.Remote || app.ErrorCode != code || app.ErrorMessage != reason {
		t.Errorf("the connection ended with %v, want application error %d %q of the peer", context.Cause(qc.Context()), code, reason)
	}
}

// wantLetGo waits until our end of a finished stream keeps nothing. The peer, which may still have to read, is not told.
func wantLetGo(t *testing.T, s *Stream, peer *quic.Conn) {
	t.Helper()
	<-s.qc.Context().Done()
	if err := peer.Context().Err(); err != nil {
		t.Errorf("the peer's end is over: %v", context.Cause(peer.Context()))
	}
}

// wantEOF reads to the end.
func wantEOF(t *testing.T, r io.Reader, text string) {
	t.Helper()
	if got, err := io.ReadAll(r); err != nil || string(got) != text {
		t.Errorf("read %.100q, %v; want %.100q and a clean end", got, err, text)
	}
}

// oldAndNew are a node on which tests play an existing one and a node of ours, linked.
func oldAndNew(t *testing.T) (old, ours *Node) {
	t.Helper()
	nodes := chain(t, "old", "new")
	return nodes[0], nodes[1]
}

func listenStream(t *testing.T, n *Node, service string) *StreamListener {
	t.Helper()
	ln, err := n.ListenStream(service, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

func accept(t *testing.T, ln *StreamListener) *Stream {
	t.Helper()
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestExistingNodeDials(t *testing.T) {
	old, ours := oldAndNew(t)
	to := Addr{"new", "svc"}
	ln := listenStream(t, ours, "svc")
	e := existingOn(t, old, "")

	t.Run("the listener speaks first and both half-close", func(t *testing.T) {
		qc, qs := e.open(to, 0)
		s := accept(t, ln)
		if s.RemoteAddr().String() != "old:"+e.socket.Service() {
			t.Errorf("the stream comes from %v, want old:%s", s.RemoteAddr(), e.socket.Service())
		}
		if p := qc.ConnectionState().TLS; p.NegotiatedProtocol != "netceptor" || p.Version != tls.VersionTLS13 || qs.StreamID() != 0 || p.HelloRetryRequest {
			t.Errorf("protocol %q, TLS %x, stream %d, asked back: %v", p.NegotiatedProtocol, p.Version, qs.StreamID(), p.HelloRetryRequest)
		}
		_, _ = io.WriteString(s, "Receptor Control\n")
		greeting := make([]byte, 17)
		if _, err := io.ReadFull(qs, greeting); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(qs, "question")
		_ = qs.Close()
		wantEOF(t, s, "question") // The opening byte is no data, and the FIN is an end.
		_, _ = io.WriteString(s, "answer after the peer's FIN")
		_ = s.Close()
		wantLetGo(t, s, qc)
		wantEOF(t, qs, "answer after the peer's FIN")
	})
	t.Run("data in the packet of the opening byte", func(t *testing.T) {
		_, qs := e.open(to, append([]byte{0}, "at once"...)...)
		_ = qs.Close()
		s := accept(t, ln)
		wantEOF(t, s, "at once")
		_ = s.Close()
	})
	t.Run("normal close is a clean end", func(t *testing.T) {
		qc, qs := e.open(to, append([]byte{0}, "all there is"...)...)
		s := accept(t, ln)
		got := make([]byte, 12)
		if _, err := io.ReadFull(s, got); err != nil {
			t.Fatal(err)
		}
		_ = qs
		_ = qc.CloseWithError(0, "normal close")
		if n, err := s.Read(got); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("read %d, %v after a normal close; want a clean end", n, err)
		}
		_ = s.Close()
	})
	t.Run("another close is an error", func(t *testing.T) {
		qc, _ := e.open(to, 0)
		s := accept(t, ln)
		_ = qc.CloseWithError(7, "something else")
		_, err := s.Read(make([]byte, 1))
		if reset, ok := errors.AsType[*ResetError](err); !ok || reset.Code != 7 || !reset.Remote {
			t.Errorf("read: %v, want a reset by the peer with code 7", err)
		}
	})
	t.Run("stopped reading", func(t *testing.T) {
		_, qs := e.open(to, 0)
		s := accept(t, ln)
		qs.CancelRead(499)
		_, err := s.Write(make([]byte, 1<<20))
		for err == nil {
			_, err = s.Write(make([]byte, 1<<20))
		}
		if reset, ok := errors.AsType[*ResetError](err); !ok || reset.Code != 499 {
			t.Errorf("write: %v, want a reset with code 499", err)
		}
		_ = s.Close()
	})
	t.Run("our side stops reading", func(t *testing.T) {
		_, qs := e.open(to, 0)
		s := accept(t, ln)
		_ = s.CloseRead()
		_, err := qs.Write(make([]byte, 1<<20))
		for err == nil {
			_, err = qs.Write(make([]byte, 1<<20))
		}
		if stop, ok := errors.AsType[*quic.StreamError](err); !ok || stop.ErrorCode != 499 {
			t.Errorf("the peer's write: %v, want STOP_SENDING with 499", err)
		}
		_ = s.Close()
	})
	t.Run("wrong opening byte", func(t *testing.T) {
		qc, _ := e.open(to, 1)
		wantClose(t, qc, 500, "Read Data Error")
	})
	t.Run("no opening byte", func(t *testing.T) {
		qc, err := e.dial(to, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		qs, err := qc.OpenStream()
		if err != nil {
			t.Fatal(err)
		}
		_ = qs.Close()
		wantClose(t, qc, 500, "Read Error: EOF")
	})
	t.Run("service closes", func(t *testing.T) {
		short := listenStream(t, ours, "short")
		qc, qs := e.open(Addr{"new", "short"}, 0)
		s := accept(t, short) // Stays; the next one is not accepted.
		waiting, _ := e.open(Addr{"new", "short"}, 0)
		short.accept <- accept(t, short) // It has arrived, and waits again.
		_ = short.Close()
		wantClose(t, waiting, 500, "Listener Closed")
		_, _ = io.WriteString(s, "still here")
		_ = s.Close()
		wantEOF(t, qs, "still here")
		_ = qc.CloseWithError(0, "normal close")
	})
	t.Run("further streams disturb nothing", func(t *testing.T) {
		qc, qs := e.open(to, 0)
		s := accept(t, ln)
		more, err := qc.OpenStream()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = more.Write([]byte{0})
		_, _ = io.WriteString(qs, "first stream")
		_ = qs.Close()
		wantEOF(t, s, "first stream")
		_ = s.Close()
	})
}

// TestExistingNodeDialsOtherwise: variations that existing nodes accept.
func TestExistingNodeDialsOtherwise(t *testing.T) {
	old, ours := oldAndNew(t)
	to := Addr{"new", "echo"}
	echoOn(t, ours, "echo")
	client := func(change func(*tls.Config)) *tls.Config {
		c := existingClient("old")
		change(c)
		return c
	}
	transport := func(change func(*quic.Config)) *quic.Config {
		c := existingQUIC()
		change(c)
		return c
	}
	size := func(n uint16) *quic.Config { return transport(func(c *quic.Config) { c.InitialPacketSize = n }) }
	cases := []struct {
		name    string
		conf    *tls.Config
		qconf   *quic.Config
		largest int // Packet.
		first   int // Packets that the ClientHello takes.
	}{
		{"1200 bytes", nil, size(1200), 1200, 1},
		{"1280 bytes", nil, size(1280), 1280, 1},
		{"1452 bytes", nil, size(1452), 1452, 1},
		{"version 2", nil, transport(func(c *quic.Config) { c.Versions = []quic.Version{quic.Version2} }), 1200, 1},
		{"post-quantum key share", client(func(c *tls.Config) {
			c.CurvePreferences = []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256}
		}), nil, 1200, 2},
		{"P-256 only", client(func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP256} }), nil, 1200, 1},
		{"protocol not the first", client(func(c *tls.Config) { c.NextProtos = []string{"h3", "something", "netceptor"} }), nil, 1200, 1},
		{"no server name", client(func(c *tls.Config) { c.ServerName = "" }), nil, 1200, 1},
		{"a node ID that is no host name", client(func(c *tls.Config) { c.ServerName = "charlie-é_1:x" }), nil, 1200, 1},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			e := existingOn(t, old, "")
			qc, err := e.dial(to, c.conf, c.qconf)
			if err != nil {
				t.Fatal(err)
			}
			if p := qc.ConnectionState().TLS.NegotiatedProtocol; p != "netceptor" {
				t.Errorf("protocol %q was chosen, want netceptor", p)
			}
			qs, err := qc.OpenStream()
			if err != nil {
				t.Fatal(err)
			}
			text := strings.Repeat("0123456789abcdef", 20_000)
			go func() {
				_, _ = qs.Write(append([]byte{0}, text...))
				_ = qs.Close()
			}()
			wantEOF(t, qs, text)
			sent, received := e.socket.sizes()
			if slices.Max(sent) != c.largest {
				t.Errorf("the dialler sent packets of up to %d bytes, want %d", slices.Max(sent), c.largest)
			}
			if slices.Max(received) > ethernetPayload {
				t.Errorf("our node sent a packet of %d bytes, which a UDP link has to fragment over %d", slices.Max(received), ethernetPayload)
			}
			if first := min(len(sent), c.first); slices.Min(sent[:first]) < c.largest {
				t.Errorf("the first packets have %v bytes, want %d of %d", sent[:first], c.first, c.largest)
			}
		})
	}
	t.Run("another protocol is refused", func(t *testing.T) {
		_, err := existingOn(t, old, "").dial(to, client(func(c *tls.Config) { c.NextProtos = []string{"h3"} }), nil)
		if alert, ok := errors.AsType[*quic.TransportError](err); !ok || alert.ErrorCode != 0x178 || !alert.Remote {
			t.Errorf("dial: %v, want CRYPTO_ERROR 0x178", err)
		}
	})
}

// TestExistingNodeDialsAndIsSilent: after 60 s without a stream the connection is refused.
func TestExistingNodeDialsAndIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t)
		defer s.close()
		old, ours := s.add("old"), s.add("new")
		s.link("old", "new", 1)
		s.settle("start", 5*time.Second)
		ln, err := ours.ListenStream("svc", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		pc, err := old.ListenPacket("", nil)
		if err != nil {
			t.Fatal(err)
		}
		tr := &quic.Transport{Conn: newQUICSocket(pc), ConnectionIDLength: 4}
		defer tr.Close()
		defer pc.Close()
		qconf := existingQUIC()
		qconf.KeepAlivePeriod = 15 * time.Second
		start := time.Now()
		qc, err := tr.Dial(t.Context(), quicAddrOf(Addr{"new", "svc"}), existingClient("old"), qconf)
		if err != nil {
			t.Fatal(err)
		}
		wantClose(t, qc, 500, "Accept Timeout")
		if took := time.Since(start); took < 60*time.Second || took > 61*time.Second {
			t.Errorf("the connection was refused after %v, want 60 s", took)
		}
	})
}

// listen accepts one connection as an existing node does.
func (e *existing) listen(conf *tls.Config, qconf *quic.Config) <-chan *quic.Conn {
	e.t.Helper()
	if qconf == nil {
		qconf = existingQUIC()
	}
	ln, err := e.tr.Listen(conf, qconf)
	if err != nil {
		e.t.Fatal(err)
	}
	conns := make(chan *quic.Conn, 10)
	go func() {
		for {
			qc, err := ln.Accept(context.Background()) // Ends with the transport.
			if err != nil {
				return
			}
			conns <- qc
		}
	}()
	return conns
}

// first takes the stream that the dialler opens and its opening byte.
func first(t *testing.T, qc *quic.Conn) *quic.Stream {
	t.Helper()
	qs, err := qc.AcceptStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := io.ReadFull(qs, b[:]); err != nil || b[0] != 0 || qs.StreamID() != 0 {
		t.Fatalf("stream %d opens with %x, %v; want a zero byte on stream 0", qs.StreamID(), b, err)
	}
	return qs
}

func TestExistingNodeListens(t *testing.T) {
	old, ours := oldAndNew(t)
	key := rsaKey(t)
	cert := certificate(t, "netceptor-insecure-common-name", key)
	conf := existingServer(cert)
	var hello *tls.ClientHelloInfo
	conf.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		hello = h
		return nil, nil
	}
	e := existingOn(t, old, "svc")
	conns := e.listen(conf, nil)
	dial := func(t *testing.T) (*Stream, *quic.Conn, *quic.Stream) {
		t.Helper()
		s, err := ours.DialStream(t.Context(), "old", "svc", nil)
		if err != nil {
			t.Fatal(err)
		}
		qc := <-conns
		return s, qc, first(t, qc)
	}
	t.Run("the listener speaks first and both half-close", func(t *testing.T) {
		s, qc, qs := dial(t)
		if !slices.Contains(hello.SupportedProtos, "netceptor") || hello.ServerName != "new" || slices.Min(hello.SupportedVersions) < tls.VersionTLS13 {
			t.Errorf("the dialler offers %q to %q, TLS %x", hello.SupportedProtos, hello.ServerName, hello.SupportedVersions)
		}
		if !slices.Contains(hello.SupportedCurves, tls.CurveP256) {
			t.Errorf("the dialler's curves are %v, without P-256", hello.SupportedCurves)
		}
		if state := qc.ConnectionState().TLS; state.HelloRetryRequest || state.CurveID != tls.CurveP256 {
			t.Errorf("the key exchange is %v, asked back: %v; want P-256 at once", state.CurveID, state.HelloRetryRequest)
		}
		_, _ = io.WriteString(qs, "Receptor Control\n")
		greeting := make([]byte, 17)
		if _, err := io.ReadFull(s, greeting); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(s, "question")
		_ = s.CloseWrite()
		wantEOF(t, qs, "question")
		_, _ = io.WriteString(qs, "answer after the peer's FIN")
		_ = qs.Close()
		wantEOF(t, s, "answer after the peer's FIN")
		_ = s.Close()
		wantLetGo(t, s, qc)
	})
	t.Run("who has nothing to read is told of the end", func(t *testing.T) {
		s, qc, _ := dial(t)
		_ = s.Close()
		wantClose(t, qc, 0, "normal close")
	})
	t.Run("normal close is a clean end", func(t *testing.T) {
		s, qc, qs := dial(t)
		_, _ = io.WriteString(qs, "all there is")
		got := make([]byte, 12)
		if _, err := io.ReadFull(s, got); err != nil {
			t.Fatal(err)
		}
		_ = qc.CloseWithError(0, "normal close")
		if n, err := s.Read(got); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("read %d, %v after a normal close; want a clean end", n, err)
		}
	})
	for code, reason := range map[quic.ApplicationErrorCode]string{500: "Accept Timeout", 501: "other"} {
		t.Run(fmt.Sprintf("close with %d is an error", code), func(t *testing.T) {
			s, qc, _ := dial(t)
			_ = qc.CloseWithError(code, reason)
			_, err := s.Read(make([]byte, 1))
			if reset, ok := errors.AsType[*ResetError](err); !ok || reset.Code != uint64(code) || !reset.Remote {
				t.Errorf("read: %v, want a reset by the peer with code %d", err, code)
			}
		})
	}
	t.Run("our side stops reading", func(t *testing.T) {
		s, _, qs := dial(t)
		_ = s.CloseRead()
		_, err := qs.Write(make([]byte, 1<<20))
		for err == nil {
			_, err = qs.Write(make([]byte, 1<<20))
		}
		if stop, ok := errors.AsType[*quic.StreamError](err); !ok || stop.ErrorCode != 499 {
			t.Errorf("the listener's write: %v, want STOP_SENDING with 499", err)
		}
		_ = s.Close()
	})
	t.Run("a connection for each stream", func(t *testing.T) {
		one, a, _ := dial(t)
		two, b, _ := dial(t)
		if a == b || one.LocalAddr() == two.LocalAddr() {
			t.Errorf("two streams share a connection from %v", one.LocalAddr())
		}
		_, _ = one.Close(), two.Close()
	})
	sent, received := e.socket.sizes()
	if slices.Max(sent) > 1200 || slices.Max(received) > ethernetPayload {
		t.Errorf("packets of up to %d bytes came, of %d went; want at most %d and 1200", slices.Max(received), slices.Max(sent), ethernetPayload)
	}
}

func TestExistingNodeListensOtherwise(t *testing.T) {
	old, ours := oldAndNew(t)
	good := "netceptor-insecure-common-name"
	refused := errNotInsecure
	cases := []struct {
		name  string
		cert  tls.Certificate
		size  uint16
		proto string
		want  error
		alert quic.TransportErrorCode
	}{
		{"RSA 1280", certificate(t, good, rsaKey(t)), 1280, "netceptor", nil, 0},
		{"EC 1452", certificate(t, good, ecKey(t)), 1452, "netceptor", nil, 0},
		{"another name", certificate(t, "old", rsaKey(t)), 1200, "netceptor", refused, 0x12a},
		{"another letter case", certificate(t, "Netceptor-insecure-common-name", ecKey(t)), 1200, "netceptor", refused, 0x12a},
		{"another protocol", certificate(t, good, ecKey(t)), 1200, "h3", nil, 0x178},
	}
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			service := fmt.Sprintf("svc%d", i)
			e := existingOn(t, old, service)
			conf, qconf := existingServer(c.cert), existingQUIC()
			conf.NextProtos, qconf.InitialPacketSize = []string{c.proto}, c.size
			conns := e.listen(conf, qconf)
			s, err := ours.DialStream(t.Context(), "old", service, nil)
			if c.alert != 0 {
				alert, ok := errors.AsType[*quic.TransportError](err)
				if !ok || alert.ErrorCode != c.alert || c.want != nil && !errors.Is(err, c.want) {
					t.Errorf("dial: %v, want CRYPTO_ERROR %#x", err, uint64(c.alert))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			qs := first(t, <-conns)
			text := strings.Repeat("0123456789abcdef", 20_000)
			go func() {
				_, _ = io.WriteString(s, text)
				_ = s.CloseWrite()
			}()
			wantEOF(t, qs, text)
			go func() {
				_, _ = io.WriteString(qs, text)
				_ = qs.Close()
			}()
			wantEOF(t, s, text)
			_ = s.Close()
		})
	}
}
