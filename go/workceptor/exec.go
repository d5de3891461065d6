package workceptor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor/attach"
	"github.com/pyreceptor/pyreceptor/go/workceptor/runner"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// ExecRequest is one "work exec": a command of this node to which a client is attached.
type ExecRequest struct {
	WorkType string
	Params   string
	Terminal *attach.Size // nil: three pipes.
	Term     string       // The type of the terminal; "" is "xterm".
}

var termName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$`)
})

func (r ExecRequest) attach() (string, error) {
	if r.Terminal == nil {
		return runner.AttachPipes, nil
	}
	if r.Term == "" {
		r.Term = "xterm"
	}
	if !termName().MatchString(r.Term) {
		return "", fmt.Errorf("term %q is no type of terminal: letters, digits, and . _ + - are expected", r.Term)
	}
	return runner.AttachTerminal(*r.Terminal, r.Term), nil
}

// Exec starts an interactive unit. Its output goes to the one who holds the [Interactive], and is not stored. The unit is
// released when that is closed. Interactive units do not wait: a limit that is reached is an error.
func (e *Engine) Exec(req ExecRequest) (*Interactive, error) {
	t, ok := e.workType(req.WorkType)
	if !ok {
		return nil, fmt.Errorf("%w %s", ErrUnknownType, req.WorkType)
	}
	if !t.exec {
		return nil, fmt.Errorf("work type %s does not allow exec", req.WorkType)
	}
	how, err := req.attach()
	if err != nil {
		return nil, err
	}
	params, err := t.plan(map[string]string{"params": req.Params})
	if err != nil {
		return nil, err
	}
	near, far, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer far.Close()
	j, err := e.create(unit.Record{
		State: Pending, Detail: unit.DetailStarting, WorkType: req.WorkType, Extra: &unit.CommandExtra{Params: params, Attached: true},
		Times: unit.Times{Created: time.Now().UTC()}, VerifySignature: t.verify,
	}, nil)
	if err != nil {
		near.Close()
		return nil, err
	}
	w := j.work.(*commandWorker)
	w.attach, w.client = how, far
	x := &Interactive{UnixConn: near, j: j, w: w, frames: attach.NewReader(near)}
	if err := x.start(t); err != nil {
		x.Close()
		return nil, err
	}
	x.unlink = context.AfterFunc(e.ctx, func() { near.Close() })
	return x, nil
}

func socketPair() (near *net.UnixConn, far *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair for the runner: %w", err)
	}
	f := os.NewFile(uintptr(fds[0]), "client")
	defer f.Close()
	far = os.NewFile(uintptr(fds[1]), "runner")
	conn, err := net.FileConn(f)
	if err != nil {
		far.Close()
		return nil, nil, fmt.Errorf("socket pair for the runner: %w", err)
	}
	return conn.(*net.UnixConn), far, nil
}

// Interactive is a running command and the connection to it: frames of package attach in both directions, the unit's
// last status as the last of them. The end of what is written (CloseWrite, Close) hangs up. It is a [Stream].
type Interactive struct {
	*net.UnixConn
	j      *job
	w      *commandWorker
	unlink func() bool
	frames *attach.Reader
	once   sync.Once

	pending []byte // Of a frame, read already. These belong to the one who reads.
	last    bool   // Nothing follows pending.
}

// ID returns the unit's ID.
func (x *Interactive) ID() UnitID { return x.j.id }

func (x *Interactive) start(t workType) error {
	j := x.j
	if !j.e.gate.enter(j, t.name) {
		return fmt.Errorf("work type %s is busy: as many units run as are allowed", t.name)
	}
	if err := x.w.launch(t); err != nil {
		j.e.gate.leave(j)
		return fmt.Errorf("command runner: %w", err)
	}
	return nil
}

// Read implements io.Reader. It hands out whole frames of the runner and then the unit's status.
func (x *Interactive) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(x.pending) == 0 {
		if x.last {
			return 0, io.EOF
		}
		if err := x.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, x.pending)
	x.pending = x.pending[n:]
	return n, nil
}

func (x *Interactive) next() error {
	kind, content, err := x.frames.Next()
	if err == nil && (kind == attach.Stdout || kind == attach.Stderr || kind == attach.Taken) {
		x.pending = attach.Append(nil, kind, content)
		return nil
	}
	// The runner has no more to say, or has died in the middle of a frame.
	select {
	case <-x.w.ended:
	case <-x.j.e.ctx.Done():
		return errors.Join(ErrClosed, err)
	}
	status, err := json.Marshal(x.j.status())
	if err != nil {
		return err
	}
	for len(status) > 0 {
		n := min(len(status), attach.MaxContent)
		x.pending = attach.Append(x.pending, attach.Exit, status[:n])
		status = status[n:]
	}
	x.pending = attach.Append(x.pending, attach.Exit, nil)
	x.last = true
	return nil
}

// Abort hangs up. The code is not used: the connection does not leave the machine.
func (x *Interactive) Abort(uint64) error { return x.Close() }

// Close hangs up, and has the unit released when its command has ended. It may be called more than once.
func (x *Interactive) Close() error {
	err := net.ErrClosed
	x.once.Do(func() {
		if x.unlink != nil {
			x.unlink()
		}
		err = x.UnixConn.Close()
		x.j.e.begin(x.release)
	})
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (x *Interactive) release() {
	x.w.mu.Lock()
	running := x.w.runner != nil
	x.w.mu.Unlock()
	if running {
		x.w.removeEnded()
	} else {
		x.j.removeOrLog()
	}
}

func (j *job) removeOrLog() {
	if err := j.remove(); err != nil {
		j.e.log.Error("unit cannot be deleted", "unit", j.id, "err", err)
	}
}

// attached reports whether the unit was made for a client who is attached to it.
func (j *job) attached() bool {
	c := j.rec.Command()
	return c != nil && c.Attached
}

// removeEnded removes the unit when its runner has ended.
func (w *commandWorker) removeEnded() {
	select {
	case <-w.ended:
		w.j.removeOrLog()
	case <-w.j.e.ctx.Done():
	}
}

// Sign makes the signature for a request to node.
func (e *Engine) Sign(node wire.NodeID) (string, error) {
	if e.cfg.Sign == nil {
		return "", errors.New("cannot sign work: signing key is empty")
	}
	signature, err := e.cfg.Sign(node)
	if err != nil {
		return "", fmt.Errorf("cannot sign work: %w", err)
	}
	return signature, nil
}
