package control

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// transports open a client's connection to a server, past the greeting. closeWrite ends the client's data.
var transports = []struct {
	name string
	open func(t *testing.T, r *rig) net.Conn
}{
	{"unix", func(t *testing.T, r *rig) net.Conn { return r.dialUnix(t) }},
	{"tcp", func(t *testing.T, r *rig) net.Conn { return dialTCP(t, r, nil) }},
	{"tls", func(t *testing.T, r *rig) net.Conn {
		return tls.Client(dialTCP(t, r, serverConfig(t)), &tls.Config{InsecureSkipVerify: true})
	}},
	{"mesh", func(t *testing.T, r *rig) net.Conn {
		near, far := socketPair(t)
		r.start(context.Background(), newMeshStream(far), listening{kind: OverMesh})
		return near
	}},
}

func dialTCP(t *testing.T, r *rig, conf *tls.Config) net.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if conf != nil {
		l = tls.NewListener(l, conf)
	}
	r.listen(t, l, TCP)
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func serverConfig(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "alpha"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

func eachTransport(t *testing.T, f func(t *testing.T, r *rig, c net.Conn, in *bufio.Reader), edit ...func(*Config)) {
	for _, tr := range transports {
		t.Run(tr.name, func(t *testing.T) {
			r := newRig(t, edit...)
			c := tr.open(t, r)
			in := bufio.NewReader(c)
			wantLine(t, in, "Receptor Control, node alpha")
			f(t, r, c, in)
		})
	}
}

func wantLine(t *testing.T, in *bufio.Reader, want string) {
	t.Helper()
	if got, err := in.ReadString('\n'); err != nil || got != want+"\n" {
		t.Fatalf("got %q, %v; want %q", got, err, want)
	}
}

func wantEnd(t *testing.T, in io.Reader, want string) {
	t.Helper()
	if got, err := io.ReadAll(in); err != nil || string(got) != want {
		t.Fatalf("got %q, %v; want %q and the end", got, err, want)
	}
}

func closeWrite(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

// TestSubmit sends a payload in the same write as the request, or much later, of every transport.
func TestSubmit(t *testing.T) {
	for _, size := range []int{0, 5, 300_000} {
		payload := strings.Repeat("p", size)
		eachTransport(t, func(t *testing.T, r *rig, c net.Conn, in *bufio.Reader) {
			r.work.nextID = "unitAAAA"
			go func() {
				c.Write([]byte("work submit localhost upper\n" + payload))
				closeWrite(t, c)
			}()
			wantLine(t, in, "Work unit created with ID unitAAAA. Send stdin data and EOF.")
			wantLine(t, in, `{"result":"Job Started","unitid":"unitAAAA"}`)
			wantEnd(t, in, "")
			if u, _ := r.work.unit("unitAAAA"); string(u.payload) != payload {
				t.Errorf("%d bytes of payload arrived, want %d", len(u.payload), size)
			}
		})
	}
}

// TestSubmitOnce: another node names its submission, and is told of the unit if that has its payload.
func TestSubmitOnce(t *testing.T) {
	eachTransport(t, func(t *testing.T, r *rig, c net.Conn, in *bufio.Reader) {
		r.work.nextID = "unitAAAA"
		r.work.begun = map[string]workceptor.UnitID{"Before": "unitBBBB"}
		const once = `{"command":"work","subcommand":"submit-once","node":"alpha","worktype":"cat"`
		fmt.Fprint(c, once+"}\nwork submit-once alpha cat\n")
		wantLine(t, in, "ERROR: field submission missing")
		wantLine(t, in, "ERROR: field submission missing")
		go func() {
			fmt.Fprint(c, once+`,"submission":"Name","x":"y"}`+"\npayload")
			closeWrite(t, c)
		}()
		wantLine(t, in, "Work unit created with ID unitAAAA. Send stdin data and EOF.")
		wantLine(t, in, `{"result":"Job Started","unitid":"unitAAAA"}`)
		wantEnd(t, in, "")
	})
	r := newRig(t)
	r.work.begun = map[string]workceptor.UnitID{"Before": "unitBBBB"}
	c := r.dialUnix(t)
	in := bufio.NewReader(c)
	wantLine(t, in, "Receptor Control, node alpha")
	fmt.Fprint(c, `{"command":"work","subcommand":"submit-once","node":"alpha","worktype":"cat","submission":"Before"}`+"\n")
	wantLine(t, in, `{"result":"Job Started","unitid":"unitBBBB"}`)
	wantEnd(t, in, "")
}

// TestSubmitBareFIN ends a payload under TLS as some clients do: by closing the TCP connection's sending direction, with
// nothing said in TLS.
func TestSubmitBareFIN(t *testing.T) {
	r := newRig(t)
	r.work.nextID = "unitAAAA"
	raw := dialTCP(t, r, serverConfig(t))
	c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
	in := bufio.NewReader(c)
	wantLine(t, in, "Receptor Control, node alpha")
	c.Write([]byte("work submit localhost upper\nabc"))
	closeWrite(t, raw)
	wantLine(t, in, "Work unit created with ID unitAAAA. Send stdin data and EOF.")
	wantLine(t, in, `{"result":"Job Started","unitid":"unitAAAA"}`)
	wantEnd(t, in, "")
}

// TestTLSHandshakeLimit lets a client say nothing on a TLS listener.
func TestTLSHandshakeLimit(t *testing.T) {
	conf := serverConfig(t)
	synctest.Test(t, func(t *testing.T) {
		b := newBubble()
		near, far := net.Pipe()
		start := time.Now()
		b.start(context.Background(), tls.Server(far, conf), listening{kind: TCP})
		if n, err := near.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%d bytes, %v", n, err)
		}
		if took := time.Since(start); took != handshakeTimeout {
			t.Errorf("closed after %v", took)
		}
		b.Close()
	})
}

// TestSubmitReset breaks the connection in the middle of the payload: the unit fails.
func TestSubmitReset(t *testing.T) {
	r := newRig(t)
	r.work.started = make(chan *fakeUnit, 1)
	c := dialTCP(t, r, nil)
	in := bufio.NewReader(c)
	wantLine(t, in, "Receptor Control, node alpha")
	c.Write([]byte("work submit localhost cat\nhalf of"))
	in.ReadString('\n')
	reset(t, c)
	if u := <-r.work.started; u.status.State != workceptor.Failed || !strings.HasPrefix(u.status.Detail, "Error reading input data: ") {
		t.Errorf("state %v, %q", u.status.State, u.status.Detail)
	}
}

// deafConn cannot be written to any more once it has greeted.
type deafConn struct {
	net.Conn
	writes int
}

func (c *deafConn) Write(p []byte) (int, error) {
	if c.writes++; c.writes > 1 {
		return 0, errors.New("broken pipe")
	}
	return c.Conn.Write(p)
}

// TestSubmitUnheard has a client that cannot learn the unit's ID: the unit does not start.
func TestSubmitUnheard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble()
		b.work.started = make(chan *fakeUnit, 1)
		near, far := net.Pipe()
		b.start(context.Background(), &deafConn{Conn: far}, listening{kind: TCP})
		got := drain(near)
		near.Write([]byte("work submit localhost cat\n"))
		if u := <-b.work.started; u.status.State != workceptor.Failed {
			t.Errorf("state %v", u.status.State)
		}
		<-got
		b.Close()
	})
}

