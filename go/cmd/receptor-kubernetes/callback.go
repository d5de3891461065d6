package main

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pyreceptor/pyreceptor/go/fault"
)

// callback is where the pod of a unit connects to that has the stream method tcp.
type callback struct {
	net.Listener
	host, port string
}

// listen listens at the first address that others can reach.
func listen() (*callback, error) {
	host, err := ownAddress()
	if err != nil {
		return nil, failed("Error listening: %v", err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, failed("Error listening: %v", err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return &callback{l, host, port}, err
}

func (c *callback) close() {
	if c != nil {
		c.Close()
	}
}

func ownAddress() (string, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return "", err
	}
	for _, a := range addresses {
		if network, ok := a.(*net.IPNet); ok && network.IP.IsGlobalUnicast() {
			return network.IP.String(), nil
		}
	}
	return "", errors.New("this machine has no address that a pod could connect to")
}

// exchange takes the one connection of the pod, sends the payload and stores what comes back.
func (h *helper) exchange(ctx context.Context, c *callback) error {
	conn, err := h.accept(ctx, c)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	sent := make(chan error, 1)
	go func() { sent <- fault.Try(func() error { return h.sendPayload(conn) }) }()
	err = h.out.copyFrom(conn)
	if err != nil {
		err = failed("Error reading stdout from pod: %v", err)
		conn.Close()
	}
	err = errors.Join(err, <-sent)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	h.noteExit(ctx)
	return err
}

// accept waits for the connection, or the end of a pod that does not make one.
func (h *helper) accept(ctx context.Context, c *callback) (net.Conn, error) {
	var looking sync.WaitGroup
	defer looking.Wait()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(ctx, func() { c.Close() })()
	looking.Go(func() {
		for pause(ctx, askPause) == nil {
			if pod, err := h.pods().Get(ctx, h.name, metav1.GetOptions{}); err == nil && ended(pod) {
				stop(failed("Error accepting: the pod has ended and has not connected to %s", c.Addr()))
			}
		}
	})
	conn, err := c.Accept()
	var why *failure
	switch {
	case err == nil:
		return conn, nil
	case errors.As(context.Cause(ctx), &why):
		return nil, why
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return nil, failed("Error accepting: %v", err)
}

func (h *helper) sendPayload(conn net.Conn) error {
	file, _, err := h.openStdin()
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := io.Copy(conn, file); err != nil {
		return failed("Error sending stdin to pod: %v", err)
	}
	h.running()
	if half, ok := conn.(*net.TCPConn); ok {
		if err := half.CloseWrite(); err != nil {
			return failed("Error sending stdin to pod: %v", err)
		}
	}
	return nil
}

// refuseEmpty refuses a payload that the pod would wait for in vain.
func (h *helper) refuseEmpty() error {
	file, size, err := h.openStdin()
	if err != nil {
		return err
	}
	defer file.Close()
	if size == 0 {
		return failed("Error opening stdin file: file is empty")
	}
	return nil
}
