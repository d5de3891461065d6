package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// quietLogs is how many logs in a row may end without anything new before a log that ends well is at its end, although the cluster
// does not say that the container is.
const quietLogs = 5

// copyLog writes the container's log until that has ended.
func (h *helper) copyLog(ctx context.Context) error {
	if !h.canReconnect(h.settings.Reconnect) {
		return h.copyLogOnce(ctx)
	}
	over := false // The container has ended.
	for quiet := 0; ; {
		before := h.out.size
		log, err := h.openLog(ctx, true)
		if err != nil {
			return err
		}
		err = h.out.copyLines(log)
		log.Close()
		var disk *failure
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &disk):
			return disk
		case err == nil && over: // It was asked for after the end, so this is all of it.
			return h.out.finishLines()
		}
		if quiet++; h.out.size > before {
			quiet = 0
		}
		pod, lookErr := h.look(ctx)
		switch {
		case lookErr != nil:
			return lookErr
		case quiet >= quietLogs && err != nil:
			return failed("Error with pod's stdout: %v", err)
		case quiet >= quietLogs:
			return h.out.finishLines()
		}
		if over = ended(pod); over && err == nil {
			continue
		}
		if err := pause(ctx, sendPause); err != nil {
			return err
		}
	}
}

// copyLogOnce is for clusters whose logs cannot be read on.
func (h *helper) copyLogOnce(ctx context.Context) error {
	log, err := h.openLog(ctx, false)
	if err != nil {
		return err
	}
	defer log.Close()
	if err := h.out.copyFrom(log); err != nil {
		return failed("Error with pod's stdout: %v", err)
	}
	h.noteExit(ctx)
	return ctx.Err()
}

// openLog asks for the log from where the output ends.
func (h *helper) openLog(ctx context.Context, times bool) (log io.ReadCloser, err error) {
	options := &corev1.PodLogOptions{Container: worker, Follow: true, Timestamps: times}
	if times && !h.out.place.Since.IsZero() {
		since := metav1.NewTime(h.out.place.Since)
		options.SinceTime = &since
	}
	err = persist(ctx, askPause, func() error {
		log, err = h.pods().GetLogs(h.name, options).Stream(ctx)
		return err
	})
	if err != nil {
		return nil, failed("Error opening log stream for pod %s/%s. Error: %v", h.namespace, h.name, err)
	}
	return log, nil
}

// payload is the unit's payload on its way into a pod.
type payload struct {
	io.Reader
	begun bool // Something was read.
	ended func()
	done  bool
}

func (p *payload) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	p.begun = p.begun || n > 0
	if errors.Is(err, io.EOF) && !p.done {
		p.done = true
		p.ended()
	}
	return n, err
}

// openStdin opens the unit's payload, which has size bytes.
func (h *helper) openStdin() (file *os.File, size int64, err error) {
	file, err = h.dir.ReadStdin()
	if err != nil {
		return nil, 0, failed("Error opening stdin file: %v", err)
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, 0, failed("Error opening stdin file: %v", err)
	}
	return file, info.Size(), nil
}

// sendStdin attaches to the container and sends it the payload.
func (h *helper) sendStdin(ctx context.Context) error {
	file, size, err := h.openStdin()
	if err != nil {
		return err
	}
	defer file.Close()
	if size == 0 {
		h.running()
		return nil
	}
	h.report(unit.Event{Kind: unit.Prepare, Detail: unit.DetailSendingStdin, Size: unit.KeepSize})
	p := &payload{Reader: file, ended: h.running}
	for try := 1; ; try++ {
		if err = h.attach(ctx, p); err == nil || p.begun || try == tries {
			break
		}
		if err := pause(ctx, sendPause); err != nil {
			return err
		}
	}
	switch {
	case err == nil:
		h.running() // Also if it has not read all, as a command in a shell need not.
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	if pod, lookErr := h.look(ctx); lookErr == nil && ended(pod) {
		return nil // As a command that has ended needs no input.
	}
	if p.done {
		return failed("Error with pod's stdin: %v", err)
	}
	return failed("Error streaming stdin to pod %s/%s. Error: %v", h.namespace, h.name, err)
}

// attach sends what stdin has to the container, and ends with its end or that of the connection.
func (h *helper) attach(ctx context.Context, stdin io.Reader) error {
	request := h.client.RESTClient().Post().Resource("pods").Namespace(h.namespace).Name(h.name).SubResource("attach").
		VersionedParams(&corev1.PodAttachOptions{Container: worker, Stdin: true}, scheme.ParameterCodec)
	executor, err := remotecommand.NewSPDYExecutor(h.config, "POST", request.URL())
	if err != nil {
		return err
	}
	return executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: stdin})
}

func (h *helper) unitID() string { return filepath.Base(h.dir.Path()) }
