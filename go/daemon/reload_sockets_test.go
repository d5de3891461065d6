package daemon

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// echoServer answers what it is sent, for as long as the test runs.
func echoServer(t *testing.T) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() { // Ends with the listener.
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	return l.Addr()
}

// talk is a connection to something that answers what it is sent.
type talk struct {
	name string
	conn net.Conn
	in   *bufio.Reader
}

func newTalk(name string, conn net.Conn) *talk {
	_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
	return &talk{name, conn, bufio.NewReader(conn)}
}

func (k *talk) goesOn(t *testing.T, line string) {
	t.Helper()
	if _, err := io.WriteString(k.conn, line+"\n"); err != nil {
		t.Fatalf("%s: %v", k.name, err)
	}
	if got, err := k.in.ReadString('\n'); got != line+"\n" {
		t.Fatalf("%s: got %q, %v, want %q", k.name, got, err, line)
	}
}

func dialed(t *testing.T, network, address string) net.Conn {
	t.Helper()
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// busyNode is a node of which everything is in use: links by which it dialled and was dialled, over three transports, and
// connections through its services. all is its configuration, changed the same with each section another one.
type busyNode struct {
	*filed
	dir          string
	port, front  int
	all, changed string
	talks        []*talk
}

func newBusyNode(t *testing.T) *busyNode {
	t.Helper()
	n := &busyNode{dir: t.TempDir(), port: idlePort(t), front: idlePort(t)}
	ws, metrics, target := idlePort(t), idlePort(t), echoServer(t)
	_, out := relay(t, nil, "hub", "--tcp-listener", "bindaddr=127.0.0.1", "port=0")
	hub := listening(t, out, "Listening on TCP ")
	text := func(cost int, page, echo string) string {
		return fmt.Sprintf(`- node: {id: near, datadir: %[1]s}
- tcp-peer: {address: 'localhost:%[2]s', allowedpeers: [hub, x%[7]d]}
- tcp-listener: {port: %[3]d, bindaddr: 127.0.0.1, nodecost: {nobody: %[7]d}}
- udp-listener: {port: %[3]d, bindaddr: 127.0.0.1, nodecost: {nobody: %[7]d}}
- ws-listener: {port: %[4]d, bindaddr: 127.0.0.1, nodecost: {nobody: %[7]d}}
- tcp-client: {service: echo, address: '%[9]s:%[5]d'}
- tcp-server: {port: %[6]d, bindaddr: 127.0.0.1, remotenode: %[8]s, remoteservice: echo}
- udp-server: {port: %[6]d, bindaddr: 127.0.0.1, remotenode: %[8]s, remoteservice: ping}
- unix-socket-server: {filename: %[1]s/front, remotenode: %[8]s, remoteservice: echo}
- control-service: {service: ctl, filename: %[1]s/ctl, permissions: %[10]s}
- metrics-listener: {port: %[11]d, page: %[12]s}
- work-command: {worktype: w, command: cat, params: -%[7]d}
`, n.dir, hub, n.port, ws, target.(*net.TCPAddr).Port, n.front, cost, map[int]string{2: "near", 3: "localhost"}[cost], echo, map[int]string{2: "0600", 3: "0660"}[cost], metrics, page)
	}
	n.all, n.changed = text(2, "yes", "127.0.0.1"), text(3, "no", "localhost")
	n.filed = fromFile(t, n.all)
	for id, peer := range map[string][]string{
		"tcp": {"--tcp-peer", fmt.Sprintf("127.0.0.1:%d", n.port)},
		"udp": {"--udp-peer", fmt.Sprintf("127.0.0.1:%d", n.port)},
		"ws":  {"--ws-peer", fmt.Sprintf("ws://127.0.0.1:%d/", ws)},
	} {
		far, _ := relay(t, nil, wire.NodeID(id), peer...)
		ctx := withinAMinute(t)
		if err := (workMesh{far.Node, far}).WaitRoute(ctx, "hub"); err != nil {
			t.Fatal(err)
		}
		s, err := far.dialStream(ctx, "near", "echo", "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		n.talks = append(n.talks, newTalk("stream over "+id, s))
	}
	for network, address := range map[string]string{"tcp": fmt.Sprintf("127.0.0.1:%d", n.front), "unix": filepath.Join(n.dir, "front")} {
		n.talks = append(n.talks, newTalk("proxy from "+network, dialed(t, network, address)))
	}
	return n
}

// undisturbed says so: what was under way goes on, what listened does, and the reload has left nothing behind.
func (n *busyNode) undisturbed(t *testing.T, after string) {
	t.Helper()
	for _, k := range n.talks {
		k.goesOn(t, after)
	}
	for network, address := range map[string]string{"tcp": fmt.Sprintf("127.0.0.1:%d", n.front), "unix": filepath.Join(n.dir, "front")} {
		newTalk("a new connection to "+address, dialed(t, network, address)).goesOn(t, after)
	}
	answered(t, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: n.front})
	linked(t, "guest", "--tcp-peer", fmt.Sprintf("127.0.0.1:%d", n.port))
	if log := strings.ReplaceAll(n.out.String(), "Backend connection exited peer=guest", ""); strings.Contains(log, "Backend connection exited") {
		t.Errorf("%s: a link was lost:\n%s", after, n.out)
	}
	for _, x := range n.sockets.all {
		if x.owner == nil || x.source != nil || x.next != nil {
			t.Errorf("%s: a socket was left: %+v", after, x)
		}
	}
	if changes := n.reloads(t, n.all); changes != "" {
		t.Errorf("%s: the file as it was changes %s", after, changes)
	}
}

// TestFailedReloadDisturbsNothing changes every section of a node of which everything is in use, and each time there is one
// thing that cannot be. Not a link, a connection or a listener may notice.
func TestFailedReloadDisturbsNothing(t *testing.T) {
	n := newBusyNode(t)
	for _, k := range n.talks {
		k.goesOn(t, "before")
	}
	elsewhere := fmt.Sprintf("127.0.0.2:%d", n.port)
	tcp, err := net.Listen("tcp", elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	program, err := n.Node.ListenPacket("program", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	everywhere := func(kind string) string {
		mine := fmt.Sprintf("%s: {port: %d, bindaddr: 127.0.0.1", kind, n.port)
		return strings.Replace(n.changed, mine, strings.Replace(mine, "127.0.0.1", "0.0.0.0", 1), 1)
	}
	for name, c := range map[string]struct{ text, want string }{
		"a new port":             {n.changed + fmt.Sprintf("- tcp-server: {port: %d, bindaddr: 127.0.0.2, remotenode: b, remoteservice: s}\n", n.port), "address already in use"},
		"a new peer before it":   {fmt.Sprintf("- tcp-peer: localhost:1\n- udp-listener: {port: %d, bindaddr: 127.0.0.2}\n", n.port) + n.changed, "address already in use"},
		"more than its own TCP":  {everywhere("tcp-listener"), "address already in use"},
		"more than its own UDP":  {everywhere("udp-listener"), "address already in use"},
		"one address twice":      {n.changed + fmt.Sprintf("- tcp-listener: {port: %d, bindaddr: 127.0.0.1}\n", n.port), "address already in use"},
		"a place for its socket": {strings.Replace(n.changed, n.dir+"/ctl", n.dir+"/no/ctl", 1), "error opening Unix socket"},
		"the name of a service":  {strings.Replace(n.changed, "service: ctl", "service: program", 1), "service program"},
		"another name":           {n.changed + "- tcp-client: {service: program, address: 'localhost:1'}\n", "service program"},
		"a secret":               {strings.Replace(n.changed, "page: no", "tokenfile: /no/such", 1), "/no/such"},
		"a cluster":              {n.changed + "- work-kubernetes: {worktype: k, authmethod: kubeconfig, kubeconfig: /no/such, image: i, namespace: ns}\n", "/no/such"},
	} {
		n.write(t, c.text)
		for _, dry := range []bool{true, false} {
			if changes, err := n.Reload(t.Context(), dry); (err == nil || !strings.Contains(err.Error(), c.want)) && !(dry && name == "another name") {
				t.Errorf("%s, dry run %t: got %v, %v, want %q", name, dry, changes, err, c.want)
			}
		}
		n.undisturbed(t, name)
	}
	_ = tcp.Close()
	_ = udp.Close()
	n.reloads(t, everywhere("tcp-listener"))
	linked(t, "late", "--tcp-peer", elsewhere)
}

// TestReloadRefusesNobody dials where a node listens while its sections there change again and again: there is no moment in
// which nobody listens.
func TestReloadRefusesNobody(t *testing.T) {
	n := newBusyNode(t)
	for network, address := range map[string]string{"tcp": fmt.Sprintf("127.0.0.1:%d", n.front), "unix": filepath.Join(n.dir, "front")} {
		ctx, stop := context.WithCancel(t.Context())
		dials := make(chan int, 1)
		go func() { // Ends with ctx.
			count := 0
			for ; ctx.Err() == nil; count++ {
				c, err := net.Dial(network, address)
				if errors.Is(err, syscall.ECONNRESET) { // Accepted, and its proxy has ended already.
					continue
				}
				if err != nil {
					t.Errorf("%s: dial %d: %v", network, count, err)
					break
				}
				_, _ = io.WriteString(c, "x")
				_, _ = c.Read(make([]byte, 1)) // An answer, or the end of the proxy.
				_ = c.Close()
			}
			dials <- count
		}()
		for i := range 20 {
			if got := n.reloads(t, []string{n.changed, n.all}[i%2]); strings.Count(got, "changed") != 11 {
				t.Fatalf("got changes %q, want 11", got)
			}
		}
		stop()
		if count := <-dials; count < 20 {
			t.Errorf("%s: only %d dials in 20 reloads", network, count)
		}
	}
	if info, err := os.Stat(filepath.Join(n.dir, "ctl")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the control socket: %v, %v, want mode 0600", info, err)
	}
}
