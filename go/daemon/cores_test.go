package daemon

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// TestCoresFollowTheMachine: what cores a node uses while much passes through it, look by look.
func TestCoresFollowTheMachine(t *testing.T) {
	const much = 2 * bulkPackets
	type look struct {
		load
		want int
	}
	for name, looks := range map[string][]look{
		"little passes on a full machine": {{load{100, 0.9, 0}, 4}, {load{bulkPackets - 1, 0.9, 0}, 4}},
		"full machine":                    {{load{much, 0.9, 0.02}, 1}, {load{much, 0.9, 0.02}, 1}},
		"full by itself":                  {{load{much, 3.8, 0.02}, 4}},
		"half of a full machine":          {{load{much, 2.1, 0.02}, 2}},
		"idle cores":                      {{load{much, 0.9, 0.6}, 4}},
		"neither full nor free":           {{load{much, 0.9, 0.3}, 4}},
		"cores become free":               {{load{much, 0.9, 0}, 1}, {load{much, 0.95, 0.4}, 1}, {load{much, 0.95, 0.4}, 2}, {load{much, 1.9, 0.4}, 2}, {load{much, 1.9, 0.4}, 3}},
		"others work while it rests":      {{load{much, 3.8, 0}, 4}, {load{bulkPackets - 1, 0.1, 0}, 4}, {load{much, 3.8, 0}, 4}},
		"free, but no need for them":      {{load{much, 0.9, 0}, 1}, {load{much, 0.5, 0.5}, 1}, {load{much, 0.5, 0.5}, 1}, {load{much, 0.5, 0.5}, 1}},
		"the end of much":                 {{load{much, 0.9, 0}, 1}, {load{10, 0.1, 0}, 1}, {load{10, 0.1, 0}, 1}, {load{10, 0.1, 0}, 1}, {load{10, 0.1, 0}, 1}, {load{10, 0.1, 0}, 1}, {load{10, 0.1, 0}, 1}, {load{10, 0.1, 0}, 1}, {load{10, 0.1, 0}, 1}, {load{10, 0.1, 0}, 1}, {load{10, 0.1, 0}, 4}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCoreShare(4)
			now := time.Unix(1_800_000_000, 0)
			for i, l := range looks {
				now = now.Add(bulkInterval)
				if got := c.next(now, l.load); got != l.want {
					t.Fatalf("look %d, %+v: %d cores, want %d", i, l.load, got, l.want)
				}
			}
		})
	}
}

// TestCoresThatWereNoUse: cores that had to be given up again are asked for less and less often.
func TestCoresThatWereNoUse(t *testing.T) {
	c := newCoreShare(2)
	now := time.Unix(1_800_000_000, 0)
	taken := 0
	for range int(10 * time.Minute / bulkInterval) {
		now = now.Add(bulkInterval)
		before := c.now
		idle := 0.4 // What one core leaves free
		if before == 2 {
			idle = 0 // is gone with two.
		}
		if c.next(now, load{2 * bulkPackets, 0.95, idle}) > before {
			taken++
		}
	}
	if most := int(10*time.Minute/moreAtMost) + 10; taken < most/2 || taken > most {
		t.Errorf("took a second core %d times in ten minutes, want about %d", taken, most)
	}
}

// TestCoresThatWereOfUse: what others do now and then takes no more time from a node afterwards.
func TestCoresThatWereOfUse(t *testing.T) {
	c := newCoreShare(2)
	now := time.Unix(1_800_000_000, 0)
	for range 100 {
		for i, l := range []load{{2 * bulkPackets, 0.9, 0}, {2 * bulkPackets, 1.05, 0.45}, {2 * bulkPackets, 1.05, 0.45}, {2 * bulkPackets, 1.9, 0}} {
			now = now.Add(bulkInterval)
			if got, want := c.next(now, l), []int{1, 1, 2, 2}[i]; got != want {
				t.Fatalf("look %d: %d cores, want %d", i, got, want)
			}
		}
	}
}

