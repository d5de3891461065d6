package workceptor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pyreceptor/pyreceptor/go/files"
	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor/pods"
	"github.com/pyreceptor/pyreceptor/go/workceptor/proc"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// maxKubeFile is the largest definition of a pod or kubeconfig, in bytes; a cluster takes no objects of that size.
const maxKubeFile = 2 << 20

// KubernetesType is a work type whose units run as pods of a Kubernetes cluster: the "work-kubernetes" of a configuration. A process
// of the program receptor-kubernetes (package pods) attends to each of them.
type KubernetesType struct {
	pods.Settings       // WorkType, Auth and Stream are required.
	Namespace           string
	Image, Command      string
	Params              string
	KubeConfig, Pod     string // Files that are read at each submission.
	AllowRuntimeAuth    bool   // Parameters secret_kube_config and kube_namespace.
	AllowRuntimeCommand bool   // kube_image and kube_command.
	AllowRuntimeParams  bool   // kube_params and pod_pending_timeout.
	AllowRuntimePod     bool   // secret_kube_pod.
	KeepPodOnRestart    bool   // A pod whose unit cannot go on after a restart of the node is left in the cluster.
	Helper              string // The program; "" is the one beside Config.Runner, or the one in PATH.
	VerifySignature     bool
	MaxRunning          int
}

// RegisterKubernetes adds a work type. Types that are registered after [Engine.Start] do not take up units found on disk.
func (e *Engine) RegisterKubernetes(t KubernetesType) error {
	if t.WorkType == "" || t.Auth == "" || t.Stream == "" {
		return fmt.Errorf("work type %q: a name, a way to the cluster and a stream method are required", t.WorkType)
	}
	if t.Helper == "" {
		t.Helper = proc.Beside(e.cfg.Runner, pods.Program)
	}
	return e.register(workType{
		name: t.WorkType, verify: t.VerifySignature, limit: t.MaxRunning, pods: &t,
		argv: func(_, unitDir string) []string { return t.argv(pods.Run, unitDir) },
	})
}

func (t *KubernetesType) argv(verb pods.Verb, unitDir string) []string {
	return append([]string{t.Helper}, t.Arguments(verb, unitDir)...)
}

// plan returns what a unit with these parameters is made of.
func (t *KubernetesType) plan(node wire.NodeID, params map[string]string) (*unit.PodExtra, error) {
	if err := t.check(params); err != nil {
		return nil, err
	}
	if _, err := exec.LookPath(t.Helper); err != nil {
		return nil, fmt.Errorf("work type %s runs as a Kubernetes pod, and the program %s is not installed on node %s: put it beside receptor, or into PATH",
			t.WorkType, pods.Program, node)
	}
	x := &unit.PodExtra{
		Image: t.Image, Command: t.Command, Params: t.Params, KubeNamespace: t.Namespace, PendingTimeout: params["pod_pending_timeout"],
		ForeignConfig: params["secret_kube_config"] != "",
	}
	for _, file := range []struct {
		what, path string
		content    *string
	}{{"pod", t.Pod, &x.KubePod}, {"kubeconfig", t.KubeConfig, &x.KubeConfig}} {
		if file.path == "" {
			continue
		}
		text, _, err := files.Read(file.path, maxKubeFile)
		if err != nil {
			return nil, fmt.Errorf("could not read %s: %w", file.what, err)
		}
		*file.content = string(text)
	}
	for name, field := range map[string]*string{
		"kube_image": &x.Image, "kube_command": &x.Command, "kube_namespace": &x.KubeNamespace, "secret_kube_config": &x.KubeConfig,
	} {
		if value := params[name]; value != "" {
			*field = value
		}
	}
	x.Params = strings.TrimSpace(x.Params + " " + params["kube_params"])
	if pod := params["secret_kube_pod"]; pod != "" {
		x.KubePod, x.Image, x.Command, x.Params = pod, "", "", ""
	}
	return x, nil
}

