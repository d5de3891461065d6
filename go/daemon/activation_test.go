package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/config"
)

// manager opens sockets as a service manager does.
type manager struct {
	t *testing.T
	sockets
}

// open keeps a socket under a name and returns its address.
func (m *manager) open(name, network string) net.Addr {
	m.t.Helper()
	var file *os.File
	var addr net.Addr
	var err error
	switch network {
	case "udp":
		var c net.PacketConn
		if c, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			m.t.Fatal(err)
		}
		defer c.Close()
		file, err = c.(*net.UDPConn).File()
		addr = c.LocalAddr()
	case "unix":
		l, listenErr := net.Listen("unix", filepath.Join(m.t.TempDir(), "s"))
		if listenErr != nil {
			m.t.Fatal(listenErr)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		defer l.Close()
		file, err = l.(*net.UnixListener).File()
		addr = l.Addr()
	default:
		l, listenErr := net.Listen("tcp", "127.0.0.1:0")
		if listenErr != nil {
			m.t.Fatal(listenErr)
		}
		defer l.Close()
		file, err = l.(*net.TCPListener).File()
		addr = l.Addr()
	}
	if err != nil {
		m.t.Fatal(err)
	}
	m.inherit(file, name)
	return addr
}

func port(a net.Addr) string {
	_, port, _ := net.SplitHostPort(a.String())
	return port
}

// start runs a daemon with the sockets of m, from a file.
func (m *manager) start(text string) *filed {
	m.t.Helper()
	f := &filed{path: filepath.Join(m.t.TempDir(), "mesh.yml"), out: newOutput()}
	f.write(m.t, text)
	cfg, err := config.LoadFile(f.path)
	if err != nil {
		m.t.Fatal(err)
	}
	f.Daemon, err = Build(m.t.Context(), cfg, Options{Logger: slog.New(NewLogHandler(f.out, slog.LevelDebug)), sockets: &m.sockets})
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = f.Close(); m.close() })
	return f
}

// linked links a node guest to the daemon "hub" with this peer directive.
func linked(t *testing.T, guest string, directive ...string) {
	t.Helper()
	d, err := Build(t.Context(), parse(t, append([]string{"--node", "id=" + guest, "datadir=" + t.TempDir()}, directive...)...), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := (workMesh{d.Node, d}).WaitRoute(ctx, "hub"); err != nil {
		t.Errorf("%v: no link: %v", directive, err)
	}
}

// bannerAt reads what a control service says first.
func bannerAt(t *testing.T, a net.Addr) {
	t.Helper()
	c, err := net.Dial(a.Network(), a.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	want := "Receptor Control, node hub\n"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Errorf("%v: got %q, %v; want %q", a, got, err, want)
	}
}

func healthy(t *testing.T, a net.Addr) {
	t.Helper()
	resp, err := http.Get("http://" + a.String() + "/healthz")
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("health: got %s", resp.Status)
	}
}

// answered sends a datagram to a proxy whose far end is the ping service, which answers everything.
func answered(t *testing.T, a net.Addr) {
	t.Helper()
	c, err := net.Dial("udp", a.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := c.Write([]byte("anybody there?")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 100)); err != nil {
		t.Errorf("%v: no answer: %v", a, err)
	}
}

