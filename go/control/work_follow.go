package control

import (
	"context"
	"errors"
)

var errStartPosNegative = errors.New("field startpos must not be negative")

// workFollow makes the session a stream of a unit's status and output. It ends when the unit is complete and all was sent,
// or when the client goes.
func (s *session) workFollow(req request) error {
	if req.isText() {
		return errBadWorkCommand
	}
	id, start, err := s.resultsOf(req, nil)
	if err != nil {
		return err
	}
	if _, err := s.unitStatus(id); err != nil {
		return err
	}
	if start < 0 {
		return errStartPosNegative
	}
	s.whileConnected(func(ctx context.Context) {
		err = s.srv.work.Follow(ctx, id, start, s.conn)
	})
	if err != nil && s.ctx.Err() == nil {
		s.srv.log.Debug("follow ended early", "unit", id, "err", err)
	}
	return errSessionOver
}
