package daemon

import (
	"context"
	"log/slog"
	"math"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
)

// A stream passes through several goroutines of every node on its way. Where cores are idle, it is faster to spread them.
// Where other programs keep the machine busy, spreading frees nothing: it moves the data from the cache of one core into
// that of another, and three daemons that share two cores then spend a quarter more time on every byte. So while much
// passes through the node and no core is idle, the process runs its goroutines on no more cores than it is given anyway;
// it takes more again when some are idle. GOMAXPROCS in the environment switches this off.

const (
	bulkPackets  = 20_000                 // Packets a second that count as much: about 30 MB/s of streams.
	bulkInterval = 100 * time.Millisecond // Between looks while much passes.
	bulkSlots    = 10                     // Parts of that, of which each tells how many cores the process had: see slots.
	bulkEnd      = time.Second            // For so long less has to pass before all cores are taken again.

	// A stream that is spread over a full machine leaves up to a sixth of it idle: whose turn it is has to wait for data.
	fullMachine = 0.20 // Less than this part of the machine is idle: it is full.
	freeMachine = 0.35 // More than this part is idle: there is something to take.
	moreAfter   = 200 * time.Millisecond
	moreAtMost  = 5 * time.Second
)

// coreShare decides how many cores to use. It is pure: what was measured comes in.
type coreShare struct {
	most     int           // What the runtime has chosen.
	now      int           // What is used at present.
	bulk     time.Time     // When much passed last.
	changed  time.Time     // When cores were given up or taken last,
	took     bool          // and whether they were taken.
	patience time.Duration // How long to go on with few cores before more are taken; longer after each time that it was no use.
}

// load is what happened between two looks.
type load struct {
	packets float64 // A second.
	used    float64 // Cores that this process kept busy while it was at work, see slots,
	idle    float64 // and the part of the machine that had nothing to do, from 0 to 1.
}

// atWork is how many cores a process keeps busy that is not at rest.
const atWork = 0.25

// slots are the cores that this process kept busy in the short times between two looks. What counts are those in which it
// was at work: a program that moves data for a moment and then rests, while others use the machine, got all that it
// asked for.
type slots []float64

// used is what a slot in which the process was at work is like: their median. If there is none, that of all.
func (s slots) used() float64 {
	if len(s) == 0 {
		return 0
	}
	slices.Sort(s)
	if first, _ := slices.BinarySearch(s, atWork); first < len(s) {
		s = s[first:]
	}
	return s[len(s)/2]
}

// next returns how many cores to use from now on.
func (c *coreShare) next(now time.Time, l load) int {
	if l.packets >= bulkPackets {
		c.bulk = now
	}
	enough := max(1, int(math.Ceil(l.used-0.25)))
	switch {
	case now.Sub(c.bulk) >= bulkEnd:
		c.now, c.patience, c.took = c.most, moreAfter, false
	case c.took && l.used > float64(c.now)-0.5:
		c.patience, c.took = moreAfter, false // It was of use.
	case l.idle < fullMachine && enough < c.now && l.packets >= bulkPackets: // What others do while this node rests says nothing.
		if c.took && now.Sub(c.changed) < 10*c.patience {
			c.patience = min(2*c.patience, moreAtMost)
		}
		c.now, c.changed, c.took = enough, now, false
	case l.idle > freeMachine && l.used > float64(c.now)-0.2 && c.now < c.most && now.Sub(c.changed) >= c.patience:
		c.now, c.changed, c.took = c.now+1, now, true
	}
	return c.now
}

// busy reports whether much passes, so that the next look has to come soon.
func (c *coreShare) busy(now time.Time) bool { return now.Sub(c.bulk) < bulkEnd }

func newCoreShare(most int) coreShare { return coreShare{most: most, now: most, patience: moreAfter} }

// cores is what [ShareCores] looks at and sets.
type cores struct {
	stretches <-chan struct{}                      // See [netceptor.Node.Stretches].
	packets   func() uint64                        // What has passed through all nodes.
	measure   func(packets uint64) (moment, error) // See measure.
	worked    func() time.Duration                 // See worked.
	use       func(cores, most int)                // See use.
}

