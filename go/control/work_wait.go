package control

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// waiting is what the keys wait and timeout of work status ask for.
type waiting struct {
	limit time.Duration // 0: none.
	over  func(first, now workceptor.Status) bool
}

// waitOf reads the keys; nil if the client wants the status as it is.
func waitOf(req request) (*waiting, error) {
	w := &waiting{}
	raw := req.keys["wait"]
	name, isString := stringValue(raw)
	switch {
	case len(raw) == 0 || string(raw) == "false" || string(raw) == "null":
		return nil, nil
	case string(raw) == "true" || isString && strings.EqualFold(name, "complete"):
		w.over = func(_, now workceptor.Status) bool { return now.State.Complete() && !now.Unsettled }
	case isString && strings.EqualFold(name, "change"):
		w.over = func(first, now workceptor.Status) bool {
			return now.State.Complete() || now.State != first.State || now.Detail != first.Detail || now.StdoutSize != first.StdoutSize ||
				now.QueuePosition != first.QueuePosition || now.Trouble != first.Trouble
		}
	default:
		state, ok := stateNamed(name)
		if !isString || !ok {
			return nil, fmt.Errorf(`field wait must be true, false, "complete", "change" or the name of a state, and %.100s is not`, raw)
		}
		w.over = func(_, now workceptor.Status) bool { return now.State.Complete() || now.State >= state }
	}
	var err error
	w.limit, err = limitOf(req.keys["timeout"])
	return w, err
}

func stateNamed(name string) (workceptor.State, bool) {
	for s := workceptor.Pending; s <= workceptor.Canceled; s++ {
		if strings.EqualFold(s.String(), name) {
			return s, true
		}
	}
	return 0, false
}

// limitOf reads a number of seconds, or a text such as 1m30s; 0 for none.
func limitOf(raw json.RawMessage) (time.Duration, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return 0, nil
	}
	const most = 100 * 365 * 24 * time.Hour // As good as none, and no number overflows.
	if text, ok := stringValue(raw); ok {
		if d, err := time.ParseDuration(text); err == nil && d >= 0 {
			return min(d, most), nil
		}
		if _, err := strconv.ParseFloat(text, 64); err == nil {
			raw = json.RawMessage(text)
		}
	}
	if f, err := strconv.ParseFloat(string(raw), 64); err == nil && f >= 0 {
		return time.Duration(min(f*float64(time.Second), float64(most))), nil
	}
	return 0, fmt.Errorf("field timeout must be a number of seconds or a text such as 1m30s, and %.100s is not", raw)
}

// timedOut is a status with the key that says that the time was over first.
type timedOut struct{ workceptor.Status }

func (t timedOut) MarshalJSON() ([]byte, error) {
	b, err := t.Status.MarshalJSON()
	if err != nil {
		return nil, err
	}
	return append(b[:len(b)-1], `,"TimedOut":true}`...), nil
}

// waitBacklog may be small: whatever change arrives, the unit is looked at anew.
const waitBacklog = 16

// await waits until the unit is where the client wants it.
func (s *session) await(id workceptor.UnitID, w *waiting) (reply any, err error) {
	changes := s.srv.work.Subscribe(waitBacklog) // Before the first look: nothing may slip between the two.
	defer changes.Close()
	first, err := s.unitStatus(id)
	if err != nil || w.over(first, first) {
		return first, err
	}
	s.whileConnected(func(ctx context.Context) {
		if w.limit > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, w.limit)
			defer cancel()
		}
		for {
			select {
			case _, ok := <-changes.C:
				var now workceptor.Status
				if now, err = s.unitStatus(id); err != nil || w.over(first, now) {
					reply = now
					return
				}
				if !ok {
					err = workceptor.ErrClosed
					return
				}
			case <-ctx.Done():
				if ctx.Err() != context.DeadlineExceeded { // Nobody is there any more.
					err = &brokenError{context.Cause(ctx)}
					return
				}
				var now workceptor.Status
				now, err = s.unitStatus(id)
				reply = timedOut{now}
				return
			}
		}
	})
	return reply, err
}