// TestLoadIsMeasured: the counters of the machine are read and say what this process did.
func TestLoadIsMeasured(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux says what is idle")
	}
	before, err := measure(0)
	if err != nil {
		t.Fatal(err)
	}
	later, begin, work := before, time.Now(), worked()
	for worked()-work < 50*time.Millisecond || later.total == before.total {
		if later, err = measure(1000); err != nil {
			t.Fatal(err)
		}
	}
	if l := before.until(later); l.packets <= 0 || l.idle < 0 || l.idle > 1 {
		t.Errorf("measured %+v", l)
	}
	if used := float64(worked()-work) / float64(time.Since(begin)); used > float64(runtime.NumCPU())+0.5 {
		t.Errorf("kept %.1f of %d cores busy", used, runtime.NumCPU())
	}
}

// TestSlotsAtWork: what a program gets while it asks for something is what counts.
func TestSlotsAtWork(t *testing.T) {
	for name, c := range map[string]struct {
		got  slots
		want float64
	}{
		"none":             {nil, 0},
		"all alike":        {slots{0.9, 0.9, 0.9}, 0.9},
		"at rest at last":  {slots{1.9, 1.8, 1.9, 0, 0.1, 0, 0}, 1.9},
		"a moment of work": {slots{0, 0, 0, 0, 1.9, 0, 0}, 1.9},
		"turns":            {slots{1.4, 0.6, 0.9, 1, 0.8}, 0.9},
		"hardly any":       {slots{0.1, 0.2, 0.1}, 0.1},
	} {
		if got := c.got.used(); got != c.want {
			t.Errorf("%s: %g, want %g", name, got, c.want)
		}
	}
}

// busyMachine measures one of whose cores none is idle from begin on.
func busyMachine(begin time.Time) func(packets uint64) (moment, error) {
	return func(packets uint64) (moment, error) {
		now := time.Now()
		return moment{at: now, packets: packets, total: 1 + uint64(now.Sub(begin)/time.Millisecond)}, nil
	}
}

// TestCoresAreSharedAndGivenBack: a node through which much passes on a full machine uses one core, and all of them again
// when nothing passes any more, and when it ends.
func TestCoresAreSharedAndGivenBack(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux says what is idle")
	}
	for name, ends := range map[string]func(stop context.CancelFunc, passing *atomic.Bool){
		"nothing passes": func(_ context.CancelFunc, passing *atomic.Bool) { passing.Store(false) },
		"the node ends":  func(stop context.CancelFunc, _ *atomic.Bool) { stop() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				var passing atomic.Bool
				var sent uint64
				asked, used := 0, make(chan int, 10)
				stretches := make(chan struct{}, 1)
				c := cores{
					stretches: stretches,
					packets: func() uint64 {
						if passing.Load() {
							sent += 1_000_000
						}
						return sent
					},
					measure: func(packets uint64) (moment, error) {
						asked++
						return busyMachine(begin)(packets)
					},
					worked: func() time.Duration { return time.Since(begin) * 9 / 10 },
					use:    func(cores, most int) { used <- cores },
				}
				ctx, stop := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				wg.Go(func() { c.share(ctx, 4) })
				time.Sleep(time.Minute)
				synctest.Wait()
				if asked != 0 || len(used) > 0 {
					t.Errorf("a quiet node asked the machine %d times and set its cores %d times", asked, len(used))
				}
				stretches <- struct{}{}
				time.Sleep(time.Minute)
				synctest.Wait()
				if asked != 2 || len(used) > 0 {
					t.Errorf("after one stretch the machine was asked %d times and cores set %d times, want 2 and 0", asked, len(used))
				}
				passing.Store(true)
				stretches <- struct{}{}
				if got := <-used; got != 1 {
					t.Errorf("uses %d cores of a full machine, want 1", got)
				}
				ends(stop, &passing)
				if got := <-used; got != 4 {
					t.Errorf("uses %d cores in the end, want 4", got)
				}
				stop()
				wg.Wait()
			})
		})
	}
}

