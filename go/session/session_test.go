package session

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/workceptor/runner"
)

func TestMain(m *testing.M) {
	if runner.IsRunner(os.Args) { // The test binary stands in for the daemon that runs commands.
		os.Exit(runner.Main(os.Args))
	}
	os.Exit(m.Run())
}

// program is the client's side of a session: what Python does, in Go.
type program struct {
	t      *testing.T
	conn   *net.UnixConn
	buf    []byte
	fds    []int
	events []map[string]any
	id     uint64
	last   map[string]any // What the last request was answered.
}

func open(t *testing.T) *program {
	t.Helper()
	return openWith(t, "in-process")
}

func openInProcess(t *testing.T) *program {
	t.Helper()
	fd, err := Open([]byte(`{"abi": 1, "environ": {"PATH": "/usr/bin:/bin"}}`), "test")
	if err != nil {
		t.Fatal(err)
	}
	return attach(t, fd)
}

func attach(t *testing.T, fd int) *program {
	t.Helper()
	conn, err := adopt(fd)
	if err != nil {
		t.Fatal(err)
	}
	p := &program{t: t, conn: conn}
	t.Cleanup(func() { _ = conn.Close() })
	if hello := p.next(); hello["ev"] != "hello" || hello["version"] != "test" {
		t.Fatalf("greeting is %v", hello)
	}
	return p
}

// next reads one frame.
func (p *program) next() map[string]any {
	p.t.Helper()
	_ = p.conn.SetReadDeadline(time.Now().Add(time.Minute))
	for {
		if len(p.buf) >= 4 {
			size := int(p.buf[0])<<24 | int(p.buf[1])<<16 | int(p.buf[2])<<8 | int(p.buf[3])
			if len(p.buf) >= 4+size {
				var frame map[string]any
				if err := json.Unmarshal(p.buf[4:4+size], &frame); err != nil {
					p.t.Fatal(err)
				}
				p.buf = p.buf[4+size:]
				return frame
			}
		}
		b, oob := make([]byte, 1<<16), make([]byte, 256)
		n, oobn, _, _, err := p.conn.ReadMsgUnix(b, oob)
		if err != nil || n == 0 {
			p.t.Fatalf("session ended: %v", err)
		}
		p.buf = append(p.buf, b[:n]...)
		messages, _ := unix.ParseSocketControlMessage(oob[:oobn])
		for _, m := range messages {
			fds, _ := unix.ParseUnixRights(&m)
			p.fds = append(p.fds, fds...)
		}
	}
}

func (p *program) send(request map[string]any) uint64 {
	p.t.Helper()
	p.id++
	request["id"] = p.id
	frame, err := appendFrame(nil, request)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.conn.Write(frame); err != nil {
		p.t.Fatal(err)
	}
	return p.id
}

// reply waits for the answer to a request and keeps the events that come before it.
func (p *program) reply(id uint64) (ok map[string]any, code string, fd int) {
	p.t.Helper()
	for {
		frame := p.next()
		if _, event := frame["ev"]; event {
			p.events = append(p.events, frame)
			continue
		}
		fd = -1
		if frame["fd"] == true {
			fd, p.fds = p.fds[0], p.fds[1:]
		}
		if frame["id"] != float64(id) {
			p.t.Fatalf("reply to %v came, want %d", frame["id"], id)
		}
		if e, failed := frame["err"].(map[string]any); failed {
			return e, e["code"].(string), fd
		}
		p.last = frame["ok"].(map[string]any)
		return p.last, "", fd
	}
}

func (p *program) call(op string, keys ...any) (map[string]any, string, int) {
	p.t.Helper()
	request := map[string]any{"op": op}
	for i := 0; i < len(keys); i += 2 {
		request[keys[i].(string)] = keys[i+1]
	}
	return p.reply(p.send(request))
}

// must is call for what has to succeed.
func (p *program) must(op string, keys ...any) (map[string]any, *net.UnixConn) {
	p.t.Helper()
	ok, code, fd := p.call(op, keys...)
	if code != "" {
		p.t.Fatalf("%s: %s: %v", op, code, ok["msg"])
	}
	if fd < 0 {
		return ok, nil
	}
	conn, err := adopt(fd)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	return ok, conn
}

func (p *program) refused(want Code, op string, keys ...any) map[string]any {
	p.t.Helper()
	e, code, fd := p.call(op, keys...)
	if code != string(want) {
		p.t.Errorf("%s %v: got code %q (%v), want %s", op, keys, code, e["msg"], want)
	}
	if fd >= 0 {
		p.t.Errorf("%s: a descriptor came with an error", op)
	}
	return e
}

