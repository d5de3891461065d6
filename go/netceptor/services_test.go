package netceptor

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

// TestF092UnreachableNotice: who sends to a service that does not exist hears so, with both addresses.
func TestF092UnreachableNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t)
		defer l.close()
		if _, err := l.out.WriteTo([]byte("x"), Addr{"c", "none"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		select {
		case got := <-l.out.Notices():
			want := Notice{Reporter: "c", Unreachable: wire.Unreachable{
				FromNode: "a", FromService: "out", ToNode: "c", ToService: "none", Problem: wire.ProblemServiceUnknown,
			}}
			if got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		default:
			t.Error("no notice came")
		}
	})
}

// TestF093DatagramsUpToTheLimit: over TCP links datagrams arrive whole up to 65499 bytes; larger ones are refused here.
func TestF093DatagramsUpToTheLimit(t *testing.T) {
	nodes := chain(t, "a", "b", "c")
	in, err := nodes[2].ListenPacket("in", nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := nodes[0].ListenPacket("", nil)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, wire.MaxMessage)
	for _, size := range []int{0, 1, 1452, 65499} {
		sent := bytes.Repeat([]byte{byte(size)}, size)
		if _, err := out.WriteTo(sent, Addr{"c", "in"}); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		n, from, err := in.ReadFrom(buf)
		if err != nil || !bytes.Equal(buf[:n], sent) || from != out.LocalAddr() {
			t.Errorf("%d bytes: got %d from %v, %v", size, n, from, err)
		}
	}
	if _, err := out.WriteTo(make([]byte, 65500), Addr{"c", "in"}); !errors.Is(err, ErrPayloadSize) {
		t.Errorf("65500 bytes: %v, want ErrPayloadSize", err)
	}
}

// TestF094StreamIsReliableAndEncrypted: what goes in comes out, in order, and is not to be seen on the way.
func TestF094StreamIsReliableAndEncrypted(t *testing.T) {
	for _, protocols := range [][]string{streamProtocols, {streamALPN}} {
		t.Run(protocols[0], func(t *testing.T) {
			nodes := chain(t, "a", "b", "c")
			nodes[0].protocols = protocols
			near, far := streamPair(t, nodes[0], nodes[2], "svc")
			sent := bytes.Repeat([]byte("plain text that a relay could read. "), 1<<16)
			go func() {
				_, _ = near.Write(sent)
				_ = near.CloseWrite()
			}()
			got, err := io.ReadAll(far)
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("got %d bytes, %v; want the %d that were sent", len(got), err, len(sent))
			}
			state := near.qc.ConnectionState().TLS
			if state.Version != tls.VersionTLS13 || state.CipherSuite == 0 {
				t.Errorf("TLS version %x, cipher suite %x, want TLS 1.3", state.Version, state.CipherSuite)
			}
		})
	}
}

// TestF095KeepAlive: with an existing node the dialer speaks every 15 s on an idle stream, and a stream whose peer is not
// heard for 30 s ends with an error.
func TestF095KeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t)
		defer s.close()
		a, b := s.add("a"), s.add("b")
		a.protocols = []string{streamALPN}
		s.link("a", "b", 1)
		s.settle("start", 5*time.Second)
		near, far := streamPair(t, a, b, "svc")
		time.Sleep(time.Second)
		before := a.Counters().Originated
		time.Sleep(5 * time.Minute)
		spoke := a.Counters().Originated - before
		if spoke < 19 || spoke > 42 { // Twenty times, each with at most one acknowledgement of the answer.
			t.Errorf("the dialer sent %d packets in five minutes, want one in 15 s", spoke)
		}
		if _, err := near.Write([]byte("x")); err != nil {
			t.Errorf("the idle stream is gone: %v", err)
		}
		if _, err := io.ReadFull(far, make([]byte, 1)); err != nil {
			t.Errorf("the idle stream is gone: %v", err)
		}
		start := time.Now()
		s.cut("a", "b")
		if err := readEnd(near); !errors.Is(err, ErrTimeout) {
			t.Errorf("after the path was cut: %v, want a time-out", err)
		}
		if took := time.Since(start); took < 14*time.Second || took > 46*time.Second {
			t.Errorf("the dead stream ended after %v, want 30 s after the last packet", took)
		}
	})
}

