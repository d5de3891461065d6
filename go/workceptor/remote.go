package workceptor

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor/remote"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

const (
	controlService = "control"

	firstRetry  = time.Second
	retryFactor = 1.5
	lastRetry   = time.Minute
	dialWait    = 40 * time.Second // The mesh gives up after 30 s by itself.

	actionWait = 5 * time.Second // How long a client waits for the executor to hear of a cancel or release.
	startWait  = time.Minute     // How long a client waits for the first attempt to start.

	// If the mesh says so fast that a node is reachable, it may have been reachable all the time without answering.
	// Such a node is asked again at once only if that was not done lately.
	sameRoute = 10 * time.Millisecond
)

// step is one thing that a remote unit has to do with its executor.
type step int

const (
	stepNone step = iota
	stepSubmit
	stepMonitor
	stepCancel
	stepRelease
)

// remoteWorker is a unit that lives on another node. While there is something to do with that node one goroutine does
// it, a step at a time; clients set flags in the record, interrupt the step, and wait for the outcome of the next.
type remoteWorker struct {
	j *job

	mu        sync.Mutex
	running   bool
	over      bool               // The unit was let go: nothing will be done any more.
	interrupt context.CancelFunc // Ends the step under way, or the pause after it.
	current   step               // stepNone in a pause.
	waiting   map[chan error]step
	done      chan struct{} // Closed when the goroutine ends; replaced when it starts.
	cancelled bool          // The executor knows of the cancel.
	refused   bool          // The executor refused the release: the unit is monitored on until somebody asks again.
	early     *early        // What has set out of the payload, until a step takes it.
	owedUntil time.Time     // See owe.

	expiration time.Time // As a date, and when that is,
	expires    time.Time // whatever somebody sets the clock to from now on.
}

func newRemoteWorker(j *job) *remoteWorker {
	return &remoteWorker{j: j, waiting: map[chan error]step{}}
}

// extra is the unit's ExtraData; nothing, if somebody has taken it out of the status file.
func (w *remoteWorker) extra() unit.RemoteExtra {
	if x := w.j.look().rec.Remote(); x != nil {
		return *x
	}
	return unit.RemoteExtra{}
}

// expiry is when the unit's time to live is over; zero if it has none.
func (w *remoteWorker) expiry() time.Time {
	date := w.extra().Expiration
	if date.IsZero() {
		return date
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !date.Equal(w.expiration) {
		w.expiration, w.expires = date, time.Now().Add(time.Until(date))
	}
	return w.expires
}

// takeEarly returns what has set out of the payload, once.
func (w *remoteWorker) takeEarly() *early {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.early
	w.early = nil
	return p
}

// start makes the first attempt while the client waits.
func (w *remoteWorker) start(ctx context.Context) (string, error) {
	starting := unit.Event{Kind: unit.Prepare, Detail: unit.DetailStarting, Size: unit.KeepSize}
	// Made durable with the executor's unit ID, or before the client hears that the unit is tried again.
	if !w.j.apply(false, starting) {
		return "", w.j.look().ended()
	}
	outcome := w.expect(stepSubmit)
	if !w.run() {
		return "", ErrClosed
	}
	err := w.await(ctx, outcome, startWait)
	var refused *remote.RefusedError
	switch {
	case err == nil:
		return JobStarted, nil
	case errors.As(err, &refused):
		return "", err
	}
	if expired, ok := errors.AsType[*ExpiredError](w.j.look().ended()); ok {
		return "", expired
	}
	// Also of a unit that has failed because of TLS: existing clients are told so.
	return JobSubmitted, w.j.update(true, func(*unit.Record) bool { return true })
}

func (w *remoteWorker) resume() {
	rec := w.j.look().rec
	x := rec.Remote()
	if rec.State == Pending && !x.RemoteStarted && x.RemoteUnitID == "" && rec.Detail != unit.DetailStarting {
		w.j.failBecause(unit.DetailPendingAtRestart, unit.ReasonRestart) // The payload never arrived whole.
	}
	switch w.next() {
	case stepNone:
		return
	case stepMonitor:
		w.j.set(func() { w.j.copying = rec.State.Complete() })
	}
	w.run()
}

// run starts the goroutine unless it runs or nothing is to be done; false if the engine is closed.
func (w *remoteWorker) run() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running || w.over {
		return !w.over
	}
	w.done = make(chan struct{})
	done := w.done
	w.running = w.j.e.begin(func() {
		defer close(done)
		w.loop(w.j.e.ctx)
	})
	return w.running
}

