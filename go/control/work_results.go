package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"sync"

	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

var (
	errResultsUnit     = errors.New("work results requires a unit ID")
	errResultsExtra    = errors.New("work results only takes a unit ID and optional start position")
	errStartPosMissing = errors.New("field startpos missing")
)

// workResults makes the session a stream of a unit's output. It ends when the unit is complete and all was sent, or when
// the client goes.
func (s *session) workResults(req request, args []string) error {
	id, start, err := s.resultsOf(req, args)
	if err != nil {
		return err
	}
	if _, err := s.unitStatus(id); err != nil {
		return err
	}
	banner := []byte("Streaming results for work unit " + string(id) + "\n")
	if start < 0 { // There is no output before the first byte.
		if err := s.send(banner); err != nil {
			return err
		}
		return errSessionOver
	}
	s.whileConnected(func(ctx context.Context) {
		var output io.ReadCloser
		if output, err = s.srv.work.Results(ctx, id, start); err != nil {
			return
		}
		closeOutput := sync.OnceValue(output.Close)
		defer closeOutput()
		defer context.AfterFunc(ctx, func() { _ = closeOutput() })()
		if err = s.send(banner); err == nil {
			err = s.stream(id, output)
		}
	})
	return err
}

// stream sends the output as it comes, each piece as soon as it is there. Its end, good or bad, ends the session: there is
// no way to tell the client but to close.
func (s *session) stream(id workceptor.UnitID, output io.Reader) error {
	var readErr, writeErr error
	if w, ok := output.(io.WriterTo); ok {
		_, readErr = w.WriteTo(s.conn)
	} else {
		readErr, writeErr = relay(s.conn, output)
	}
	if readErr != nil && s.ctx.Err() == nil {
		s.srv.log.Debug("results ended early", "unit", id, "err", readErr)
	}
	if writeErr != nil {
		return &brokenError{writeErr}
	}
	return errSessionOver
}

func (s *session) resultsOf(req request, args []string) (id workceptor.UnitID, start int64, err error) {
	id, signature, rest, err := unitOf(req, args, errResultsUnit)
	switch {
	case err != nil:
	case !req.isText():
		start, err = startPosition(req.keys["startpos"])
	case len(rest) > 1:
		err = errResultsExtra
	case len(rest) == 1:
		if start, err = strconv.ParseInt(rest[0], 10, 64); err != nil {
			err = fmt.Errorf("error converting start position to integer: %w", err)
		}
	}
	if err != nil {
		return "", 0, err
	}
	return id, start, s.mayTouch(id, signature)
}

// startPosition reads a number, with its fraction cut off, or a string with an integer.
func startPosition(raw json.RawMessage) (int64, error) {
	if len(raw) == 0 {
		return 0, errStartPosMissing
	}
	if text, ok := stringValue(raw); ok {
		return strconv.ParseInt(text, 10, 64)
	}
	if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		return n, nil
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	// 2^63 is the first number that does not fit; the conversion of a constant would round to it.
	if c := raw[0]; err != nil || c != '-' && (c < '0' || c > '9') || math.Abs(f) >= 1<<63 {
		return 0, fmt.Errorf("field startpos value %s is not convertible to an int", raw)
	}
	return int64(f), nil
}
