package service

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
)

// udpEcho answers each datagram with the address it came from and what it held.
func udpEcho(t *testing.T) string {
	t.Helper()
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		buffer := make([]byte, datagramMax)
		for {
			n, from, err := socket.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = socket.WriteTo(buffer[:n], from)
		}
	})
	t.Cleanup(func() { _ = socket.Close(); wg.Wait() })
	return socket.LocalAddr().String()
}

func startedUDP(t *testing.T, p *UDPProxy, err error) *UDPProxy {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func dialUDP(t *testing.T, addr net.Addr) net.Conn {
	t.Helper()
	c, err := net.Dial("udp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(time.Minute)) // A hang becomes a failure.
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// exchange sends a datagram and expects it back.
func exchange(t *testing.T, c net.Conn, datagram []byte) {
	t.Helper()
	if _, err := c.Write(datagram); err != nil {
		t.Fatal(err)
	}
	back := make([]byte, datagramMax)
	n, err := c.Read(back)
	if err != nil || !bytes.Equal(back[:n], datagram) {
		t.Fatalf("%d bytes came back, %v", n, err)
	}
}

func TestF125UDPProxies(t *testing.T) {
	node := newNode(t)
	client, err := StartUDPClient(node, UDPClient{Service: "echo", Address: udpEcho(t)}, quiet)
	startedUDP(t, client, err)
	for _, name := range []string{"a", "localhost"} {
		server, err := StartUDPServer(node, UDPServer{Address: "127.0.0.1:0", Node: "a", Service: "echo"}, quiet)
		startedUDP(t, server, err)
		t.Run(name, func(t *testing.T) {
			first, second := dialUDP(t, server.Addr()), dialUDP(t, server.Addr())
			for i := range 10 { // Answers find their way between two clients.
				exchange(t, first, fmt.Appendf(nil, "first %d", i))
				exchange(t, second, fmt.Appendf(nil, "second %d", i))
			}
			for _, size := range []int{0, 1, 1500, 16384, 65499} {
				exchange(t, first, bytes.Repeat([]byte{'x'}, size))
			}
			if _, err := first.Write(make([]byte, 65507)); err != nil {
				t.Fatal(err)
			}
			exchange(t, first, []byte("after one that is too long"))
		})
	}
}

// TestQuietClientsAreForgotten sees it by the address that a client's datagrams come from.
func TestQuietClientsAreForgotten(t *testing.T) {
	node := newNode(t)
	service, err := node.ListenPacket("who", nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := StartUDPServer(node, UDPServer{Address: "127.0.0.1:0", Node: "a", Service: "who", Idle: time.Millisecond}, quiet)
	startedUDP(t, p, err)
	c := dialUDP(t, p.Addr())
	_ = service.SetReadDeadline(time.Now().Add(time.Minute)) // A hang becomes a failure.
	seen := map[string]bool{}
	for len(seen) < 3 {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		_, from, err := service.ReadFrom(make([]byte, 10))
		if err != nil {
			t.Fatal(err)
		}
		seen[from.String()] = true
	}
}

func TestOnlyTheServiceMayAnswer(t *testing.T) {
	node := newNode(t)
	service, err := node.ListenPacket("svc", nil)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := node.ListenPacket("other", nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := StartUDPServer(node, UDPServer{Address: "127.0.0.1:0", Node: "a", Service: "svc"}, quiet)
	startedUDP(t, p, err)
	c := dialUDP(t, p.Addr())
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	_, from, err := service.ReadFrom(make([]byte, 10))
	if err != nil {
		t.Fatal(err)
	}
	for _, sender := range []*netceptor.PacketConn{stranger, service} {
		if _, err := sender.WriteTo([]byte(sender.Service()), from); err != nil {
			t.Fatal(err)
		}
	}
	got := make([]byte, 10)
	if n, err := c.Read(got); err != nil || string(got[:n]) != "svc" {
		t.Errorf("got %q, %v", got[:n], err)
	}
}

func TestAnUnreachableNodeIsLoggedOnce(t *testing.T) {
	log := &buffer{}
	node := newNode(t)
	p, err := StartUDPServer(node, UDPServer{Address: "127.0.0.1:0", Node: "nowhere", Service: "x"}, slog.New(slog.NewTextHandler(log, nil)))
	startedUDP(t, p, err)
	service, err := node.ListenPacket("here", nil)
	if err != nil {
		t.Fatal(err)
	}
	here, err := StartUDPServer(node, UDPServer{Address: "127.0.0.1:0", Node: "a", Service: "here"}, quiet)
	startedUDP(t, here, err)
	for range 5 {
		if _, err := dialUDP(t, p.Addr()).Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := dialUDP(t, here.Addr()).Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := service.ReadFrom(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_ = p.Close() // Waits for all that it does.
	if got := strings.Count(log.String(), "Error sending on Receptor network"); got > 1 {
		t.Errorf("logged %d times:\n%s", got, log)
	}
}

func TestUDPListenFailures(t *testing.T) {
	node := newNode(t)
	if _, err := StartUDPServer(node, UDPServer{Address: "no port"}, quiet); err == nil || !strings.HasPrefix(err.Error(), "could not resolve address no port") {
		t.Errorf("got %v", err)
	}
	if _, err := StartUDPClient(node, UDPClient{Service: "s", Address: "no port"}, quiet); err == nil || !strings.HasPrefix(err.Error(), "could not resolve UDP address no port") {
		t.Errorf("got %v", err)
	}
	if _, err := StartUDPClient(node, UDPClient{Service: "ping", Address: "127.0.0.1:9"}, quiet); err == nil || !strings.HasPrefix(err.Error(), "error listening on service ping") {
		t.Errorf("got %v", err)
	}
}

// TestQuietIsNotMeasuredByDates: a client is not forgotten, and one that is gone not kept, because the clock of the machine
// is set.
func TestQuietIsNotMeasuredByDates(t *testing.T) {
	m := newMapping(nil)
	m.touch()
	if at := m.touched(); at == at.Round(0) {
		t.Errorf("when a client was heard last is a mere date, %v", at)
	}
}
