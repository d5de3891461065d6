package control

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
)

const (
	// maxLine is the longest command line, in bytes. What work needs is sent as payload, not in the line.
	maxLine = 16 << 20
	// idleBuffer is how much memory an idle client holds.
	idleBuffer = 1 << 10
	// shortLine is what each client may hold for a line, in bytes, and allLines what all clients of a server may for longer ones:
	// lines that do not end must not fill the memory, however many there are.
	shortLine = 64 << 10
	allLines  = 256 << 20
)

var (
	errLineTooLong = fmt.Errorf("command line is longer than %d bytes; send bulk data as payload", maxLine)
	errNoLineRoom  = errors.New("too many clients send long command lines at a time; try again, or send bulk data as payload")
)

// lineRoom is the memory that the clients of a server hold for long lines.
type lineRoom struct {
	most int64
	held atomic.Int64
}

// take changes what one client holds; false, and nothing changes, if there is no room for it.
func (l *lineRoom) take(more int64) bool {
	if l.held.Add(more) > l.most && more > 0 {
		l.held.Add(-more)
		return false
	}
	return true
}

// input is what a client sends: lines first, then perhaps a payload. It buffers, and hands out what it has buffered
// before anything newer, so nothing is lost between the two. One goroutine uses it at a time.
type input struct {
	conn     net.Conn
	lines    *lineRoom // nil: there is room.
	held     int64     // Of it.
	buf      []byte
	r, w     int   // buf[r:w] is unread.
	err      error // Sticky, from the connection; io.EOF when the client has sent all it will send.
	skipping bool  // Inside a line that was refused for its length.
	ignoring bool  // What comes is of no interest any more.
}

// ignore drops what has been read and what will be.
func (in *input) ignore() {
	in.ignoring = true
	in.consume(in.w)
}

// line returns the next line without its newline and without carriage returns. The end of the input ends a line too; a
// line may be empty. The slice is good until the next call of any method. After errLineTooLong the next call goes on
// behind the long line.
func (in *input) line() ([]byte, error) {
	if err := in.skip(); err != nil {
		return nil, err
	}
	scanned := in.r
	for {
		if i := bytes.IndexByte(in.buf[scanned:in.w], '\n'); i >= 0 {
			line := in.buf[in.r : scanned+i]
			in.consume(scanned + i + 1)
			return dropReturns(line), nil
		}
		if in.w-in.r > maxLine {
			in.consume(in.w)
			in.skipping = true
			return nil, errLineTooLong
		}
		if in.err != nil {
			rest := in.buf[in.r:in.w]
			in.consume(in.w)
			if in.err != io.EOF || len(rest) == 0 {
				return nil, in.err
			}
			return dropReturns(rest), nil
		}
		if !in.hasRoom() {
			in.consume(in.w)
			in.skipping = true
			return nil, errNoLineRoom
		}
		unread := in.w - in.r
		in.fill()
		scanned = in.r + unread
	}
}

// skip drops the rest of a line that was refused.
func (in *input) skip() error {
	for in.skipping {
		if i := bytes.IndexByte(in.buf[in.r:in.w], '\n'); i >= 0 {
			in.consume(in.r + i + 1)
			in.skipping = false
			return nil
		}
		in.consume(in.w)
		if in.err != nil {
			return in.err
		}
		in.fill()
	}
	return nil
}

// consume moves the read position. An empty buffer that has grown is given back.
func (in *input) consume(to int) {
	in.r = to
	if in.r == in.w {
		in.r, in.w = 0, 0
		if len(in.buf) > idleBuffer {
			in.drop()
		}
	}
}

// drop gives the buffer back, and what is in it.
func (in *input) drop() {
	in.buf, in.r, in.w = nil, 0, 0
	if in.held > 0 {
		in.lines.take(-in.held)
		in.held = 0
	}
}

// hasRoom reports whether the buffer may grow, if the next fill makes it do so.
func (in *input) hasRoom() bool {
	size := int64(in.grown())
	if in.lines == nil || in.w < len(in.buf) || in.r > 0 || size <= shortLine {
		return true
	}
	if !in.lines.take(size - in.held) {
		return false
	}
	in.held = size
	return true
}

// grown is the size of the buffer after the next growth.
func (in *input) grown() int { return max(idleBuffer, 2*len(in.buf)) }

// fill reads once into the buffer, which grows as needed. Unread bytes keep their order but not their place.
func (in *input) fill() {
	if in.w == len(in.buf) {
		if in.r > 0 {
			in.w = copy(in.buf, in.buf[in.r:in.w])
			in.r = 0
		}
		if in.w == len(in.buf) {
			grown := make([]byte, in.grown())
			copy(grown, in.buf)
			in.buf = grown
		}
	}
	n, err := in.conn.Read(in.buf[in.w:])
	in.w += n
	in.note(err)
}

func (in *input) note(err error) {
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		in.err = io.EOF
	default:
		in.err = err
	}
}

// Read hands out the bytes behind the last line: those in the buffer, then those of the connection. [io.EOF] means that
// the client has closed its sending direction; a broken connection is another error.
func (in *input) Read(p []byte) (int, error) {
	if in.r < in.w {
		n := copy(p, in.buf[in.r:in.w])
		in.consume(in.r + n)
		return n, nil
	}
	if in.err != nil {
		return 0, in.err
	}
	in.drop() // A payload needs no buffer here.
	n, err := in.conn.Read(p)
	in.note(err)
	return n, err
}

func dropReturns(line []byte) []byte {
	if bytes.IndexByte(line, '\r') < 0 {
		return line
	}
	kept := line[:0]
	for _, b := range line {
		if b != '\r' {
			kept = append(kept, b)
		}
	}
	return kept
}
