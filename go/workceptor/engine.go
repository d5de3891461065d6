package workceptor

import (
	"context"
	"errors"
	"io"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

type Engine struct{}
type Submission struct{}
type Subscription struct{ C <-chan Change }

func New(cfg Config) (*Engine, error)                 { return nil, errors.ErrUnsupported }
func (e *Engine) RegisterCommand(t CommandType) error { return errors.ErrUnsupported }
func (e *Engine) WorkTypes() []wire.WorkCommand       { return nil }
func (e *Engine) Start() error                        { return errors.ErrUnsupported }
func (e *Engine) Close() error                        { return errors.ErrUnsupported }

// VerifySubmit and VerifyUnit: the signature rules. trusted: the client is on a Unix socket.
func (e *Engine) VerifySubmit(workType, signature string, trusted bool) error {
	return errors.ErrUnsupported
}
func (e *Engine) VerifyUnit(id UnitID, signature string, trusted bool) error {
	return errors.ErrUnsupported
}
func (e *Engine) Submit(req SubmitRequest) (*Submission, error) { return nil, errors.ErrUnsupported }
func (e *Engine) Status(id UnitID) (Status, error)              { return Status{}, errors.ErrUnsupported }
func (e *Engine) List() map[UnitID]Status                       { return nil }
func (e *Engine) Cancel(ctx context.Context, id UnitID) (bool, error) {
	return false, errors.ErrUnsupported
}
func (e *Engine) Release(ctx context.Context, id UnitID, force bool) (bool, error) {
	return false, errors.ErrUnsupported
}
func (e *Engine) Results(ctx context.Context, id UnitID, offset int64) (io.ReadCloser, error) {
	return nil, errors.ErrUnsupported
}
func (e *Engine) Wait(ctx context.Context, id UnitID) (Status, error) {
	return Status{}, errors.ErrUnsupported
}
func (e *Engine) Subscribe(size int) *Subscription { return nil }

func (s *Submission) ID() UnitID                    { return "" }
func (s *Submission) ReadPayload(r io.Reader) error { return errors.ErrUnsupported }
func (s *Submission) Start(ctx context.Context) (string, error) {
	return "", errors.ErrUnsupported
}
func (s *Subscription) Lost() uint64 { return 0 }
func (s *Subscription) Close()       {}
