package daemon

import (
	"context"
	"math"
	"os"
	"runtime"
	"time"
)

// A stream passes through several goroutines of every node on its way. Where cores are idle, it is faster to spread them.
// Where other programs keep the machine busy, spreading frees nothing: it moves the data from the cache of one core into
// that of another, and three daemons that share two cores then spend a quarter more time on every byte. So while much
// passes through the node and no core is idle, the process runs its goroutines on no more cores than it is given anyway;
// it takes more again when some are idle. GOMAXPROCS in the environment switches this off.

const (
	bulkPackets  = 20_000                 // Packets a second that count as much: about 30 MB/s of streams.
	bulkInterval = 100 * time.Millisecond // Between looks while much passes.
	bulkEnd      = time.Second            // For so long less has to pass before all cores are taken again.

	// A stream that is spread over a full machine leaves up to a sixth of it idle: whose turn it is has to wait for data.
	fullMachine = 0.20 // Less than this part of the machine is idle: it is full.
	freeMachine = 0.35 // More than this part is idle: there is something to take.
	moreAfter   = 500 * time.Millisecond
	moreAtMost  = time.Minute
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
	used    float64 // Cores that this process kept busy,
	idle    float64 // and the part of the machine that had nothing to do, from 0 to 1.
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
	case l.idle < fullMachine && enough < c.now:
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

// cores is what shareCores looks at and sets.
type cores struct {
	stretches <-chan struct{}                      // See [netceptor.Node.Stretches].
	packets   func() uint64                        // What has passed through the node.
	measure   func(packets uint64) (moment, error) // See measure.
	use       func(cores, most int)                // See use.
}

// shareCores looks after the number of cores until ctx ends, and leaves the process with as many as the runtime has chosen.
// While little passes through the node it looks at nothing.
func shareCores(ctx context.Context, stretches <-chan struct{}, packets func() uint64) {
	most := runtime.GOMAXPROCS(0)
	if _, set := os.LookupEnv("GOMAXPROCS"); set || most < 2 {
		return
	}
	cores{stretches, packets, measure, use}.share(ctx, most)
}

func (m cores) share(ctx context.Context, most int) {
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
	timer := time.NewTicker(bulkInterval)
	defer timer.Stop()
	before, err := m.measure(m.packets())
	for err == nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		var now moment
		if now, err = m.measure(m.packets()); err != nil {
			break
		}
		if used := c.now; c.next(now.at, before.until(now)) != used {
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
