// Package attach is how a client and an interactive command talk once "work exec" has been accepted: frames in both
// directions over one connection. It makes no connections of its own.
//
// A frame is one byte that tells its kind, two bytes with the length of its content, the more significant first, and
// the content. Frames of clients:
//
//	Input    bytes for the command; without content: the end of input
//	Resize   rows and columns of the terminal, two bytes each
//	Signal   name of a signal, "INT" for instance, see [SignalOf]
//
// Frames of servers:
//
//	Stdout   bytes from the terminal, or of standard output
//	Stderr   bytes of standard error
//	Taken    how many more bytes of input the command has taken, four bytes
//	Exit     the unit's last status as JSON, in pieces; the frame without content ends it and the connection
//
// The server keeps up to [Window] bytes of input that the command does not take. A client that has no more than that under way,
// by what the Taken frames say, gets its other frames past them; the end of input of a terminal counts as one byte.
package attach

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"syscall"
)

// Kind tells what a frame holds.
type Kind byte

// The kinds.
const (
	Input  Kind = 1
	Resize Kind = 2
	Signal Kind = 3
	Stdout Kind = 16
	Stderr Kind = 17
	Exit   Kind = 18
	Taken  Kind = 19
)

// Window is how many bytes of input a client may have under way without being held up.
const Window = 1 << 20

// MaxContent is the longest content of a frame, in bytes.
const MaxContent = 1<<16 - 1

const headerSize = 3

// ErrFrame is the answer to bytes that are no frame for this side.
var ErrFrame = errors.New("not a frame of an interactive unit")

// Size is the size of a terminal in characters.
type Size struct{ Rows, Cols uint16 }

// Append appends a frame. content is at most MaxContent long.
func Append(dst []byte, kind Kind, content []byte) []byte {
	dst = binary.BigEndian.AppendUint16(append(dst, byte(kind)), uint16(len(content)))
	return append(dst, content...)
}

// AppendResize appends a Resize frame.
func AppendResize(dst []byte, size Size) []byte {
	content := binary.BigEndian.AppendUint16(nil, size.Rows)
	return Append(dst, Resize, binary.BigEndian.AppendUint16(content, size.Cols))
}

// ParseResize reads the content of a Resize frame.
func ParseResize(content []byte) (Size, error) {
	if len(content) != 4 {
		return Size{}, fmt.Errorf("%w: resize has %d bytes, want 4", ErrFrame, len(content))
	}
	return Size{binary.BigEndian.Uint16(content), binary.BigEndian.Uint16(content[2:])}, nil
}

// AppendTaken appends a Taken frame.
func AppendTaken(dst []byte, n int) []byte {
	return Append(dst, Taken, binary.BigEndian.AppendUint32(nil, uint32(n)))
}

// Reader reads frames.
type Reader struct {
	r   io.Reader
	buf [headerSize + MaxContent]byte
}

// NewReader reads frames from r, with as few reads as they take without reading ahead.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// Next returns the next frame. The content is good until the next call. [io.EOF] is the end of the data between two
// frames, [io.ErrUnexpectedEOF] inside of one.
func (f *Reader) Next() (Kind, []byte, error) {
	header := f.buf[:headerSize]
	if _, err := io.ReadFull(f.r, header); err != nil {
		return 0, nil, err
	}
	content := f.buf[headerSize : headerSize+int(binary.BigEndian.Uint16(header[1:]))]
	if _, err := io.ReadFull(f.r, content); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return Kind(header[0]), content, nil
}

var signals = map[string]syscall.Signal{
	"INT": syscall.SIGINT, "QUIT": syscall.SIGQUIT, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP, "KILL": syscall.SIGKILL,
	"USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2, "STOP": syscall.SIGSTOP, "TSTP": syscall.SIGTSTP, "CONT": syscall.SIGCONT,
}

// SignalOf reads the content of a Signal frame.
func SignalOf(content []byte) (syscall.Signal, error) {
	s, ok := signals[string(content)]
	if !ok {
		return 0, fmt.Errorf("%w: unknown signal %q", ErrFrame, content)
	}
	return s, nil
}
