package control

import (
	"bufio"
	"net"
	"strings"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// TestRealNode serves a node's control service over its own mesh, and reaches it by connect from a Unix socket.
func TestRealNode(t *testing.T) {
	node, err := netceptor.New(netceptor.Config{ID: "solo"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { node.Close() })
	services, err := node.ListenStream("control", &netceptor.ServiceAd{Tags: map[string]string{"type": "Control Service"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := newFakeWork()
	w.nextID = "unitAAAA"
	srv := newServer(Config{Node: node, Version: "1"}, w)
	path := t.TempDir() + "/s"
	l, err := ListenUnix(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 2)
	go func() { ended <- srv.ServeMesh(t.Context(), services) }()
	go func() { ended <- srv.Serve(t.Context(), l, Unix) }()
	t.Cleanup(func() {
		srv.Close()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
	open := func(command string) (net.Conn, *bufio.Reader) {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		in := bufio.NewReader(c)
		wantLine(t, in, "Receptor Control, node solo")
		c.Write([]byte(command))
		return c, in
	}
	c, in := open("ping localhost\ntraceroute solo\nping nosuch\nconnect nosuch control\nconnect solo nosuch\nconnect solo toolongname\n")
	for _, want := range []string{`{"From":"solo","Success":true,`, `{"0":{"From":"solo","Time":`, `{"Error":"no route to node","Success":false}`,
		"ERROR: INTERNAL_ERROR (local): no route to node", "ERROR: context canceled", "ERROR: INTERNAL_ERROR (local): service name too long"} {
		if got, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(got, want) {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	}
	c.Close()

	c, in = open("connect localhost control \n")
	wantLine(t, in, "Connecting")
	wantLine(t, in, "Receptor Control, node solo")
	c.Write([]byte("work submit solo upper\npayload through the mesh"))
	wantLine(t, in, "Work unit created with ID unitAAAA. Send stdin data and EOF.")
	closeWrite(t, c)
	wantLine(t, in, `{"result":"Job Started","unitid":"unitAAAA"}`)
	wantEnd(t, in, "")

	u := w.add("streaming", "cat", workceptor.Running, "")
	c, in = open("connect localhost control\n")
	wantLine(t, in, "Connecting")
	wantLine(t, in, "Receptor Control, node solo")
	c.Write([]byte("work results streaming\n"))
	wantLine(t, in, "Streaming results for work unit streaming")
	u.write("piece\n")
	wantLine(t, in, "piece")
	u.end()
	wantEnd(t, in, "")
}

// TestRealNodeClientGone: a client of the mesh that vanishes takes its results stream with it.
func TestRealNodeClientGone(t *testing.T) {
	node, err := netceptor.New(netceptor.Config{ID: "solo"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { node.Close() })
	services, err := node.ListenStream("control", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := newFakeWork()
	w.readers = make(chan error, 1)
	w.add("u1", "cat", workceptor.Running, "")
	srv := newServer(Config{Node: node}, w)
	t.Cleanup(func() { srv.Close() })
	go srv.ServeMesh(t.Context(), services)
	c, err := node.DialStream(t.Context(), "solo", "control", nil)
	if err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	wantLine(t, in, "Receptor Control, node solo")
	c.Write([]byte("work results u1\n"))
	wantLine(t, in, "Streaming results for work unit u1")
	if err := c.Abort(1); err != nil {
		t.Fatal(err)
	}
	if err := <-w.readers; err == nil {
		t.Error("the stream goes on")
	}
}
