package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
	"github.com/pyreceptor/pyreceptor/go/workceptor/pods"
	"github.com/pyreceptor/pyreceptor/go/workceptor/store"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// alone is a node without a mesh.
type alone struct{}

func (alone) ID() wire.NodeID { return "kub" }
func (alone) DialStream(context.Context, wire.NodeID, string, string) (workceptor.Stream, error) {
	return nil, errors.New("no route to node")
}
func (alone) WaitRoute(ctx context.Context, _ wire.NodeID) error { <-ctx.Done(); return ctx.Err() }

// engine is a node's engine on a data directory, with the work type Kube.
func engine(t *testing.T, dir string, kube workceptor.KubernetesType) *workceptor.Engine {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	e, err := workceptor.New(workceptor.Config{
		Mesh: alone{}, DataDir: dir, Runner: "/bin/false", Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	kube.Helper = program
	kube.WorkType, kube.Auth = "Kube", pods.Runtime
	if kube.Stream == "" {
		kube.Stream = pods.Logger
	}
	kube.Image, kube.AllowRuntimeAuth, kube.AllowRuntimeParams = "img:1", true, true
	if err := e.RegisterKubernetes(kube); err != nil {
		t.Fatal(err)
	}
	if err := e.Start(); err != nil {
		t.Fatal(err)
	}
	return e
}

func submit(t *testing.T, e *workceptor.Engine, a *apiServer, payload string) unit.ID {
	t.Helper()
	s, err := e.Submit(workceptor.SubmitRequest{Node: "kub", WorkType: "Kube", Params: map[string]string{"secret_kube_config": a.kubeconfig()}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ReadPayload(strings.NewReader(payload)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s.ID()
}

func results(t *testing.T, e *workceptor.Engine, id unit.ID) string {
	t.Helper()
	r, err := e.Results(t.Context(), id, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// gone waits for the end of the pod.
func gone(t *testing.T, a *apiServer) {
	t.Helper()
	select {
	case <-a.deleted:
	case <-time.After(20 * time.Second):
		t.Error("the pod was not deleted")
	}
}

func wantEnd(t *testing.T, e *workceptor.Engine, id unit.ID, state unit.State, detail string) {
	t.Helper()
	s, err := e.Wait(t.Context(), id)
	if err != nil || s.State != state || s.Detail != detail {
		t.Errorf("got %v %q, %v, want %v %q", s.State, s.Detail, err, state, detail)
	}
}

// A unit of a node goes through its life, shows no secrets, and takes its pod with it when it is released.
func TestF163UnitOfANode(t *testing.T) {
	a := newAPIServer(t)
	a.log = []func(*logWriter){helloLog(a)}
	e := engine(t, t.TempDir(), workceptor.KubernetesType{})
	id := submit(t, e, a, "")
	if got := results(t, e, id); got != hello {
		t.Errorf("got %q", got)
	}
	wantEnd(t, e, id, unit.Succeeded, "Finished")
	s, err := e.Status(id)
	if text, _ := s.MarshalJSON(); err != nil || strings.Contains(string(text), "sometoken") || !strings.Contains(string(text), `"PodName":"kube-abc12"`) {
		t.Errorf("got %s, %v", text, err)
	}
	if _, err := e.Release(t.Context(), id, false); err != nil {
		t.Error(err)
	}
	gone(t, a)
}

// A unit takes its pod with it also when its type was taken back.
func TestTypeThatWasTakenBack(t *testing.T) {
	a := newAPIServer(t)
	a.log = []func(*logWriter){helloLog(a)}
	data := t.TempDir()
	e := engine(t, data, workceptor.KubernetesType{})
	id := submit(t, e, a, "")
	wantEnd(t, e, id, unit.Succeeded, "Finished")
	e.Close()
	e = engine(t, data, workceptor.KubernetesType{})
	e.Unregister("Kube")
	if _, err := e.Release(t.Context(), id, false); err != nil {
		t.Error(err)
	}
	gone(t, a)
}

func TestF167PayloadOfANode(t *testing.T) {
	a := newAPIServer(t)
	got := make(chan string, 1)
	a.attach = func(stdin io.Reader) {
		text, _ := io.ReadAll(stdin)
		got <- string(text)
	}
	a.log = []func(*logWriter){func(w *logWriter) {
		w.line(stamped(0, "got "+<-got+"\n"))
		a.change(exited(0, ""))
	}}
	e := engine(t, t.TempDir(), workceptor.KubernetesType{})
	if got := results(t, e, submit(t, e, a, "some input")); got != "got some input\n" {
		t.Errorf("got %q", got)
	}
}

func TestCancelDeletesThePod(t *testing.T) {
	a := newAPIServer(t)
	a.log = []func(*logWriter){func(w *logWriter) {
		w.line(stamped(0, "x\n"))
		<-w.request.Context().Done()
	}}
	e := engine(t, t.TempDir(), workceptor.KubernetesType{})
	id := submit(t, e, a, "")
	begunWith(t, e, id, "x\n")
	if pending, err := e.Cancel(t.Context(), id); pending || err != nil {
		t.Errorf("got %v, %v", pending, err)
	}
	wantEnd(t, e, id, unit.Canceled, "Canceled")
	gone(t, a)
}

// helperOf is the process that attends to the unit.
func helperOf(t *testing.T, dir *store.Dir) *os.Process {
	t.Helper()
	info, err := dir.RunnerInfo()
	if err != nil || info.Runner == 0 {
		t.Fatalf("got %+v, %v", info, err)
	}
	p, err := os.FindProcess(info.Runner)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func unitDir(t *testing.T, data string, id unit.ID) *store.Dir {
	t.Helper()
	root, err := store.Open(data, "kub")
	if err != nil {
		t.Fatal(err)
	}
	return root.Dir(id)
}

const begun = "hello from pod\nsec" // What the first log of brokenLog has.

// brokenLog has a log that breaks off in the middle of a line when it may go on, and then all of it.
func brokenLog(a *apiServer, goOn <-chan struct{}) []func(*logWriter) {
	return []func(*logWriter){
		func(w *logWriter) {
			w.line(stamped(0, "hello from pod\n") + stamped(1, "sec"))
			select {
			case <-goOn:
				w.abort()
			case <-w.request.Context().Done():
			}
		},
		helloLog(a), helloLog(a),
	}
}

// begunWith waits until so much of the output is there.
func begunWith(t *testing.T, e *workceptor.Engine, id unit.ID, text string) {
	t.Helper()
	r, err := e.Results(t.Context(), id, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != text {
		t.Fatalf("got %q, %v, want %q", got, err, text)
	}
}

// The pod does not end with the process that attends to it, and no byte is lost or doubled.
func TestF170HelperIsKilled(t *testing.T) {
	a, data := newAPIServer(t), t.TempDir()
	a.log = brokenLog(a, nil)
	e := engine(t, data, workceptor.KubernetesType{})
	id := submit(t, e, a, "")
	begunWith(t, e, id, begun)
	if err := helperOf(t, unitDir(t, data, id)).Kill(); err != nil {
		t.Fatal(err)
	}
	if got := results(t, e, id); got != hello {
		t.Errorf("got %q", got)
	}
	wantEnd(t, e, id, unit.Succeeded, "Finished")
}

// A node that is started again takes up what runs, with the process that has it or, if that is gone, a new one.
func TestF170NodeIsStartedAgain(t *testing.T) {
	for name, kill := range map[string]bool{"helper goes on": false, "helper is gone": true} {
		t.Run(name, func(t *testing.T) {
			a, data, goOn := newAPIServer(t), t.TempDir(), make(chan struct{})
			a.log = brokenLog(a, goOn)
			e := engine(t, data, workceptor.KubernetesType{})
			id := submit(t, e, a, "")
			begunWith(t, e, id, begun)
			helper := helperOf(t, unitDir(t, data, id))
			e.Close()
			if kill {
				if err := helper.Kill(); err != nil {
					t.Fatal(err)
				}
				_, _ = helper.Wait()
			}
			e = engine(t, data, workceptor.KubernetesType{})
			close(goOn)
			if got := results(t, e, id); got != hello {
				t.Errorf("got %q", got)
			}
			wantEnd(t, e, id, unit.Succeeded, "Finished")
		})
	}
}

// Units that cannot go on after a restart fail in the words of existing nodes, and their pods are deleted unless that is not wanted.
func TestF169RestartDeletesPods(t *testing.T) {
	for name, tc := range map[string]struct {
		state  unit.State
		stream string
		keep   bool
		detail string
	}{
		"pending":      {unit.Pending, pods.Logger, false, unit.DetailPodNotRunning},
		"pending kept": {unit.Pending, pods.Logger, true, unit.DetailPodNotRunning},
		"tcp":          {unit.Running, pods.TCP, false, unit.DetailPodNoRestart},
	} {
		t.Run(name, func(t *testing.T) {
			a, data := newAPIServer(t), t.TempDir()
			a.pod = &corev1.Pod{}
			a.pod.Name = "kube-abc12"
			root, err := store.Open(data, "kub")
			if err != nil {
				t.Fatal(err)
			}
			id, _, file, err := root.Create(unit.Record{
				State: tc.state, Detail: unit.DetailPodCreated, WorkType: "Kube",
				Extra: &unit.PodExtra{Image: "i", KubeNamespace: "ctxns", KubeConfig: a.kubeconfig(), PodName: "kube-abc12"},
			}, func(unit.ID) bool { return false })
			if err != nil {
				t.Fatal(err)
			}
			file.Close()
			root.Close()
			e := engine(t, data, workceptor.KubernetesType{Settings: pods.Settings{Stream: tc.stream}, KeepPodOnRestart: tc.keep})
			wantEnd(t, e, id, unit.Failed, tc.detail)
			if tc.keep {
				e.Close() // Waits for what it has begun.
				if a.count("DELETE ctxns/pods/kube-abc12") != 0 {
					t.Error("the pod was deleted")
				}
				return
			}
			gone(t, a)
		})
	}
}

// A cluster that cannot be reached does not keep a unit from being released.
func TestReleaseWithoutTheCluster(t *testing.T) {
	a := newAPIServer(t)
	a.log = []func(*logWriter){helloLog(a)}
	a.refuse["DELETE pod"] = "not now"
	e := engine(t, t.TempDir(), workceptor.KubernetesType{})
	id := submit(t, e, a, "")
	wantEnd(t, e, id, unit.Succeeded, "Finished")
	if _, err := e.Release(t.Context(), id, false); err != nil {
		t.Error(err)
	}
	if _, err := e.Status(id); err == nil {
		t.Error("the unit is there")
	}
}
