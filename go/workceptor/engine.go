package workceptor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/workceptor/store"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

const remoteWorkType = "remote"

// Engine runs the units of one node. All methods may be called from any goroutine.
type Engine struct {
	cfg   Config
	log   *slog.Logger
	root  *store.Root
	watch *watcher
	gate  *admission

	sweeps   chan struct{}   // Holds a token when complete units are to be looked at.
	deleting chan struct{}   // Holds a token for each unit that is being deleted in the background.
	ctx      context.Context // Ends with Close.
	stop     context.CancelFunc
	wg       sync.WaitGroup

	pushers pushers // Of remote units.
	runners runnerPool
	results durable // Of units that have ended, and records that are ahead of their files.
	settled durable // Directories of units that were made.

	hungRunner, stubborn, beginLimit time.Duration // Tests are less patient.

	mu            sync.Mutex
	limits        Limits
	types         map[string]workType
	units         map[UnitID]*job
	named         map[string]*named // By the names of submissions.
	subscriptions map[*Subscription]struct{}
	started       bool
	closed        bool
}

// New makes an engine. It touches no file; [Engine.Start] does.
func New(cfg Config) (*Engine, error) {
	if cfg.Mesh == nil || cfg.DataDir == "" {
		return nil, errors.New("work engine: Mesh and DataDir are required")
	}
	root, err := store.Open(cfg.DataDir, string(cfg.Mesh.ID()))
	if err != nil {
		return nil, fmt.Errorf("work engine: %w", err)
	}
	if err := cfg.Limits.check(); err != nil {
		return nil, err
	}
	if cfg.LogLevel == "" {
		cfg.LogLevel = "info"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	e := &Engine{
		cfg: cfg, log: cfg.Logger, root: root, watch: newWatcher(cfg.Logger, cfg.OnPanic), gate: newAdmission(cfg.Limits.MaxRunning),
		limits: cfg.Limits, sweeps: make(chan struct{}, 1), deleting: make(chan struct{}, deleters),
		hungRunner: hungRunner, stubborn: stubborn, beginLimit: beginLimit, types: map[string]workType{}, units: map[UnitID]*job{}, named: map[string]*named{}, subscriptions: map[*Subscription]struct{}{},
	}
	e.runners.e = e
	e.results = durable{e: e, after: gather, do: func(j *job) error {
		j.catchUp()
		if !j.complete() {
			return nil
		}
		return errors.Join(j.dir.SyncResult(), root.Settle(j.id))
	}}
	e.settled = durable{e: e, after: settleAfter, do: func(j *job) error { return root.Settle(j.id) }, end: root.Flush}
	e.ctx, e.stop = context.WithCancel(context.Background())
	return e, nil
}

// Start loads the units of the data directory and takes up what is unfinished: running commands are watched again, and
// remote units go on where they were. It is called once, after all work types are registered.
func (e *Engine) Start() error {
	var found []store.Found
	err := e.root.Claim()
	if err == nil {
		found, err = e.root.Load()
	}
	if err != nil {
		e.log.Error("data directory cannot be read whole", "path", e.root.Path(), "err", err)
	}
	e.mu.Lock()
	if e.closed || e.started {
		defer e.mu.Unlock()
		if e.started {
			return ErrClosed
		}
		return errors.Join(ErrClosed, e.root.Close()) // What was claimed a moment ago.
	}
	e.started = true
	var loaded []*job
	for _, f := range found {
		if j := e.load(f); j != nil {
			e.units[f.ID] = j
			loaded = append(loaded, j)
		}
	}
	e.mu.Unlock()
	slices.SortStableFunc(loaded, func(a, b *job) int { return a.rec.Created.Compare(b.rec.Created) }) // The order of the queue.
	for _, j := range loaded {
		attached := j.attached()
		if j.half() {
			e.log.Info("unit whose payload never became complete is deleted: its submitter makes another", "unit", j.id)
			j.removeOrLog()
			continue
		}
		switch {
		case j.work != nil:
			j.work.resume()
		case !j.complete():
			j.abandon("Failed to restart: this node cannot go on with work of this kind", unit.ReasonRestart)
		}
		if w, ok := j.work.(*commandWorker); ok && attached { // Its client has gone with the engine that had made it.
			e.begin(w.removeEnded)
		}
	}
	e.begin(e.sweep)
	e.begin(e.tellQueue)
	return nil
}

// load makes a job of what was found; nil if it is no unit.
func (e *Engine) load(f store.Found) *job {
	if errors.Is(f.Err, store.ErrNoStatus) {
		e.log.Warn("directory without status is no unit", "unit", f.ID, "path", f.Dir.Path())
		return nil
	}
	if errors.Is(f.Err, store.ErrNoUnit) { // Not followed or read: who put it there may want to have something else taken for a unit.
		e.log.Warn("link or file with the name of a unit is no unit, and is left as it is", "unit", f.ID, "path", f.Dir.Path())
		return nil
	}
	if errors.Is(f.Err, fs.ErrPermission) {
		e.log.Error("unit cannot be read and is left as it is", "unit", f.ID, "path", f.Dir.Path(), "err", f.Err)
		j := newJob(e, f.ID, f.Dir, unit.Record{State: Pending, Detail: unit.DetailDenied + f.Err.Error()})
		j.started = true
		j.work = deniedWorker{j, f.Err}
		return j
	}
	if f.Err != nil {
		e.log.Error("unit cannot be read", "unit", f.ID, "path", f.Dir.Path(), "err", f.Err)
		f.Record = unit.Record{
			State: Failed, Detail: "Failed to restart: " + f.Err.Error(), StdoutSize: f.Dir.StdoutSize(),
			Outcome: unit.Because(unit.ReasonStatus),
		}
		if err := f.Dir.Overwrite(f.Record); err != nil {
			e.log.Error("status of unit cannot be written", "unit", f.ID, "err", err)
		}
		return newJob(e, f.ID, f.Dir, f.Record)
	}
	j := newJob(e, f.ID, f.Dir, f.Record)
	j.started = true
	e.equip(j)
	return j
}

// equip gives a job the worker that its record asks for, none if it is of a kind that is unknown here. A unit whose work
// type is not offered any more is still watched and can be cancelled if a command runner has it.
func (e *Engine) equip(j *job) {
	t, offered := e.types[j.rec.WorkType]
	j.configured = offered
	switch {
	case j.rec.Remote() != nil && j.rec.WorkType == remoteWorkType:
		j.configured = true
		j.work = newRemoteWorker(j)
	case j.rec.Command() != nil && j.rec.Command().InProcess:
		j.work = &functionWorker{j: j, ended: make(chan struct{})}
	case j.rec.Command() != nil, j.rec.Extra == nil, j.rec.Pod() != nil && t.pods != nil:
		w := &commandWorker{j: j, ended: make(chan struct{})}
		w.podType.Store(t.pods)
		j.work = w
	}
}

// Close stops watching and waits until nothing of the engine is left. Runners and their commands go on; a later engine
// on the same directory takes them up. It may be called twice.
func (e *Engine) Close() error {
	e.mu.Lock()
	first := !e.closed
	e.closed = true
	subscriptions := e.subscriptions
	if first {
		e.subscriptions = nil
	}
	e.mu.Unlock()
	e.stop()
	e.wg.Wait()
	if first {
		e.runners.close()
		e.watch.close()
		if err := e.root.Close(); err != nil {
			e.log.Error("journal of new units cannot be closed", "err", err)
		}
		for s := range subscriptions {
			s.end()
		}
	}
	return nil
}

// begin runs f in a goroutine that Close waits for; false if the engine is closed.
func (e *Engine) begin(f func()) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.wg.Go(e.guarded(f))
	return true
}