// expect asks for the outcome of the next attempt at a step.
func (w *remoteWorker) expect(s step) chan error {
	outcome := make(chan error, 1)
	w.mu.Lock()
	w.waiting[outcome] = s
	w.mu.Unlock()
	return outcome
}

// tell answers those who wait for a step; stepNone answers all of them.
func (w *remoteWorker) tell(s step, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for outcome, wanted := range w.waiting {
		if wanted == s || s == stepNone {
			outcome <- err
			delete(w.waiting, outcome)
		}
	}
}

var (
	errNoAnswerYet = errors.New("no answer yet")
	errNothing     = errors.New("nothing is left to do")
)

func (w *remoteWorker) await(ctx context.Context, outcome chan error, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case err := <-outcome:
		return err
	case <-timer.C:
	case <-ctx.Done():
	case <-w.j.e.ctx.Done():
	}
	w.mu.Lock()
	delete(w.waiting, outcome)
	w.mu.Unlock()
	return errNoAnswerYet
}

// kick ends the step or pause under way, so that the goroutine looks at the record again; not if the step is s anyway.
func (w *remoteWorker) kick(s step) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.interrupt != nil && (s == stepNone || s != w.current) {
		w.interrupt()
	}
}

func (w *remoteWorker) loop(ctx context.Context) {
	pause := backoff{next: firstRetry}
	for {
		stepCtx, interrupt := context.WithCancel(ctx)
		w.mu.Lock()
		w.interrupt = interrupt
		s := w.nextLocked()
		w.current = s
		w.mu.Unlock()
		if s == stepNone || ctx.Err() != nil {
			interrupt()
			if w.leave(ctx.Err()) {
				return
			}
			continue
		}
		err := w.do(stepCtx, s)
		if err != nil && stepCtx.Err() == nil {
			w.j.e.log.Debug("remote unit will be tried again", "unit", w.j.id, "node", w.extra().RemoteNode, "err", err, "retry_in", pause.next)
		}
		w.mu.Lock()
		w.current = stepNone
		w.mu.Unlock()
		interrupted := stepCtx.Err() != nil
		if !interrupted || err == nil { // Else the next attempt answers.
			w.tell(s, err)
		}
		if err == nil {
			pause.reset()
		} else if !interrupted && !isRefused(err) && w.next() != stepNone {
			w.pauseFor(stepCtx, &pause)
		}
		interrupt()
	}
}

// leave ends the goroutine; false if a client has asked for something at the last moment.
func (w *remoteWorker) leave(err error) bool {
	if err == nil {
		err = errNothing
	}
	w.mu.Lock()
	if errors.Is(err, errNothing) && w.nextLocked() != stepNone {
		w.mu.Unlock()
		return false
	}
	w.running, w.interrupt = false, nil
	w.mu.Unlock()
	w.j.meets(nil)
	w.takeEarly().giveUp()
	w.tell(stepNone, err)
	if w.j.look().copying {
		w.j.set(func() { w.j.copying = false })
	}
	w.owe(0)
	return true
}

// sumWait is how long the executor of a complete unit is asked again for the checksum of its output when the session breaks
// before it has told that. Then the unit has none.
const sumWait = time.Minute

// owe notes that the executor owes the checksum of the output of the unit, which is complete otherwise, and is to be asked
// for so long; 0 is no longer.
func (w *remoteWorker) owe(wait time.Duration) {
	w.mu.Lock()
	w.owedUntil = time.Now().Add(wait)
	w.mu.Unlock()
	if wait == 0 {
		w.j.settled()
		return
	}
	w.j.set(func() { w.j.owed = true })
}

func isRefused(err error) bool {
	var refused *remote.RefusedError
	return errors.As(err, &refused)
}