func TestSubmitStartFails(t *testing.T) {
	r := newRig(t)
	r.work.startErr = errors.New("cannot sign work: signing key is empty")
	c := r.dialUnix(t)
	in := bufio.NewReader(c)
	in.ReadString('\n')
	c.Write([]byte("work submit beta cat\n"))
	in.ReadString('\n')
	closeWrite(t, c)
	wantEnd(t, in, "ERROR: cannot sign work: signing key is empty\n")
}

// TestSignatures: who is on the Unix socket needs none.
func TestSignatures(t *testing.T) {
	eachTransport(t, func(t *testing.T, r *rig, c net.Conn, in *bufio.Reader) {
		r.work.add("u1", "secure", workceptor.Succeeded, "")
		_, local := c.RemoteAddr().(*net.UnixAddr)
		trusted := local && !strings.HasSuffix(t.Name(), "mesh")
		c.Write([]byte("work cancel u1\nwork results u1\n"))
		if trusted {
			wantLine(t, in, `{"cancelled":"u1"}`)
			wantLine(t, in, "Streaming results for work unit u1")
			return
		}
		wantLine(t, in, "ERROR: could not verify signature: signature is empty")
		wantLine(t, in, "ERROR: could not verify signature: signature is empty")
		for _, line := range []string{
			"work submit localhost secure", "work release u1", "work force-release u1",
			`{"command":"work","subcommand":"follow","unitid":"u1","startpos":0}`,
			`{"command":"work","subcommand":"results","unitid":"u1","startpos":0}`,
			`{"command":"work","subcommand":"exec","node":"localhost","worktype":"secure"}`,
		} {
			c.Write([]byte(line + "\n"))
			wantLine(t, in, "ERROR: could not verify signature: signature is empty")
		}
		c.Write([]byte(`{"command":"work","subcommand":"cancel","unitid":"u1","signature":"token"}` + "\n"))
		wantLine(t, in, `{"cancelled":"u1"}`)
	})
}

