package control

import (
	"errors"

	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

var (
	errCancelUnit  = errors.New("work cancel requires a unit ID")
	errCancelExtra = errors.New("work cancel does not take parameters after the unit ID")
)

// workCancel stops a unit. It goes on if the client leaves.
func (s *session) workCancel(req request, args []string) (any, error) {
	id, err := s.signedUnit(req, args, errCancelUnit, errCancelExtra)
	if err != nil {
		return nil, err
	}
	pending, err := s.srv.work.Cancel(s.ctx, id)
	if err != nil {
		return nil, err
	}
	if pending {
		return map[string]any{"cancel pending": id}, nil
	}
	return map[string]any{"cancelled": id}, nil
}

// workRelease stops a unit and forgets it. It goes on if the client leaves.
func (s *session) workRelease(req request, args []string, sub string) (any, error) {
	missing := errors.New("work " + sub + " requires a unit ID")
	extra := errors.New("work " + sub + " does not take parameters after the unit ID")
	id, err := s.signedUnit(req, args, missing, extra)
	if err != nil {
		return nil, err
	}
	pending, err := s.srv.work.Release(s.ctx, id, sub == "force-release")
	if err != nil {
		return nil, err
	}
	if pending {
		return map[string]any{"release pending": id}, nil
	}
	return map[string]any{"released": id}, nil
}

// signedUnit reads the unit of a command that may have to be signed, and checks that this client may give it.
func (s *session) signedUnit(req request, args []string, missing, extra error) (workceptor.UnitID, error) {
	id, signature, rest, err := unitOf(req, args, missing)
	if err != nil {
		return "", err
	}
	if len(rest) > 0 {
		return "", extra
	}
	return id, s.mayTouch(id, signature)
}

func (s *session) mayTouch(id workceptor.UnitID, signature string) error {
	if err := exists(id); err != nil {
		return err
	}
	return s.srv.work.VerifyUnit(id, signature, s.trusted)
}