func (w *remoteWorker) next() step {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nextLocked()
}

// nextLocked decides what to do, by the record and the size of the output.
func (w *remoteWorker) nextLocked() step {
	now := w.j.look()
	x := now.rec.Remote()
	switch {
	case now.gone, w.over, x == nil:
		return stepNone
	case x.LocalReleased && !w.refused:
		return stepRelease
	case x.LocalCancelled && !w.cancelled && !now.rec.State.Complete():
		return stepCancel
	case !x.RemoteStarted:
		if now.rec.State.Complete() {
			return stepNone
		}
		return stepSubmit
	case now.rec.State.Complete() && now.copying && time.Now().Before(w.owedUntil):
	case now.rec.State.Complete() && (w.j.dir.StdoutSize() >= now.rec.StdoutSize || !w.j.dir.Exists()):
		return stepNone
	}
	return stepMonitor
}

func (w *remoteWorker) do(ctx context.Context, s step) error {
	early := w.takeEarly()
	defer early.giveUp()
	switch s {
	case stepSubmit:
		return w.submit(ctx, early)
	case stepCancel:
		return w.doCancel(ctx)
	case stepRelease:
		return w.doRelease(ctx)
	}
	err := w.monitor(ctx)
	if err != nil && ctx.Err() == nil && !w.j.dir.Exists() {
		w.j.abandon(unit.DetailDirectoryGone, unit.ReasonDirectory)
		return errNothing
	}
	return err
}

// backoff is the pause before the next attempt.
type backoff struct {
	next   time.Duration
	atOnce time.Time // When an attempt was last made without a pause although the node may not have been away.
}

func (b *backoff) reset() { b.next = firstRetry }

func (b *backoff) take() time.Duration {
	now := b.next
	b.next = min(time.Duration(float64(b.next)*retryFactor), lastRetry)
	return now
}

