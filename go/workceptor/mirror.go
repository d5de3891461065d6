package workceptor

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/workceptor/remote"
	"github.com/pyreceptor/pyreceptor/go/workceptor/store"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

const (
	// A peer is asked for the status of a unit after a pause that grows while nothing changes. Nothing can push it:
	// existing peers only answer. A change of state is news that others follow soon; output comes by itself.
	minPoll    = 10 * time.Millisecond
	outputPoll = 100 * time.Millisecond
	maxPoll    = time.Second

	// An answer that takes so long is a reason to look whether the executor can be reached.
	lateAnswer = time.Second

	// A results stream that brings nothing for so long, while the status says that there is more, is opened anew.
	stallLimit = 5 * time.Second

	// A results stream is opened anew after a pause that doubles while streams end without a byte.
	minReopen = 50 * time.Millisecond
	maxReopen = 5 * time.Second
	// So many streams of a finished unit that end without the rest of its output mean that the rest does not exist.
	maxEmpty = 5

	copyBuffer = 64 << 10
)

// mirror makes the local unit say what the executor's says. A node of this implementation pushes both status and output
// over one session. Of others one session polls the status and one streams the output, and when either connection fails
// both are given up and made again.
type mirror struct {
	w      *remoteWorker
	j      *job
	id     unit.ID
	stdout *os.File
	behind store.Behind
	pokes  chan struct{} // Ask for the status at once.
	// resumed: some of the output was there before.
	resumed bool

	mu       sync.Mutex
	size     int64 // Bytes of output on disk.
	progress time.Time
	trouble  string // Why output cannot be stored.
	refusal  string // Why output cannot be had, in the words of the executor, or of who signs.
	calm     string // The Detail before either was shown.
	last     *remote.Status
	asked    uint64        // How many status answers there were.
	news     chan struct{} // Closed, and replaced, at every status answer.
	drop     context.CancelFunc
	short    bool // The rest of the output does not exist.
}

// monitor follows a started unit until it is complete with all its output, or something breaks.
func (w *remoteWorker) monitor(ctx context.Context) error {
	stdout, err := w.j.dir.OpenStdout()
	if err != nil {
		return err
	}
	defer stdout.Close()
	m := &mirror{
		w: w, j: w.j, id: w.extra().RemoteUnitID, stdout: stdout, pokes: make(chan struct{}, 1),
		size: w.j.dir.StdoutSize(), progress: time.Now(), news: make(chan struct{}),
	}
	m.resumed = m.size > 0
	switch err = m.run(ctx); {
	case err == nil:
		err = m.finish()
	case errors.Is(err, remote.ErrUnknownUnit):
		err = m.gone()
	default:
		// Not passed on as a refusal, which would be final: the executor may be of another mind later.
		return fmt.Errorf("monitoring ended: %s", err)
	}
	if err == nil {
		w.owe(0)
	}
	return err
}

// run follows the unit by the best means that the executor offers.
func (m *mirror) run(ctx context.Context) error {
	conn, err := m.w.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	pushers, node := &m.j.e.pushers, m.w.extra().RemoteNode
	if pushers.mayOffer(node) {
		f, err := m.follow(conn)
		switch {
		case err == nil:
			return m.pushed(f)
		case errors.Is(err, remote.ErrNotOffered):
			pushers.refused(node)
		case !isRefused(err): // Else, if the signature is not to its liking, say, the status may be polled all the same.
			return err
		}
	}
	ctx, stop := context.WithCancel(ctx)
	var streaming sync.WaitGroup
	streaming.Go(func() { m.copyOutput(ctx) })
	err = m.poll(ctx, conn)
	stop()
	streaming.Wait()
	if err != nil && !isRefused(err) {
		pushers.forget(node) // It may be another program when it is back.
	}
	return err
}

// poke asks for the status at once.
func (m *mirror) poke() {
	select {
	case m.pokes <- struct{}{}:
	default:
	}
}

