package session

import (
	"context"
	"io"
	"net"
	"testing"
	"time"
)

// brokenStream panics when it is read.
type brokenStream struct{ outputStream }

func (brokenStream) Read([]byte) (int, error) { panic("a pump") }
func (brokenStream) Close() error             { return nil }
func (brokenStream) CloseWrite() error        { return nil }
func (brokenStream) CloseRead() error         { return nil }
func (brokenStream) LocalAddr() net.Addr      { return unitAddr("x") }

func init() { // Before there is a session that looks for operations.
	operations["test.panic"] = operation{run: func(context.Context, *session, *request) (reply, error) { panic("an operation") }}
	operations["test.stream"] = operation{run: func(_ context.Context, s *session, _ *request) (reply, error) {
		st, fd, err := s.host.bridge(&brokenStream{})
		if err != nil {
			return failed(err)
		}
		return reply{ok: map[string]any{"stream": st.id}, fd: fd}, nil
	}}
	operations["test.goroutine"] = operation{run: func(_ context.Context, s *session, _ *request) (reply, error) {
		s.host.spawn("test", func() { panic("a goroutine") })
		return plain(empty)
	}}
}

// A panic ends what it belongs to and is told; the session and its node live on.
func TestFaults(t *testing.T) {
	p := open(t)
	p.must("open", "config", map[string]any{"node": "a"})
	p.must("events", "kinds", []string{"log"})
	p.refused(Internal, "test.panic")
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
	for faults < 3 {
		if e := p.next(); e["msg"] == "internal fault" {
			faults++
		}
	}
	if status, _ := p.must("status"); status["NodeID"] != "a" {
		t.Errorf("status after the faults: %v", status)
	}
}
