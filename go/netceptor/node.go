package netceptor

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/policy"
	"github.com/pyreceptor/pyreceptor/go/topology"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// Timers of the protocol. The periods are those of existing nodes, which rely on hearing from a peer every 10 seconds.
const (
	routePeriod  = 10 * time.Second
	advertPeriod = 60 * time.Second
	beatPeriod   = time.Second                         // Between two of ours: how often each side of a link speaks,
	beatLimit    = 3*beatPeriod - 100*time.Millisecond // and how long it may be silent before the link is dead.
	sweepPeriod  = 60 * time.Second
	defaultIdle  = 2*routePeriod + time.Second
	joinDelay    = 5 * time.Millisecond   // Before the mesh is told of a new neighbour, and the neighbour of the mesh.
	floodDelay   = 10 * time.Millisecond  // After a change, so that changes that come together are told together.
	floodSpacing = 100 * time.Millisecond // Between two floods of ours,
	floodRate    = 50 << 20               // which take no more bytes a second than this.
	floodBurst   = 8.0                    // Floods that may ignore the spacing, when links come up.
	advertDelay  = 50 * time.Millisecond
	routingDelay = 2 * time.Millisecond
	tableDelay   = 200 * time.Millisecond // After a change of the routes, until they are logged: what comes and goes is not.
	closeLinger  = 3 * time.Second        // How long Close waits for streams whose last bytes are on their way.
)

// Config describes a node.
type Config struct {
	ID     wire.NodeID  // Required; any non-empty string but "localhost".
	Logger *slog.Logger // Default: discard.
	// MaxIdle is how long a link may stay silent before it is called dead; 0 means 21 s, which is also the least: peers
	// speak every 10 s, so this forgives one lost message.
	MaxIdle time.Duration
	// StreamPacket is the size in bytes of the packets that this node's streams are made of, without their mesh header of 36:
	// from 1200 to 1408. 0 means 1408, what UDP links carry over Ethernet in one piece; those through tunnels may want less.
	// On a simulated clock it must not be more than [SimulatedPacket].
	StreamPacket int
	// Policy is the firewall for every packet that the node originates, forwards or receives; nil accepts all. See
	// [Node.SetPolicy].
	Policy *policy.Policy
	// QLogDir is a directory, which exists, for traces of the QUIC connections of streams, a file for each side of each;
	// "" writes none.
	QLogDir string
	Trace   bool // See [Node.SetTrace].
	// OnPanic is told what a goroutine of the node has panicked with, in that goroutine, which ends; whoever is told has to
	// give the node up. nil lets the program end, as a panic does. A panic over what a peer has sent ends the link alone, one in
	// a goroutine of the QUIC library the socket and its streams.
	OnPanic func(*fault.Error)
}

// Node is one node of the mesh. All methods are safe for concurrent use.
type Node struct {
	id           wire.NodeID
	hash         wire.NodeHash
	log          *slog.Logger
	maxIdle      time.Duration
	qlogDir      string
	streamPacket uint16
	epoch        uint64
	born         time.Time // Where clock begins.

	ctx   context.Context // Ends when the node does; its cause is Err.
	stop  context.CancelCauseFunc
	never context.Context // Already done: for sends that must not wait.
	done  chan struct{}   // Closed once all goroutines are gone.
	once  sync.Once
	wg    group         // Backends, links and the run loop.
	tails tails         // Streams that are being finished,
	slow  chan struct{} // a token for each of them that waits for a slow reader.

	table   atomic.Pointer[forwarding]
	untold  atomic.Bool // The mesh has not been told of a new neighbour.
	stale   atomic.Bool // There are news that table does not know.
	policy  atomic.Pointer[policy.Policy]
	tracing atomic.Bool
	count   counters

	socketsMu sync.RWMutex
	sockets   map[wire.ServiceName]*PacketConn

	streamsMu     sync.Mutex
	streams       map[*Stream]struct{}
	streamSockets map[string]*streamSocket // By service name.
	listeners     map[string]*StreamListener
	muxes         map[*mux]struct{}
	shared        map[muxKey][]*mux // Dialled connections that take more streams.
	dialing       map[muxKey]chan struct{}

	protocols []string // Of streams, best first; tests play existing nodes by it.
	certOnce  sync.Once
	cert      insecureCertificate

	kick chan struct{} // One token when a timer below was moved.

	mu             sync.Mutex
	db             *topology.DB
	sequence       uint64
	links          map[wire.NodeID]*neighbour // Established.
	pending        map[*neighbour]struct{}    // In the handshake,
	strangers      list.List                  // and of these, *neighbour, those that others have made, the oldest first.
	finishing      int                        // Links that have ended, whose peers still read why.
	updates        map[wire.NodeID]*heardUpdate
	updateBytes    int        // That their messages take.
	scratch        []byte     // Of encodeLocked.
	told           []byte     // The last own update that was flooded.
	oversize       bool       // The own update does not fit in a message, which was logged.
	beatAt         time.Time  // When the links are next looked at, zero if there are none; see beatLocked.
	beaten         time.Time  // When they last were,
	speakAt        time.Time  // and when the node next speaks on those that are silent.
	forgeryFrom    *neighbour // Who sent the last notice that was not believed: it is logged once.
	adverts        map[advertKey]*advertisement
	advertsOf      map[wire.NodeID]int // How many there are of each node.
	advertBytes    int                 // That their messages take.
	own            map[string]*advertised
	lastAdvert     time.Time // Date of the last advertisement of an own service; the next one has a later one.
	workCommands   []wire.WorkCommand
	routes         *topology.Table
	floodAt        time.Time // When the next own update is due.
	floodedAt      time.Time
	greetings      []*neighbour  // Who is to be told what is known, behind the next flood.
	floodTokens    float64       // How many floods may go out at once.
	routesAt       time.Time     // When routes are to be computed; zero if they are current.
	tableAt        time.Time     // When the routes are to be logged; zero if no change of them waits for it.
	tableLogged    string        // What was logged of them last.
	routesTook     time.Duration // The last computation of them.
	packetSpending spending      // Of time on computations that do not wait, see forPackets
	linkSpending   spending      // and forLinks.
	advertsAt      time.Time
	subs           map[*Subscription]struct{}
	backends       []*Backend
	routeChange    chan struct{} // Closed and replaced when the routes change.
	closed         bool
}

