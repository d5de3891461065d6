package main

import (
	"bytes"
	"errors"
	"io"
	"time"
)

const (
	everything  = 1 << 62 // More than a line has.
	longestTime = 64
)

// lines is one log whose lines begin with their times: what the output has not got yet of it is written, without the times.
type lines struct {
	out    *output
	known  place  // How far the logs before this one went.
	seen   int    // Lines of the time known.Time that this log has brought.
	head   []byte // The beginning of a line whose time is not complete.
	inside bool   // A line has begun.
	timed  bool   // It has a time. Words of the cluster's own have none.
	left   int64  // So much of it is known.
}

// copyLines reads log to its end, also what has no end of line yet. An error is that of the log, or a [*failure] of the disk.
func (o *output) copyLines(log io.Reader) error {
	defer o.keepPlace()
	l := &lines{out: o, known: o.place}
	buf := make([]byte, 64<<10)
	for {
		n, err := log.Read(buf)
		if diskErr := l.take(buf[:n], errors.Is(err, io.EOF)); diskErr != nil {
			return failed("Error writing stdout: %v", diskErr)
		}
		o.progress()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// take takes more of the log; last says that there is no more.
func (l *lines) take(text []byte, last bool) error {
	for len(text) > 0 || last && len(l.head) > 0 {
		piece := text
		if end := bytes.IndexByte(text, '\n'); end >= 0 {
			piece = text[:end+1]
		}
		text = text[len(piece):]
		whole := bytes.HasSuffix(piece, []byte("\n"))
		if !l.inside {
			l.head = append(l.head, piece...)
			if !whole && !last && len(l.head) < longestTime && bytes.IndexByte(l.head, ' ') < 0 {
				return nil
			}
			piece, l.head = l.begin(l.head), nil
		}
		l.inside = !whole
		if err := l.write(piece, whole); err != nil {
			return err
		}
	}
	return nil
}

// begin looks at the beginning of a line and returns it without the time.
func (l *lines) begin(piece []byte) (body []byte) {
	head, body, found := bytes.Cut(piece, []byte(" "))
	at, err := time.Parse(time.RFC3339Nano, string(head))
	l.timed, l.left = found && err == nil, 0
	if !l.timed {
		return piece
	}
	switch at.Compare(l.known.Time) {
	case -1:
		l.left = everything
	case 0:
		switch {
		case l.seen < l.known.Lines:
			l.left = everything
		case l.seen == l.known.Lines:
			l.left = l.known.Bytes
		}
		l.seen++
	}
	if l.left < everything && at.After(l.out.place.Time) { // The clock of the container's machine may go backwards.
		l.out.place = place{Time: at}
	}
	return body
}

// write adds a piece of a line; whole says that it is the last one.
func (l *lines) write(body []byte, whole bool) error {
	known := min(l.left, int64(len(body)))
	l.left -= known
	if l.left > 0 {
		return nil
	}
	n, err := l.out.Write(body[known:])
	if !l.timed {
		return err
	}
	l.out.place.Bytes += int64(n)
	if whole && err == nil {
		l.out.place.Lines++
		l.out.place.Bytes = 0
	}
	return err
}