// sharing is the nodes of this process among which its cores are shared: there is one Go runtime for all of them.
type sharing struct {
	turn sync.Mutex // Held by who joins or leaves, until that is done.
	stop func()     // Ends the looking, which the first node has begun for all.

	stretches chan struct{} // Tells that some node has one, see [netceptor.Node.Stretches].

	mu    sync.Mutex
	nodes map[*netceptor.Node]struct{}
	gone  uint64 // Packets of nodes that have left.
}

var shared = sharing{stretches: make(chan struct{}, 1), nodes: map[*netceptor.Node]struct{}{}}

// ShareCores counts what passes through a node for the number of cores that this process uses, until leave is called: then
// the process uses as many as the runtime has chosen, unless there are other nodes in it.
func ShareCores(n *netceptor.Node, log *slog.Logger) (leave func()) {
	if _, set := os.LookupEnv("GOMAXPROCS"); set {
		return func() {}
	}
	return shared.join(n, log, cores{shared.stretches, shared.packets, measure, worked, use})
}

func (s *sharing) join(n *netceptor.Node, log *slog.Logger, m cores) (leave func()) {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.mu.Lock()
	s.nodes[n] = struct{}{}
	s.mu.Unlock()
	if s.stop == nil {
		s.stop = running(log, func(ctx context.Context) { m.share(ctx, runtime.GOMAXPROCS(0)) })
	}
	stop := running(log, func(ctx context.Context) { s.passOn(ctx, n.Stretches()) })
	return sync.OnceFunc(func() {
		s.turn.Lock()
		defer s.turn.Unlock()
		stop()
		if s.remove(n) {
			s.stop()
			s.stop = nil
		}
	})
}

// running runs f beside the caller until stop is called, which waits for its end.
func running(log *slog.Logger, f func(ctx context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		defer fault.Catch(func(e *fault.Error) { fault.Log(log, e, "sharing of cores") })
		f(ctx)
	})
	return func() { cancel(); wg.Wait() }
}

// passOn tells of the stretches of one node until ctx ends.
func (s *sharing) passOn(ctx context.Context, stretches <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-stretches:
		}
		select {
		case s.stretches <- struct{}{}:
		default:
		}
	}
}

// remove takes a node out and reports whether it was the last.
func (s *sharing) remove(n *netceptor.Node) (last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.nodes, n)
	s.gone += passed(n)
	return len(s.nodes) == 0
}

// packets is how many have passed through all nodes that the process has and has had.
func (s *sharing) packets() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.gone
	for n := range s.nodes {
		all += passed(n)
	}
	return all
}

func passed(n *netceptor.Node) uint64 {
	c := n.Counters()
	return c.Originated + c.Forwarded + c.Delivered
}

// share looks after the number of cores until ctx ends, and leaves the process with the most, as many as the runtime has
// chosen. While little passes it looks at nothing.
func (m cores) share(ctx context.Context, most int) {
	if most < 2 {
		return
	}
	c := newCoreShare(most)
	defer func() {
		if c.now != most {
			m.use(most, most)
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.stretches:
		}
		if m.follow(ctx, &c, most) != nil {
			return // The end of ctx; and where nobody can say what is idle, the runtime's choice stands.
		}
	}
}

// follow looks again and again until little passes.
func (m cores) follow(ctx context.Context, c *coreShare, most int) error {
	timer := time.NewTicker(bulkInterval / bulkSlots)
	defer timer.Stop()
	before, err := m.measure(m.packets())
	for err == nil {
		got := make(slots, 0, bulkSlots)
		for last, worked := time.Now(), m.worked(); len(got) < bulkSlots; {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-timer.C:
			}
			if passed := time.Since(last); passed >= bulkInterval/bulkSlots/2 { // Else the last tick was late.
				work := m.worked()
				got = append(got, float64(work-worked)/float64(passed))
				last, worked = last.Add(passed), work
			}
		}
		var now moment
		if now, err = m.measure(m.packets()); err != nil {
			break
		}
		l := before.until(now)
		l.used = got.used()
		if used := c.now; c.next(now.at, l) != used {
			m.use(c.now, most)
		}
		if !c.busy(now.at) {
			return nil
		}
		before = now
	}
	return err
}

// use runs Go code on so many cores from now on.
func use(cores, most int) {
	if cores < most {
		runtime.GOMAXPROCS(cores)
	} else {
		runtime.SetDefaultGOMAXPROCS() // It may have changed with the limits of a container.
	}
}
