package service

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"
)

func TestF126F127UnixProxies(t *testing.T) {
	node := newNode(t)
	mesh := OnNode(node)
	folder := t.TempDir()
	target, err := net.Listen("unix", filepath.Join(folder, "target"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = target.Close() })
	client, err := StartUnixClient(mesh, UnixClient{Service: "target", Filename: target.Addr().String()}, quiet)
	started(t, client, err)
	front, err := net.Listen("unix", filepath.Join(folder, "front"))
	if err != nil {
		t.Fatal(err)
	}
	server := started(t, StartUnixServer(mesh, UnixServer{Listener: front, Node: "a", Service: "target"}, quiet), nil)
	if server.Addr().String() != front.Addr().String() {
		t.Errorf("listens on %v", server.Addr())
	}

	c, err := net.Dial("unix", front.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(time.Minute)) // A hang becomes a failure.
	mustWrite(t, c, "question")
	if err := c.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	far, err := target.Accept()
	if err != nil {
		t.Fatal(err)
	}
	asked, err := io.ReadAll(far) // The end of the question arrives while the answer is still to come.
	if err != nil || string(asked) != "question" {
		t.Fatalf("got %q, %v", asked, err)
	}
	mustWrite(t, far, "answer")
	_ = far.Close()
	if got, err := io.ReadAll(c); err != nil || string(got) != "answer" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestAMissingUnixSocketResetsTheMeshClient(t *testing.T) {
	mesh := newFakeMesh()
	p, err := StartUnixClient(mesh, UnixClient{Service: "gone", Filename: filepath.Join(t.TempDir(), "none")}, quiet)
	started(t, p, err)
	if tags := mesh.services["gone"].tags; tags["type"] != "Unix Proxy" || tags["filename"] == "" {
		t.Errorf("tags %v", tags)
	}
	s, err := mesh.DialStream(t.Context(), "a", "gone")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, errReset) {
		t.Errorf("got %v, want a reset", err)
	}
}