// New starts a node without links.
func New(cfg Config) (*Node, error) {
	switch {
	case cfg.ID == "":
		return nil, errors.New("node ID: required")
	case strings.EqualFold(string(cfg.ID), "localhost"):
		return nil, fmt.Errorf("node ID %q is reserved", cfg.ID)
	case cfg.StreamPacket != 0 && (cfg.StreamPacket < leastPacket || cfg.StreamPacket > mostPacket):
		return nil, fmt.Errorf("packets of streams of %d bytes: want %d to %d, or 0 for the default", cfg.StreamPacket, leastPacket, mostPacket)
	case cfg.MaxIdle != 0 && cfg.MaxIdle < defaultIdle:
		return nil, fmt.Errorf("maximum idle time %v is less than %v, two routing periods and a second", cfg.MaxIdle, defaultIdle)
	}
	born := time.Now()
	n := &Node{
		id: cfg.ID, hash: wire.Hash(cfg.ID), log: cfg.Logger, maxIdle: cfg.MaxIdle, qlogDir: cfg.QLogDir,
		streamPacket: uint16(cmp.Or(cfg.StreamPacket, mostPacket)),
		epoch:        epochAt(born), born: born, done: make(chan struct{}), kick: make(chan struct{}, 1),
		protocols: streamProtocols,
		sockets:   map[wire.ServiceName]*PacketConn{},
		streams:   map[*Stream]struct{}{}, streamSockets: map[string]*streamSocket{},
		listeners: map[string]*StreamListener{}, muxes: map[*mux]struct{}{}, shared: map[muxKey][]*mux{}, dialing: map[muxKey]chan struct{}{},
		links:          map[wire.NodeID]*neighbour{},
		pending:        map[*neighbour]struct{}{},
		updates:        map[wire.NodeID]*heardUpdate{},
		adverts:        map[advertKey]*advertisement{},
		advertsOf:      map[wire.NodeID]int{},
		own:            map[string]*advertised{},
		subs:           map[*Subscription]struct{}{},
		routeChange:    make(chan struct{}),
		packetSpending: spending{thrift: forPackets},
		linkSpending:   spending{thrift: forLinks},
		count:          counters{stretches: make(chan struct{}, 1)},
	}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	if n.maxIdle == 0 {
		n.maxIdle = defaultIdle
	}
	n.policy.Store(cfg.Policy)
	n.tracing.Store(cfg.Trace)
	n.tails.closing, n.slow = make(chan struct{}), make(chan struct{}, slowPlaces)
	n.wg.caught = cfg.OnPanic
	n.ctx, n.stop = context.WithCancelCause(context.Background())
	var cancel context.CancelFunc
	n.never, cancel = context.WithCancel(n.ctx)
	cancel()
	n.db = topology.New(n.id, n.epoch)
	n.mu.Lock()
	n.computeRoutesLocked()
	n.mu.Unlock()
	n.wg.Go(n.run)
	return n, nil
}

// epochAt is the start-up stamp of a node: unix seconds in the high 40 bits and the fraction of the second in the low
// 24, so that a node restarted within a second still has the larger one.
func epochAt(t time.Time) uint64 {
	return uint64(t.Unix())<<24 | uint64(t.Nanosecond())<<24/1e9
}

// clock is how many nanoseconds the node has lived. What is measured by it holds when somebody sets the clock of the
// machine, which moves every time that is kept as a date.
func (n *Node) clock() int64 { return int64(time.Since(n.born)) }

// sinceAt is how long ago at, by clock, was at the time now.
func (n *Node) sinceAt(now time.Time, at int64) time.Duration {
	return now.Sub(n.born) - time.Duration(at)
}

// ID returns the node's ID.
func (n *Node) ID() wire.NodeID { return n.id }

