package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pyreceptor/pyreceptor/go/workceptor/pods"
	"github.com/pyreceptor/pyreceptor/go/workceptor/proc"
	"github.com/pyreceptor/pyreceptor/go/workceptor/store"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

const (
	tries     = 5 // How often an API server is asked for what it should have.
	askPause  = time.Second
	sendPause = 200 * time.Millisecond
)

// helper is one unit and what is done for it.
type helper struct {
	*cluster
	settings pods.Settings
	dir      *store.Dir
	lock     *store.RunnerLock
	extra    *unit.PodExtra
	name     string // Of the pod.
	out      *output
	exit     *corev1.ContainerStateTerminated // How the container has ended, once that is known.
}

// failure is why a unit ends as Failed.
type failure struct {
	text    string
	outcome unit.Outcome
}

func (f *failure) Error() string { return f.text }

func failed(format string, args ...any) *failure {
	return &failure{fmt.Sprintf(format, args...), unit.Because(unit.ReasonPod)}
}

// creating is an error that kept the pod from being made.
func creating(err error) error {
	if why, ok := errors.AsType[*failure](err); ok {
		return why
	}
	return failed("%s%v", unit.DetailCreatingPod, err)
}

// take becomes the runner of a unit.
func take(unitDir string, s pods.Settings) (*helper, error) {
	h := &helper{settings: s, dir: store.At(unitDir)}
	rec, err := h.dir.Read()
	if err != nil {
		return nil, err
	}
	if h.extra = rec.Pod(); h.extra == nil {
		return nil, fmt.Errorf("unit in %s is not to run as a pod", unitDir)
	}
	if h.lock, _, err = h.dir.LockRunner(); err != nil {
		return nil, err
	}
	err = h.lock.Write(store.RunnerInfo{Boot: proc.BootID(), Runner: os.Getpid(), RunnerStart: proc.Start(os.Getpid())})
	if err == nil {
		h.out, err = openOutput(h.dir)
	}
	if err != nil {
		h.lock.Close()
		return nil, err
	}
	h.out.grown = func() { h.report(unit.Event{Kind: unit.Grow, Size: h.out.size}) }
	h.name = h.extra.PodName
	return h, nil
}

func (h *helper) release() {
	h.out.close()
	h.lock.Close()
}

// run makes the pod and attends to it until the unit has ended.
func (h *helper) run(ctx context.Context) error {
	if !h.report(unit.Event{Kind: unit.Prepare, Detail: unit.DetailConnecting, Size: unit.KeepSize}) {
		return errors.New("the unit has been started or has ended already")
	}
	return h.conclude(ctx, h.work(ctx))
}

// resume goes on with the log of the pod.
func (h *helper) resume(ctx context.Context) error {
	if !h.report(unit.Event{Kind: unit.Grow, Size: h.out.size}) {
		return errors.New("the unit has ended already")
	}
	return h.conclude(ctx, h.again(ctx))
}

func (h *helper) work(ctx context.Context) error {
	callback, err := h.prepare()
	if err != nil {
		return creating(err)
	}
	defer callback.close()
	if err := h.create(ctx, callback); err != nil {
		return creating(err)
	}
	over, err := h.awaitReady(ctx)
	switch {
	case err != nil:
		return err
	case callback != nil:
		return h.exchange(ctx, callback)
	case over: // It has done without the payload.
		h.running()
		return h.copyLog(ctx)
	}
	return h.attend(ctx)
}

func (h *helper) again(ctx context.Context) (err error) {
	if h.cluster, err = connect(h.extra, h.settings); err != nil {
		return failed("Failed to restart: %v", err)
	}
	h.out.restore()
	return h.copyLog(ctx)
}

// create makes the pod and tells its name.
func (h *helper) create(ctx context.Context, callback *callback) error {
	pod, err := definition(h.extra, h.settings.WorkType, h.namespace)
	if err != nil {
		return err
	}
	if callback != nil {
		callBack(pod, callback.host, callback.port)
	}
	h.namespace = pod.Namespace
	if pod, err = h.pods().Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return err
	}
	h.name = pod.Name
	_, err = h.dir.Update(true, func(rec *unit.Record) bool {
		// The definition, which may have secrets, is in the cluster now.
		rec.EditPod(func(x *unit.PodExtra) { x.PodName, x.KubeNamespace, x.KubePod = h.name, h.namespace, "" })
		rec.Apply(unit.Event{Kind: unit.Prepare, Detail: unit.DetailPodCreated, Size: unit.KeepSize})
		return true
	})
	return err
}

