package netceptor

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

const (
	// intakeLimit is how many packets may wait inside the QUIC library for one connection. It drops those over 256, and
	// would take that for a path that is overloaded. So many hold a little less than the 256 KiB that who reads a stream
	// usually asks for: what is processed in one go is read in one, without a tiny rest.
	intakeLimit = 184
	// intakeYields is how often the reader lets others run before it pauses, where all goroutines share one core: the
	// connection is one of them, and a pause would leave the core idle once it has done what it can.
	intakeYields = 32
	intakePause  = 100 * time.Microsecond
	// intakePatience is how many pauses more a connection gets that processes nothing. It is not waited for again.
	intakePatience = 50
)

// intake keeps the reader of a QUIC socket from handing over packets faster than their connection processes them: what
// waits in the socket's queue meanwhile is not lost.
type intake struct {
	mu      sync.Mutex
	flows   map[packetSource]*flow
	changed atomic.Uint64 // Counts changes of flows.

	// Of the reader:
	seen    uint64 // What changed was when current was found.
	source  packetSource
	current *flow // nil: nothing is known of the source.
}

// flow is a connection and how many packets it was given, as the library counts those that it has processed.
type flow struct {
	qc    *quic.Conn
	given uint64
}

// follow counts the packets that a connection's peer sends until the connection ends.
func (i *intake) follow(qc *quic.Conn, from packetSource) {
	f := &flow{qc: qc, given: qc.ConnectionStats().PacketsReceived}
	i.mu.Lock()
	if i.flows == nil {
		i.flows = map[packetSource]*flow{}
	}
	i.flows[from] = f
	i.mu.Unlock()
	i.changed.Add(1)
	context.AfterFunc(qc.Context(), func() { i.forget(from, f) })
}

func (i *intake) forget(from packetSource, f *flow) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.flows[from] == f {
		delete(i.flows, from)
		i.changed.Add(1)
	}
}

// count notes that the reader hands over a packet.
func (i *intake) count(from packetSource) {
	if changed := i.changed.Load(); i.seen != changed || i.source != from {
		i.mu.Lock()
		i.seen, i.source, i.current = changed, from, i.flows[from]
		i.mu.Unlock()
	}
	if i.current != nil {
		i.current.given++
	}
}

// pace waits until the connection of the last packet has processed most of what it was given. The library does not tell
// when it has, so this looks again and again, for some milliseconds at most.
func (i *intake) pace() {
	f := i.current
	if f == nil || f.given < intakeLimit {
		return
	}
	for tried := range intakeYields + intakePatience {
		if processed := f.qc.ConnectionStats().PacketsReceived; f.given < processed+intakeLimit {
			return
		}
		if tried < intakeYields && runtime.GOMAXPROCS(0) == 1 {
			runtime.Gosched()
		} else {
			time.Sleep(intakePause)
		}
	}
	i.forget(i.source, f)
}
