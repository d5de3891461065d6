package session

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// endOf reads to the end, which is to come within a minute.
func endOf(conn *net.UnixConn) (string, error) {
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	got, err := io.ReadAll(conn)
	return string(got), err
}

// confirmed accepts a stream and says so.
func confirmed(t *testing.T, listener *net.UnixConn) *net.UnixConn {
	t.Helper()
	announced, far := accept(t, listener)
	if _, err := fmt.Fprintf(listener, "+%v", announced["stream"]); err != nil {
		t.Fatal(err)
	}
	return far
}

// TestStreamsNobodyAccepted closes a listener on which streams wait: no peer may take that for the end of an answer.
func TestStreamsNobodyAccepted(t *testing.T) {
	a, b := pair(t)
	_, listener := b.must("stream.listen", "service", "busy", "confirm", true)
	first, near1 := a.must("stream.connect", "node", "b", "service", "busy")
	far := confirmed(t, listener)
	second, near2 := a.must("stream.connect", "node", "b", "service", "busy")
	third, near3 := a.must("stream.connect", "node", "b", "service", "busy")
	_, held := accept(t, listener) // Received, and never confirmed.
	_ = listener.Close()
	_ = held.Close()
	for name, s := range map[string]struct {
		near *net.UnixConn
		id   any
	}{"received": {near2, second["stream"]}, "waiting": {near3, third["stream"]}} {
		if got, err := endOf(s.near); got != "" || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: read %q and %v, want a reset", name, got, err)
		}
		if st, _ := a.must("stream.status", "stream", s.id); st["state"] != "reset" {
			t.Errorf("%s: status %v", name, st)
		}
	}
	_, _ = far.Write([]byte("answer"))
	_ = far.Close()
	if got, err := endOf(near1); got != "answer" || err != nil {
		t.Errorf("the stream that was accepted gave %q and %v", got, err)
	}
	if st, _ := a.must("stream.status", "stream", first["stream"]); st["state"] == "reset" {
		t.Errorf("the stream that was accepted: %v", st)
	}
}

// TestSaidBeforeTheEnd: a program has sent messages, and closed its end while there was something for it to read.
func TestSaidBeforeTheEnd(t *testing.T) {
	near, fd, err := socketPair(unix.SOCK_SEQPACKET)
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := adopt(fd)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = near.Write([]byte("for nobody"))
	_, _ = far.Write([]byte("+1"))
	_, _ = far.Write([]byte("-2"))
	_ = far.Close()
	var said []string
	eachMessage(near, func(message []byte) { said = append(said, string(message)) })
	if !slices.Equal(said, []string{"+1", "-2"}) {
		t.Errorf("heard %q", said)
	}
}

// TestDatagramsBeforeTheEnd: what a program has sent leaves, whatever it has not read.
func TestDatagramsBeforeTheEnd(t *testing.T) {
	a, b := pair(t)
	_, in := b.must("datagram.open", "service", "in")
	_, out := a.must("datagram.open", "service", "out")
	_, _ = in.Write([]byte("\x01\x00\x01a\x03outunread"))
	raw, err := out.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Read(func(fd uintptr) bool {
		_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK)
		return !errors.Is(err, unix.EAGAIN)
	}); err != nil {
		t.Fatal(err)
	}
	const count = 100
	for i := range count {
		_, _ = fmt.Fprintf(out, "\x01\x00\x01b\x02in%d", i)
	}
	_ = out.Close()
	_ = in.SetReadDeadline(time.Now().Add(time.Minute))
	buf := make([]byte, 100)
	for i := range count {
		n, err := in.Read(buf)
		if want := fmt.Sprintf("out%d", i); err != nil || !strings.HasSuffix(string(buf[:n]), want) {
			t.Fatalf("read %q, %v; want %s", buf[:n], err, want)
		}
	}
}

// TestConfirmedAfterOneThatWasLost: what is said of one stream counts for no other.
func TestConfirmedAfterOneThatWasLost(t *testing.T) {
	a, b := pair(t)
	_, listener := b.must("stream.listen", "service", "loss", "confirm", true)
	_, lost := a.must("stream.connect", "node", "b", "service", "loss")
	_, held := accept(t, listener)
	_ = held.Close()
	_, near := a.must("stream.connect", "node", "b", "service", "loss")
	far := confirmed(t, listener)
	_, _ = far.Write([]byte("all"))
	_ = far.Close()
	if got, err := endOf(near); got != "all" || err != nil {
		t.Errorf("the stream that was accepted gave %q and %v", got, err)
	}
	_ = listener.Close()
	if got, err := endOf(lost); got != "" || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the stream that was lost gave %q and %v, want a reset", got, err)
	}
}