// TestResultsFlow reads each piece of output before the next is made.
func TestResultsFlow(t *testing.T) {
	eachTransport(t, func(t *testing.T, r *rig, c net.Conn, in *bufio.Reader) {
		u := r.work.add("u1", "cat", workceptor.Running, "")
		c.Write([]byte("work results u1\nping alpha\n")) // The second command is never executed, and does no harm.
		wantLine(t, in, "Streaming results for work unit u1")
		for _, piece := range []string{"one\n", "two\n", strings.Repeat("3", 80000) + "\n"} {
			u.write(piece)
			wantLine(t, in, strings.TrimSuffix(piece, "\n"))
		}
		closeWrite(t, c) // Says nothing about whether results are wanted.
		u.write("four\n")
		wantLine(t, in, "four")
		u.end()
		wantEnd(t, in, "")
	})
}

// TestResultsClientGone closes the client's connection while there is nothing to send: the stream must end all the same.
func TestResultsClientGone(t *testing.T) {
	for _, half := range []bool{false, true} {
		r := newRig(t)
		r.work.readers = make(chan error, 1)
		r.work.add("u1", "cat", workceptor.Running, "")
		c := r.dialUnix(t)
		in := bufio.NewReader(c)
		in.ReadString('\n')
		c.Write([]byte("work results u1\n"))
		wantLine(t, in, "Streaming results for work unit u1")
		if half {
			closeWrite(t, c)
		}
		c.Close()
		if err := <-r.work.readers; !errors.Is(err, errClientGone) {
			t.Errorf("half-closed before %v: the stream ended with %v", half, err)
		}
	}
	t.Run("reset", func(t *testing.T) {
		r := newRig(t)
		r.work.readers = make(chan error, 1)
		r.work.add("u1", "cat", workceptor.Running, "")
		c := dialTCP(t, r, nil)
		in := bufio.NewReader(c)
		in.ReadString('\n')
		c.Write([]byte("work results u1\n"))
		wantLine(t, in, "Streaming results for work unit u1")
		reset(t, c)
		if err := <-r.work.readers; !errors.Is(err, errClientGone) {
			t.Errorf("the stream ended with %v", err)
		}
	})
}

// doneConn tells its end by a channel, as streams of the mesh may.
type doneConn struct {
	net.Conn
	done chan struct{}
}

func (c doneConn) Done() <-chan struct{} { return c.done }

func TestResultsStreamDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble()
		b.work.readers = make(chan error, 1)
		b.work.add("u1", "cat", workceptor.Running, "")
		near, far := net.Pipe()
		c := doneConn{far, make(chan struct{})}
		b.start(context.Background(), c, listening{kind: OverMesh})
		got := drain(near)
		near.Write([]byte("work results u1\n"))
		synctest.Wait()
		close(c.done)
		if err := <-b.work.readers; !errors.Is(err, errClientGone) {
			t.Errorf("the stream ended with %v", err)
		}
		<-got
		b.Close()
	})
}

// TestPingClientGone ends a probe with its client.
func TestPingClientGone(t *testing.T) {
	r := newRig(t)
	probing, ended := make(chan struct{}), make(chan error, 1)
	r.node.ping = func(ctx context.Context) netceptor.Pong {
		close(probing)
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return netceptor.Pong{Err: context.Cause(ctx)}
	}
	c := r.dialUnix(t)
	c.Write([]byte("ping silent\nping alpha\n"))
	<-probing
	c.Close()
	if err := <-ended; !errors.Is(err, errClientGone) {
		t.Errorf("the probe ended with %v", err)
	}
}

// TestPipelineDuringWait sends the next commands, and the end, while the first one waits.
func TestPipelineDuringWait(t *testing.T) {
	eachTransport(t, func(t *testing.T, r *rig, c net.Conn, in *bufio.Reader) {
		probing, answer := make(chan struct{}), make(chan struct{})
		r.node.ping = func(ctx context.Context) netceptor.Pong {
			close(probing)
			select {
			case <-answer:
			case <-ctx.Done():
				t.Errorf("the client counts as gone: %v", context.Cause(ctx))
			}
			return netceptor.Pong{From: "silent", RTT: time.Second}
		}
		c.Write([]byte("ping silent\n"))
		<-probing
		many := strings.Repeat("work status u1\n", 8000) // More than is read ahead.
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			c.Write([]byte(many))
			closeWrite(t, c)
		}()
		close(answer)
		wantLine(t, in, `{"From":"silent","Success":true,"Time":1000000000,"TimeStr":"1s"}`)
		for range 8000 {
			wantLine(t, in, "ERROR: unknown work unit u1")
		}
		wantEnd(t, in, "")
		<-sent
	})
}