// Epoch returns the node's start-up stamp: unix seconds shifted left by 24 bits, plus a fraction.
func (n *Node) Epoch() uint64 { return n.epoch }

// Done is closed when the node has stopped; Err then says why.
func (n *Node) Done() <-chan struct{} { return n.done }

// Err returns nil while the node runs, then [ErrClosed] or what ended it.
func (n *Node) Err() error { return context.Cause(n.ctx) }

// Close stops the node: it gives streams that were closed before up to three seconds to deliver their last bytes, then
// ends every link, socket and stream and waits for its goroutines. Safe to call twice and from any goroutine.
func (n *Node) Close() error {
	n.shutdown(ErrClosed)
	<-n.done
	if err := n.Err(); !errors.Is(err, ErrClosed) {
		return err
	}
	return nil
}

// shutdown starts the end of the node without waiting for it.
func (n *Node) shutdown(cause error) {
	n.once.Do(func() {
		go func() { // Owned by done: it ends by closing it.
			defer close(n.done)
			for _, step := range [...]func(){
				func() { n.tails.wait(closeLinger) },
				func() { n.finishMuxes(cause, closeLinger) },
				func() { n.failMuxes(cause, func(*mux) bool { return true }) }, // Those that have come since.
				func() { n.failStreams(cause, func(s *Stream) bool { return s.mux == nil }) },
				func() { n.closeLinks(cause) },
				func() { n.stop(cause) },
				n.wg.Wait,
				n.closeSubscriptions,
			} {
				n.wg.guard(step) // A fault in one leaves the others to be done.
			}
		}()
	})
}

// closeLinks refuses new links and ends those there are, once what is queued on them has been sent or cannot be.
func (n *Node) closeLinks(cause error) {
	for _, nb := range n.drainLinks(cause) {
		<-nb.written
	}
}

// drainLinks is closeLinks without the waiting.
func (n *Node) drainLinks(cause error) []*neighbour {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	if errors.Is(cause, ErrClosed) { // The services of a twin live on in another process.
		n.sayGoodbyeLocked()
	}
	all := slices.Collect(maps.Values(n.links))
	all = slices.AppendSeq(all, maps.Keys(n.pending))
	for _, nb := range all {
		nb.endLocked(ErrClosed, true)
	}
	return all
}

// run is the clock of the node: it sends what is due and clears out what is old.
func (n *Node) run() {
	sweep := time.NewTicker(sweepPeriod)
	defer sweep.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-sweep.C:
			n.sweep()
		case <-n.kick:
			timer.Reset(n.untilNext())
		case <-timer.C:
			n.doDue()
			timer.Reset(n.untilNext())
		}
	}
}

func (n *Node) kickLocked() {
	select {
	case n.kick <- struct{}{}:
	default:
	}
}

func (n *Node) untilNext() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	next := n.floodAt
	for _, t := range [...]time.Time{n.routesAt, n.tableAt, n.advertsAt, n.beatAt} {
		if next.IsZero() || !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	if next.IsZero() {
		return time.Hour
	}
	return max(0, time.Until(next))
}

func (n *Node) doDue() {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	due := func(t time.Time) bool { return !t.IsZero() && !t.After(now) }
	if due(n.routesAt) {
		n.computeRoutesLocked()
	}
	if due(n.tableAt) {
		n.logTableLocked()
	}
	if due(n.floodAt) {
		n.floodLocked(0)
	}
	if due(n.advertsAt) {
		n.sendAdvertsLocked()
	}
	if due(n.beatAt) {
		n.beatLocked(now)
	}
}

// Status returns what the node knows now.
func (n *Node) Status() Status {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := Status{
		NodeID:               n.id,
		Connections:          make([]Connection, 0, len(n.links)),
		KnownConnectionCosts: n.db.Known(),
		RoutingTable:         make(map[wire.NodeID]wire.NodeID, n.routes.Len()),
		Advertisements:       n.advertsLocked(),
	}
	for _, id := range slices.Sorted(maps.Keys(n.links)) {
		s.Connections = append(s.Connections, Connection{NodeID: id, Cost: n.links[id].cost})
	}
	for r := range n.routes.All() {
		s.RoutingTable[r.Node] = r.NextHop
	}
	return s
}

// Routes returns the routes of this moment.
func (n *Node) Routes() *topology.Table {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.routes
}

// WaitRoute waits until node is reachable and returns the neighbour on the way there and the cost of the path. The node
// itself is reachable through itself at cost 0. A link counts when its other end lists this node: before that it may still
// be refused for its cost.
func (n *Node) WaitRoute(ctx context.Context, node wire.NodeID) (next wire.NodeID, cost float64, err error) {
	node = node.At(n.id)
	for {
		n.mu.Lock()
		change := n.routeChange
		d := n.table.Load().byName(node)
		agreed := d != nil && d.next != nil && d.next.listsUs
		n.mu.Unlock()
		if d != nil && d.self {
			return n.id, 0, nil
		}
		if agreed {
			return d.next.id, d.cost, nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return "", 0, context.Cause(ctx)
		case <-n.ctx.Done():
			return "", 0, ErrClosed
		}
	}
}