// guarded is f for a goroutine, or a timer: see [Config.OnPanic].
func (e *Engine) guarded(f func()) func() {
	return func() {
		defer fault.Catch(e.cfg.OnPanic)
		f()
	}
}

// deleters is how many released units are deleted in the background at once. Of more, each holds up its own release, so that
// the disk is not filled faster than it is freed.
const deleters = 2

func (e *Engine) delete(trash *store.Trash, clean bool) {
	do := func() {
		free := trash.Delete
		if clean {
			free = func() error { return e.root.Recycle(trash) }
		}
		if err := free(); err != nil {
			e.log.Error("released unit cannot be deleted whole", "err", err)
		}
	}
	select {
	case e.deleting <- struct{}{}:
		if e.begin(func() { do(); <-e.deleting }) {
			return
		}
		<-e.deleting
	default:
	}
	do()
}

func (e *Engine) find(id UnitID) (*job, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if j := e.units[id]; j != nil {
		return j, nil
	}
	return nil, &UnknownUnitError{id}
}

// Status returns the status of a unit, from memory.
func (e *Engine) Status(id UnitID) (Status, error) {
	j, err := e.find(id)
	if err != nil {
		return Status{}, err
	}
	return j.status(), nil
}

// List returns the status of all units, from memory.
func (e *Engine) List() map[UnitID]Status {
	jobs, positions := e.jobs(), e.gate.positions()
	all := make(map[UnitID]Status, len(jobs))
	for _, j := range jobs {
		all[j.id] = j.look().statusAt(positions[j])
	}
	return all
}