// TestSocketsForEveryListener: whatever listens on TCP, UDP or a Unix socket takes a socket of the service manager, by its
// address or by its name, and takes it again when a reload has changed the directive.
func TestSocketsForEveryListener(t *testing.T) {
	for _, by := range []string{"address", "name"} {
		t.Run("by "+by, func(t *testing.T) {
			m := &manager{t: t}
			tcp, udp, ws := m.open("tcp-listener", "tcp"), m.open("udp-listener", "udp"), m.open("ws-listener", "tcp")
			server, datagrams, socket := m.open("tcp-server", "tcp"), m.open("udp-server", "udp"), m.open("unix-socket-server", "unix")
			metrics, local, remote := m.open("metrics-listener", "tcp"), m.open("control-service", "unix"), m.open("control-service", "tcp")
			at, path := port, func(a net.Addr) string { return a.String() }
			if by == "name" { // Where nothing of this test listens.
				dir := t.TempDir()
				at, path = func(net.Addr) string { return "1" }, func(a net.Addr) string { return filepath.Join(dir, filepath.Base(filepath.Dir(a.String()))) }
			} else {
				for _, g := range m.all {
					g.name = ""
				}
			}
			data := t.TempDir()
			text := func(change int) string {
				head := fmt.Sprintf("- node: {id: hub, datadir: %s}\n", data)
				for kind, a := range map[string]net.Addr{"tcp": tcp, "udp": udp, "ws": ws} {
					head += fmt.Sprintf("- %s-listener: {bindaddr: 127.0.0.1, port: %s, nodecost: {other: %d}}\n", kind, at(a), change)
				}
				return head + fmt.Sprintf(`
- tcp-server: {bindaddr: 127.0.0.1, port: %s, remotenode: localhost, remoteservice: c%d}
- udp-server: {bindaddr: 127.0.0.1, port: %s, remotenode: localhost, remoteservice: ping}
- unix-socket-server: {filename: %s, remotenode: localhost, remoteservice: c%d}
- metrics-listener: {port: %s, page: %t}
- control-service: {service: c%d, filename: %s, tcplisten: '127.0.0.1:%s'}
`, at(server), change, at(datagrams), path(socket), change, at(metrics), change == 2, change, path(local), at(remote))
			}
			hub := m.start(text(1))
			look := func(time string) {
				t.Helper()
				linked(t, "tcp-"+time, "--tcp-peer", tcp.String())
				linked(t, "udp-"+time, "--udp-peer", udp.String())
				linked(t, "ws-"+time, "--ws-peer", "ws://"+ws.String())
				for _, a := range []net.Addr{server, socket, local, remote} {
					bannerAt(t, a)
				}
				healthy(t, metrics)
				answered(t, datagrams)
			}
			look("before")
			changes := hub.reloads(t, text(2))
			for _, kind := range []string{"tcp-listener", "udp-listener", "ws-listener", "tcp-server", "unix-socket-server", "metrics-listener", "control-service"} {
				if !strings.Contains(changes, " "+kind+" ") {
					t.Errorf("no change of %s in %q", kind, changes)
				}
			}
			look("after")
			if strings.Contains(hub.out.String(), "Nothing uses a socket") {
				t.Errorf("all sockets are used:\n%s", hub.out)
			}
		})
	}
}

// TestUnusedSocketsAreTold: once each, and again when a reload leaves one without use.
func TestUnusedSocketsAreTold(t *testing.T) {
	m := &manager{t: t}
	tcp, _ := m.open("", "tcp"), m.open("metrics-listener", "tcp")
	text := "- node: {id: hub, datadir: '" + t.TempDir() + "'}\n- local-only\n"
	// Two directives of a kind: the name does not say which of them is meant.
	two := "- metrics-listener: {port: 0}\n- metrics-listener: {port: 0, bindaddr: localhost}\n"
	hub := m.start(text + "- tcp-listener: {bindaddr: 127.0.0.1, port: " + port(tcp) + "}\n" + two)
	const told = "Nothing uses a socket of the service manager"
	if n := strings.Count(hub.out.String(), told); n != 1 {
		t.Errorf("told %d times:\n%s", n, hub.out)
	}
	hub.reloads(t, text+two)
	if n := strings.Count(hub.out.String(), told); n != 2 || !strings.Contains(hub.out.String(), "address="+tcp.String()) {
		t.Errorf("told %d times, want 2:\n%s", n, hub.out)
	}
	hub.reloads(t, text)
	if n := strings.Count(hub.out.String(), told); n != 2 {
		t.Errorf("told %d times, want 2:\n%s", n, hub.out)
	}
}

// TestWhatIsNoListeningSocket is not taken for one.
func TestWhatIsNoListeningSocket(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	connection, err := c.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	defer write.Close()
	for _, file := range []*os.File{connection, read} {
		if h, a := handleOf(file); h != nil || a != nil {
			t.Errorf("%s listens at %v", file.Name(), a)
		}
	}
}