// pair opens two linked nodes, a and b.
func pair(t *testing.T) (a, b *program) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b = open(t)
	b.must("open", "config", map[string]any{
		"node": "b", "daemon": self,
		"work_commands": []any{map[string]any{"worktype": "cat", "command": "cat"}, map[string]any{"worktype": "sleep", "command": "sleep", "params": "60"}},
	})
	bound, _ := b.must("listen.add", "address", "tcp://127.0.0.1:0")
	a = open(t)
	a.must("open", "config", map[string]any{"node": "a", "peers": []any{map[string]any{"address": bound["address"]}}})
	a.must("route.wait", "node", "b", "timeout", 60)
	b.must("route.wait", "node", "a", "timeout", 60)
	return a, b
}

func TestOpenErrors(t *testing.T) {
	for _, cfg := range []string{"", "{", `{"abi": 2}`, `{"abi": 1, "environ": 5}`} {
		if fd, err := Open([]byte(cfg), "test"); err == nil {
			t.Errorf("Open(%q) gave descriptor %d, want an error", cfg, fd)
		}
	}
	p := open(t)
	p.refused(Closed, "status")
	p.refused(BadRequest, "open")
	p.refused(BadRequest, "open", "config", map[string]any{})
	p.refused(BadRequest, "frobnicate")
	p.refused(BadRequest, "open", "config", "text")
	p.refused(BadConfig, "open", "config", map[string]any{"node": "localhost"})
	p.refused(BadRequest, "open", "config", map[string]any{"node": "x", "peers": []any{map[string]any{"address": "carrier-pigeon://h:1"}}})
	p.refused(BadConfig, "open", "config", map[string]any{"file": "/nonexistent/receptor.yml"})
	p.must("open", "config", map[string]any{"node": "n"})
	p.refused(BadRequest, "open", "config", map[string]any{"node": "again"})
}

func TestMeshOperations(t *testing.T) {
	a, b := pair(t)
	if ok, _ := a.must("ping", "node", "b"); ok["from"] != "b" {
		t.Errorf("ping: %v", ok)
	}
	if e := a.refused(NoRoute, "ping", "node", "nowhere"); e["msg"] != "ping nowhere: no route to node" {
		t.Errorf("got %q", e["msg"])
	}
	a.refused(BadRequest, "ping")
	a.refused(Timeout, "route.wait", "node", "nowhere", "timeout", 0.01)
	if ok, _ := a.must("traceroute", "node", "b"); len(ok["hops"].([]any)) != 2 {
		t.Errorf("traceroute: %v", ok)
	}
	if ok, _ := a.must("status"); ok["NodeID"] != "a" || ok["RoutingTable"].(map[string]any)["b"] != "b" {
		t.Errorf("status: %v", ok)
	}
	a.refused(ServiceUnknown, "stream.connect", "node", "b", "service", "none")
	a.refused(BadRequest, "stream.connect", "node", "b", "service", "far-too-long")
	a.refused(BadRequest, "backend.remove", "backend", 99)

	_, more := b.must("session.new")
	second := attachConn(t, more)
	if ok, _ := second.must("ping", "node", "a"); ok["from"] != "a" {
		t.Errorf("ping on a second session: %v", ok)
	}
	second.refused(BadRequest, "open", "config", map[string]any{"node": "x"})
}

func attachConn(t *testing.T, conn *net.UnixConn) *program {
	t.Helper()
	p := &program{t: t, conn: conn}
	if hello := p.next(); hello["ev"] != "hello" {
		t.Fatalf("greeting is %v", hello)
	}
	return p
}

// accept takes the next stream from a listener's socket.
func accept(t *testing.T, listener *net.UnixConn) (announced map[string]any, conn *net.UnixConn) {
	t.Helper()
	b, oob := make([]byte, 4096), make([]byte, 64)
	n, oobn, _, _, err := listener.ReadMsgUnix(b, oob)
	if err != nil || string(b[:n]) != "+" {
		t.Fatalf("listener sent %q, %v; want a descriptor with \"+\"", b[:n], err)
	}
	messages, _ := unix.ParseSocketControlMessage(oob[:oobn])
	fds, _ := unix.ParseUnixRights(&messages[0])
	if conn, err = adopt(fds[0]); err != nil {
		t.Fatal(err)
	}
	if n, err = listener.Read(b); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b[:n], &announced); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	return announced, conn
}