func (e *Engine) jobs() []*job {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Collect(maps.Values(e.units))
}

// Cancel ends a unit. A unit that is complete is left as it is. pending: the unit has not ended yet, because its
// program takes its time or its node is out of reach; that goes on in the background.
func (e *Engine) Cancel(ctx context.Context, id UnitID) (pending bool, err error) {
	j, err := e.find(id)
	if err != nil || j.complete() || j.work == nil {
		return false, err
	}
	return j.work.cancel(ctx)
}

// Release ends a unit if need be and deletes it. pending: that goes on in the background. force ignores errors of the
// unit's other node and of the disk, and never leaves the unit listed.
func (e *Engine) Release(ctx context.Context, id UnitID, force bool) (pending bool, err error) {
	j, err := e.find(id)
	if err != nil {
		return false, err
	}
	if j.work != nil {
		return j.work.release(ctx, force)
	}
	err = j.remove()
	if err != nil && force {
		j.forget()
		return false, nil
	}
	return false, err
}

// VerifySubmit answers whether a client may submit work of a type. trusted: it is on a Unix socket and needs no
// signature.
func (e *Engine) VerifySubmit(workType, signature string, trusted bool) error {
	t, _ := e.workType(workType)
	return e.verify(t.verify, signature, trusted)
}

// VerifyUnit is VerifySubmit for cancel, release and results of a unit. If its type is not offered any more, what counts is
// whether that wanted signatures when the unit was made.
func (e *Engine) VerifyUnit(id UnitID, signature string, trusted bool) error {
	j, err := e.find(id)
	if err != nil {
		return err
	}
	rec := j.look().rec
	if x := rec.Remote(); x != nil {
		return e.verify(x.SignWork, signature, trusted)
	}
	if _, offered := e.workType(rec.WorkType); !offered {
		return e.verify(rec.VerifySignature, signature, trusted)
	}
	return e.VerifySubmit(rec.WorkType, signature, trusted)
}

func (e *Engine) verify(wanted bool, signature string, trusted bool) error {
	switch {
	case !wanted && signature != "":
		return errors.New("work type did not expect a signature")
	case !wanted, trusted:
		return nil
	case signature == "":
		return errors.New("could not verify signature: signature is empty")
	case e.cfg.Verify == nil:
		return errors.New("could not verify signature: verifying key not specified")
	}
	return e.cfg.Verify(signature)
}