// TestCoresOfTransfersWithRests: a program that moves data for a moment and rests for a moment, while others fill the
// machine, keeps the cores that it gets when it asks for them.
func TestCoresOfTransfersWithRests(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux says what is idle")
	}
	for name, c := range map[string]struct {
		cores float64 // Given to the program while it works, which it does for 60 of 140 ms.
		want  int
	}{"it gets two": {1.9, 2}, "it gets one": {1, 1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const at, turn = 60 * time.Millisecond, 140 * time.Millisecond
				begin, now := time.Now(), 2
				work := func() time.Duration {
					passed := time.Since(begin)
					return passed/turn*at + min(passed%turn, at)
				}
				stretches := make(chan struct{}, 1)
				stretches <- struct{}{}
				m := cores{
					stretches: stretches,
					packets:   func() uint64 { return uint64(work() / time.Microsecond) },
					measure:   busyMachine(begin),
					worked:    func() time.Duration { return time.Duration(float64(work()) * c.cores) },
					use:       func(cores, _ int) { now = cores },
				}
				ctx, stop := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				wg.Go(func() { m.share(ctx, 2) })
				time.Sleep(10 * time.Second)
				synctest.Wait()
				last := now
				stop()
				wg.Wait()
				if last != c.want {
					t.Errorf("it uses %d cores in the end, want %d", last, c.want)
				}
			})
		})
	}
}

// TestCoresAreSharedByAllNodesOfAProcess: what passes through any of them counts, and the last one that leaves gives the
// cores back.
func TestCoresAreSharedByAllNodesOfAProcess(t *testing.T) {
	if runtime.GOMAXPROCS(0) < 2 {
		t.Skip("there is one core")
	}
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var seen atomic.Uint64 // Packets of all nodes, as the last look found them.
		used := make(chan int, 10)
		s := sharing{stretches: make(chan struct{}, 1), nodes: map[*netceptor.Node]struct{}{}}
		m := cores{
			stretches: s.stretches,
			packets:   s.packets,
			measure: func(packets uint64) (moment, error) {
				seen.Store(packets)
				return busyMachine(begin)(uint64(time.Since(begin) / time.Microsecond)) // Much passes.
			},
			worked: func() time.Duration { return time.Since(begin) * 9 / 10 },
			use:    func(cores, _ int) { used <- cores },
		}
		node := func(id wire.NodeID) (*netceptor.Node, func()) {
			n, err := netceptor.New(netceptor.Config{ID: id})
			if err != nil {
				t.Fatal(err)
			}
			return n, s.join(n, slog.New(slog.DiscardHandler), m)
		}
		first, leaveFirst := node("first")
		second, leaveSecond := node("second")
		most := runtime.GOMAXPROCS(0)
		pass := func(n *netceptor.Node) {
			pc, err := n.ListenPacket("bulk", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer pc.Close()
			for range netceptor.Stretch {
				if _, err := pc.WriteTo([]byte("x"), netceptor.Addr{Node: n.ID(), Service: "none"}); err == nil {
					t.Fatal("a datagram to nobody was taken")
				}
			}
		}
		pass(second)
		if got := <-used; got != 1 {
			t.Errorf("the process uses %d cores of a full machine, want 1", got)
		}
		leaveFirst()
		leaveFirst() // Once is enough.
		_ = first.Close()
		time.Sleep(time.Second)
		synctest.Wait()
		if len(used) > 0 {
			t.Errorf("when the first of two nodes had left, the process used %d cores", <-used)
		}
		if got := seen.Load(); got < netceptor.Stretch {
			t.Errorf("%d packets were counted, want at least %d", got, netceptor.Stretch)
		}
		leaveSecond()
		_ = second.Close()
		if got := <-used; got != most {
			t.Errorf("in the end the process uses %d cores, want %d", got, most)
		}
		third, leaveThird := node("third")
		if got, want := s.packets(), seen.Load(); got < want {
			t.Errorf("the count of packets went back from %d to %d", want, got)
		}
		leaveThird()
		_ = third.Close()
	})
}

// TestUseSetsTheRuntime: what is decided is done.
func TestUseSetsTheRuntime(t *testing.T) {
	most := runtime.GOMAXPROCS(0)
	if most < 2 {
		t.Skip("there is one core")
	}
	defer runtime.GOMAXPROCS(most)
	use(1, most)
	if got := runtime.GOMAXPROCS(0); got != 1 {
		t.Errorf("uses %d cores, want 1", got)
	}
	use(most, most)
	if got := runtime.GOMAXPROCS(0); got < 2 {
		t.Errorf("uses %d cores, want those of the machine", got)
	}
}
