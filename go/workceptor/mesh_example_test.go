package workceptor_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"strings"

	"github.com/pyreceptor/pyreceptor/go/control"
	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// nodeMesh is a node of package netceptor, without TLS profiles, as an engine wants it.
type nodeMesh struct{ *netceptor.Node }

func (m nodeMesh) DialStream(ctx context.Context, node wire.NodeID, service, _ string) (workceptor.Stream, error) {
	s, err := m.Node.DialStream(ctx, node, service, nil)
	if err != nil {
		return nil, err // Not a nil *Stream in an interface.
	}
	return s, nil
}

func (m nodeMesh) WaitRoute(ctx context.Context, node wire.NodeID) error {
	_, _, err := m.Node.WaitRoute(ctx, node)
	return err
}

// worker makes a node with an engine, and returns what ends both.
func worker(id wire.NodeID, dir string, types ...workceptor.FunctionType) (*netceptor.Node, *workceptor.Engine, func()) {
	node, err := netceptor.New(netceptor.Config{ID: id})
	if err != nil {
		log.Fatal(err)
	}
	engine, err := workceptor.New(workceptor.Config{Mesh: nodeMesh{node}, DataDir: dir})
	if err != nil {
		log.Fatal(err)
	}
	for _, t := range types {
		if err := engine.RegisterFunction(t); err != nil {
			log.Fatal(err)
		}
	}
	if err := engine.Start(); err != nil {
		log.Fatal(err)
	}
	return node, engine, func() { engine.Close(); node.Close() }
}

// Two nodes in one process: work is submitted on one and done on the other, which serves control sessions for that. A link
// between machines would be one of link.ListenTCP and link.DialTCP.
func ExampleMesh() {
	dir, err := os.MkdirTemp("", "units")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	here, engine, end := worker("here", dir)
	defer end()
	there, executor, endThere := worker("there", dir, workceptor.FunctionType{
		WorkType: "upper",
		Handler: workceptor.HandlerFunc(func(_ context.Context, w *workceptor.Work) error {
			text, err := io.ReadAll(w.Stdin)
			if err == nil {
				_, err = fmt.Fprint(w.Stdout, strings.ToUpper(string(text)))
			}
			return err
		}),
	})
	defer endThere()

	memory := link.NewMemory()
	l, err := memory.Listen("there")
	if err != nil {
		log.Fatal(err)
	}
	if _, err := there.Listen(l, netceptor.LinkOptions{Cost: 1}); err != nil {
		log.Fatal(err)
	}
	if _, err := here.Dial(memory.Dialer("there"), netceptor.LinkOptions{Cost: 1}); err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	service, err := there.ListenStream("control", nil, nil)
	if err != nil {
		log.Fatal(err)
	}
	server := control.New(control.Config{Node: there, Work: executor})
	defer server.Close()
	go server.ServeMesh(ctx, service)

	// It would be submitted without a route, too: then it waits for one.
	if _, _, err := here.WaitRoute(ctx, "there"); err != nil {
		log.Fatal(err)
	}
	unit, err := engine.Submit(workceptor.SubmitRequest{Node: "there", WorkType: "upper"})
	if err != nil {
		log.Fatal(err)
	}
	if err := unit.ReadPayload(strings.NewReader("hello\n")); err != nil {
		log.Fatal(err)
	}
	if _, err := unit.Start(ctx); err != nil {
		log.Fatal(err)
	}
	output, err := engine.Results(ctx, unit.ID(), 0)
	if err != nil {
		log.Fatal(err)
	}
	defer output.Close()
	io.Copy(os.Stdout, output)
	status, err := engine.Wait(ctx, unit.ID())
	fmt.Println(status.State, status.Detail, err)
	// Output:
	// HELLO
	// Succeeded exit status 0 <nil>
}
