package daemon

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/control"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// filed is a daemon whose configuration is a file that a test rewrites.
type filed struct {
	*Daemon
	path string
	out  *output
}

func fromFile(t *testing.T, text string) *filed {
	t.Helper()
	f := &filed{path: filepath.Join(t.TempDir(), "mesh.yml"), out: newOutput()}
	f.write(t, text)
	cfg, err := config.LoadFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	f.Daemon, err = Build(t.Context(), cfg, Options{Logger: slog.New(NewLogHandler(f.out, slog.LevelDebug)), Environ: []string{"PATH=" + os.Getenv("PATH")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func (f *filed) write(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(f.path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// reloads rewrites the file and reloads; it returns the texts of the changes.
func (f *filed) reloads(t *testing.T, text string) string {
	t.Helper()
	f.write(t, text)
	changes, err := f.controlReload(t.Context(), false)
	if err != nil {
		t.Fatalf("reload of\n%s: %v", text, err)
	}
	return strings.Join(changes, "; ")
}

func withinAMinute(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// TestF192F196StreamThroughAHundredReloads changes everything around a link a hundred times while a stream over that link
// carries numbered lines.
func TestF192F196StreamThroughAHundredReloads(t *testing.T) {
	_, out := relay(t, nil, "far", "--tcp-listener", "bindaddr=127.0.0.1", "port=0")
	port := listening(t, out, "Listening on TCP ")
	other := idlePort(t)
	base := "- node: {id: near, datadir: " + t.TempDir() + "}\n- tcp-peer: 127.0.0.1:" + port + "\n- tcp-client: {service: echo, address: '" + echoServer(t).String() + "'}\n"
	near := fromFile(t, base)
	far, _ := relay(t, nil, "user", "--tcp-peer", "127.0.0.1:"+port)
	ctx := withinAMinute(t)
	if err := (workMesh{far.Node, far}).WaitRoute(ctx, "near"); err != nil {
		t.Fatal(err)
	}
	stream, err := far.dialStream(ctx, "near", "echo", "")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	_ = stream.SetDeadline(time.Now().Add(60 * time.Second))
	lines := bufio.NewReader(stream)
	for i := range 100 {
		more := ""
		switch i % 4 {
		case 0:
			more = fmt.Sprintf("- tcp-listener: {port: %d, bindaddr: 127.0.0.1, cost: %d}\n- log-level: debug\n", other, 1+i%3)
		case 1:
			more = fmt.Sprintf("- tcp-listener: {port: %d, bindaddr: 127.0.0.1, cost: 7}\n- work-command: {worktype: w%d, command: cat}\n", other, i)
		case 2:
			more = "- tcp-peer: {address: '127.0.0.1:1', redial: no}\n- control-service: {service: ctl}\n"
		}
		if got := near.reloads(t, more+base); got == "" {
			t.Fatalf("reload %d changed nothing", i)
		}
		want := fmt.Sprintf("line %d\n", i)
		if _, err := io.WriteString(stream, want); err != nil {
			t.Fatal(err)
		}
		if got, err := lines.ReadString('\n'); got != want {
			t.Fatalf("after reload %d: got %q (%v), want %q", i, got, err, want)
		}
	}
	if strings.Contains(near.out.String(), "Backend connection exited") {
		t.Errorf("a link was lost:\n%s", near.out)
	}
}

func TestF193ChangesThatNeedARestart(t *testing.T) {
	base := "- node: {id: a, datadir: " + t.TempDir() + "}\n- local-only\n"
	d := fromFile(t, base)
	for from, to := range map[string]string{"id: a": "id: b", "datadir: ": "datadir: /x", "id: a,": "id: a, maxidleconnectiontimeout: 1m,"} {
		d.write(t, strings.Replace(base, from, to, 1))
		_, err := d.Reload(t.Context(), false)
		var re *control.ReloadError
		if !errors.As(err, &re) || re.Code != control.ReloadNotReloadable ||
			!strings.HasPrefix(err.Error(), "a non-reloadable config action 'node' was modified or added. Must restart receptor for these changes to take effect") {
			t.Errorf("%q: got %v", to, err)
		}
	}
	d.out.await(t, "Reload not successful: a non-reloadable config action 'node'")
	if got := d.reloads(t, base); got != "" { // What was refused is not remembered.
		t.Errorf("the file as it was: got changes %s", got)
	}
}

func TestF194BadFilesChangeNothing(t *testing.T) {
	port := idlePort(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	base := fmt.Sprintf("- node: {id: a, datadir: %s}\n- tcp-listener: {port: %d, bindaddr: 127.0.0.1}\n- work-command: {worktype: w, command: cat}\n", t.TempDir(), port)
	d := fromFile(t, base)
	peer, _ := relay(t, nil, "b", "--tcp-peer", fmt.Sprintf("127.0.0.1:%d", port))
	if err := (workMesh{peer.Node, peer}).WaitRoute(withinAMinute(t), "a"); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"no YAML":          "- node: [",
		"unknown":          base + "- bogus\n",
		"missing key":      base + "- tls-server: {name: s, cert: /no/such, key: /no/such}\n",
		"no signing key":   base + "- work-signing: /no/such\n",
		"port taken":       strings.Replace(base, "command: cat", "command: dog", 1) + fmt.Sprintf("- udp-listener: '0'\n- tcp-listener: {port: %d, bindaddr: 127.0.0.1}\n", taken.Addr().(*net.TCPAddr).Port),
		"changed and port": strings.Replace(base, "w, c", "v, c", 1) + fmt.Sprintf("- tcp-server: {port: %d, bindaddr: 127.0.0.1, remotenode: b, remoteservice: s}\n", taken.Addr().(*net.TCPAddr).Port),
		"certificate":      "- cert-init: {commonname: c, bits: 2048, outcert: a, outkey: b}\n",
	} {
		d.write(t, text)
		_, err := d.Reload(t.Context(), false)
		var re *control.ReloadError
		if !errors.As(err, &re) || re.Code != control.ReloadFailed {
			t.Errorf("%s: got %v, want a ReloadError with code 4", name, err)
		}
		if types := d.Work.WorkTypes(); len(types) != 1 || types[0].WorkType != "w" {
			t.Errorf("%s: work types are %v", name, types)
		}
	}
	if err := os.Remove(d.path); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Reload(t.Context(), false); err == nil {
		t.Error("no error without the file")
	}
	if strings.Contains(d.out.String(), "Backend connection exited") {
		t.Errorf("a link was lost:\n%s", d.out)
	}
	if changes := d.reloads(t, base); changes != "" {
		t.Errorf("the file as it was: got changes %s", changes)
	}
}

// TestOneBadChangeUndoesAll reloads a file in which all but the link changes, is new or is gone, and one of the new ones cannot
// start. Everything stays as it was, and starts to change once the bad one is gone from the file.
func TestOneBadChangeUndoesAll(t *testing.T) {
	dir := t.TempDir()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port, front, added := idlePort(t), idlePort(t), idlePort(t)
	socket := filepath.Join(dir, "ctl.sock")
	base := fmt.Sprintf(`- node: {id: a, datadir: %s}
- tcp-listener: {port: %d, bindaddr: 127.0.0.1}
- work-command: {worktype: w, command: cat}
- work-command: {worktype: gone, command: cat}
- control-service: {service: ctl, filename: %s}
- tcp-server: {port: %d, bindaddr: 127.0.0.1, remotenode: b, remoteservice: s}
`, dir, port, socket, front)
	good := fmt.Sprintf(`- node: {id: a, datadir: %s, firewallrules: [{action: reject, toservice: ping}]}
- log-level: error
- tcp-listener: {port: %d, bindaddr: 127.0.0.1}
- tcp-listener: {port: %d, bindaddr: 127.0.0.1}
- work-command: {worktype: w, command: dog}
- work-command: {worktype: new, command: cat}
- unix-socket-server: {filename: %s, remotenode: b, remoteservice: s}
`, dir, port, added, filepath.Join(dir, "new.sock"))
	d := fromFile(t, base)
	peer, _ := relay(t, nil, "b", "--tcp-peer", fmt.Sprintf("127.0.0.1:%d", port))
	for _, from := range []struct {
		*Daemon
		to wire.NodeID
	}{{peer, "a"}, {d.Daemon, "b"}} {
		if err := (workMesh{from.Node, from.Daemon}).WaitRoute(withinAMinute(t), from.to); err != nil {
			t.Fatal(err)
		}
	}
	looks := func() string {
		text, err := json.Marshal([]any{d.effective(), d.Work.WorkTypes()})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	before := looks()
	bad := fmt.Sprintf("- tcp-server: {port: %d, bindaddr: 127.0.0.1, remotenode: b, remoteservice: x}\n", taken.Addr().(*net.TCPAddr).Port)
	for name, text := range map[string]string{"first": bad + good, "last": good + bad} {
		d.write(t, text)
		_, err := d.Reload(t.Context(), false)
		var re *control.ReloadError
		if !errors.As(err, &re) || re.Code != control.ReloadFailed || !strings.Contains(err.Error(), "address already in use") {
			t.Errorf("%s: got %v, want that the address is in use", name, err)
		}
		if after := looks(); after != before {
			t.Errorf("%s: it was\n%s\nand is\n%s", name, before, after)
		}
		if ping := d.Node.Ping(withinAMinute(t), "b", wire.MaxHops); ping.Err != nil || d.Node.Policy() != nil {
			t.Errorf("%s: ping of the neighbour: %v, firewall %v; want both as before", name, ping.Err, d.Node.Policy())
		}
		for network, address := range map[string]string{"unix": socket, "tcp": fmt.Sprintf("127.0.0.1:%d", front)} {
			c, err := net.Dial(network, address)
			switch {
			case err == nil:
				_ = c.Close()
			case !errors.Is(err, syscall.ECONNRESET): // There is no service s: a reset may be quicker than the dial.
				t.Errorf("%s: %v", name, err)
			}
		}
		if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", added)); err == nil {
			_ = c.Close()
			t.Errorf("%s: the new listener is there", name)
		}
		if _, err := os.Stat(filepath.Join(dir, "new.sock")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the new socket: %v, want none", name, err)
		}
	}
	if strings.Contains(d.out.String(), "Backend connection exited") {
		t.Errorf("a link was lost:\n%s", d.out)
	}
	if changes := d.reloads(t, good); strings.Count(changes, ";") < 6 || d.Node.Policy() == nil {
		t.Errorf("without the bad one: got changes %q", changes)
	}
}

func TestF195ReloadWithoutAFile(t *testing.T) {
	d, _ := relay(t, nil, "a", "--local-only")
	if _, err := d.Reload(t.Context(), false); err == nil || err.Error() != "no configuration file was provided, reload function not set" {
		t.Errorf("got %v", err)
	}
}

func TestReloadOfServicesFirewallAndLog(t *testing.T) {
	dir, target := t.TempDir(), idlePort(t)
	base := "- node: {id: a, datadir: " + dir + "}\n- local-only\n"
	d := fromFile(t, base)
	socket := filepath.Join(dir, "s")
	if got := d.reloads(t, base+"- control-service: {service: ctl, filename: "+socket+"}\n"); got != "added control-service ctl "+socket {
		t.Errorf("got %q", got)
	}
	if _, err := os.Stat(socket); err != nil {
		t.Error(err)
	}
	if got := d.reloads(t, base+"- control-service: {service: ctl, filename: "+socket+", permissions: 0660}\n"); got != "changed control-service ctl "+socket+" (permissions)" {
		t.Errorf("got %q", got)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("got %v, %v, want mode 0660", info, err)
	}
	swapped := base + fmt.Sprintf("- tcp-client: {service: ctl, address: '127.0.0.1:%d'}\n- control-service: {service: '', filename: %s}\n", target, socket)
	if got := d.reloads(t, swapped); !strings.Contains(got, "added tcp-client ctl") || !strings.Contains(got, "removed control-service ctl") {
		t.Errorf("a service's name that goes to another: got %q", got)
	}
	d.write(t, base)
	if changes, err := d.Reload(t.Context(), true); err != nil || len(changes) != 2 {
		t.Errorf("dry run: got %v, %v, want two changes", changes, err)
	}
	if _, err := os.Stat(socket); err != nil {
		t.Errorf("the dry run was not dry: %v", err)
	}
	if got := d.reloads(t, strings.Replace(base, "id: a", "id: a, firewallrules: [{action: drop, toservice: x}]", 1)); !strings.Contains(got, "changed node (firewallrules)") {
		t.Errorf("got %q", got)
	}
	if d.Node.Policy() == nil {
		t.Error("the node has no firewall")
	}
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the removed socket is still there: %v", err)
	}
}

// TestReloadOfTLSProfile gives a listener's profile another certificate; the link that is up stays, new ones see the new.
func TestReloadOfTLSProfile(t *testing.T) {
	p := newPapers(t)
	for _, id := range []wire.NodeID{"hub", "hub2", "b", "c"} {
		p.issue(t, id)
	}
	port := idlePort(t)
	base := fmt.Sprintf("- node: {id: hub, datadir: %s}\n- tcp-listener: {port: %d, bindaddr: 127.0.0.1, tls: srv}\n- tls-server: {name: srv, cert: %s, key: %s}\n",
		t.TempDir(), port, p.file("hub.crt"), p.file("hub.key"))
	hub := fromFile(t, base)
	peer := []string{"--tcp-peer", fmt.Sprintf("address=localhost:%d", port), "tls=cli"}
	b, _ := relay(t, &p, "b", peer...)
	if err := (workMesh{b.Node, b}).WaitRoute(withinAMinute(t), "hub"); err != nil {
		t.Fatal(err)
	}
	demanding := strings.Replace(base, "name: srv", "name: srv, requireclientcert: yes, mintls13: yes, clientcas: "+p.file("ca.crt"), 1)
	if got := hub.reloads(t, demanding); got != "changed tls-server srv (requireclientcert, clientcas, mintls13)" {
		t.Errorf("got %q", got)
	}
	_, out := relay(t, nil, "stranger", "--tcp-peer", fmt.Sprintf("address=localhost:%d", port), "tls=c", "--tls-client", "name=c", "cert=", "key=", "rootcas="+p.file("ca.crt"))
	out.await(t, "Backend connection failed")
	c, _ := relay(t, &p, "c", peer...)
	if err := (workMesh{c.Node, c}).WaitRoute(withinAMinute(t), "b"); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(hub.out.String(), "Backend connection exited") {
		t.Errorf("a link was lost:\n%s", hub.out)
	}
}

func TestF045TraceIsReloaded(t *testing.T) {
	base := "- node: {id: a, datadir: " + t.TempDir() + "}\n- local-only\n- log-level: debug\n"
	d := fromFile(t, base)
	ping := func(service string) {
		t.Helper()
		pc, err := d.Node.ListenPacket(service, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		if _, err := pc.WriteTo([]byte("hello"), netceptor.Addr{Node: "a", Service: service}); err != nil {
			t.Fatal(err)
		}
	}
	ping("before")
	d.reloads(t, base+"- trace\n")
	ping("during")
	d.reloads(t, base)
	ping("after")
	log := d.out.String()
	for service, want := range map[string]bool{"before": false, "during": true, "after": false} {
		line := "packet outcome=delivered from=a:" + service + " to=a:" + service + " bytes=5 hops="
		if strings.Contains(log, line) != want {
			t.Errorf("%q is in the log: %v, want %v:\n%s", line, !want, want, log)
		}
	}
}