// TestF111PlainAndTLSDoNotMix: a client without a profile refuses a service with one, and says why; one with a profile
// refuses a service without.
func TestF111PlainAndTLSDoNotMix(t *testing.T) {
	nodes := chain(t, "a", "b")
	secure := &tls.Config{Certificates: []tls.Certificate{certificate(t, "b", ecKey(t))}}
	verifying := &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(state tls.ConnectionState) error {
		if state.PeerCertificates[0].Subject.CommonName != "b" {
			return errors.New("not the certificate of b")
		}
		return nil
	}}
	for _, protocols := range [][]string{streamProtocols, {streamALPN}} {
		for service, c := range map[string]struct {
			server, client *tls.Config
			want           string
		}{
			"tls":   {secure, nil, "insecure connection to secure service"},
			"plain": {nil, verifying, "not the certificate of b"},
			"both":  {secure, verifying, ""},
			"none":  {nil, nil, ""},
		} {
			nodes[0].protocols = protocols
			ln, err := nodes[1].ListenStream(service, nil, c.server)
			if err != nil {
				t.Fatal(err)
			}
			s, err := nodes[0].DialStream(t.Context(), "b", service, c.client)
			switch {
			case c.want == "" && err != nil:
				t.Errorf("%s %s: %v", protocols[0], service, err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%s %s: got %v, want %q", protocols[0], service, err, c.want)
			}
			if s != nil {
				_ = s.Close()
			}
			_ = ln.Close()
		}
	}
}

// TestClosedStreamsLeaveNothing: neither end keeps memory or goroutines for streams that are over.
func TestClosedStreamsLeaveNothing(t *testing.T) {
	for _, c := range []struct {
		protocols []string
		streams   int
	}{{streamProtocols, 10000}, {[]string{streamALPN}, 300}} {
		t.Run(c.protocols[0], func(t *testing.T) {
			nodes := chain(t, "a", "b")
			nodes[0].protocols = c.protocols
			echoOn(t, nodes[1], "svc")
			exchange(t, nodes[0], "b", "svc", "the connection is there")
			idle := runtime.NumGoroutine() // Of a mesh with at most one connection.
			open := func(streams int) {
				for range streams {
					exchange(t, nodes[0], "b", "svc", "hello")
				}
				awaitRest(t, idle, nodes...)
			}
			open(c.streams)
			// The runtime keeps what it needed for the most goroutines there ever were, and some rounds have more of them at a
			// time than others. What stays of streams stays in every round.
			for round, before := 1, heapInUse(); ; round++ {
				open(c.streams)
				kept := heapBeyond(before)
				if kept <= heapNoise {
					return
				}
				if round == 4 {
					t.Fatalf("%d streams left %d bytes behind, as those before did", c.streams, kept)
				}
				before += kept
			}
		})
	}
}

// heapNoise is what the size of the heap says nothing about.
const heapNoise = 128 << 10

// heapBeyond returns how many bytes more than before the heap holds, once that is not much or ten seconds have passed: the
// QUIC library keeps the IDs of connections for five after their end.
func heapBeyond(before int64) int64 {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for give := time.Now().Add(10 * time.Second); ; <-tick.C {
		if kept := heapInUse() - before; kept <= heapNoise || time.Now().After(give) {
			return kept
		}
	}
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC() // What was in pools.
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// awaitRest waits until the nodes have no streams and the process has few goroutines more than it had: some ends take
// their time, for a lost packet might have to be sent again.
func awaitRest(t *testing.T, idle int, nodes ...*Node) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for give := time.Now().Add(time.Minute); ; <-tick.C {
		left := 0
		for _, n := range nodes {
			_, streams := n.connections()
			left += streams
		}
		goroutines := runtime.NumGoroutine()
		if left == 0 && goroutines <= idle+10 {
			return
		}
		if time.Now().After(give) {
			t.Fatalf("%d streams and %d goroutines are left, %d were there before", left, goroutines, idle)
		}
	}
}
