package workceptor_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"strings"

	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// alone is a node without a mesh: only local work can run.
type alone struct{}

func (alone) ID() wire.NodeID { return "alpha" }
func (alone) DialStream(context.Context, wire.NodeID, string, string) (workceptor.Stream, error) {
	return nil, fmt.Errorf("no route to node")
}
func (alone) WaitRoute(ctx context.Context, _ wire.NodeID) error { <-ctx.Done(); return ctx.Err() }

func Example() {
	dir, err := os.MkdirTemp("", "units")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	engine, err := workceptor.New(workceptor.Config{Mesh: alone{}, DataDir: dir, Runner: os.Args[0]})
	if err != nil {
		log.Fatal(err)
	}
	defer engine.Close()
	engine.RegisterCommand(workceptor.CommandType{WorkType: "upper", Command: "tr", Params: "a-z A-Z"})
	if err := engine.Start(); err != nil {
		log.Fatal(err)
	}

	ctx := context.Background()
	unit, err := engine.Submit(workceptor.SubmitRequest{Node: "localhost", WorkType: "upper"})
	if err != nil {
		log.Fatal(err)
	}
	if err := unit.ReadPayload(strings.NewReader("hello\n")); err != nil {
		log.Fatal(err)
	}
	result, err := unit.Start(ctx)
	if err != nil {
		log.Fatal(err)
	}
	output, err := engine.Results(ctx, unit.ID(), 0)
	if err != nil {
		log.Fatal(err)
	}
	defer output.Close()
	fmt.Println(result)
	io.Copy(os.Stdout, output)
	status, err := engine.Wait(ctx, unit.ID())
	fmt.Println(status.State, status.Detail, err)
	// Output:
	// Job Started
	// HELLO
	// Succeeded exit status 0 <nil>
}

// A work type of one's own: a function of this program does the work.
func ExampleEngine_RegisterFunction() {
	dir, err := os.MkdirTemp("", "units")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	engine, err := workceptor.New(workceptor.Config{Mesh: alone{}, DataDir: dir})
	if err != nil {
		log.Fatal(err)
	}
	defer engine.Close()
	engine.RegisterFunction(workceptor.FunctionType{
		WorkType: "count-lines",
		Handler: workceptor.HandlerFunc(func(ctx context.Context, w *workceptor.Work) error {
			text, err := io.ReadAll(w.Stdin)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(w.Stdout, strings.Count(string(text), "\n"))
			return err
		}),
		MaxRunning: 4, // Others wait in order.
	})
	if err := engine.Start(); err != nil {
		log.Fatal(err)
	}

	unit, err := engine.Submit(workceptor.SubmitRequest{Node: "localhost", WorkType: "count-lines"})
	if err != nil {
		log.Fatal(err)
	}
	if err := unit.ReadPayload(strings.NewReader("one\ntwo\n")); err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
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
	fmt.Println(status.State, status.Reason, err)
	// Output:
	// 2
	// Succeeded  <nil>
}
