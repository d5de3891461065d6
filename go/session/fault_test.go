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