// Submit makes a unit that waits for its payload. It is durable when Submit returns; a request that is refused leaves
// nothing behind.
func (e *Engine) Submit(req SubmitRequest) (*Submission, error) {
	rec, err := e.plan(req)
	if err != nil {
		return nil, err
	}
	if t, _ := e.workType(rec.WorkType); t.command != "" {
		e.runners.startAhead()
	}
	s := &Submission{}
	if err := e.repeat(req.Submission); err != nil {
		return nil, err
	}
	if s.j, err = e.create(rec, &s.stdin); err != nil {
		return nil, err
	}
	s.begin(req.Submission)
	if f, ok := s.j.work.(*functionWorker); ok {
		f.params = req.Params
	}
	return s, nil
}

// create makes a durable unit. Its payload file is left open in stdin if that is not nil: the payload is to come.
func (e *Engine) create(rec unit.Record, stdin **os.File) (*job, error) {
	create, soon := e.root.Create, e.startsAtOnce(rec) && stdin != nil
	if soon {
		create = e.root.CreateSoon
	}
	id, dir, file, err := create(rec, func(id UnitID) bool { _, err := e.find(id); return err == nil })
	if err != nil {
		return nil, err
	}
	j := newJob(e, id, dir, rec)
	j.started = stdin == nil
	if err := e.enlist(j); err != nil {
		file.Close()
		e.root.Forget(id)
		return nil, errors.Join(err, dir.Remove())
	}
	if stdin == nil {
		file.Close()
	} else {
		*stdin = file
	}
	if soon {
		e.settled.add(j)
	}
	return j, nil
}

// enlist lists a unit that was made, unless there is nobody to do it.
func (e *Engine) enlist(j *job) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || !e.started {
		return ErrClosed
	}
	e.equip(j)
	if j.work == nil { // A type of pods was taken back a moment ago.
		return fmt.Errorf("%w %s", ErrUnknownType, j.rec.WorkType)
	}
	j.configured = true
	e.units[j.id] = j
	return nil
}

// plan checks a request and returns the record of its unit.
func (e *Engine) plan(req SubmitRequest) (unit.Record, error) {
	rec := unit.Record{State: Pending, Detail: unit.DetailWaiting, Times: unit.Times{Created: time.Now().UTC()}}
	var err error
	if req.Node == "" {
		return rec, errors.New("field node missing")
	}
	if own := e.cfg.Mesh.ID(); req.Node.At(own) == own {
		rec.WorkType = req.WorkType
		rec.Extra, rec.VerifySignature, err = e.planLocal(req)
	} else {
		rec.WorkType = remoteWorkType
		rec.Extra, err = e.planRemote(req)
	}
	return rec, err
}

func (e *Engine) planLocal(req SubmitRequest) (x unit.Extra, verify bool, err error) {
	if req.TTL != "" {
		return nil, false, errors.New("ttl option is intended for remote work only")
	}
	t, ok := e.workType(req.WorkType)
	if !ok {
		return nil, false, fmt.Errorf("%w %s", ErrUnknownType, req.WorkType)
	}
	if t.pods != nil {
		pod, err := t.pods.plan(e.cfg.Mesh.ID(), req.Params)
		if err != nil {
			return nil, false, err
		}
		pod.Submission = req.Submission
		return pod, t.verify, nil
	}
	params, err := t.plan(req.Params)
	return &unit.CommandExtra{Params: params, InProcess: t.handler != nil, Submission: req.Submission}, t.verify, err
}

func (e *Engine) planRemote(req SubmitRequest) (*unit.RemoteExtra, error) {
	if req.TLSClient != "" && (e.cfg.HasTLSClient == nil || !e.cfg.HasTLSClient(req.TLSClient)) {
		return nil, fmt.Errorf("%w %s", ErrUnknownTLS, req.TLSClient)
	}
	x := unit.RemoteExtra{
		RemoteNode: string(req.Node), RemoteWorkType: req.WorkType, RemoteParams: map[string]string{},
		SignWork: req.SignWork, TLSClient: req.TLSClient, Submission: rand.Text(),
	}
	for name, value := range req.Params {
		if unit.IsSecret(name) && req.TLSClient == "" {
			return nil, errors.New("cannot send secrets over a non-TLS connection")
		}
		x.RemoteParams[name] = value
	}
	if req.TTL != "" {
		ttl, err := time.ParseDuration(req.TTL)
		if err != nil {
			return nil, err
		}
		x.Expiration = time.Now().Add(ttl).UTC()
	}
	return &x, nil
}

