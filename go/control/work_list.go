package control

import (
	"errors"

	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

var (
	errStatusUnit  = errors.New("work status requires a unit ID")
	errStatusExtra = errors.New("work status does not take parameters after the unit ID")
)

// workStatus tells about one unit.
func (s *session) workStatus(req request, args []string) (any, error) {
	id, _, rest, err := unitOf(req, args, errStatusUnit)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, errStatusExtra
	}
	wait, err := waitOf(req)
	if err != nil {
		return nil, err
	}
	if wait == nil {
		return s.unitStatus(id)
	}
	return s.await(id, wait)
}

func (s *session) unitStatus(id workceptor.UnitID) (workceptor.Status, error) {
	if err := exists(id); err != nil {
		return workceptor.Status{}, err
	}
	return s.srv.work.Status(id)
}

// workList tells about all units, or about one in the same form. A unit ID of a wrong type counts as none.
func (s *session) workList(req request, args []string) (any, error) {
	unit, _, one := req.text("unitid")
	if len(args) > 0 {
		unit, one = args[0], true
	}
	if !one {
		return encoded(appendMap(nil, s.srv.work.List(), func(dst []byte, u workceptor.Status) []byte { return u.AppendJSON(dst) })), nil
	}
	status, err := s.unitStatus(workceptor.UnitID(unit))
	if err != nil {
		return nil, err
	}
	return map[string]any{unit: status}, nil
}