func TestStreams(t *testing.T) {
	a, b := pair(t)
	svc, listener := b.must("stream.listen", "service", "echo")
	if svc["service"] != "echo" {
		t.Errorf("listening: %v", svc)
	}
	b.refused(InUse, "stream.listen", "service", "echo")

	connect := func(t *testing.T) (near, far *net.UnixConn, nearID, farID any) {
		t.Helper()
		opened, near := a.must("stream.connect", "node", "b", "service", "echo")
		announced, far := accept(t, listener)
		if peer := announced["peer"].(map[string]any); peer["node"] != "a" {
			t.Errorf("announced %v, want a stream from a", announced)
		}
		return near, far, opened["stream"], announced["stream"]
	}
	t.Run("half close both ways", func(t *testing.T) {
		near, far, id, _ := connect(t)
		_, _ = near.Write([]byte("question"))
		_ = near.CloseWrite()
		if q, err := io.ReadAll(far); err != nil || string(q) != "question" {
			t.Fatalf("read %q, %v", q, err)
		}
		_, _ = far.Write([]byte("answer"))
		_ = far.Close()
		if r, err := io.ReadAll(near); err != nil || string(r) != "answer" {
			t.Fatalf("read %q, %v", r, err)
		}
		st, _ := a.must("stream.status", "stream", id)
		if st["state"] == "reset" || st["bytes_in"] != 6.0 || st["bytes_out"] != 8.0 {
			t.Errorf("status %v", st)
		}
	})
	t.Run("reset is told", func(t *testing.T) {
		near, _, id, farID := connect(t)
		b.must("stream.abort", "stream", farID, "error_code", 42)
		_, _ = io.ReadAll(near)
		st, _ := a.must("stream.status", "stream", id)
		e, _ := st["err"].(map[string]any)
		if st["state"] != "reset" || e["code"] != "reset" || e["error_code"] != 42.0 || e["remote"] != true {
			t.Errorf("status %v, want a remote reset with code 42", st)
		}
	})
	t.Run("closing is noticed by a silent reader", func(t *testing.T) {
		near, far, _, _ := connect(t)
		_ = near.CloseWrite()
		_, _ = io.ReadAll(far)
		_ = near.Close()
		for { // The far end may write until the news has arrived, not longer.
			if _, err := far.Write(make([]byte, 1<<16)); err != nil {
				break
			}
		}
	})
	t.Run("closing is an end, not a reset", func(t *testing.T) {
		for range 100 {
			near, far, id, _ := connect(t)
			_ = far.Close()
			if got, err := io.ReadAll(near); err != nil || len(got) > 0 {
				t.Fatalf("after a close: %q, %v", got, err)
			}
			if st, _ := a.must("stream.status", "stream", id); st["state"] == "reset" {
				t.Fatalf("after a close: %v", st)
			}
			_ = near.Close()
		}
	})
	t.Run("many at once", func(t *testing.T) {
		const count = 20
		go func() {
			for range count {
				_, conn := accept(t, listener)
				go func() { _, _ = io.Copy(conn, conn); _ = conn.Close() }()
			}
		}()
		for i := range count {
			_, near := a.must("stream.connect", "node", "b", "service", "echo")
			text := fmt.Sprintf("stream %d", i)
			_, _ = near.Write([]byte(text))
			_ = near.CloseWrite()
			if got, err := io.ReadAll(near); err != nil || string(got) != text {
				t.Fatalf("stream %d: %q, %v", i, got, err)
			}
		}
	})
}

// TestLargestErrorCode: what does not fit into a frame of a reset is refused, and the node goes on.
func TestLargestErrorCode(t *testing.T) {
	a, b := pair(t)
	_, listener := b.must("stream.listen", "service", "x")
	opened, _ := a.must("stream.connect", "node", "b", "service", "x")
	announced, far := accept(t, listener)
	for _, code := range []uint64{1 << 62, 1<<64 - 1} {
		a.refused(BadRequest, "stream.abort", "stream", opened["stream"], "error_code", code)
	}
	a.must("stream.abort", "stream", opened["stream"], "error_code", uint64(1<<62-1))
	_, _ = io.ReadAll(far)
	ok, _ := b.must("stream.status", "stream", announced["stream"])
	if e, _ := ok["err"].(map[string]any); e["error_code"] != float64(1<<62-1) {
		t.Errorf("the other side has %v", ok)
	}
}