// pauseFor waits for the next attempt: until the pause is over, or the node becomes reachable, or the unit expires, or
// something else is to be done.
func (w *remoteWorker) pauseFor(ctx context.Context, pause *backoff) {
	x := w.extra()
	wait := pause.take()
	if expiry := w.expiry(); !expiry.IsZero() && !x.RemoteStarted {
		wait = min(wait, max(time.Until(expiry), 0))
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	began := time.Now()
	if w.waitRoute(ctx) == nil {
		if time.Since(began) >= sameRoute {
			pause.reset()
			return
		}
		if began.Sub(pause.atOnce) >= wait {
			pause.atOnce = began
			return
		}
	}
	<-ctx.Done()
}

func (w *remoteWorker) waitRoute(ctx context.Context) error {
	return w.j.e.cfg.Mesh.WaitRoute(ctx, wire.NodeID(w.extra().RemoteNode))
}

// connect opens a session with the executor, which lasts until ctx ends.
func (w *remoteWorker) connect(ctx context.Context) (*remote.Conn, error) {
	x := w.extra()
	dialCtx, cancel := context.WithTimeout(ctx, dialWait)
	defer cancel()
	s, err := w.j.e.cfg.Mesh.DialStream(dialCtx, wire.NodeID(x.RemoteNode), controlService, x.TLSClient)
	if err != nil {
		return nil, err
	}
	return remote.Open(ctx, s, x.RemoteNode)
}

// dial is connect that shows on the unit what goes wrong, and fails it if only a new configuration can help against that.
func (w *remoteWorker) dial(ctx context.Context) (*remote.Conn, error) {
	conn, err := w.connect(ctx)
	if ctx.Err() == nil {
		w.j.meets(err)
	}
	if err != nil {
		if at := strings.Index(err.Error(), "CRYPTO_ERROR"); at >= 0 && ctx.Err() == nil {
			w.tlsFailed(err.Error()[at:])
		}
	}
	return conn, err
}

// tlsFailed ends a unit that has not started, since nothing but a new configuration can help, and is only noted on one
// that has.
func (w *remoteWorker) tlsFailed(text string) {
	detail := "TLS error connecting to remote service: " + text
	if w.extra().RemoteStarted {
		state := w.j.look().rec.State
		w.j.apply(true, unit.Event{Kind: unit.Mirror, To: state, Detail: detail, Size: unit.KeepSize})
		return
	}
	w.j.failBecause(detail, unit.ReasonTLS)
}

func (w *remoteWorker) sign() (string, error) {
	x := w.extra()
	if !x.SignWork {
		return "", nil
	}
	signature, err := w.j.e.Sign(wire.NodeID(x.RemoteNode))
	if err != nil {
		return "", &remote.RefusedError{Text: err.Error()}
	}
	return signature, nil
}

// submit makes one attempt to have the executor take the unit. Its payload may have set out early.
func (w *remoteWorker) submit(ctx context.Context, early *early) error {
	x := w.extra()
	if w.expire() {
		return errNothing
	}
	begun, err := early.conclude(ctx)
	if !begun {
		var conn *remote.Conn
		if conn, err = w.dialBefore(ctx, w.expiry()); err != nil {
			if ctx.Err() == nil && w.expire() {
				return errNothing
			}
			return err
		}
		defer conn.Close()
		if x.RemoteUnitID != "" {
			if started, err := w.inquire(ctx, conn, x.RemoteUnitID); started || err != nil {
				return err
			}
		}
		err = w.exchange(conn)
	}
	if isRefused(err) {
		w.j.failBecause("Error starting worker: "+err.Error(), unit.ReasonRefused)
	}
	return err
}

// expire fails the unit if its time is over; it has not started.
func (w *remoteWorker) expire() bool {
	if !w.expiredAt(time.Now()) {
		return false
	}
	w.j.failBecause(unit.DetailExpired(w.extra().Expiration), unit.ReasonExpired)
	return true
}

func (w *remoteWorker) expiredAt(now time.Time) bool {
	expiry := w.expiry()
	return !expiry.IsZero() && !now.Before(expiry)
}

// expireInTime fails the unit as soon as its time is over, if that is before stop is called.
func (w *remoteWorker) expireInTime() (stop func()) {
	expiry := w.expiry()
	if expiry.IsZero() {
		return func() {}
	}
	over := make(chan struct{})
	timer := time.AfterFunc(time.Until(expiry), w.j.e.guarded(func() {
		defer close(over)
		if w.expire() {
			w.takeEarly().giveUp()
		}
	}))
	return func() {
		if !timer.Stop() {
			<-over
		}
	}
}

func (w *remoteWorker) dialBefore(ctx context.Context, expiry time.Time) (*remote.Conn, error) {
	if expiry.IsZero() {
		return w.dial(ctx)
	}
	// Only until the session stands: an exchange that has begun is brought to its end.
	dialCtx, cancel := context.WithCancel(ctx)
	timer := time.AfterFunc(time.Until(expiry), cancel)
	conn, err := w.dial(dialCtx)
	if err != nil || !timer.Stop() {
		cancel()
		return nil, errors.Join(err, dialCtx.Err())
	}
	return conn, nil
}

// inquire settles an exchange that was broken off after the executor had made its unit: started, if the executor has
// the whole payload, or not, and then the half unit is given up.
func (w *remoteWorker) inquire(ctx context.Context, conn *remote.Conn, id unit.ID) (started bool, err error) {
	offers := w.j.e.pushers.mayOffer(w.extra().RemoteNode)
	s, err := conn.Status(id)
	if err == nil && half(s) && !offers {
		// What was on its way when the link broke may have arrived all the same, and then the unit is about to run.
		select {
		case <-time.After(firstRetry):
			s, err = conn.Status(id)
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	switch {
	case errors.Is(err, remote.ErrUnknownUnit):
		return false, w.setRemoteID("")
	case err != nil:
		return false, err
	}
	// What a node of this implementation calls a restart has surely not started; of others one cannot know.
	failed := strings.HasPrefix(s.Detail, "Error reading input data: ") ||
		s.Detail == unit.DetailPendingAtRestart && s.Outcome.Reason == unit.ReasonRestart
	switch {
	case !half(s) && !failed:
		w.setStarted()
		return true, nil
	case half(s) && offers:
		return false, nil // The executor settles that when the submission is repeated.
	}
	signature, err := w.sign()
	if err != nil {
		return false, err
	}
	_, err = conn.Act("release", id, signature)
	if err != nil && !errors.Is(err, remote.ErrUnknownUnit) && !isRefused(err) {
		return false, err
	}
	return false, w.setRemoteID("")
}

// half reports whether an executor's unit waits for its payload.
func half(s remote.Status) bool {
	return s.State == Pending && (s.Detail == unit.DetailWaiting || s.Detail == unit.DetailCreated)
}

// edit makes a change of the unit's ExtraData for update or later.
func edit(change func(*unit.RemoteExtra)) func(*unit.Record) bool {
	return func(rec *unit.Record) bool {
		rec.EditRemote(change)
		return true
	}
}

func (w *remoteWorker) setRemoteID(id unit.ID) error {
	return w.j.update(true, edit(func(x *unit.RemoteExtra) { x.RemoteUnitID = id }))
}

// setStarted need not be on the disk: the executor is asked about the unit that it named. Secrets must leave it.
func (w *remoteWorker) setStarted() {
	started := edit(func(x *unit.RemoteExtra) { x.RemoteStarted = true })
	for name := range w.extra().RemoteParams {
		if unit.IsSecret(name) {
			w.j.update(false, started)
			return
		}
	}
	w.j.later(started)
}

// request is what the executor is asked for, by the name of the submission if it may know such names.
func (w *remoteWorker) request() (req remote.Request, err error) {
	x := w.extra()
	req = remote.Request{Node: x.RemoteNode, WorkType: x.RemoteWorkType, TLSClient: x.TLSClient, Params: x.RemoteParams}
	if w.j.e.pushers.mayOffer(x.RemoteNode) {
		req.Submission = x.Submission
	}
	req.Signature, err = w.sign()
	return req, err
}

func (w *remoteWorker) exchange(conn *remote.Conn) error {
	x := w.extra()
	req, err := w.request()
	if err != nil {
		return err
	}
	stdin, err := w.j.dir.ReadStdin()
	if err != nil {
		return &remote.RefusedError{Text: "error opening stdin file: " + err.Error()}
	}
	defer stdin.Close()
	id, begun, err := conn.Submit(req)
	if errors.Is(err, remote.ErrNotOffered) {
		w.j.e.pushers.refused(x.RemoteNode)
		if x.RemoteUnitID != "" {
			return err // The half unit that it has is to be settled first.
		}
		req.Submission = ""
		id, begun, err = conn.Submit(req)
	}
	if err != nil {
		return err
	}
	// Written before the payload is complete: whatever breaks from here on, we know whom to ask about.
	if err := w.setRemoteID(id); err != nil {
		return err
	}
	if !begun {
		if err := conn.SendPayload(x.RemoteNode, stdin); err != nil {
			return err
		}
	}
	w.setStarted()
	return nil
}

// doCancel tells the executor, if it has the unit.
func (w *remoteWorker) doCancel(ctx context.Context) error {
	x := w.extra()
	if x.RemoteUnitID != "" {
		err := w.act(ctx, "cancel")
		switch {
		case isRefused(err):
			w.set(&w.cancelled) // It said no: go on watching.
			return err
		case err != nil && !errors.Is(err, remote.ErrUnknownUnit):
			return err
		}
	}
	w.set(&w.cancelled)
	if !x.RemoteStarted {
		w.j.failBecause(unit.DetailLocallyCancelled, unit.ReasonCanceled)
	}
	return nil
}

func (w *remoteWorker) set(flag *bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	*flag = true
}

// doRelease has the executor delete its unit, if it has one, and deletes ours.
func (w *remoteWorker) doRelease(ctx context.Context) error {
	if w.extra().RemoteUnitID != "" {
		err := w.act(ctx, "release")
		if isRefused(err) {
			w.set(&w.refused)
		}
		if err != nil && !errors.Is(err, remote.ErrUnknownUnit) {
			return err
		}
	}
	if err := w.j.remove(); err != nil {
		w.set(&w.refused)
		return &remote.RefusedError{Text: err.Error()}
	}
	return nil
}

var errStillThere = errors.New("the executor has not released the unit yet")

func (w *remoteWorker) act(ctx context.Context, action string) error {
	signature, err := w.sign()
	if err != nil {
		return err
	}
	conn, err := w.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	id := w.extra().RemoteUnitID
	var refused *remote.RefusedError
	pending, err := conn.Act(action, id, signature)
	if errors.As(err, &refused) {
		return &remote.RefusedError{Text: "error cancelling remote unit:  " + refused.Text}
	}
	if err != nil || action != "release" || !pending && w.j.e.pushers.mayOffer(w.extra().RemoteNode) {
		return err
	}
	// The executor may release in the background; ours goes only when its is gone.
	if _, err := conn.Status(id); !errors.Is(err, remote.ErrUnknownUnit) {
		return errors.Join(errStillThere, err)
	}
	return nil
}

func (w *remoteWorker) cancel(ctx context.Context) (pending bool, err error) {
	if !w.began() { // Still waiting for its payload, or for its first attempt.
		w.j.update(true, edit(func(x *unit.RemoteExtra) { x.LocalCancelled = true }))
		w.j.failBecause(unit.DetailLocallyCancelled, unit.ReasonCanceled)
		w.takeEarly().giveUp()
		w.kick(stepNone)
		return false, nil
	}
	return w.outcome(w.ask(ctx, stepCancel, func() {
		w.keep(edit(func(x *unit.RemoteExtra) { x.LocalCancelled = true }))
	}))
}

// keep makes a request of a client's durable.
func (w *remoteWorker) keep(change func(*unit.Record) bool) {
	if err := w.j.update(true, change); err != nil {
		w.j.e.log.Error("request will be forgotten if the node ends before it is met", "unit", w.j.id, "err", err)
	}
}

// ask has set put flags into the record and returns the outcome of the first attempt at the step that they call for.
func (w *remoteWorker) ask(ctx context.Context, s step, set func()) error {
	for {
		outcome := w.expect(s)
		w.mu.Lock()
		w.cancelled, w.refused = false, false
		w.mu.Unlock()
		set()
		w.kick(s)
		if !w.run() {
			return errNoAnswerYet
		}
		err := w.await(ctx, outcome, actionWait)
		// The goroutine may have ended just before it could see the flags.
		if !errors.Is(err, errNothing) || w.next() != s {
			return err
		}
	}
}

// began reports whether the unit's goroutine has been at work.
func (w *remoteWorker) began() bool {
	w.j.mu.Lock()
	defer w.j.mu.Unlock()
	return w.j.started
}

// outcome translates the first attempt of a cancel or release for the client.
func (w *remoteWorker) outcome(err error) (pending bool, _ error) {
	switch {
	case err == nil, errors.Is(err, errNothing), errors.Is(err, remote.ErrUnknownUnit):
		return false, nil
	case isRefused(err):
		return false, err
	}
	return true, nil
}

func (w *remoteWorker) release(ctx context.Context, force bool) (pending bool, err error) {
	if w.extra().RemoteUnitID == "" && !w.busy() {
		w.finish()
		return false, w.drop(force)
	}
	pending, err = w.outcome(w.ask(ctx, stepRelease, func() {
		w.j.later(edit(func(x *unit.RemoteExtra) { x.LocalCancelled, x.LocalReleased = true, true }))
	}))
	if pending && !force { // The client counts on it.
		w.keep(func(*unit.Record) bool { return true })
	}
	if !force || (err == nil && !pending) {
		return pending, err
	}
	w.finish()
	return false, w.drop(true)
}

func (w *remoteWorker) busy() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.running
}

// finish stops the goroutine for good and waits for its end.
func (w *remoteWorker) finish() {
	w.mu.Lock()
	w.over = true
	running, done := w.running, w.done
	w.mu.Unlock()
	w.takeEarly().giveUp()
	w.kick(stepNone)
	if running {
		<-done
	}
}

func (w *remoteWorker) drop(force bool) error {
	err := w.j.remove()
	if err != nil && force && !errors.Is(err, os.ErrNotExist) {
		w.j.e.log.Error("unit cannot be deleted", "unit", w.j.id, "err", err)
		w.j.forget()
		return nil
	}
	return err
}
