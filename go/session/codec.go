package session

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// maxFrame is the longest frame either side may send, in bytes of JSON.
const maxFrame = 16 << 20

const frameHeader = 4

// readFrame reads one request. The error is io.EOF at a clean end of the session.
func readFrame(r io.Reader, req *request) error {
	var header [frameHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(header[:])
	if size == 0 || size > maxFrame {
		return frameSizeError(size)
	}
	body, err := io.ReadAll(io.LimitReader(r, int64(size)))
	if err == nil && len(body) < int(size) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	err = json.Unmarshal(body, req)
	if _, wrong := errors.AsType[*json.UnmarshalTypeError](err); wrong && req.ID == 0 {
		var id struct { // The wrong key may have been what the reading ended with, and who asked waits for an answer.
			ID uint64 `json:"id"`
		}
		_ = json.Unmarshal(body, &id)
		req.ID = id.ID
	}
	return err
}

// frameSizeError is about a frame of so many bytes, behind which nobody can find the next one.
type frameSizeError uint32

func (e frameSizeError) Error() string {
	return fmt.Sprintf("frame of %d bytes, want 1 to %d", uint32(e), maxFrame)
}

// appendFrame appends v as a frame.
func appendFrame(dst []byte, v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return dst, err
	}
	if len(body) > maxFrame {
		return dst, fmt.Errorf("frame of %d bytes, at most %d fit", len(body), maxFrame)
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(body)))
	return append(dst, body...), nil
}

// frameWriter writes frames, each with at most one descriptor, from any goroutine.
type frameWriter struct {
	mu   sync.Mutex
	conn *net.UnixConn
}

// write sends one frame; fd >= 0 goes with its first byte and is closed, also if the frame cannot be sent.
func (w *frameWriter) write(v any, fd int) error {
	frame, err := appendFrame(nil, v)
	if err != nil {
		if fd >= 0 {
			closeFD(fd)
		}
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.writeLocked(frame, fd)
}

func (w *frameWriter) writeLocked(frame []byte, fd int) error {
	if fd < 0 {
		_, err := w.conn.Write(frame)
		return err
	}
	// The first byte alone, so that our copy of the descriptor is gone before the program can act on the frame: a child
	// that it forks then would inherit the copy and keep the stream open.
	_, _, err := w.conn.WriteMsgUnix(frame[:1], unix.UnixRights(fd), nil)
	closeFD(fd)
	if err != nil {
		return err
	}
	_, err = w.conn.Write(frame[1:])
	return err
}

// badFrame says which key of a request is wrong, if that is what err is about.
func badFrame(err error) (string, bool) {
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if t.Field == "" {
			return fmt.Sprintf("frame is not a JSON object: %s given", t.Value), true
		}
		field := strings.TrimPrefix(t.Field, "backendConfig.") // Embedded in the request: no key of the frame.
		return fmt.Sprintf("key %q: %s given, %s expected", field, t.Value, expected(t.Type)), true
	}
	if _, ok := errors.AsType[*json.SyntaxError](err); ok {
		return "frame is not a JSON object: " + err.Error(), true
	}
	return "", false
}

// expected says in the words of JSON what a key of this type takes.
func expected(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return expected(t.Elem())
	case reflect.Slice:
		return "array"
	case reflect.Map:
		return "object"
	case reflect.Struct:
		if t == reflect.TypeFor[tlsProfile]() {
			return "string or object"
		}
		return "object"
	case reflect.Bool:
		return "true or false"
	case reflect.Uint8:
		return "whole number from 0 to 255"
	case reflect.Uint64:
		return "whole number from 0"
	case reflect.Int, reflect.Int64:
		return "whole number"
	case reflect.Float64:
		return "number"
	default:
		return t.String()
	}
}
