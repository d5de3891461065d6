// Command simulation runs a mesh of real nodes on a simulated clock and prints what happens to it: how long a cold start
// takes, what a cut link costs, and how a partition is noticed and heals.
//
//	go run ./examples/simulation -nodes 100 -degree 3 -loss 0.01 -seed 7
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/simulation"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// memoryLimit makes the collector keep even a thousand nodes below 2 GiB.
const memoryLimit = 1700 << 20

type options struct {
	nodes  int
	shape  string
	degree float64
	seed   uint64
	cond   simulation.Conditions
	limit  time.Duration
}

func main() {
	var o options
	flags := flag.NewFlagSet("simulation", flag.ExitOnError)
	flags.IntVar(&o.nodes, "nodes", 100, "number of nodes")
	flags.StringVar(&o.shape, "shape", "random", "random, line, ring, star or tree")
	flags.Float64Var(&o.degree, "degree", 3, "links per node of a random mesh; children per node of a tree")
	flags.Uint64Var(&o.seed, "seed", 1, "of the mesh and of everything its links do")
	flags.Float64Var(&o.cond.Loss, "loss", 0, "probability that a link loses a message, 0 to 1")
	flags.DurationVar(&o.cond.Delay, "delay", 5*time.Millisecond, "of a message on a link")
	flags.DurationVar(&o.cond.Jitter, "jitter", 0, "added to the delay at random, up to this")
	flags.Int64Var(&o.cond.BytesPerSecond, "bandwidth", 0, "of a link in bytes per second; 0: no limit")
	flags.DurationVar(&o.limit, "limit", 10*time.Minute, "simulated time after which a step counts as failed")
	_ = flags.Parse(os.Args[1:]) // Exits on errors.
	if flags.NArg() > 0 || o.nodes < 2 || o.degree < 1 {
		fmt.Fprintln(os.Stderr, "simulation: at least two nodes and one link per node are needed, and no other arguments; see -help")
		os.Exit(2)
	}
	debug.SetMemoryLimit(memoryLimit)
	simulation.Main(func(t *testing.T) {
		if err := o.run(t); err != nil {
			t.Error(err)
		}
	})
}

func (o *options) build() (simulation.Shape, error) {
	switch o.shape {
	case "random":
		return simulation.Random(o.nodes, o.degree, o.seed), nil
	case "line":
		return simulation.Line(o.nodes), nil
	case "ring":
		return simulation.Ring(o.nodes), nil
	case "star":
		return simulation.Star(o.nodes), nil
	case "tree":
		return simulation.Tree(o.nodes, int(o.degree)), nil
	}
	return simulation.Shape{}, fmt.Errorf("shape %q: want random, line, ring, star or tree", o.shape)
}

// story is the mesh and when things happened to it.
type story struct {
	*simulation.Mesh
	limit time.Duration
	sum   simulation.Traffic
	cpu   time.Duration
}

func (o *options) run(t *testing.T) (err error) {
	shape, err := o.build()
	if err != nil {
		return err
	}
	s := &story{Mesh: simulation.New(simulation.Config{Seed: o.seed, Conditions: o.cond}), limit: o.limit, cpu: cpuTime()}
	defer func() { err = errors.Join(err, s.Close()) }()
	fmt.Printf("%d nodes, %d links, seed %d: %s\n", shape.Nodes, len(shape.Edges), o.seed, conditions(o.cond))
	fmt.Printf("%-32s %12s %10s %10s %8s %8s\n", "", "settled in", "messages", "KiB", "lost", "CPU s")
	if err := s.Build(shape); err != nil {
		return err
	}
	if err := s.settle("cold start"); err != nil {
		return err
	}
	time.Sleep(5 * time.Second) // Half a period: what follows is not mixed with floods that repeat what is known.
	s.line("five quiet seconds", "-")
	first, last := s.Nodes()[0], s.Nodes()[o.nodes-1]
	if pong := s.Node(first).Ping(t.Context(), last, wire.MaxHops); pong.Err == nil {
		fmt.Printf("ping %s from %s: %v\n", last, first, pong.RTT)
	} else {
		fmt.Printf("ping %s from %s: %v\n", last, first, pong.Err)
	}
	return s.misfortunes()
}

func (s *story) misfortunes() error {
	ends := s.Links()[len(s.Links())-1]
	if err := s.Cut(ends[0], ends[1]); err != nil {
		return err
	}
	if err := s.settle(fmt.Sprintf("cut %s - %s", ends[0], ends[1])); err != nil {
		return err
	}
	if err := s.Mend(ends[0], ends[1]); err != nil {
		return err
	}
	if err := s.settle("mended"); err != nil {
		return err
	}
	all := s.Nodes()
	if err := s.Partition(all[:len(all)/2]); err != nil {
		return err
	}
	if err := s.settle("partition into halves"); err != nil {
		return err
	}
	s.Heal()
	if err := s.settle("healed"); err != nil {
		return err
	}
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	fmt.Printf("memory: %d MiB\n", (mem.Sys-mem.HeapReleased)>>20)
	return nil
}

func (s *story) settle(what string) error {
	took, err := s.Settle(s.limit)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	s.line(what, took.Round(time.Millisecond).String())
	return nil
}

// line prints a step, and the traffic and the processor time since the one before. That time is real and contains the
// simulation's own: whether the routes are right is judged against all shortest paths.
func (s *story) line(what, took string) {
	sum, cpu := s.Traffic(), cpuTime()
	fmt.Printf("%-32s %12s %10d %10d %8d %8.2f\n", what, took,
		sum.Messages-s.sum.Messages, (sum.Bytes-s.sum.Bytes)>>10, sum.Lost-s.sum.Lost, (cpu - s.cpu).Seconds())
	s.sum, s.cpu = sum, cpu
}

func conditions(c simulation.Conditions) string {
	s := fmt.Sprintf("delay %v to %v, loss %g %%", c.Delay, c.Delay+c.Jitter, 100*c.Loss)
	if c.BytesPerSecond > 0 {
		s += fmt.Sprintf(", %d bytes/s", c.BytesPerSecond)
	}
	return s
}