// poll asks for the status until unit and output are complete.
func (m *mirror) poll(ctx context.Context, conn *remote.Conn) error {
	var pause time.Duration
	var before remote.Status
	var sizeBefore int64
	for {
		s, err := m.ask(ctx, conn)
		if err != nil {
			return err
		}
		if m.learn(s) {
			return nil
		}
		size := m.have()
		pause = nextPoll(pause, s.State != before.State || s.Detail != before.Detail, size != sizeBefore || s.StdoutSize != before.StdoutSize)
		before, sizeBefore = s, size
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-m.pokes:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// nextPoll is the pause after an answer that has told of another state, or of more output; last is the one before, 0 at first.
func nextPoll(last time.Duration, state, output bool) time.Duration {
	next := min(last*3/2, maxPoll)
	switch {
	case state:
		return minPoll
	case output:
		next = min(next, outputPoll)
	}
	return max(next, minPoll)
}

// ask asks for the status. If the answer is late because the executor could not be reached, the session is given up as
// soon as it can be reached again: a new one is faster than what the old one still has to find out.
func (m *mirror) ask(ctx context.Context, conn *remote.Conn) (remote.Status, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	late := time.AfterFunc(lateAnswer, m.w.j.e.guarded(func() {
		defer close(done)
		began := time.Now()
		if m.w.waitRoute(ctx) == nil && time.Since(began) >= sameRoute {
			conn.Close()
		}
	}))
	s, err := conn.Status(m.id)
	if !late.Stop() {
		cancel()
		<-done
	}
	return s, err
}

func (m *mirror) have() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.size
}

// learn takes a status answer and reports whether nothing is missing any more. The local unit becomes complete only
// then, in finish.
func (m *mirror) learn(s remote.Status) (done bool) {
	m.mu.Lock()
	m.last = &s
	m.asked++
	close(m.news)
	m.news = make(chan struct{})
	done = s.State.Complete() && (m.size >= s.StdoutSize || m.short)
	stalled := m.size < s.StdoutSize && time.Since(m.progress) > stallLimit
	if stalled && m.drop != nil {
		m.progress = time.Now()
		m.drop()
	}
	trouble := cmp.Or(m.trouble, m.refusal)
	m.mu.Unlock()
	if s.State.Complete() {
		m.showTrouble(trouble)
	}
	m.show(s, cmp.Or(trouble, s.Detail))
	return done
}

// showTrouble has the local unit say why it is not complete although the executor's is. Without trouble it says what it said before.
func (m *mirror) showTrouble(trouble string) {
	now := m.j.look().rec
	if now.State.Complete() || trouble == "" && m.calm == "" {
		return
	}
	detail := cmp.Or(trouble, m.calm)
	switch {
	case trouble == "":
		m.calm = ""
	case m.calm == "":
		m.calm = now.Detail
	}
	if detail != now.Detail {
		m.j.apply(false, unit.Event{Kind: unit.Mirror, To: now.State, Detail: detail, Size: unit.KeepSize})
	}
}

// show makes the local unit say what the executor's says, unless it is complete.
func (m *mirror) show(s remote.Status, detail string) {
	defer m.j.moveTo(s.QueuePosition)
	now := m.j.look().rec
	switch {
	case s.State.Complete(), now.State.Complete():
	case s.State != now.State || detail != now.Detail:
		news := unit.Event{Kind: unit.Mirror, To: s.State, Detail: detail, Size: s.StdoutSize, At: orNow(s.Started)}
		m.j.later(func(rec *unit.Record) bool { return rec.Apply(news) }) // The executor would say it again.
		return
	}
	m.j.grow(s.StdoutSize)
}

func orNow(t time.Time) time.Time {
	if t.IsZero() {
		return time.Now().UTC()
	}
	return t
}

// finish makes the output durable and the unit complete.
func (m *mirror) finish() error {
	if err := m.check(); err != nil {
		return err
	}
	size := m.last.StdoutSize
	switch {
	case m.size < size:
		m.j.e.log.Warn("executor has less output than it says", "unit", m.j.id, "size", m.size, "said", size)
		size = m.size
	case m.size > size: // Written after the end, by something that the work has left behind, and copied before that was known.
		if err := m.stdout.Truncate(size); err != nil {
			return err
		}
	}
	if size > 0 {
		if err := m.j.dir.SyncStdout(m.stdout); err != nil {
			return err
		}
	}
	return m.end(unit.Event{
		Kind: unit.Mirror, To: m.last.State, Detail: m.last.Detail, Size: size, At: orNow(m.last.Finished), Outcome: outcome(m.last),
	})
}

// outcome is how the executor says that its unit ended. Existing nodes say it in words only.
func outcome(s *remote.Status) unit.Outcome {
	o := s.Outcome
	if o.Reason != "" || s.State == Succeeded {
		return o
	}
	switch {
	case s.State == Canceled:
		o.Reason = unit.ReasonCanceled
	case strings.HasPrefix(s.Detail, "exit status "):
		o.Reason = unit.ReasonExit
	case strings.HasPrefix(s.Detail, "signal: "):
		o.Reason = unit.ReasonSignal
	case s.Detail == unit.DetailKilled:
		o.Reason = unit.ReasonKilled
	case s.Detail == unit.DetailPendingAtRestart:
		o.Reason = unit.ReasonRestart
	}
	return o
}

// check compares output that was not copied in one go with the executor's sum of it. A machine that lost power may have
// kept the length of a file and not its content: such output is thrown away, and copied anew.
func (m *mirror) check() error {
	want := m.last.Outcome.SHA256
	if !m.resumed || want == "" || m.size < m.last.StdoutSize {
		return nil
	}
	sum := sha256.New()
	f, err := m.j.dir.ReadStdout()
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(sum, io.LimitReader(f, m.last.StdoutSize)); err != nil {
		return err
	}
	if hex.EncodeToString(sum.Sum(nil)) == want {
		return nil
	}
	m.j.e.log.Warn("output differs from the executor's and is copied anew", "unit", m.j.id)
	return errors.Join(m.stdout.Truncate(0), errors.New("the output copied so far was not the executor's"))
}

// gone settles a unit that the executor does not know any more. One that is complete here keeps its state and what
// there is of its output.
func (m *mirror) gone() error {
	return m.end(unit.Event{Kind: unit.Fail, Detail: unit.DetailGone, Size: m.size, At: time.Now().UTC(), Outcome: unit.Because(unit.ReasonGone)})
}

func (m *mirror) end(e unit.Event) error {
	return m.j.update(true, func(rec *unit.Record) bool {
		if !rec.Apply(e) {
			rec.StdoutSize, rec.SHA256 = e.Size, cmp.Or(rec.SHA256, e.Outcome.SHA256)
		}
		if m.last != nil && rec.Started.IsZero() {
			rec.Started = m.last.Started
		}
		return true
	})
}

// grow notes in memory how much output there is, and wakes the readers; the file follows with the next change of state.
func (j *job) grow(size int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.rec.State.Complete() && size != j.rec.StdoutSize {
		j.rec.StdoutSize = size
		j.tellLocked()
		return
	}
	j.wakeLocked()
}

// copyOutput keeps a results stream open until the output is complete.
func (m *mirror) copyOutput(ctx context.Context) {
	empty, pause := 0, minReopen
	for ctx.Err() == nil {
		before := m.have()
		err := m.stream(ctx)
		if m.have() > before {
			empty, pause = 0, minReopen
		} else if err == nil {
			empty++
		}
		s, ok := m.askedAfter(ctx)
		if !ok {
			return
		}
		if s.State.Complete() {
			if m.have() >= s.StdoutSize {
				return
			}
			if empty >= maxEmpty {
				m.mu.Lock()
				m.short = true
				m.mu.Unlock()
				m.poke()
				return
			}
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		pause = min(2*pause, maxReopen)
	}
}

// askedAfter returns a status that was asked for after now.
func (m *mirror) askedAfter(ctx context.Context) (remote.Status, bool) {
	m.mu.Lock()
	// The answer under way may have been given before: it takes two to be sure.
	want := m.asked + 2
	for m.asked < want {
		news := m.news
		m.mu.Unlock()
		m.poke()
		select {
		case <-news:
		case <-ctx.Done():
			return remote.Status{}, false
		}
		m.mu.Lock()
	}
	defer m.mu.Unlock()
	return *m.last, true
}

// stream copies one results stream to its end. Only errors of the stream are returned that leave open what it would
// have brought.
func (m *mirror) stream(ctx context.Context) (err error) {
	defer func() { fault.Log(m.j.e.log, err, "output of a remote unit", "unit", string(m.j.id)) }()
	defer fault.Into(&err)
	ctx, drop := context.WithCancel(ctx)
	defer drop()
	m.mu.Lock()
	m.drop, m.progress = drop, time.Now()
	m.mu.Unlock()
	r, done, err := m.results(ctx)
	m.noteRefusal(err)
	if err != nil {
		return err
	}
	defer done()
	buf := make([]byte, copyBuffer)
	for first := true; ; first = false {
		n, err := r.Read(buf)
		full, storeErr := m.store(buf[:n])
		if first {
			m.poke()
		}
		switch {
		case storeErr != nil:
			return storeErr
		case full || err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// results asks for the output that is missing. done ends the session.
func (m *mirror) results(ctx context.Context) (r io.Reader, done func(), err error) {
	signature, err := m.w.sign()
	if err != nil {
		return nil, nil, err
	}
	conn, err := m.w.dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	if r, err = conn.Results(m.id, m.have(), signature); err != nil {
		conn.Close()
		return nil, nil, err
	}
	return r, conn.Close, nil
}

// noteRefusal keeps why the executor does not hand out the output, to be shown with its status: it has come to refuse the
// signature, say, or there is no key any more to sign with. It is asked again, and may be of another mind.
func (m *mirror) noteRefusal(err error) {
	refusal := ""
	switch {
	case isRefused(err):
		refusal = "Error following remote unit: " + err.Error()
	case err != nil: // Of the connection: nothing was said.
		return
	}
	m.mu.Lock()
	changed := (refusal == "") != (m.refusal == "")
	m.refusal = refusal
	m.mu.Unlock()
	if !changed {
		return
	}
	if refusal != "" {
		m.j.e.log.Warn("output of unit is refused and asked for again", "unit", m.j.id, "node", m.w.extra().RemoteNode, "err", err)
	}
	m.poke()
}

// store appends output. What exceeds the final size is not part of the unit's output: something that the work has left
// behind wrote it later.
func (m *mirror) store(p []byte) (full bool, err error) {
	m.mu.Lock()
	if m.last != nil && m.last.State.Complete() {
		left := max(m.last.StdoutSize-m.size, 0)
		full = int64(len(p)) >= left
		p = p[:min(int64(len(p)), left)]
	}
	m.mu.Unlock()
	if len(p) == 0 {
		return full, nil
	}
	n, err := m.stdout.Write(p)
	m.mu.Lock()
	m.size += int64(n)
	m.behind.Grown(m.stdout, m.size, m.j.hasRead())
	m.progress = time.Now()
	m.trouble = ""
	if err != nil {
		m.trouble = "Error writing stdout: " + err.Error()
	}
	m.mu.Unlock()
	m.j.set(func() {}) // Wakes the readers.
	return full, err
}