// Submission is a unit that waits for its payload. One goroutine calls ReadPayload, then Start.
type Submission struct {
	j      *job
	stdin  *os.File
	size   int64 // Of stdin.
	keeps  bool  // See keepsPayload.
	behind store.Behind
}

// ID returns the unit's ID.
func (s *Submission) ID() UnitID { return s.j.id }

// ReadPayload stores the payload up to the end of r and makes it durable. An error of r or of the disk fails the unit
// with "Error reading input data: TEXT". A unit that is cancelled or released meanwhile answers [ErrCancelled], and one whose time to
// live ends an [*ExpiredError].
func (s *Submission) ReadPayload(r io.Reader) error {
	if w, ok := s.j.work.(*remoteWorker); ok {
		defer w.expireInTime()()
	}
	s.keeps = s.j.keepsPayload()
	buf := pieces.Get().(*[pieceSize]byte)
	_, err := io.CopyBuffer(s, filler{r}, buf[:]) // The filler has no WriteTo, so a cancel is noticed between two pieces.
	pieces.Put(buf)
	if err == nil {
		s.j.payloadCame()
	}
	if err == nil && s.size > 0 && s.keeps {
		err = s.stdin.Sync()
	}
	if err != nil {
		s.giveUp()
	}
	if err != nil && !errors.Is(err, ErrCancelled) {
		s.stdin.Truncate(0) // Of no use, and the disk may be full.
		s.j.failBecause("Error reading input data: "+err.Error(), unit.ReasonPayload)
	}
	return errors.Join(err, s.stdin.Close(), s.end(err))
}

// keepsPayload reports whether the payload must be durable when it is complete. That of a command that starts at once is needed
// by nobody after a loss of power, as the unit has Failed then; one that must wait is made durable when that turns out.
func (j *job) keepsPayload() bool { return !j.e.startsAtOnce(j.look().rec) }

// startsAtOnce reports whether a unit is one of those that are run as soon as their payload is there, unless they must wait.
func (e *Engine) startsAtOnce(rec unit.Record) bool {
	t, _ := e.workType(rec.WorkType)
	return t.command != ""
}

// Write implements io.Writer for ReadPayload.
func (s *Submission) Write(p []byte) (int, error) {
	if err := s.j.look().ended(); err != nil {
		return 0, err
	}
	n, err := s.stdin.Write(p)
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		failed.Path = s.j.dir.File(store.StdinFile) // The file was opened before its directory got its name.
	}
	s.size += int64(n)
	if w, ok := s.j.work.(*remoteWorker); ok {
		w.payloadGrew(int64(n), s.size)
	}
	if s.keeps {
		s.behind.Grown(s.stdin, s.size, 0)
	}
	return n, err
}

// Start starts the unit and returns [JobStarted], or [JobSubmitted] for a remote unit whose node is not reachable now:
// it is started in the background. After an error the unit stays, Failed. If ctx ends first a remote unit goes on
// in the background.
func (s *Submission) Start(ctx context.Context) (string, error) {
	j := s.j
	if err := j.begun(); err != nil {
		s.giveUp()
		return "", err
	}
	result, err := j.work.start(ctx)
	if err != nil {
		s.giveUp()
	}
	j.startFailed(err)
	return result, err
}

// giveUp ends what has set out of a payload that will never be whole.
func (s *Submission) giveUp() {
	if w, ok := s.j.work.(*remoteWorker); ok {
		w.takeEarly().giveUp()
	}
}