func TestDatagrams(t *testing.T) {
	a, b := pair(t)
	_, in := b.must("datagram.open", "service", "in")
	opened, out := a.must("datagram.open")
	message := func(kind byte, node, service, payload string) string {
		return string([]byte{1, kind, byte(len(node))}) + node + string([]byte{byte(len(service))}) + service + payload
	}
	_, _ = out.Write([]byte(message(0, "b", "in", "hi")))
	buf := make([]byte, 70000)
	n, err := in.Read(buf)
	if want := message(0, "a", opened["service"].(string), "hi"); err != nil || string(buf[:n]) != want {
		t.Errorf("received %q (%v), want %q", buf[:n], err, want)
	}
	_, _ = out.Write([]byte(message(0, "b", "nobody", "x")))
	n, err = out.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	if want := message(1, "b", "nobody", "service unknown"); string(buf[:n]) != want {
		t.Errorf("notice %q, want %q", buf[:n], want)
	}
	_, _ = out.Write([]byte(message(0, "nowhere", "x", "x")))
	n, _ = out.Read(buf)
	if got := string(buf[:n]); !strings.HasPrefix(got, message(2, "nowhere", "x", "")) || !strings.Contains(got, "no_route") {
		t.Errorf("refusal %q, want no_route", got)
	}
	for _, bad := range []string{"x", "\x02\x00\x01b\x00", "\x01\x00\xff", "\x01\x00\x01b\xff"} {
		_, _ = out.Write([]byte(bad))
		n, _ = out.Read(buf)
		if !strings.Contains(string(buf[:n]), "bad_request") {
			t.Errorf("message %q was answered %q, want bad_request", bad, buf[:n])
		}
	}
	_ = in.Close()
	var told atomic.Bool
	var sender sync.WaitGroup
	sender.Go(func() {
		for !told.Load() { // What arrives before the far side has seen the close is nobody's loss.
			_, _ = out.Write([]byte(message(0, "b", "in", "hi")))
		}
	})
	for buf[1] = 0; buf[1] != datagramNotice; {
		if _, err := out.Read(buf); err != nil {
			t.Error(err)
			break
		}
	}
	told.Store(true)
	sender.Wait()
}

// TestWhatIsForWorkOnAnotherNode is refused where it would be ignored.
func TestWhatIsForWorkOnAnotherNode(t *testing.T) {
	p := open(t)
	p.must("open", "config", map[string]any{"node": "p", "work_commands": []any{map[string]any{"worktype": "cat", "command": "cat"}}})
	for key, value := range map[string]any{"ttl": 1, "tls": "nonesuch", "sign": true} {
		for _, node := range []string{"p", "LocalHost"} {
			e := p.refused(BadRequest, "work.submit", "node", node, "worktype", "cat", key, value)
			want := fmt.Sprintf("key %q: it is for work on another node, and %q is this one", key, node)
			if e["msg"] != want {
				t.Errorf("told %v, want %v", e["msg"], want)
			}
		}
	}
}

func TestWork(t *testing.T) {
	a, b := pair(t)
	for _, where := range []struct {
		p    *program
		node string
	}{{b, "localhost"}, {a, "b"}} {
		sub, payload := where.p.must("work.submit", "node", where.node, "worktype", "cat")
		unit := sub["unit"]
		_, _ = payload.Write([]byte("payload"))
		_ = payload.CloseWrite()
		if ok, _ := where.p.must("work.started", "unit", unit); ok["result"] != "Job Started" {
			t.Errorf("started: %v", ok)
		}
		_, output := where.p.must("work.results", "unit", unit, "offset", 3)
		if got, err := io.ReadAll(output); err != nil || string(got) != "load" {
			t.Errorf("output from byte 3: %q, %v", got, err)
		}
		if ok, _ := where.p.must("work.wait", "unit", unit, "timeout", 60); ok["StateName"] != "Succeeded" {
			t.Errorf("status: %v", ok)
		}
		if ok, _ := where.p.must("work.list"); ok[unit.(string)] == nil {
			t.Errorf("list lacks %v: %v", unit, ok)
		}
		where.p.must("work.release", "unit", unit)
	}
	sub, payload := a.must("work.submit", "node", "b", "worktype", "sleep")
	_ = payload.CloseWrite()
	a.must("work.started", "unit", sub["unit"])
	a.must("work.cancel", "unit", sub["unit"])
	if ok, _ := a.must("work.wait", "unit", sub["unit"], "timeout", 60); ok["StateName"] != "Canceled" {
		t.Errorf("after cancel: %v", ok)
	}
	a.must("work.release", "unit", sub["unit"])
	a.refused(UnitUnknown, "work.status", "unit", "nonesuch")
	b.refused(WorkType, "work.submit", "node", "b", "worktype", "nonesuch")

	sub, payload = b.must("work.submit", "node", "b", "worktype", "cat")
	_, _ = payload.Write([]byte("half a pay"))
	_ = payload.Close() // Vanishes: this is no end of the payload.
	e := b.refused(Work, "work.started", "unit", sub["unit"])
	if !strings.Contains(fmt.Sprint(e["msg"]), errPayloadCut.Error()) {
		t.Errorf("cut payload: %v", e)
	}
}

