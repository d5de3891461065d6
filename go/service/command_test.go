package service

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
)

// commandOn offers a command on a node of its own and returns a stream to it.
func commandOn(t *testing.T, args ...string) *netceptor.Stream {
	t.Helper()
	node := newNode(t)
	p, err := StartCommand(OnNode(node), Command{Service: "run", Args: args}, quiet)
	started(t, p, err)
	s, err := node.DialStream(t.Context(), node.ID(), "run", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = s.SetDeadline(time.Now().Add(time.Minute)) // A hang becomes a failure.
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func newNode(t *testing.T) *netceptor.Node {
	t.Helper()
	node, err := netceptor.New(netceptor.Config{ID: "a"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = node.Close() })
	return node
}

func TestF128CommandServiceRunsOnATerminal(t *testing.T) {
	s := commandOn(t, "sh", "-c", "stty size; test -t 0 && test -t 1 && test -t 2 && echo all a terminal; exit 3")
	out, err := io.ReadAll(s)
	if err != nil || string(out) != "24 80\r\nall a terminal\r\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestInputReachesACommandAndItsEndIsTyped(t *testing.T) {
	s := commandOn(t, "sh", "-c", "stty -echo; echo ready; cat; echo done")
	line := make([]byte, len("ready\r\n"))
	if _, err := io.ReadFull(s, line); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(s, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(s)
	if err != nil || string(out) != "hello\r\ndone\r\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

// TestAClientThatLeavesEndsItsCommand opens a named pipe in the command, whose end is seen here. The tests themselves may run with
// SIGHUP ignored, which a command would inherit.
func TestAClientThatLeavesEndsItsCommand(t *testing.T) {
	for name, leave := range map[string]func(*netceptor.Stream){
		"closes": func(s *netceptor.Stream) { _ = s.Close() },
		"aborts": func(s *netceptor.Stream) { _ = s.Abort(1) },
	} {
		t.Run(name, func(t *testing.T) {
			fifo := filepath.Join(t.TempDir(), "fifo")
			if err := syscall.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			s := commandOn(t, "sh", "-c", `exec env --default-signal=HUP sleep 1000 > "$0"`, fifo)
			f, err := os.Open(fifo) // Waits until the command has opened it.
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			leave(s)
			if rest, err := io.ReadAll(f); err != nil || len(rest) != 0 { // Ends when the last writer has.
				t.Errorf("got %q, %v", rest, err)
			}
		})
	}
}

// TestChildrenThatStayBehindDoNotHoldTheStream leaves one that ignores the hang-up.
func TestChildrenThatStayBehindDoNotHoldTheStream(t *testing.T) {
	s := commandOn(t, "sh", "-c", "(trap '' HUP; exec sleep 30) & echo $!")
	out, err := io.ReadAll(s)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	for _, c := range strings.TrimSpace(string(out)) {
		pid = 10*pid + int(c-'0')
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("the child should have been alive: %v", err)
	}
}

func TestACommandThatCannotStartResetsItsClient(t *testing.T) {
	s := commandOn(t, "/no/such/program")
	var reset *netceptor.ResetError
	if _, err := io.ReadAll(s); !errors.As(err, &reset) {
		t.Errorf("got %v, want a reset", err)
	}
	if _, err := StartCommand(newFakeMesh(), Command{Service: "x"}, quiet); err == nil {
		t.Error("a command without a word was taken")
	}
}
