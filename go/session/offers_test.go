package session

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// task is a unit as the program that offered its type gets it.
type task struct {
	stdin, stdout *os.File
	control       *net.UnixConn
	about         map[string]any
}

func takeUnit(t *testing.T, offer *net.UnixConn) task {
	t.Helper()
	b, oob := make([]byte, 4096), make([]byte, 64)
	n, oobn, _, _, err := offer.ReadMsgUnix(b, oob)
	if err != nil || string(b[:n]) != "+" {
		t.Fatalf("offer sent %q, %v", b[:n], err)
	}
	messages, _ := unix.ParseSocketControlMessage(oob[:oobn])
	fds, _ := unix.ParseUnixRights(&messages[0])
	if len(fds) != 3 {
		t.Fatalf("a unit came with %d descriptors", len(fds))
	}
	u := task{stdin: os.NewFile(uintptr(fds[0]), "stdin"), stdout: os.NewFile(uintptr(fds[1]), "stdout")}
	if u.control, err = adopt(fds[2]); err != nil {
		t.Fatal(err)
	}
	_ = u.control.SetDeadline(time.Now().Add(time.Minute))
	if n, err = offer.Read(b); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b[:n], &u.about); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _, _ = u.stdin.Close(), u.stdout.Close(), u.control.Close() })
	return u
}

// submit starts a unit on b from a, with a payload.
func submit(p *program, node, payload string) (unit any) {
	p.t.Helper()
	sub, conn := p.must("work.submit", "node", node, "worktype", "upper", "params", map[string]string{"x": "1"})
	_, _ = conn.Write([]byte(payload))
	_ = conn.CloseWrite()
	p.must("work.started", "unit", sub["unit"])
	return sub["unit"]
}

func TestOffers(t *testing.T) {
	a, b := pair(t)
	_, offer := b.must("work.offer", "worktype", "upper", "concurrency", 2)
	b.refused(InUse, "work.offer", "worktype", "upper")
	b.refused(BadRequest, "work.offer")
	if e := b.refused(BadRequest, "work.offer", "worktype", "lower", "concurrency", -1); !strings.Contains(fmt.Sprint(e["msg"]), `key "concurrency"`) {
		t.Errorf("got %v, want the key named", e)
	}

	sub, conn := a.must("work.submit", "node", "b", "worktype", "lower")
	_ = conn.CloseWrite()
	a.refused(WorkType, "work.started", "unit", sub["unit"])

	unit := submit(a, "b", "payload")
	u := takeUnit(t, offer)
	if u.about["worktype"] != "upper" || fmt.Sprint(u.about["params"]) != "map[x:1]" {
		t.Errorf("unit is %v", u.about)
	}
	_, _ = u.control.Write([]byte(`{"progress":"half"}`))
	text, err := io.ReadAll(u.stdin)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = u.stdout.WriteString(strings.ToUpper(string(text)))
	for {
		status, _ := b.must("work.list")
		if strings.Contains(fmt.Sprint(status), "half") {
			break
		}
	}
	_, _ = u.control.Write([]byte(`{"ok":true}`))
	if ok, _ := a.must("work.wait", "unit", unit, "timeout", 60); ok["StateName"] != "Succeeded" {
		t.Errorf("status: %v", ok)
	}
	_, output := a.must("work.results", "unit", unit)
	if got, err := io.ReadAll(output); err != nil || string(got) != "PAYLOAD" {
		t.Errorf("output %q, %v", got, err)
	}

	for _, end := range []struct{ say, state, detail string }{
		{`{"err":"ValueError: no"}`, "Failed", "ValueError: no"},
		{`{"exit":3}`, "Failed", "exit status 3"},
		{`nonsense`, "Failed", errBadVerdict.Error()},
		{"", "Failed", errProgramGone.Error()},
	} {
		unit := submit(b, "b", "")
		u := takeUnit(t, offer)
		if end.say != "" {
			_, _ = u.control.Write([]byte(end.say))
		} else {
			_ = u.control.Close()
		}
		if ok, _ := b.must("work.wait", "unit", unit, "timeout", 60); ok["StateName"] != end.state || ok["Detail"] != end.detail {
			t.Errorf("%q: %v %v", end.say, ok["StateName"], ok["Detail"])
		}
	}

	unit = submit(b, "b", "")
	u = takeUnit(t, offer)
	cancelling := b.send(map[string]any{"op": "work.cancel", "unit": unit})
	buf := make([]byte, 100)
	if n, err := u.control.Read(buf); err != nil || string(buf[:n]) != `{"cancel":true}` {
		t.Errorf("the program heard %q, %v; want a cancel", buf[:n], err)
	}
	_, _ = u.control.Write([]byte(`{"err":"cancelled"}`))
	b.reply(cancelling)
	if ok, _ := b.must("work.wait", "unit", unit, "timeout", 60); ok["StateName"] != "Canceled" {
		t.Errorf("after cancel: %v", ok)
	}

	unit = submit(b, "b", "")
	u = takeUnit(t, offer)
	_ = offer.Close() // Withdrawn; what has begun goes on.
	b.refused(WorkType, "work.submit", "node", "b", "worktype", "upper")
	_, _ = u.control.Write([]byte(`{"ok":true}`))
	if ok, _ := b.must("work.wait", "unit", unit, "timeout", 60); ok["StateName"] != "Succeeded" {
		t.Errorf("status: %v", ok)
	}
}

// TestOfferedAgainAtOnce: a program takes a work type back and offers it again before the node has looked.
func TestOfferedAgainAtOnce(t *testing.T) {
	_, b := pair(t)
	for range 300 {
		_, offer := b.must("work.offer", "worktype", "upper")
		_ = offer.Close()
	}
}

// TestTakenBackAtOnce: what a program has taken back is unknown to its next submission, also if the node looks only after that.
func TestTakenBackAtOnce(t *testing.T) {
	_, b := pair(t)
	b.must("test.take back")
	id := b.send(map[string]any{"op": "work.submit", "node": "b", "worktype": "cat"})
	for range 20 { // Time for an answer.
		b.must("status")
	}
	b.send(map[string]any{"op": "test.notice"})
	frame := b.next()
	for frame["id"] != float64(id) { // The answer to the other request comes before or after.
		frame = b.next()
	}
	if e, _ := frame["err"].(map[string]any); e["code"] != string(WorkType) {
		t.Errorf("got %v, want %s", frame, WorkType)
	}
}

// TestTakenBackWhileSubmitted: a type that is gone when the payload has arrived is as unknown as before.
func TestTakenBackWhileSubmitted(t *testing.T) {
	_, b := pair(t)
	_, offer := b.must("work.offer", "worktype", "upper")
	sub, conn := b.must("work.submit", "node", "b", "worktype", "upper")
	_ = offer.Close()
	b.refused(WorkType, "work.submit", "node", "b", "worktype", "upper") // By now it is gone.
	_ = conn.CloseWrite()
	b.refused(WorkType, "work.started", "unit", sub["unit"])
}
