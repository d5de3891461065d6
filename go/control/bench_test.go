package control

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// benchServer serves cfg on a Unix socket and returns a connection past the greeting.
func benchServer(b *testing.B, cfg Config) (path string) {
	b.Helper()
	srv := New(cfg)
	path = b.TempDir() + "/s"
	l, err := ListenUnix(path, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(b.Context(), l, Unix) }()
	b.Cleanup(func() { srv.Close(); <-done })
	return path
}

type benchClient struct {
	net.Conn
	in *bufio.Reader
}

func newBenchClient(b *testing.B, path string) *benchClient {
	b.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	in := bufio.NewReaderSize(c, 1<<20)
	if _, err := in.ReadString('\n'); err != nil {
		b.Fatal(err)
	}
	return &benchClient{c, in}
}

// ask returns how many bytes the reply has.
func (c *benchClient) ask(command string) (int, error) {
	if _, err := c.Write([]byte(command + "\n")); err != nil {
		return 0, err
	}
	for n := 0; ; {
		part, err := c.in.ReadSlice('\n')
		n += len(part)
		if err == nil || err != bufio.ErrBufferFull {
			if bytes.HasPrefix(part, []byte("ERROR")) {
				err = fmt.Errorf("%s", part)
			}
			return n, err
		}
	}
}

func benchAsk(b *testing.B, path, command string, least int) {
	c := newBenchClient(b, path)
	for b.Loop() {
		if n, err := c.ask(command); err != nil || n < least {
			b.Fatalf("reply of %d bytes, %v", n, err)
		}
	}
}

// BenchmarkRoundTrip is the request that every start of receptorctl makes.
func BenchmarkRoundTrip(b *testing.B) {
	path := benchServer(b, Config{Node: newNode(b, "alpha"), Version: "1"})
	benchAsk(b, path, `{"command":"status","requested_fields":["Version"]}`, 10)
}

// ringNode is a node that knows a ring of others, each with a control service, from one neighbour.
func ringNode(b *testing.B, others int) *netceptor.Node {
	b.Helper()
	n := newNode(b, "alpha")
	near, far := link.Pipe()
	if _, err := n.AddLink(near, netceptor.LinkOptions{Cost: 1}); err != nil {
		b.Fatal(err)
	}
	go func() {
		for {
			if _, err := far.ReadBatch(); err != nil {
				return
			}
		}
	}()
	b.Cleanup(func() { far.Close() })
	name := func(i int) wire.NodeID { return wire.NodeID(fmt.Sprintf("node-%04d", (i+others)%others)) }
	var batch wire.Batch
	put := func(msg []byte, err error) {
		if err == nil {
			batch, err = wire.AppendFrame(batch, msg)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	for i := range others + 1 {
		links := map[wire.NodeID]float64{name(i - 1): 1, name(i + 1): 1}
		if i == others || i == 0 {
			links["alpha"] = 1
		}
		u := wire.RouteUpdate{
			NodeID: name(i), UpdateID: fmt.Sprintf("%08d", i), UpdateEpoch: 1, UpdateSequence: uint64(1 + i/others), Connections: links, ForwardingNode: name(0),
		}
		if i == 0 { // The handshake.
			u.Connections = nil
		}
		put(u.Append(nil))
		ad := wire.Advertisement{NodeID: name(i), Service: "control", Time: n0, ConnType: wire.ConnStream, Tags: map[string]string{"type": "Control Service"}}
		if i > 0 && i < others {
			put(ad.Append(nil))
		}
	}
	if err := far.WriteBatch(batch); err != nil {
		b.Fatal(err)
	}
	if _, _, err := n.WaitRoute(b.Context(), name(others/2)); err != nil {
		b.Fatal(err)
	}
	return n
}

var n0 = now()

func BenchmarkStatus1000Nodes(b *testing.B) {
	benchAsk(b, benchServer(b, Config{Node: ringNode(b, 1000)}), "status", 100_000)
}

func BenchmarkTopology1000Nodes(b *testing.B) {
	benchAsk(b, benchServer(b, Config{Node: ringNode(b, 1000)}), "topology", 100_000)
}

// noMesh is for an engine that is never asked to reach anybody.
type noMesh struct{ workceptor.Mesh }

func (noMesh) ID() wire.NodeID { return "alpha" }

// BenchmarkWorkList10000 lists ten thousand finished units that the engine has read from disk.
func BenchmarkWorkList10000(b *testing.B) {
	dir := b.TempDir()
	status, err := json.Marshal(map[string]any{"State": 2, "Detail": "exit status 0", "StdoutSize": 20, "WorkType": "cat", "ExtraData": nil})
	if err != nil {
		b.Fatal(err)
	}
	for i := range 10_000 {
		unit := filepath.Join(dir, "alpha", fmt.Sprintf("unit%04d", i))
		if err := os.MkdirAll(unit, 0o700); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(unit, "status"), status, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	work, err := workceptor.New(workceptor.Config{Mesh: noMesh{}, DataDir: dir})
	if err != nil {
		b.Fatal(err)
	}
	defer work.Close()
	if err := work.RegisterCommand(workceptor.CommandType{WorkType: "cat", Command: "cat"}); err != nil {
		b.Fatal(err)
	}
	if err := work.Start(); err != nil {
		b.Fatal(err)
	}
	benchAsk(b, benchServer(b, Config{Node: newNode(b, "alpha"), Work: work}), "work list", 1_000_000)
}

// BenchmarkClients500 has five hundred clients that all ask as fast as they can; an operation is one reply.
func BenchmarkClients500(b *testing.B) {
	path := benchServer(b, Config{Node: newNode(b, "alpha"), Version: "1"})
	clients := make([]*benchClient, 500)
	for i := range clients {
		clients[i] = newBenchClient(b, path)
	}
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ResetTimer()
	for _, c := range clients {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := c.ask("status"); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
