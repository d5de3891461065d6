package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

const (
	// quietLogs is how many logs in a row may end without anything new before the last one is at its end, if the cluster says
	// neither that the container has ended nor that it runs.
	quietLogs = 5
	// lively is how long a log stays open only if the container may still write to it: that of one that has ended ends at once.
	lively = time.Second
	// claimPause is the longest pause between logs that end at once although the cluster says that the container runs.
	claimPause = 5 * time.Second
)

// claimLimit is for how long a cluster is believed which says that the container runs, and whose logs end at once without
// anything new: it may have lost the machine. A container that says nothing behind a proxy which ends quiet logs has as long as it
// takes.
var claimLimit = time.Hour

// runs reports whether the cluster says that the container runs.
func runs(pod *corev1.Pod) bool {
	c := workerStatus(pod)
	return c != nil && c.State.Running != nil && !ended(pod)
}

// copyLog writes the container's log until that has ended.
func (h *helper) copyLog(ctx context.Context) error {
	if !h.canReconnect(h.settings.Reconnect) {
		return h.copyLogOnce(ctx)
	}
	over := false      // The container has ended.
	sign := time.Now() // When it last showed that it lives.
	for quiet := 0; ; {
		before, opened := h.out.size, time.Now()
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
		lived := time.Since(opened) >= lively
		pod, lookErr := h.look(ctx)
		if lookErr != nil {
			return lookErr
		}
		claimed := runs(pod)
		if quiet++; h.out.size > before || lived && claimed {
			quiet, sign = 0, time.Now()
		}
		switch {
		case quiet < quietLogs, claimed && time.Since(sign) < claimLimit:
		case err != nil:
			return failed("Error with pod's stdout: %v", err)
		default:
			return h.out.finishLines()
		}
		if over = ended(pod); over && err == nil {
			continue
		}
		if err := pause(ctx, logPause(quiet)); err != nil {
			return err
		}
	}
}

// logPause is how long to wait for the next log after so many that brought nothing new.
func logPause(quiet int) time.Duration {
	return min(sendPause<<min(max(0, quiet-quietLogs), 10), claimPause)
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

// payload is the unit's payload on its way into a pod. One that was given to a connection may be read after that has ended.
type payload struct {
	io.Reader
	begun, done atomic.Bool // Something was read, all was.
	ended       func()      // Called when all was read.
}

func (p *payload) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	if n > 0 {
		p.begun.Store(true)
	}
	if errors.Is(err, io.EOF) && p.done.CompareAndSwap(false, true) {
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

// sendStdin attaches to the container and sends it the payload, which has size bytes.
func (h *helper) sendStdin(ctx context.Context, file io.ReaderAt, size int64) (err error) {
	h.report(unit.Event{Kind: unit.Prepare, Detail: unit.DetailSendingStdin, Size: unit.KeepSize})
	var p *payload
	for try := 1; ; try++ {
		p = &payload{Reader: io.NewSectionReader(file, 0, size), ended: h.running} // The one of the last try may still be read.
		if err = h.attach(ctx, p); err == nil || p.begun.Load() || try == tries {
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
	if p.done.Load() {
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
