package session

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/daemon"
	"github.com/pyreceptor/pyreceptor/go/identity"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// openWith makes a session that has no node yet.
func openWith(t *testing.T, mode string) *program {
	t.Helper()
	if mode == "in-process" {
		return openInProcess(t)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := ServeFD(context.Background(), fds[0], "test"); err != nil {
			t.Error(err)
		}
	})
	p := attach(t, fds[1])
	t.Cleanup(func() { _ = p.conn.Close(); wg.Wait() })
	return p
}

// daemonWithSocket runs a daemon whose control socket hands out sessions.
func daemonWithSocket(t *testing.T, args ...string) (socket string) {
	t.Helper()
	dir := t.TempDir()
	socket = filepath.Join(dir, "s")
	args = append(args, "--local-only", "--control-service", "filename="+socket)
	cfg, err := config.ParseArgs(append([]string{"--node", "id=host", "datadir=" + dir}, args...))
	if err != nil {
		t.Fatal(err)
	}
	previous := daemon.Version
	daemon.Version = "test"
	d, err := daemon.Build(t.Context(), cfg, daemon.Options{Session: Attach, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(); daemon.Version = previous })
	return socket
}

// dialSession attaches to a daemon.
func dialSession(t *testing.T, socket string) *program {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	line := make([]byte, len("Receptor Control, node host\n"))
	if _, err := io.ReadFull(conn, line); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "session\n"); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Time{})
	p := &program{t: t, conn: conn.(*net.UnixConn)}
	if hello := p.next(); hello["mode"] != "attached" || hello["node"] != "host" {
		t.Fatalf("greeting is %v", hello)
	}
	return p
}

// TestModes drives a node of every mode through every kind of descriptor.
func TestModes(t *testing.T) {
	for _, mode := range []string{"in-process", "sidecar", "attached"} {
		t.Run(mode, func(t *testing.T) {
			p := (*program)(nil)
			if mode == "attached" {
				p = dialSession(t, daemonWithSocket(t))
				p.refused(BadRequest, "open", "config", map[string]any{"node": "x"})
			} else {
				p = openWith(t, mode)
				p.must("open", "config", map[string]any{"node": "host"})
			}
			status, _ := p.must("status")
			if status["NodeID"] != "host" {
				t.Errorf("status of %v", status["NodeID"])
			}
			_, listener := p.must("stream.listen", "service", "echo")
			_, near := p.must("stream.connect", "node", "host", "service", "echo")
			_, far := accept(t, listener)
			_, _ = near.Write([]byte("hello"))
			_ = near.CloseWrite()
			if got, err := io.ReadAll(far); err != nil || string(got) != "hello" {
				t.Errorf("stream carried %q, %v", got, err)
			}
			_, left := p.must("datagram.open", "service", "left")
			opened, _ := p.must("datagram.status", "datagram", p.last["datagram"])
			if opened["sent"] != 0.0 {
				t.Errorf("datagram status %v", opened)
			}
			_, _ = left.Write([]byte("\x01\x00\x04host\x04lefthi"))
			buf := make([]byte, 100)
			if n, err := left.Read(buf); err != nil || !strings.HasSuffix(string(buf[:n]), "hi") {
				t.Errorf("datagram %q, %v", buf[:n], err)
			}
			second, conn := p.must("session.new")
			_ = second
			if conn == nil {
				t.Error("session.new brought no descriptor")
			}
			p.must("close")
		})
	}
}

// TestNodesOfProgramsShareCores: what passes through a node in a program, or in its sidecar, counts for the cores that the
// process uses. The node of a daemon has the daemon for that.
func TestNodesOfProgramsShareCores(t *testing.T) {
	if os.Getenv("GOMAXPROCS") != "" {
		t.Skip("GOMAXPROCS is set, which switches that off")
	}
	stacks := make([]byte, 4<<20)
	counted := func(t *testing.T, want int, when string) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; runtime.Gosched() { // What has begun or ended is seen a moment later.
			got := strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "daemon.(*sharing).passOn(")
			if got == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s, %d nodes are counted, want %d", when, got, want)
			}
		}
	}
	for mode, want := range map[string]int{"in-process": 1, "sidecar": 1, "attached": 0} {
		counted(t, 0, "before "+mode)
		t.Run(mode, func(t *testing.T) {
			if mode == "attached" {
				dialSession(t, daemonWithSocket(t)).must("status")
				counted(t, want, mode)
				return
			}
			p := openWith(t, mode)
			p.must("open", "config", map[string]any{"node": "host"})
			counted(t, want, mode)
			p.must("close")
			counted(t, 0, "after the end of "+mode)
		})
	}
}

