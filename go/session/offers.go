package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// cancelGrace is how long a function may go on when its unit is cancelled or the node closes; then nobody waits for it.
const cancelGrace = 2 * time.Second

// maxVerdict bounds one message that a program sends about a unit, in bytes.
const maxVerdict = 64 << 10

// Why units fail whose program does not do its part.
var (
	errProgramGone = errors.New("the program that did the work ended without a result")
	errStubborn    = errors.New("the function goes on although its unit was cancelled")
	errOfferGone   = errors.New("the program that offered the work type has ended")
	errBadVerdict  = errors.New("the program that did the work answered something else than a result")
)

// controlService is where other nodes submit work.
const controlService = "control"

// opWorkOffer makes functions of the program a work type of the node.
func opWorkOffer(ctx context.Context, s *session, req *request) (reply, error) {
	h := s.host
	if req.WorkType == "" {
		return failed(badRequest(noWorkType))
	}
	if req.Concurrency < 0 {
		return failed(badRequest(`key "concurrency": a number from 1 is expected, or 0 for no limit`))
	}
	near, far, err := socketPair(unix.SOCK_SEQPACKET)
	if err != nil {
		return failed(err)
	}
	o := &offer{host: h, worktype: req.WorkType, conn: near}
	d := h.built()
	workType := name{workType: req.WorkType}
	_, err = take(ctx, h, workType, func() (struct{}, error) {
		return struct{}{}, d.Work.RegisterFunction(workceptor.FunctionType{
			WorkType: req.WorkType, Handler: o, VerifySignature: req.VerifySignature, MaxRunning: req.Concurrency,
		})
	})
	if err == nil {
		if err = h.acceptWork(); err != nil {
			d.Work.Unregister(req.WorkType)
		}
	}
	if err != nil {
		closeFD(far)
		_ = near.Close()
		return failed(offerError(err))
	}
	d.Node.SetWorkCommands(d.Work.WorkTypes())
	free := h.hold(workType, near)
	h.spawn("offer", func() {
		defer free()
		defer context.AfterFunc(h.ctx, func() { _ = near.Close() })()
		eachMessage(near, func([]byte) {}) // To its end.
		_ = near.Close()
		d.Work.Unregister(req.WorkType)
		d.Node.SetWorkCommands(d.Work.WorkTypes())
	})
	return reply{ok: empty, fd: far}, nil
}

// offerError tells a work type that is there already from other failures.
func offerError(err error) error {
	if errors.Is(err, workceptor.ErrRegistered) {
		return &Error{Code: InUse, Msg: err.Error()}
	}
	return toError(err, Work)
}

// acceptWork makes sure that other nodes can submit work here: through the control service of the node's configuration,
// or through one that is opened with the first offer.
func (h *host) acceptWork() error {
	d := h.built()
	l, err := d.Node.ListenStream(controlService, &netceptor.ServiceAd{Tags: map[string]string{"type": "Control Service"}}, nil)
	if errors.Is(err, netceptor.ErrServiceInUse) {
		return nil
	}
	if err != nil {
		return err
	}
	h.spawn("control service", func() {
		if err := d.Control.ServeMesh(h.ctx, l); err != nil && h.ctx.Err() == nil {
			h.log.Debug("control service ended", "err", err)
		}
	})
	return nil
}

// offer is a work type whose units a program takes from a socket.
type offer struct {
	host     *host
	worktype string

	mu   sync.Mutex // One unit is announced at a time: it is two messages.
	conn *net.UnixConn
}

// unitAnnouncement is what a program learns of a unit that it is to do.
type unitAnnouncement struct {
	Unit     workceptor.UnitID `json:"unit"`
	WorkType string            `json:"worktype"`
	Params   map[string]string `json:"params"`
}

// verdict is a message of the program's about a unit: one of the keys.
type verdict struct {
	Progress *string `json:"progress"`
	OK       bool    `json:"ok"`
	Exit     *int    `json:"exit"`
	Err      *string `json:"err"`
}

// Run hands a unit to the program and waits for its verdict.
func (o *offer) Run(ctx context.Context, w *workceptor.Work) error {
	near, far, err := socketPair(unix.SOCK_SEQPACKET)
	if err != nil {
		return err
	}
	defer near.Close()
	if err := o.announce(ctx, w, far); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() {
		trySend(near, []byte(`{"cancel":true}`))
		_ = near.SetReadDeadline(time.Now().Add(cancelGrace))
	})
	defer stop()
	buf := make([]byte, maxVerdict)
	for {
		n, err := readMessage(near, buf)
		if ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
			return errStubborn
		}
		if err != nil || n == 0 {
			return errProgramGone
		}
		var v verdict
		if json.Unmarshal(buf[:n], &v) != nil {
			return errBadVerdict
		}
		switch {
		case v.Progress != nil:
			w.Progress(*v.Progress)
		case v.Exit != nil:
			return &workceptor.ExitError{Code: *v.Exit}
		case v.Err != nil:
			return errors.New(*v.Err)
		case v.OK:
			return nil
		default:
			return errBadVerdict
		}
	}
}

// announce passes the files of a unit and its socket, which it closes here, to the program. It waits while the program
// takes no more units, until ctx ends.
func (o *offer) announce(ctx context.Context, w *workceptor.Work, far int) error {
	defer closeFD(far)
	msg, err := json.Marshal(unitAnnouncement{w.ID, w.WorkType, w.Params})
	if err != nil {
		return err
	}
	if len(msg) > maxVerdict {
		return fmt.Errorf("parameters of %d bytes: a function takes %d", len(msg), maxVerdict)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	_ = o.conn.SetWriteDeadline(time.Time{})
	defer context.AfterFunc(ctx, func() { _ = o.conn.SetWriteDeadline(time.Unix(1, 0)) })()
	rights := unix.UnixRights(int(w.Stdin.Fd()), int(w.Stdout.Fd()), far)
	if _, _, err = o.conn.WriteMsgUnix([]byte{'+'}, rights, nil); err == nil {
		_ = o.conn.SetWriteDeadline(time.Time{}) // Half an announcement would spoil the next.
		_, err = o.conn.Write(msg)
	}
	if err != nil && ctx.Err() == nil {
		return errOfferGone
	}
	return err
}
