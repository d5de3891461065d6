package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"

	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

const (
	imagePullBackOff = "ImagePullBackOff"
	pullTries        = 3 // How often the cluster may say that it cannot pull the image.
)

var (
	errPodFailed  = errors.New("pod failed to start")
	errPullFailed = errors.New("container failed to start, " + imagePullBackOff)
)

// awaitReady waits until the container can be spoken to, or has ended well.
func (h *helper) awaitReady(ctx context.Context) (over bool, err error) {
	if h.extra.PendingTimeout != "" {
		limit, err := time.ParseDuration(h.extra.PendingTimeout)
		if err != nil {
			return false, failed("%s%v", unit.DetailCreatingPod, err)
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, errTimedOut)
		defer cancel()
	}
	w := &readiness{name: h.name}
	err = w.await(ctx, h)
	switch {
	case err == nil:
		return w.last.Status.Phase == corev1.PodSucceeded, h.endedBefore(w.last)
	case ctx.Err() != nil && !errors.Is(err, errTimedOut):
		return false, err // The unit was cancelled.
	case w.last == nil && !w.deleted:
		return false, failed("%sdid not return an event while watching pod for work unit %s", unit.DetailCreatingPod, h.unitID())
	}
	return false, h.neverReady(err, w.last)
}

// endedBefore is the failure of a pod that has ended before it could be spoken to, and not well.
func (h *helper) endedBefore(pod *corev1.Pod) error {
	if h.exit = workerEnd(pod); h.exit == nil || h.exit.ExitCode == 0 || pod.Status.Phase != corev1.PodSucceeded {
		return nil
	}
	f := failed("%scontainer failed with exit code %d: %s", unit.DetailCreatingPod, h.exit.ExitCode, h.exit.Message)
	f.outcome = unit.Exit(int(h.exit.ExitCode))
	return f
}

// neverReady keeps what there is of the log, deletes the pod, and says why it did not get ready.
func (h *helper) neverReady(why error, pod *corev1.Pod) error {
	f := failed("%s%v", unit.DetailCreatingPod, why)
	if pod == nil {
		return f
	}
	ctx, cancel := context.WithTimeout(context.Background(), tries*askPause)
	defer cancel()
	if log, err := h.pods().GetLogs(h.name, &corev1.PodLogOptions{Container: worker}).Stream(ctx); err == nil {
		if _, err := io.Copy(h.out, log); err != nil {
			complain(err)
		}
		log.Close()
	}
	if c := workerStatus(pod); c != nil && !errors.Is(why, errPullFailed) {
		switch {
		case c.State.Waiting != nil && c.State.Waiting.Reason != "":
			f.text += ", " + c.State.Waiting.Reason
		case c.State.Terminated != nil && c.State.Terminated.ExitCode != 0:
			h.exit = c.State.Terminated
			f.text += fmt.Sprintf(", exit code %d: %s", h.exit.ExitCode, h.exit.Message)
			f.outcome = unit.Exit(int(h.exit.ExitCode))
		}
	}
	if err := h.delete(); err != nil {
		complain(err)
	}
	return f
}

// readiness looks at what the cluster says of a pod.
type readiness struct {
	name    string
	last    *corev1.Pod
	deleted bool
	pulls   int
}

// await asks again when a watch breaks off or is refused.
func (w *readiness) await(ctx context.Context, h *helper) error {
	one := fields.OneTermEqualSelector("metadata.name", h.name).String()
	pods := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = one
			return h.pods().List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = one
			return h.pods().Watch(ctx, o)
		},
	}
	for {
		err := w.once(ctx, pods)
		var transient *transientError
		if !errors.As(err, &transient) {
			return err
		}
		if pause(ctx, askPause) != nil {
			return context.Cause(ctx)
		}
	}
}

// transientError is one of the way to the cluster, not of the pod.
type transientError struct{ error }

var errTimedOut = errors.New("timed out waiting for the condition")

// once lists the pod and watches it until it is ready.
func (w *readiness) once(ctx context.Context, pods *cache.ListWatch) error {
	list, err := pods.ListWithContext(ctx, metav1.ListOptions{})
	if err != nil {
		return broken(ctx, err)
	}
	found := list.(*corev1.PodList)
	if len(found.Items) == 0 {
		w.deleted = true
		return apierrors.NewNotFound(corev1.Resource("pods"), w.name)
	}
	if ready, err := w.see(watch.Event{Type: watch.Added, Object: &found.Items[0]}); ready || err != nil {
		return err
	}
	var bad error
	_, err = watchtools.Until(ctx, found.ResourceVersion, pods, func(e watch.Event) (bool, error) {
		ready, err := w.see(e)
		bad = err
		return ready, err
	})
	if bad != nil {
		return bad
	}
	if err != nil {
		return broken(ctx, err)
	}
	return nil
}

func broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return &transientError{err}
}

// see reports whether the pod is ready, or why it never will be.
func (w *readiness) see(e watch.Event) (ready bool, err error) {
	pod, ok := e.Object.(*corev1.Pod)
	if !ok {
		return false, nil
	}
	w.last = pod
	if e.Type == watch.Deleted {
		w.deleted = true
		return false, apierrors.NewNotFound(corev1.Resource("pods"), w.name)
	}
	switch pod.Status.Phase {
	case corev1.PodSucceeded:
		return true, nil
	case corev1.PodFailed:
		return false, errPodFailed
	}
	for _, c := range pod.Status.Conditions {
		switch {
		case c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue:
			return true, nil
		case c.Type == corev1.ContainersReady && c.Status == corev1.ConditionFalse && pullFails(pod):
			if w.pulls++; w.pulls > pullTries {
				return false, errPullFailed
			}
		}
	}
	return false, nil
}

func pullFails(pod *corev1.Pod) bool {
	for _, c := range pod.Status.ContainerStatuses {
		if c.State.Waiting != nil && c.State.Waiting.Reason == imagePullBackOff {
			return true
		}
	}
	return false
}
