package daemon

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/link"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

const (
	chunk  = 256 << 10
	warmup = 120       // Chunks, 31 MB, that go before those that are measured.
	farEnd = "far-end" // The argument of the program at the far end, see [TestMain].
)

// BenchmarkStreamBetweenPrograms writes b.N chunks into a stream from a node in this program to one in another, until that
// has confirmed all. The programs share the cores as all that have nodes do.
func BenchmarkStreamBetweenPrograms(b *testing.B) {
	other := exec.Command(os.Args[0], farEnd)
	other.Stderr = os.Stderr
	out, err := other.StdoutPipe()
	if err == nil {
		err = other.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = other.Process.Kill(); _ = other.Wait() })
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	n, leave, err := sharingNode("near")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { leave(); _ = n.Close() })
	if _, err := n.Dial(link.DialTCP(strings.TrimSpace(address)), netceptor.LinkOptions{Cost: 1}); err != nil {
		b.Fatal(err)
	}
	if _, _, err := n.WaitRoute(b.Context(), "far"); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(chunk)
	for _, count := range []int{warmup, b.N} {
		b.ResetTimer()
		if err := send(b, n, count); err != nil {
			b.Fatal(err)
		}
	}
}

// send writes chunks into a stream to the far end and waits until that has all.
func send(b *testing.B, n *netceptor.Node, count int) error {
	s, err := n.DialStream(b.Context(), "far", "sink", nil)
	if err != nil {
		return err
	}
	defer s.Close()
	buf := make([]byte, chunk)
	for range count {
		if _, err := s.Write(buf); err != nil {
			return err
		}
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	if got, err := io.ReadAll(s); err != nil || string(got) != strconv.Itoa(count*chunk) {
		return fmt.Errorf("%q bytes arrived, want %d: %w", got, count*chunk, err)
	}
	return nil
}

// sharingNode is a node whose process shares the cores of the machine with others, see [ShareCores].
func sharingNode(id wire.NodeID) (n *netceptor.Node, leave func(), err error) {
	log := slog.New(slog.DiscardHandler)
	n, err = netceptor.New(netceptor.Config{ID: id, Logger: log})
	if err != nil {
		return nil, nil, err
	}
	return n, ShareCores(n, log), nil
}

// serveFarEnd is the program at the far end: it prints its address and reads one stream after the other to its end.
func serveFarEnd() error {
	n, leave, err := sharingNode("far")
	if err != nil {
		return err
	}
	defer func() { leave(); _ = n.Close() }()
	l, err := link.ListenTCP("127.0.0.1:0")
	if err != nil {
		return err
	}
	if _, err := n.Listen(l, netceptor.LinkOptions{Cost: 1}); err != nil {
		return err
	}
	ln, err := n.ListenStream("sink", nil, nil)
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	for buf := make([]byte, chunk); ; {
		s, err := ln.Accept()
		if err != nil {
			return err
		}
		// Neither end may take a short cut past the buffer.
		got, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{s}, buf)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprint(s, got); err != nil {
			return err
		}
		_ = s.Close() // What was written is delivered all the same.
	}
}
