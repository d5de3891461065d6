package link

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"testing"
)

func TestTLSNames(t *testing.T) {
	server, client := testTLS(t) // The certificate is for 127.0.0.1 and localhost.
	hello := make(chan *tls.ClientHelloInfo, 10)
	server.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) { hello <- h; return nil, nil }
	l, err := ListenTLS("127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr())
	other := client.Clone()
	other.ServerName = "elsewhere.example"
	lax := other.Clone()
	lax.InsecureSkipVerify = true
	for _, c := range []struct {
		name, host, sni string
		conf            *tls.Config
		ok              bool
	}{
		{"address", "127.0.0.1", "", client, true},
		{"name", "localhost", "localhost", client, true},
		{"name of the profile is not in the certificate", "127.0.0.1", "elsewhere.example", other, false},
		{"unverified", "127.0.0.1", "elsewhere.example", lax, true},
		{"no profile trusts it", "127.0.0.1", "", nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := DialTLS(net.JoinHostPort(c.host, port), c.conf).Dial(t.Context())
			if (err == nil) != c.ok {
				t.Errorf("dial: %v, want success %v", err, c.ok)
			}
			if h := <-hello; h.ServerName != c.sni || len(h.SupportedProtos) != 0 {
				t.Errorf("SNI %q and ALPN %q, want %q and none", h.ServerName, h.SupportedProtos, c.sni)
			}
			if err == nil {
				accepted, err := l.Accept()
				for err != nil && !errors.Is(err, ErrClosed) { // The failures of the cases before.
					accepted, err = l.Accept()
				}
				_ = accepted.Close()
				_ = conn.Close()
			}
		})
	}
}

// Peers that connect and say nothing, or nonsense, do not keep others out.
func TestTLSHandshakesDoNotBlockEachOther(t *testing.T) {
	noLeaks(t)
	server, client := testTLS(t)
	l, err := ListenTLS("127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for i := range 20 {
		c, err := net.Dial("tcp", l.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i%2 == 0 {
			_, _ = c.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		}
	}
	conn, err := DialTLS(l.Addr(), client).Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	failures := 0
	for {
		accepted, err := l.Accept()
		if err == nil {
			_ = accepted.Close()
			break
		}
		if errors.Is(err, ErrClosed) || !strings.HasPrefix(err.Error(), "tls handshake with 127.0.0.1: ") {
			t.Fatalf("Accept: %v", err)
		}
		failures++
	}
	t.Logf("%d failed handshakes were reported first", failures)
}

func TestTLSHandshakesAreBounded(t *testing.T) {
	noLeaks(t)
	server, _ := testTLS(t)
	l, err := ListenTLS("127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	young := &l.(tlsListener).young
	young.mu.Lock()
	young.limit = 3
	young.mu.Unlock()
	var conns []net.Conn
	for range 5 {
		c, err := net.Dial("tcp", l.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	for _, c := range conns[:2] {
		if n, err := c.Read(make([]byte, 100)); err == nil {
			t.Errorf("got %d bytes from a listener that should have given up", n)
		}
	}
}

func TestTLSWithoutCertificate(t *testing.T) {
	if _, err := ListenTLS("127.0.0.1:0", nil); err == nil {
		t.Error("a listener without a certificate was made")
	}
}

func TestTLSFailureSaysWhy(t *testing.T) {
	server, _ := testTLS(t)
	l, err := ListenTLS("127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = DialTLS(l.Addr(), nil).Dial(t.Context())
	if unknown, ok := errors.AsType[x509.UnknownAuthorityError](err); !ok {
		t.Errorf("got %v (%v), want an unknown authority", err, unknown)
	}
	if _, err := l.Accept(); err == nil || !strings.HasPrefix(err.Error(), "tls handshake with 127.0.0.1: ") ||
		!strings.HasSuffix(err.Error(), ": the peer does not take the certificate of this node; its log says why") {
		t.Errorf("the listener says %v", err)
	}
}
