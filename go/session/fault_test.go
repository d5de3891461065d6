package session

import (
	"io"
	"testing"
	"time"
)

// A panic ends what it belongs to and is told; the session and its node live on.
func TestFaults(t *testing.T) {
	p := open(t)
	p.must("open", "config", map[string]any{"node": "a"})
	p.must("events", "kinds", []string{"log"})
	p.refused(Internal, "test.panic")
	p.refused(Internal, "test.nil")
	ok, conn := p.must("test.stream")
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	_, _ = io.ReadAll(conn)
	if st, _ := p.must("stream.status", "stream", ok["stream"]); st["state"] != "reset" {
		t.Errorf("the stream whose pump broke is %v", st)
	}
	p.must("test.goroutine")
	faults := 0
	for _, e := range p.events {
		if e["msg"] == "internal fault" {
			faults++
		}
	}
	for faults < 4 {
		if e := p.next(); e["msg"] == "internal fault" {
			faults++
		}
	}
	if status, _ := p.must("status"); status["NodeID"] != "a" {
		t.Errorf("status after the faults: %v", status)
	}
}

// A panic in the node itself ends it, and is told to everybody; the process lives on.
func TestFaultOfTheNode(t *testing.T) {
	p := open(t)
	p.must("open", "config", map[string]any{"node": "a"})
	waiting := p.send(map[string]any{"op": "route.wait", "node": "nowhere"})
	link := p.send(map[string]any{"op": "test.link"})
	seen := map[string]bool{}
	for len(seen) < 2 {
		frame := p.next()
		switch {
		case frame["ev"] == "closed":
			e, _ := frame["err"].(map[string]any)
			if e["code"] != string(Internal) || e["msg"] != "internal fault: a link" {
				t.Errorf("the node's end is told as %v", frame)
			}
			seen["closed"] = true
		case frame["id"] == float64(waiting):
			if e, _ := frame["err"].(map[string]any); e["code"] != string(Closed) {
				t.Errorf("who waited is answered %v", frame)
			}
			seen["waiting"] = true
		case frame["id"] != float64(link):
			t.Errorf("unexpected %v", frame)
		}
	}
	q := open(t)
	q.must("open", "config", map[string]any{"node": "b"})
}