// TestPrivateDirectory: there is one from the first unit to the end of the node.
// TestStartIsToldOnce: who asks again, or for a unit of another program, is not told that there is none; nothing is kept for
// those who never ask.
func TestStartIsToldOnce(t *testing.T) {
	p := open(t)
	p.must("open", "config", map[string]any{"node": "p"})
	submitted := func() any {
		ok, payload := p.must("work.submit", "node", "far", "worktype", "cat")
		_ = payload.CloseWrite()
		return ok["unit"]
	}
	unit := submitted()
	p.must("work.started", "unit", unit)
	if e := p.refused(BadRequest, "work.started", "unit", unit); !strings.Contains(fmt.Sprint(e["msg"]), "told once") {
		t.Errorf("a second time: %v", e["msg"])
	}
	p.must("work.release", "unit", unit, "force", true)
	p.refused(UnitUnknown, "work.started", "unit", unit)
	never := submitted()
	p.must("work.release", "unit", never, "force", true)
	p.refused(UnitUnknown, "work.started", "unit", never)
}

func TestPrivateDirectory(t *testing.T) {
	dir := t.TempDir()
	start := func(tmpdir string) *program {
		fd, err := Open(fmt.Appendf(nil, `{"abi": 1, "environ": {"TMPDIR": %q}}`, tmpdir), "test")
		if err != nil {
			t.Fatal(err)
		}
		return attach(t, fd)
	}
	inside := func() []string {
		found, err := filepath.Glob(filepath.Join(dir, "receptor-*", "p", "*", "status"))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	p := start(dir)
	p.must("open", "config", map[string]any{"node": "p"})
	if made, err := os.ReadDir(dir); err != nil || len(made) > 0 {
		t.Errorf("before there are units: %v, %v", made, err)
	}
	p.must("work.submit", "node", "far", "worktype", "cat")
	if units := inside(); len(units) != 1 {
		t.Errorf("with a unit: %v", units)
	}
	p.must("close")
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("after the end: %v, %v", left, err)
	}
	missing := filepath.Join(dir, "missing")
	start(missing).refused(BadConfig, "open", "config", map[string]any{"node": "p"})
}

// TestADirectoryThatCannotBeWritten is told when the node is opened, and not when the first unit is submitted.
func TestADirectoryThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "p"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{dir, filepath.Join(dir, "p", "deeper"), "/proc/units"} { // Root may write everywhere else.
		p := open(t)
		err := p.refused(BadConfig, "open", "config", map[string]any{"node": "p", "data_dir": name})
		if msg := err["msg"].(string); !strings.Contains(msg, "data_dir "+name+" cannot be made or written") || !strings.Contains(msg, "name a directory") {
			t.Errorf("data_dir %s: told %q", name, msg)
		}
		p.must("open", "config", map[string]any{"node": "p", "data_dir": filepath.Join(dir, "new")})
	}
	if _, err := os.Stat(filepath.Join(dir, "new")); err == nil {
		t.Error("the directory of a node without units was made")
	}
}

// TestOpenNamesTheKey: what cannot be used is told with the key that has it.
func TestOpenNamesTheKey(t *testing.T) {
	p := open(t)
	for want, config := range map[string]map[string]any{
		`key "file": "r.yml" is not an absolute path`:                              {"file": "r.yml"},
		`key "data_dir": "units" is not an absolute path`:                          {"node": "p", "data_dir": "units"},
		`key "daemon": "receptor" is not an absolute path`:                         {"node": "p", "daemon": "receptor"},
		`key "max_idle": -1 seconds: want 21 or more`:                              {"node": "p", "max_idle": -1},
		`key "max_idle": 20.9 seconds: want 21 or more`:                            {"node": "p", "max_idle": 20.9},
		`key "tls_profiles": profile "t": "cert" and "key" go together`:            {"node": "p", "tls_profiles": map[string]any{"t": map[string]any{"cert": "/c"}}},
		`key "tls_profiles": a profile needs a name`:                               {"node": "p", "tls_profiles": map[string]any{"": map[string]any{}}},
		`key "environ": no environment has a variable "A=B" with the value "x"`:    {"node": "p", "environ": map[string]string{"A=B": "x"}},
		`key "environ": no environment has a variable "" with the value "x"`:       {"node": "p", "environ": map[string]string{"": "x"}},
		`key "environ": no environment has a variable "A" with the value "x\x00y"`: {"node": "p", "environ": map[string]string{"A": "x\x00y"}},
	} {
		if e := p.refused(BadRequest, "open", "config", config); e["msg"] != want {
			t.Errorf("%v was refused with\n%v, want\n%v", config, e["msg"], want)
		}
	}
}

// TestProfileFiles: a file that is missing is told once, though it is of both sides of its profile.
func TestProfileFiles(t *testing.T) {
	p := open(t)
	profile := map[string]string{"cert": "/no/crt", "key": "/no/key", "cas": "/no/ca"}
	e := p.refused(BadConfig, "open", "config", map[string]any{"node": "p", "tls_profiles": map[string]any{"t": profile}})
	want := `TLS profile "t": /no/crt: no such file or directory
TLS profile "t": /no/key: no such file or directory
TLS profile "t": /no/ca: no such file or directory`
	if e["msg"] != want {
		t.Errorf("told\n%v, want\n%v", e["msg"], want)
	}
}