// TestAttachedLeavesNothing ends an attached program and looks at the node that stays.
func TestAttachedLeavesNothing(t *testing.T) {
	socket := daemonWithSocket(t)
	p := dialSession(t, socket)
	p.must("stream.listen", "service", "mine")
	p.must("listen.add", "address", "tcp://127.0.0.1:0")
	added, _ := p.must("expose.add", "service", "web", "address", "127.0.0.1:1")
	if added["service"] != "web" {
		t.Errorf("exposed %v", added)
	}
	_ = p.conn.Close()
	q := dialSession(t, socket)
	for _, name := range []string{"mine", "web"} { // Taken until the first program's end has been noticed.
		for deadline := time.Now().Add(time.Minute); ; {
			_, code, fd := q.call("stream.listen", "service", name)
			if fd >= 0 {
				closeFD(fd)
			}
			if code == "" {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("service %q of a program that is gone: %s", name, code)
			}
		}
	}
	if status, _ := q.must("status"); status["NodeID"] != "host" {
		t.Errorf("the node is %v", status["NodeID"])
	}
}

// TestLastWords: a program sends until nothing moves any more, closes its stream and leaves. What it has sent arrives as
// soon as somebody reads it, and its end.
func TestLastWords(t *testing.T) {
	socket := daemonWithSocket(t)
	stays := dialSession(t, socket)
	_, listener := stays.must("stream.listen", "service", "sink")
	bound, _ := stays.must("listen.add", "address", "tcp://127.0.0.1:0")
	for _, mode := range []string{"attached", "in-process", "sidecar"} {
		for _, closes := range []bool{true, false} {
			t.Run(fmt.Sprint(mode, closes), func(t *testing.T) {
				var p *program
				if mode == "attached" {
					p = dialSession(t, socket)
				} else {
					p = openWith(t, mode)
					p.must("open", "config", map[string]any{"node": "leaves", "peers": []any{map[string]any{"address": bound["address"]}}})
					p.must("route.wait", "node", "host", "timeout", 60)
				}
				_, near := p.must("stream.connect", "node", "host", "service", "sink")
				_, far := accept(t, listener)
				sent := fill(near)
				_ = near.Close()
				if closes { // It has to wait for the stream, which nobody reads yet.
					p.refused(Timeout, "close", "timeout", 1)
				}
				_ = p.conn.Close()
				if n, err := io.Copy(io.Discard, far); n != sent || err != nil {
					t.Errorf("%d bytes of %d came, %v", n, sent, err)
				}
			})
		}
	}
}

// TestAProgramLeavesWithItsOnlyLink: what it has not closed is reset at the other side, before the link goes that would say so.
func TestAProgramLeavesWithItsOnlyLink(t *testing.T) {
	socket := daemonWithSocket(t)
	far := open(t)
	far.must("open", "config", map[string]any{"node": "far"})
	bound, _ := far.must("listen.add", "address", "tcp://127.0.0.1:0")
	_, listener := far.must("stream.listen", "service", "sink")
	for _, closes := range []bool{true, false} {
		p := dialSession(t, socket)
		p.must("peer.add", "address", bound["address"])
		p.must("route.wait", "node", "far", "timeout", 60)
		_, near := p.must("stream.connect", "node", "far", "service", "sink")
		announced, stream := accept(t, listener)
		if closes {
			p.must("close")
		} else {
			_ = p.conn.Close()
		}
		if n, err := stream.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Fatalf("read %d bytes, %v", n, err)
		}
		_ = near.Close()
		status, _ := far.must("stream.status", "stream", announced["stream"])
		if how, _ := status["err"].(map[string]any); status["state"] != "reset" || how["remote"] != true {
			t.Errorf("the program's close %v: the other side found %v, want a reset by the program's", closes, status)
		}
	}
}

// fill writes until there is room for nothing more.
func fill(conn *net.UnixConn) (sent int64) {
	for chunk := make([]byte, 64<<10); ; {
		_ = conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		n, err := conn.Write(chunk)
		sent += int64(n)
		if err != nil {
			return sent
		}
	}
}

// TestSessionRefused is what other clients of the control service hear.
func TestSessionRefused(t *testing.T) {
	socket := daemonWithSocket(t, "--control-service", "service=", "tcplisten=127.0.0.1:0")
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	r := bufio.NewReader(conn)
	_, _ = r.ReadString('\n')
	_, _ = io.WriteString(conn, "session\nstatus\n")
	if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "ERROR: session: wait for the greeting") {
		t.Errorf("a hasty client was answered %q, %v", line, err)
	}
}

