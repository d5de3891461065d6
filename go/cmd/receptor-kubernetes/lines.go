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
	seen   int    // Lines since known.Since that this log has brought.
	head   []byte // The beginning of a line whose time is not complete.
	inside bool   // A line has begun.
	counts bool   // It is one of those that come again. Words of the cluster's own have no time.
	left   int64  // So much of it is known.
}

// copyLines reads log to its end, also what has no end of line yet. An error is that of the log, or a [*failure] of the disk. A log
// that ends, even in good order, may have broken off in the middle of a time: that is left to finishLines.
func (o *output) copyLines(log io.Reader) error {
	defer o.keepPlace()
	l := &lines{out: o, known: o.place}
	defer func() { o.head = l.head }()
	buf := make([]byte, 64<<10)
	for {
		n, err := log.Read(buf)
		if diskErr := l.take(buf[:n]); diskErr != nil {
			return diskFailure(diskErr)
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

// finishLines writes what the last log had no end of.
func (o *output) finishLines() error {
	if _, err := o.Write(o.head); err != nil {
		return diskFailure(err)
	}
	return nil
}

func diskFailure(err error) error { return failed("Error writing stdout: %v", err) }

// take takes more of the log.
func (l *lines) take(text []byte) error {
	for len(text) > 0 {
		piece := text
		if end := bytes.IndexByte(text, '\n'); end >= 0 {
			piece = text[:end+1]
		}
		text = text[len(piece):]
		whole := bytes.HasSuffix(piece, []byte("\n"))
		if !l.inside {
			l.head = append(l.head, piece...)
			if !whole && len(l.head) < longestTime && bytes.IndexByte(l.head, ' ') < 0 {
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
	l.counts, l.left = false, 0
	if !found || err != nil {
		return piece
	}
	switch {
	case at.Before(l.known.Since), l.seen < l.known.Lines:
		l.left = everything
	case l.seen == l.known.Lines:
		l.left = l.known.Bytes
	}
	if !at.Before(l.known.Since) {
		l.seen++
	}
	if second := at.Truncate(time.Second); l.left < everything && second.After(l.out.place.Since) {
		l.out.place = place{Since: second}
	}
	l.counts = !at.Before(l.out.place.Since) // The clock of the machine may go backwards.
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
	if !l.counts {
		return err
	}
	l.out.place.Bytes += int64(n)
	if whole && err == nil {
		l.out.place.Lines++
		l.out.place.Bytes = 0
	}
	return err
}