// TestWhatAFileGives is not given beside it: it would be ignored.
func TestWhatAFileGives(t *testing.T) {
	p, file := open(t), filepath.Join(t.TempDir(), "r.yml")
	for key, value := range map[string]any{"node": "p", "data_dir": "/tmp/x", "max_idle": 30} {
		p.refused(BadRequest, "open", "config", map[string]any{"file": file, key: value})
	}
}

// TestNoPlaceForAUnit: the disk is at fault, not the work type that was asked for.
func TestNoPlaceForAUnit(t *testing.T) {
	p, dir := open(t), t.TempDir()
	p.must("open", "config", map[string]any{
		"node": "p", "data_dir": dir,
		"work_commands": []any{map[string]any{"worktype": "cat", "command": "cat"}},
	})
	units := filepath.Join(dir, "p")
	if err := os.RemoveAll(units); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(units, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, node := range []string{"p", "far"} {
		p.refused(Work, "work.submit", "node", node, "worktype", "cat")
	}
}

// TestWhatIsClosedIsNamed: a program may have several nodes.
func TestWhatIsClosedIsNamed(t *testing.T) {
	p := open(t)
	p.must("open", "config", map[string]any{"node": "p"})
	waiting := p.send(map[string]any{"op": "route.wait", "node": "nowhere"})
	closing := p.send(map[string]any{"op": "close"})
	e, _, _ := p.reply(waiting)
	if e["code"] != string(Closed) || e["msg"] != `node "p" is closed` || e["node"] != "p" {
		t.Errorf("a wait ended with %v", e)
	}
	if e, code, _ := p.reply(closing); code != "" {
		t.Errorf("close: %v", e)
	}
	if e = p.refused(Closed, "stream.listen", "service", "x"); e["msg"] != `node "p" is closed` {
		t.Errorf("what came afterwards was told %v", e)
	}
}

// TestAfterClose: nothing is done any more, and how the streams have ended is still told. A daemon's node is still there.
func TestAfterClose(t *testing.T) {
	p := open(t)
	p.must("open", "config", map[string]any{"node": "p"})
	p.must("stream.listen", "service", "x")
	opened, near := p.must("stream.connect", "node", "p", "service", "x")
	p.must("close")
	_, _ = near.Read(make([]byte, 1)) // Until it has ended.
	for op, o := range operations {
		if !o.needsNode || o.afterwards {
			continue
		}
		p.refused(Closed, op, "node", "p", "service", "x", "address", "tcp://127.0.0.1:0", "worktype", "cat", "unit", "u")
	}
	if ok, _ := p.must("stream.status", "stream", opened["stream"]); ok["state"] != "reset" {
		t.Errorf("stream of a node that was closed: %v", ok)
	}
	p.refused(Closed, "session.new")
	p.must("close")

	q := dialSession(t, daemonWithSocket(t))
	q.must("close")
	q.must("ping", "node", "host")
	_, more := q.must("session.new")
	attachConn(t, more).must("ping", "node", "host")
}

func TestBadFrames(t *testing.T) {
	p := open(t)
	for _, body := range []string{"[]", "{", `{"id": "x"}`, "null", `{"id": 1.5}`, `"text"`} {
		_, _ = p.conn.Write(append([]byte{0, 0, 0, byte(len(body))}, body...))
		if frame := p.next(); frame["err"] == nil {
			t.Errorf("frame %s was answered %v, want an error", body, frame)
		}
	}
}

// TestKeysOfTheWrongKind: the request is answered, in words of JSON, wherever in it the key is.
func TestKeysOfTheWrongKind(t *testing.T) {
	p := open(t)
	for body, want := range map[string]string{
		`{"tls": 3, "op": "peer.add", "id": %d}`:                       `key "tls": number given, string or object expected`,
		`{"op": "open", "config": {"peers": [{"tls": []}]}, "id": %d}`: `key "config.peers.tls": array given, string or object expected`,
		`{"op": "peer.add", "tls": {"pins": "x"}, "id": %d}`:           `key "tls.pins": string given, array expected`,
		`{"op": "open", "config": 3, "id": %d}`:                        `key "config": number given, object expected`,
		`{"op": "open", "config": {"peers": {}}, "id": %d}`:            `key "config.peers": object given, array expected`,
		`{"op": "open", "config": {"environ": []}, "id": %d}`:          `key "config.environ": array given, object expected`,
		`{"op": "peer.add", "cost": "x", "id": %d}`:                    `key "cost": string given, number expected`,
		`{"op": "peer.add", "redial": "x", "id": %d}`:                  `key "redial": string given, true or false expected`,
		`{"op": "ping", "hops": 300, "id": %d}`:                        `key "hops": number 300 given, whole number from 0 to 255 expected`,
		`{"op": "stream.abort", "error_code": -1, "id": %d}`:           `key "error_code": number -1 given, whole number from 0 expected`,
		`{"op": "stream.listen", "backlog": 1.5, "id": %d}`:            `key "backlog": number 1.5 given, whole number expected`,
		`{"op": "ping", "node": true, "id": %d}`:                       `key "node": bool given, string expected`,
	} {
		p.id++
		body = fmt.Sprintf(body, p.id)
		_, _ = p.conn.Write(append([]byte{0, 0, 0, byte(len(body))}, body...))
		if e, code, _ := p.reply(p.id); code != string(BadRequest) || e["msg"] != want {
			t.Errorf("%s was answered %s\n%v, want\n%v", body, code, e["msg"], want)
		}
	}
}

// TestLongTimes: a time that is too long to be counted in nanoseconds is one for ever, and none that is over.
func TestLongTimes(t *testing.T) {
	p := open(t)
	p.must("open", "config", map[string]any{"node": "p", "max_idle": 1e300})
	p.must("ping", "node", "p", "timeout", 1e300)
	ok, payload := p.must("work.submit", "node", "far", "worktype", "cat", "ttl", 1e300)
	_ = payload.CloseWrite()
	if ok, _ := p.must("work.started", "unit", ok["unit"]); ok["result"] != "Job Submitted" {
		t.Errorf("a unit with a long time to live: %v", ok)
	}
	p.must("work.release", "unit", ok["unit"], "force", true)
}

// TestFramesThatAreNone: who sends something else is told so, also where that ends the session.
func TestFramesThatAreNone(t *testing.T) {
	for sent, want := range map[string]struct {
		msg  string
		ends bool
	}{
		"\x00\x00\x00\x02[]":    {msg: "frame is not a JSON object: array given"},
		"\x00\x00\x00\x05hello": {msg: "frame is not a JSON object: invalid character 'h' looking for beginning of value"},
		"\x00\x00\x00\x00":      {"frame of 0 bytes, want 1 to 16777216", true},
		"\xff\xff\xff\xff":      {"frame of 4294967295 bytes, want 1 to 16777216", true},
		"GET ":                  {"frame of 1195725856 bytes, want 1 to 16777216", true},
	} {
		p := open(t)
		if _, err := p.conn.Write([]byte(sent)); err != nil {
			t.Fatal(err)
		}
		frame := p.next()
		if e, _ := frame["err"].(map[string]any); frame["id"] != 0.0 || e["code"] != string(BadRequest) || e["msg"] != want.msg {
			t.Errorf("%q was answered %v, want %q", sent, frame, want.msg)
		}
		if !want.ends {
			p.refused(Closed, "status") // No node is open; the session goes on.
			continue
		}
		if n, err := p.conn.Read(make([]byte, 100)); !errors.Is(err, io.EOF) {
			t.Errorf("after %q: %d bytes, %v; want the session to end", sent, n, err)
		}
	}
}

// TestRequestsAreBounded asks for more than a session takes, and reads no answers.
func TestRequestsAreBounded(t *testing.T) {
	p := open(t)
	p.must("open", "config", map[string]any{"node": "a"})
	t.Run("waiting", func(t *testing.T) {
		for range mostRunning {
			p.send(map[string]any{"op": "route.wait", "node": "nowhere"})
		}
		p.refused(TooMany, "status")
		frame, _ := appendFrame(nil, map[string]any{"op": "cancel", "target": p.id - 1})
		_, _ = p.conn.Write(frame)
		if _, code, _ := p.reply(p.id - 1); code != string(Cancelled) {
			t.Errorf("cancelled request answered with %q", code)
		}
		for code := string(TooMany); code != ""; { // The answer may be read before the node has noted that it is out.
			if _, code, _ = p.call("status"); code != "" && code != string(TooMany) {
				t.Fatalf("status: %s", code)
			}
		}
	})
	t.Run("unread", func(t *testing.T) {
		_, q := p.must("session.new")
		defer q.Close()
		unread := attachConn(t, q)
		const requests, ahead = 20_000, 2_000 // What the buffers of both sockets hold is less than ahead.
		var sent atomic.Int64
		go func() {
			for id := range uint64(requests) {
				frame, _ := appendFrame(nil, map[string]any{"op": "status", "id": id + 1})
				if _, err := q.Write(frame); err != nil {
					return
				}
				sent.Add(1)
			}
		}()
		for read := range int64(requests) {
			if n := sent.Load(); n > read+ahead {
				t.Fatalf("the node has taken %d requests of a program that has read %d answers", n, read)
			}
			if _, code, _ := unread.reply(uint64(read) + 1); code != "" {
				t.Fatalf("request %d was answered with %q", read+1, code)
			}
		}
	})
}

func TestCancelAndEvents(t *testing.T) {
	a, b := pair(t)
	waiting := a.send(map[string]any{"op": "route.wait", "node": "nowhere"})
	frame, _ := appendFrame(nil, map[string]any{"op": "cancel", "target": waiting})
	_, _ = a.conn.Write(frame)
	if _, code, _ := a.reply(waiting); code != string(Cancelled) {
		t.Errorf("cancelled request answered with %q", code)
	}
	a.refused(BadRequest, "events", "kinds", []string{"nonsense"})
	a.must("events", "kinds", []string{"peer", "log"})
	b.must("close")
	for {
		e := a.next()
		if e["ev"] == "peer" {
			if e["kind"] != "down" || e["node"] != "b" {
				t.Errorf("event %v, want peer b down", e)
			}
			break
		}
	}
}

// TestClosingTellsPeers closes the node at one end of a stream: the other hears it from there and need not find out that
// the path is lost.
func TestClosingTellsPeers(t *testing.T) {
	for _, closer := range []string{"listens", "dials"} { // For links, and the other way round for streams.
		t.Run(closer, func(t *testing.T) {
			stays, goes := pair(t)
			if closer == "dials" {
				stays, goes = goes, stays
			}
			status, _ := goes.must("status")
			_, listener := goes.must("stream.listen", "service", "x")
			opened, near := stays.must("stream.connect", "node", status["NodeID"], "service", "x")
			_, far := accept(t, listener)
			_, _ = far.Write([]byte("half"))
			if _, err := io.ReadFull(near, make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
			goes.must("close")
			if got, err := endOf(near); got != "" || !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read %q and %v", got, err)
			}
			st, _ := stays.must("stream.status", "stream", opened["stream"])
			if e, _ := st["err"].(map[string]any); st["state"] != "reset" || e["remote"] != true {
				t.Errorf("status %v", st)
			}
		})
	}
}

// TestNothingIsLeft opens and uses nodes, and counts goroutines and descriptors before and after.
func TestNothingIsLeft(t *testing.T) {
	before, fdsBefore := runtime.NumGoroutine(), countFDs(t)
	t.Run("use", func(t *testing.T) {
		a, b := pair(t)
		_, listener := b.must("stream.listen", "service", "x")
		_, _ = a.must("stream.connect", "node", "b", "service", "x")
		_, _ = accept(t, listener)
		_, _ = a.must("datagram.open")
		_, _ = a.must("session.new")
		a.must("close")
		b.must("close")
	})
	deadline := time.Now().Add(time.Minute)
	for runtime.NumGoroutine() > before || countFDs(t) > fdsBefore {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines (%d before), %d descriptors (%d before)\n%s", runtime.NumGoroutine(), before,
				countFDs(t), fdsBefore, stacks[:runtime.Stack(stacks, true)])
		}
		runtime.Gosched()
	}
}

func countFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skipf("descriptors cannot be counted: %v", err)
	}
	return len(entries)
}

// TestNodeFromFile opens what a daemon's configuration file describes.
func TestNodeFromFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "node.yml")
	text := fmt.Sprintf("- node: {id: from-file, datadir: %q}\n- tcp-listener: {bindaddr: 127.0.0.1, port: 0}\n", t.TempDir())
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := open(t)
	if ok, _ := p.must("open", "config", map[string]any{"file": file}); ok["node"] != "from-file" {
		t.Errorf("opened %v", ok)
	}
}

// TestTransports links two nodes over each transport that an address can name.
func TestTransports(t *testing.T) {
	for _, scheme := range []string{"tcp", "udp", "ws"} {
		t.Run(scheme, func(t *testing.T) {
			b := open(t)
			b.must("open", "config", map[string]any{"node": "b"})
			bound, _ := b.must("listen.add", "address", scheme+"://127.0.0.1:0")
			a := open(t)
			peer := fmt.Sprintf("%s://%s", scheme, bound["address"])
			a.must("open", "config", map[string]any{"node": "a", "peers": []any{map[string]any{"address": peer}}})
			a.must("route.wait", "node", "b", "timeout", 60)
			b.must("route.wait", "node", "a", "timeout", 60)
			a.must("ping", "node", "b")
		})
	}
	p := open(t)
	p.must("open", "config", map[string]any{"node": "n"})
	p.refused(BadRequest, "peer.add", "address", "ws://user@host/")
	p.refused(BadRequest, "listen.add", "address", "wss://127.0.0.1:0/")
	p.refused(BadRequest, "listen.add", "address", "udp://nowhere")
}