// prepare connects to the cluster, and listens if the pod is to call back.
func (h *helper) prepare() (*callback, error) {
	var err error
	if h.cluster, err = connect(h.extra, h.settings); err != nil {
		return nil, err
	}
	if h.settings.Stream != pods.TCP {
		return nil, nil
	}
	if err := h.refuseEmpty(); err != nil {
		return nil, err
	}
	return listen()
}

// attend sends the payload and copies the log, at the same time: a container may do much before it has read all.
func (h *helper) attend(ctx context.Context) error {
	file, size, err := h.openStdin()
	if err != nil {
		return err
	}
	defer file.Close()
	if size == 0 { // Told before anything of the log is written: from then on another helper can go on.
		h.running()
		return h.copyLog(ctx)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var sending sync.WaitGroup
	sending.Go(func() {
		if err := h.sendStdin(ctx, file, size); err != nil {
			stop(err) // What the log still brings is of no use.
		}
	})
	err = h.copyLog(ctx)
	if why, ok := errors.AsType[*failure](context.Cause(ctx)); ok {
		err = why
	}
	stop(nil) // A container that has ended needs no more input.
	sending.Wait()
	if err != nil {
		return err
	}
	h.running() // If it had no time to say so.
	return nil
}

func (h *helper) running() {
	h.report(unit.Event{Kind: unit.Run, Detail: unit.DetailPodRunning, Size: unit.KeepSize, At: time.Now().UTC()})
}

// conclude ends the unit as err says: nil is success.
func (h *helper) conclude(ctx context.Context, err error) error {
	var e unit.Event
	var why *failure
	switch {
	case err == nil:
		e = unit.Event{Kind: unit.Succeed, Detail: unit.DetailPodFinished}
	case ctx.Err() != nil:
		if err := h.delete(); err != nil {
			complain(err)
		}
		e = unit.Event{Kind: unit.Fail, Detail: unit.DetailKilled, Outcome: unit.Because(unit.ReasonKilled)}
	case errors.As(err, &why):
		e = unit.Event{Kind: unit.Fail, Detail: why.text, Outcome: why.outcome}
	default:
		e = unit.Event{Kind: unit.Fail, Detail: err.Error(), Outcome: unit.Because(unit.ReasonPod)}
	}
	if h.exit != nil && e.Outcome.Code == nil {
		code := int(h.exit.ExitCode)
		e.Outcome.Code = &code
	}
	if err := h.out.sync(); err != nil {
		complain(err)
	}
	e.Size, e.At, e.Outcome.SHA256 = h.out.size, time.Now().UTC(), h.out.sum()
	_, err = h.dir.Update(true, func(rec *unit.Record) bool { return rec.Apply(e) })
	return err
}

// report tells of the unit in its status file; false if it has ended.
func (h *helper) report(e unit.Event) (accepted bool) {
	_, err := h.dir.Update(false, func(rec *unit.Record) bool {
		accepted = rec.Apply(e)
		return accepted
	})
	if err != nil {
		complain(err)
	}
	return accepted
}

// look asks for the pod.
func (h *helper) look(ctx context.Context) (pod *corev1.Pod, err error) {
	err = persist(ctx, askPause, func() error {
		pod, err = h.pods().Get(ctx, h.name, metav1.GetOptions{})
		return err
	})
	if err != nil {
		return nil, failed("Error getting pod %s/%s. Error: %v", h.namespace, h.name, err)
	}
	if end := workerEnd(pod); end != nil {
		h.exit = end
	}
	return pod, nil
}

// noteExit finds out how the container has ended, of a unit whose output is complete.
func (h *helper) noteExit(ctx context.Context) {
	if _, err := h.look(ctx); err != nil && ctx.Err() == nil {
		complain(err)
	}
}

// persist asks several times; what is not there does not come back.
func persist(ctx context.Context, between time.Duration, ask func() error) (err error) {
	for try := 1; ; try++ {
		if err = ask(); err == nil || try == tries || apierrors.IsNotFound(err) {
			return err
		}
		if err := pause(ctx, between); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// delete deletes the pod, if there is one; the program may have been told to end meanwhile.
func (h *helper) delete() error {
	if h.name == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), pods.DeleteLimit)
	defer cancel()
	if err := h.pods().Delete(ctx, h.name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("pod %s/%s cannot be deleted: %w", h.namespace, h.name, err)
	}
	return nil
}

// deletePod deletes the pod of a unit that somebody else attends to, or nobody.
func deletePod(unitDir string, s pods.Settings) error {
	rec, err := store.At(unitDir).Read()
	if err != nil {
		return err
	}
	h := &helper{extra: rec.Pod()}
	if h.extra == nil {
		return nil
	}
	if h.cluster, err = connect(h.extra, s); err != nil {
		return err
	}
	h.name = h.extra.PodName
	return h.delete()
}
