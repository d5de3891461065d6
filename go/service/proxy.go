package service

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/pyreceptor/pyreceptor/go/fault"
)

const (
	maxDials      = 512              // Connections of one proxy whose other side is being dialled.
	dialTimeout   = 30 * time.Second // For one dial.
	minAcceptWait = 5 * time.Millisecond
	maxAcceptWait = time.Second
)

// Listener accepts streams. After Close, Accept returns an error that wraps net.ErrClosed; any other error is passing.
type Listener interface {
	Accept() (Stream, error)
	Close() error
}

// Dial opens the other side of an accepted stream.
type Dial func(ctx context.Context) (Stream, error)

// Proxy gives each stream that a listener accepts a far side of its own: one that it dials, or a command.
type Proxy struct {
	listener Listener
	dial     Dial                                         // nil if serve is not.
	serve    func(ctx context.Context, near Stream) error // Has the stream to its end and closes it.
	addr     net.Addr
	log      *slog.Logger
	accepts  *changes
	dials    *changes

	ctx   context.Context
	stop  context.CancelFunc
	slots chan struct{} // One token per running dial.
	wg    sync.WaitGroup
}

// Start begins to serve l, which is the proxy's from now on. dialFailed is the log message of failed dials.
func Start(l Listener, dial Dial, dialFailed string, log *slog.Logger) *Proxy {
	return start(&Proxy{listener: l, dial: dial}, dialFailed, log)
}

func start(p *Proxy, dialFailed string, log *slog.Logger) *Proxy {
	p.log = log
	p.accepts = &changes{log: log, failed: "Error accepting connection", recovered: "Accepting connections again"}
	p.dials = &changes{log: log, failed: dialFailed, recovered: "Connecting works again"}
	p.slots = make(chan struct{}, maxDials)
	p.ctx, p.stop = context.WithCancel(context.Background())
	p.wg.Go(p.acceptLoop)
	return p
}

// Addr is where a proxy that listens on TCP or on a Unix socket does so, nil for others.
func (p *Proxy) Addr() net.Addr { return p.addr }

// Close stops accepting, resets all connections and waits until they are gone.
func (p *Proxy) Close() error {
	p.stop()
	err := p.listener.Close()
	p.wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Drain stops accepting and returns when all connections have ended by themselves, or ctx has.
func (p *Proxy) Drain(ctx context.Context) {
	_ = p.listener.Close()
	ended := make(chan struct{})
	go func() { // Ends with the connections, which Close ends at last.
		p.wg.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
}

func (p *Proxy) acceptLoop() {
	defer fault.Catch(func(e *fault.Error) {
		p.accepts.note(e)
		_ = p.listener.Close()
	})
	wait := minAcceptWait
	for p.ctx.Err() == nil {
		s, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		p.accepts.note(err)
		if err != nil {
			p.pause(wait)
			wait = min(2*wait, maxAcceptWait)
			continue
		}
		wait = minAcceptWait
		p.take(s)
	}
}

// pause waits before the next try: out of file descriptors, say, nothing tells when one is free.
func (p *Proxy) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.ctx.Done():
	}
}

// take starts the life of an accepted stream, once a dial may run.
func (p *Proxy) take(s Stream) {
	select {
	case p.slots <- struct{}{}:
		p.wg.Go(func() { p.connect(s) })
	case <-p.ctx.Done():
		Reset(s)
	}
}

func (p *Proxy) connect(near Stream) {
	release := sync.OnceFunc(func() { <-p.slots })
	defer release()
	defer fault.Catch(func(e *fault.Error) {
		fault.Log(p.log, e, "proxy", "client", near.RemoteAddr().String())
		Reset(near)
	})
	if err := shake(p.ctx, near); err != nil {
		p.log.Debug("TLS handshake with a client failed", "client", near.RemoteAddr().String(), "err", err)
		Reset(near)
		return
	}
	if p.serve != nil {
		release()
		err := p.serve(p.ctx, near)
		if p.ctx.Err() == nil {
			p.dials.note(err)
		}
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, dialTimeout)
	far, err := p.dial(ctx)
	cancel()
	release()
	if p.ctx.Err() == nil {
		p.dials.note(err)
	}
	if err != nil {
		Reset(near)
		return
	}
	if done := Bridge(p.ctx, near, far); done.Err != nil && p.ctx.Err() == nil {
		p.log.Debug("Connection ended early", "err", done.Err)
		fault.Log(p.log, done.Err, "proxy", "client", near.RemoteAddr().String())
	}
}

// changes logs a failure that repeats when it begins, changes and ends.
type changes struct {
	log               *slog.Logger
	failed, recovered string

	mu   sync.Mutex
	last string // Text of the last outcome, "" for success.
}

func (c *changes) note(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	c.mu.Lock()
	changed := c.last != text
	c.last = text
	c.mu.Unlock()
	switch {
	case !changed:
	case err != nil:
		c.log.Error(c.failed, "err", err)
		fault.Log(c.log, err, "proxy")
	default:
		c.log.Info(c.recovered)
	}
}