func TestProxies(t *testing.T) {
	a, b := pair(t)
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	exposed, _ := b.must("expose.add", "service", "web", "address", "tcp://"+server.Addr().String())
	for _, address := range []string{"127.0.0.1:0", "unix://" + filepath.Join(t.TempDir(), "p")} {
		forward, _ := a.must("forward.add", "address", address, "node", "b", "service", "web")
		network, where, _ := strings.Cut(forward["address"].(string), "://")
		c, err := net.Dial(network, where)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		_, _ = io.WriteString(c, "through")
		_ = c.(interface{ CloseWrite() error }).CloseWrite()
		if got, err := io.ReadAll(c); err != nil || string(got) != "through" {
			t.Errorf("%s: got %q, %v", address, got, err)
		}
		_ = c.Close()
		a.must("proxy.remove", "proxy", forward["proxy"])
		if c, err := net.Dial(network, where); err == nil {
			_ = c.Close()
			t.Errorf("%s still accepts", where)
		}
	}
	b.must("proxy.remove", "proxy", exposed["proxy"])
	a.refused(BadRequest, "proxy.remove", "proxy", 4711)
	a.refused(BadRequest, "forward.add", "address", "ftp://x", "node", "b", "service", "web")
	a.refused(BadRequest, "forward.add", "address", "tcp://127.0.0.1:0", "node", "b", "service", "ninechars")
	a.refused(InUse, "forward.add", "address", server.Addr().String(), "node", "b", "service", "web")
	routes, _ := a.must("routes")
	if r, _ := routes["b"].(map[string]any); r["next_hop"] != "b" || r["cost"] != 1.0 {
		t.Errorf("routes %v", routes)
	}
}

// TestTLS links nodes with certificates, and asks for one on a stream, by name of a profile and by its files.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	if err := identity.InitFiles("test ca", 1024, identity.Validity{}, file("ca.crt"), file("ca.key")); err != nil {
		t.Fatal(err)
	}
	files := func(id string) map[string]any {
		names := identity.Names{DNS: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Nodes: []wire.NodeID{wire.NodeID(id)}}
		if err := identity.RequestFiles(id, names, "", 1024, file(id+".key"), file(id+".csr")); err != nil {
			t.Fatal(err)
		}
		if err := identity.SignFiles(file(id+".csr"), file("ca.crt"), file("ca.key"), file(id+".crt"), identity.Validity{}, nil); err != nil {
			t.Fatal(err)
		}
		return map[string]any{"cert": file(id + ".crt"), "key": file(id + ".key"), "cas": file("ca.crt"), "require_client_cert": true}
	}
	a, b := open(t), open(t)
	aTLS, bTLS := files("a"), files("b")
	b.must("open", "config", map[string]any{"node": "b", "tls_profiles": map[string]any{"mesh": bTLS}})
	for _, scheme := range []string{"tcp", "wss"} {
		bound, _ := b.must("listen.add", "address", scheme+"://127.0.0.1:0", "tls", "mesh")
		if scheme == "tcp" {
			a.must("open", "config", map[string]any{"node": "a", "tls_profiles": map[string]any{"mesh": aTLS}})
		}
		added, _ := a.must("peer.add", "address", fmt.Sprintf("%s://%s", scheme, bound["address"]), "tls", aTLS, "headers", headersFor(scheme))
		a.must("route.wait", "node", "b", "timeout", 60)
		b.must("route.wait", "node", "a", "timeout", 60)
		if scheme == "tcp" {
			_, listener := b.must("stream.listen", "service", "safe", "tls", bTLS)
			for _, profile := range []any{"mesh", aTLS} {
				_, near := a.must("stream.connect", "node", "b", "service", "safe", "tls", profile)
				_, far := accept(t, listener)
				_, _ = near.Write([]byte("sealed"))
				_ = near.CloseWrite()
				if got, err := io.ReadAll(far); err != nil || string(got) != "sealed" {
					t.Errorf("tls %v: %q, %v", profile, got, err)
				}
			}
		}
		a.must("backend.remove", "backend", added["backend"])
	}
	a.refused(BadConfig, "peer.add", "address", "tcp://127.0.0.1:1", "tls", "nonesuch")
	a.refused(BadRequest, "peer.add", "address", "udp://127.0.0.1:1", "tls", "mesh")
	a.refused(BadConfig, "stream.connect", "node", "b", "service", "safe", "tls", map[string]any{"cert": file("missing")})
	a.refused(BadRequest, "listen.add", "address", "ws://127.0.0.1:0", "tls", "mesh")
	a.refused(BadRequest, "work.submit", "node", "b", "worktype", "x", "tls", aTLS)
}

// TestClientProfile: a profile that is for clients alone takes no certificate.
func TestClientProfile(t *testing.T) {
	p := open(t)
	p.must("open", "config", map[string]any{"node": "p", "tls_profiles": map[string]any{
		"pins": map[string]any{"pins": []string{strings.Repeat("ab", 32)}}, "any": map[string]any{"insecure_skip_verify": true}, "system": map[string]any{},
	}})
	for _, name := range []string{"pins", "any", "system"} {
		p.must("peer.add", "address", "tcp://127.0.0.1:1", "tls", name)
		p.refused(BadConfig, "listen.add", "address", "tcp://127.0.0.1:0", "tls", name)
	}
}

func headersFor(scheme string) map[string]any {
	if scheme == "wss" {
		return map[string]any{"X-Test": "1"}
	}
	return nil
}
