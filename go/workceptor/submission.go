package workceptor

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// BegunError answers a submission whose name is that of a unit that has its payload already.
type BegunError struct{ ID UnitID }

func (e *BegunError) Error() string {
	return "the submission has made unit " + string(e.ID) + " before"
}

// named is a unit that a submission with a name has made.
type named struct {
	j     *job
	begun bool // It has its payload.
}

// repeat makes room for a submission of that name: a unit that an earlier one has made, and whose payload is not complete, is
// ended and deleted. One that has its payload is told of by a [*BegunError].
func (e *Engine) repeat(name string) error {
	if name == "" {
		return nil
	}
	letters := func(r rune) bool { return r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' }
	if len(name) > MaxSubmission || strings.TrimLeftFunc(name, letters) != "" {
		return fmt.Errorf("the name of a submission has at most %d letters and digits", MaxSubmission)
	}
	e.mu.Lock()
	before := e.named[name]
	if before != nil && !before.begun {
		delete(e.named, name) // From here on its payload comes too late.
	}
	e.mu.Unlock()
	switch {
	case before == nil:
		return nil
	case before.begun:
		return &BegunError{before.j.id}
	}
	e.log.Debug("submission is repeated; its half unit is deleted", "unit", before.j.id)
	_, err := before.j.work.release(context.Background(), true)
	return err
}

// begin remembers the unit by the name of its submission.
func (s *Submission) begin(name string) {
	if name == "" {
		return
	}
	e := s.j.e
	e.mu.Lock()
	defer e.mu.Unlock()
	s.j.name = name
	e.named[name] = &named{j: s.j}
}

// end is called when the payload is complete, or never will be, which err tells. A unit whose submission was repeated
// meanwhile answers [ErrCancelled].
func (s *Submission) end(err error) error {
	if s.j.name == "" {
		return nil
	}
	e := s.j.e
	e.mu.Lock()
	n := e.named[s.j.name]
	switch {
	case n == nil || n.j != s.j:
		n = nil
	case err == nil:
		n.begun = true
	default:
		delete(e.named, s.j.name)
	}
	e.mu.Unlock()
	switch {
	case err == nil && n != nil, errors.Is(err, ErrCancelled):
		return nil
	case err == nil:
		err = ErrCancelled
	default:
		err = nil // The caller has it.
	}
	return errors.Join(err, s.j.remove())
}

// half reports whether a unit that was found on disk is one that its submitter does not miss.
func (j *job) half() bool {
	if j.rec.Submission() == "" || j.rec.State != Pending ||
		j.rec.Detail != unit.DetailWaiting && j.rec.Detail != unit.DetailCreated {
		return false
	}
	info, err := j.dir.RunnerInfo()
	return err != nil || info.Boot == "" // Not marked as launched.
}