// check refuses parameters that are not allowed, that miss or contradict each other, in the words of existing nodes. An
// empty one counts as none.
func (t *KubernetesType) check(params map[string]string) error {
	for _, group := range []struct {
		allowed bool
		names   []string
	}{
		{t.AllowRuntimeCommand, []string{"kube_command", "kube_image"}},
		{t.AllowRuntimeParams, []string{"kube_params", "pod_pending_timeout"}},
		{t.AllowRuntimeAuth, []string{"kube_namespace", "secret_kube_config"}},
		{t.AllowRuntimePod, []string{"secret_kube_pod"}},
	} {
		if group.allowed {
			continue
		}
		if i := slices.IndexFunc(group.names, func(name string) bool { return params[name] != "" }); i >= 0 {
			return fmt.Errorf("%s provided but not allowed", group.names[i])
		}
	}
	if t.Auth == pods.Runtime && params["secret_kube_config"] == "" {
		return errors.New("param secret_kube_config must be provided if AuthMethod=runtime")
	}
	if params["secret_kube_pod"] != "" && (params["kube_command"] != "" || params["kube_image"] != "" || params["kube_params"] != "") {
		return errors.New("params kube_command, kube_image, kube_params not compatible with secret_kube_pod")
	}
	if limit := params["pod_pending_timeout"]; limit != "" {
		_, err := time.ParseDuration(limit)
		return err
	}
	return nil
}

// maxHelpers is how many helpers in a row may die before a unit whose pod runs is given up.
const maxHelpers = 3

// pods is the work type of a unit that runs as a pod, the one that it had last if it was taken back; nil for other units, and if the
// type was not offered since the start of the engine.
func (w *commandWorker) pods() *KubernetesType {
	rec := w.j.look().rec
	if rec.Pod() == nil {
		return nil
	}
	if t, _ := w.j.e.workType(rec.WorkType); t.pods != nil {
		w.podType.Store(t.pods)
	}
	return w.podType.Load()
}

// podGoesOn starts another helper for a unit whose pod runs although its helper has ended; false if there is nothing to go on with.
func (w *commandWorker) podGoesOn() bool {
	t := w.pods()
	if t == nil {
		return false
	}
	w.j.reload()
	if rec := w.j.look().rec; t.Stream != pods.Logger || rec.State != Running || w.j.wasCancelled() || w.helpers >= maxHelpers || !w.j.dir.Exists() {
		return false
	}
	w.helpers++
	w.mu.Lock()
	w.over, w.runner, w.found = false, nil, false
	w.mu.Unlock()
	pid, err := w.spawnProcess(t.argv(pods.Resume, w.j.dir.Path()), w.j.e.cfg.Environ)
	if err != nil {
		w.j.e.log.Error("pod cannot be attended to", "unit", w.j.id, "err", err)
		return false
	}
	w.follow(pid)
	return true
}

// resumePod settles a unit that was found on disk and whose helper is no more, or goes on with it.
func (w *commandWorker) resumePod(t *KubernetesType) {
	w.j.e.gate.occupy(w.j, t.WorkType)
	if w.podGoesOn() {
		w.j.outputChanged()
		return
	}
	rec := w.j.look().rec
	switch {
	case rec.State == Running && t.Stream == pods.TCP:
		w.j.abandon(unit.DetailPodNoRestart, unit.ReasonRestart)
	case rec.State == Running:
		w.j.abandon(unit.DetailRunnerDied, unit.ReasonRunnerDied)
	default:
		w.j.abandon(unit.DetailPodNotRunning, unit.ReasonRestart)
	}
	if !t.KeepPodOnRestart {
		w.deletePod()
	}
	w.j.e.gate.leave(w.j)
	w.j.e.watch.remove(w.j)
	w.finish()
}

// deletePod has the cluster delete the pod of a unit, in the background. ended is closed when that is done, or cannot be done, which
// the log tells; it is nil if there is no pod.
func (w *commandWorker) deletePod() (ended <-chan struct{}) {
	t, rec := w.pods(), w.j.look().rec
	if t == nil || rec.Pod().PodName == "" {
		return nil
	}
	done := make(chan struct{})
	begun := w.j.e.begin(func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(w.j.e.ctx, pods.DeleteLimit+treeGrace)
		defer cancel()
		argv := t.argv(pods.Delete, w.j.dir.Path())
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		var said bytes.Buffer
		cmd.Env, cmd.Stderr, cmd.SysProcAttr = w.j.e.cfg.Environ, &said, &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Run(); err != nil {
			w.j.e.log.Warn("pod cannot be deleted and may be left in the cluster", "unit", w.j.id, "pod", rec.Pod().PodName,
				"namespace", rec.Pod().KubeNamespace, "err", err, "said", strings.TrimSpace(said.String()))
		}
	})
	if !begun {
		return nil
	}
	return done
}