// service runs f as the far end of every dialled stream.
func service(t *testing.T, f func(far *net.UnixConn)) (edit func(*Config), streams <-chan *meshStream) {
	opened := make(chan *meshStream, len(transports))
	return func(c *Config) {
		c.Dial = func(context.Context, wire.NodeID, string, string) (workceptor.Stream, error) {
			near, far := socketPair(t)
			go f(far)
			s := newMeshStream(near)
			opened <- s
			return s, nil
		}
	}, opened
}

// TestConnectClientHalfCloses: the answer to a whole request still arrives.
func TestConnectClientHalfCloses(t *testing.T) {
	edit, _ := service(t, func(far *net.UnixConn) {
		got, _ := io.ReadAll(far)
		far.Write(bytes.ToUpper(got))
		far.Close()
	})
	eachTransport(t, func(t *testing.T, _ *rig, c net.Conn, in *bufio.Reader) {
		c.Write([]byte("connect beta echo\nfirst "))
		wantLine(t, in, "Connecting")
		c.Write([]byte("second"))
		closeWrite(t, c)
		wantEnd(t, in, "FIRST SECOND")
	}, edit)
}

// TestConnectServiceHalfCloses: the client reads the end and can still send.
func TestConnectServiceHalfCloses(t *testing.T) {
	rest := make(chan string, 1)
	edit, _ := service(t, func(far *net.UnixConn) {
		far.Write([]byte("done\n"))
		far.CloseWrite()
		got, _ := io.ReadAll(far)
		rest <- string(got)
	})
	eachTransport(t, func(t *testing.T, _ *rig, c net.Conn, in *bufio.Reader) {
		c.Write([]byte("connect beta echo\n"))
		wantLine(t, in, "Connecting")
		wantEnd(t, in, "done\n")
		big := strings.Repeat("late", 100000)
		c.Write([]byte(big))
		closeWrite(t, c)
		if got := <-rest; got != big {
			t.Errorf("%d bytes arrived after the service had half-closed, want %d", len(got), len(big))
		}
	}, edit)
}

// TestConnectServiceStopsReading: a service that takes no more may still finish its answer.
func TestConnectServiceStopsReading(t *testing.T) {
	edit, _ := service(t, func(far *net.UnixConn) {
		far.CloseRead()
		far.Write([]byte("answer"))
		far.Close()
	})
	eachTransport(t, func(t *testing.T, _ *rig, c net.Conn, in *bufio.Reader) {
		c.Write([]byte("connect beta echo\nmore than is wanted"))
		wantLine(t, in, "Connecting")
		wantEnd(t, in, "answer")
	}, edit)
}

// TestConnectClientBreaks: the service must not take what it has for everything.
func TestConnectClientBreaks(t *testing.T) {
	edit, streams := service(t, func(far *net.UnixConn) { io.ReadAll(far) })
	r := newRig(t, edit)
	c := dialTCP(t, r, nil)
	in := bufio.NewReader(c)
	in.ReadString('\n')
	c.Write([]byte("connect beta echo\nhalf of a"))
	wantLine(t, in, "Connecting")
	reset(t, c)
	<-(<-streams).aborted
}

// TestConnectClientGone dials until the client leaves.
func TestConnectClientGone(t *testing.T) {
	dialling, ended := make(chan struct{}), make(chan error, 1)
	r := newRig(t, func(c *Config) {
		c.Dial = func(ctx context.Context, _ wire.NodeID, _, _ string) (workceptor.Stream, error) {
			close(dialling)
			<-ctx.Done()
			ended <- context.Cause(ctx)
			return nil, context.Cause(ctx)
		}
	})
	c := r.dialUnix(t)
	c.Write([]byte("connect beta echo\n"))
	<-dialling
	c.Close()
	if err := <-ended; !errors.Is(err, errClientGone) {
		t.Errorf("the dial ended with %v", err)
	}
}

// TestReplyBeforeReset: a client that has sent more than was read still gets all of its results.
func TestReplyBeforeReset(t *testing.T) {
	r := newRig(t)
	output := strings.Repeat("0123456789", 100000)
	r.work.add("u1", "cat", workceptor.Succeeded, output)
	c := dialTCP(t, r, nil)
	c.Write([]byte("work results u1\n" + strings.Repeat("unread ", 1000)))
	got := drain(c)
	if text := <-got; !strings.HasSuffix(text, output) {
		t.Errorf("%d bytes arrived", len(text))
	}
}
