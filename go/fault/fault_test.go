package fault

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
)

func TestPanicBecomesAnError(t *testing.T) {
	err := fmt.Errorf("link: %w", Try(func() error { panic(io.ErrUnexpectedEOF) }))
	if !errors.Is(err, io.ErrUnexpectedEOF) || err.Error() != "link: internal fault: unexpected EOF" {
		t.Errorf("got %v", err)
	}
	var out bytes.Buffer
	Log(slog.New(slog.NewTextHandler(&out, nil)), err, "link", "peer", "b")
	for _, want := range []string{"internal fault", "in=link", "peer=b", "TestPanicBecomesAnError"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in the log: %s", want, out.String())
		}
	}
}

func TestWhatIsNoPanicStaysAsItIs(t *testing.T) {
	works := func() (err error) {
		defer Into(&err)
		defer Catch(func(e *Error) { t.Errorf("told of %v", e) })
		return io.EOF
	}
	if err := works(); err != io.EOF {
		t.Errorf("got %v", err)
	}
	var out bytes.Buffer
	if Log(slog.New(slog.NewTextHandler(&out, nil)), io.EOF, "link"); out.Len() > 0 {
		t.Errorf("logged: %s", out.String())
	}
}

func TestCatchTells(t *testing.T) {
	var told *Error
	func() {
		defer Catch(func(e *Error) { told = e })
		panic("a bug")
	}()
	if told == nil || told.Value != "a bug" || !bytes.Contains(told.Stack, []byte("TestCatchTells")) {
		t.Errorf("told of %v", told)
	}
}

// TestNobodyIsTold: without anybody who is told, a panic is one.
func TestNobodyIsTold(t *testing.T) {
	defer func() {
		if p := recover(); p != "a bug" {
			t.Errorf("recovered %v", p)
		}
	}()
	defer Catch(nil)
	panic("a bug")
}