// TestRefusedStream: one that was lost on its way to the program is reset while the listener goes on.
func TestRefusedStream(t *testing.T) {
	a, b := pair(t)
	_, listener := b.must("stream.listen", "service", "loss", "confirm", true)
	_, lost := a.must("stream.connect", "node", "b", "service", "loss")
	announced, held := accept(t, listener)
	_ = held.Close()
	if _, err := fmt.Fprintf(listener, "-%v", announced["stream"]); err != nil {
		t.Fatal(err)
	}
	if got, err := endOf(lost); got != "" || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the stream that was lost gave %q and %v, want a reset", got, err)
	}
	for _, nonsense := range []string{"+", "-", "x", "+-1", "99999999999999999999"} {
		_, _ = listener.Write([]byte(nonsense))
	}
	_, near := a.must("stream.connect", "node", "b", "service", "loss")
	far := confirmed(t, listener)
	_, _ = far.Write([]byte("all"))
	_ = far.Close()
	if got, err := endOf(near); got != "all" || err != nil {
		t.Errorf("the next stream gave %q and %v", got, err)
	}
}

// TestAcceptedAndClosedAtOnce: the confirmation, the end of the stream and that of the listener come together.
func TestAcceptedAndClosedAtOnce(t *testing.T) {
	a, b := pair(t)
	for range 100 {
		_, listener := b.must("stream.listen", "service", "brief", "confirm", true)
		_, near := a.must("stream.connect", "node", "b", "service", "brief")
		far := confirmed(t, listener)
		_, _ = far.Write([]byte("all"))
		_ = far.Close()
		_ = listener.Close()
		if got, err := endOf(near); got != "all" || err != nil {
			t.Fatalf("read %q and %v", got, err)
		}
		_ = near.Close()
	}
}

// TestResetReachesCopies resets streams whose descriptor the program has handed on: to something that knows of no status.
func TestResetReachesCopies(t *testing.T) {
	a, b := pair(t)
	_, listener := b.must("stream.listen", "service", "echo")
	for range 20 {
		_, near := a.must("stream.connect", "node", "b", "service", "echo")
		announced, far := accept(t, listener)
		file, err := near.File()
		if err != nil {
			t.Fatal(err)
		}
		_ = near.Close()
		c, err := net.FileConn(file)
		_ = file.Close()
		if err != nil {
			t.Fatal(err)
		}
		copied := c.(*net.UnixConn)
		_, _ = far.Write([]byte("half"))
		some := make([]byte, 4)
		if _, err := io.ReadFull(copied, some); err != nil {
			t.Fatal(err)
		}
		b.must("stream.abort", "stream", announced["stream"])
		if got, err := endOf(copied); got != "" || !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("read %q and %v, want a reset", got, err)
		}
		if got, err := endOf(copied); got != "" || err != nil {
			t.Fatalf("after the reset: %q and %v", got, err)
		}
		_ = copied.Close()
	}
}

// TestSpoilFindsOnlyItsSocket: what has taken the number of a closed descriptor is left alone.
func TestSpoilFindsOnlyItsSocket(t *testing.T) {
	var ends programEnds
	near, far, err := socketPair(syscall.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	end := programEnd{inode: inodeOf(far), made: time.Now()}
	made := ends.copyOf(end)
	if made < 0 || inodeOf(made) != end.inode {
		t.Fatalf("descriptor %d was not found among those of this process", far)
	}
	closeFD(made)
	closeFD(far)
	r, w, err := os.Pipe() // Takes the number again.
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	ends.spoil(end)()
	if fd := ends.copyOf(end); fd >= 0 {
		t.Errorf("descriptor %d passes for a socket that is closed", fd)
	}
}

// TestOneLookForManyStreams: sockets that were not there at the last look are not looked for again, but for new ones.
func TestOneLookForManyStreams(t *testing.T) {
	gone := uint64(1) // Of no socket.
	ends := programEnds{}
	old := time.Now().Add(-time.Hour)
	if ends.copyOf(programEnd{gone, old}) >= 0 {
		t.Fatal("a socket was found that is not there")
	}
	looked := ends.looked
	if looked.IsZero() || ends.copyOf(programEnd{gone, old}) >= 0 || ends.looked != looked {
		t.Errorf("the process was looked through again, at %v and %v", looked, ends.looked)
	}
	if ends.copyOf(programEnd{gone, time.Now()}); !ends.looked.After(looked) {
		t.Error("the process was not looked through for a new stream")
	}
}
