package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

const noKubernetes = "work type pod runs as a Kubernetes pod, and the program receptor-kubernetes is not installed on node a: put it beside receptor, or into PATH"

// podNode is a node that offers the type of work pod, on a machine without the program for that.
func podNode(t *testing.T, args ...string) *Daemon {
	t.Helper()
	t.Setenv("PATH", t.TempDir())
	d, _ := relay(t, nil, "a", append([]string{"--local-only", "--work-kubernetes", "worktype=pod", "namespace=ns"}, args...)...)
	return d
}

// wantRefusal submits with such parameters (name=value name=value), and wants that error and no unit.
func wantRefusal(t *testing.T, d *Daemon, params, want string) {
	t.Helper()
	req := workceptor.SubmitRequest{Node: "a", WorkType: "pod", Params: map[string]string{}}
	for _, param := range strings.Fields(params) {
		name, value, _ := strings.Cut(param, "=")
		req.Params[name] = value
	}
	_, err := d.Work.Submit(req)
	if err == nil || err.Error() != want {
		t.Errorf("%q: got %v, want %q", params, err, want)
	}
	if units := d.Work.List(); len(units) != 0 {
		t.Errorf("%q: units were made: %v", params, units)
	}
}

// A type of work for Kubernetes is offered with every way to make, reach and read pods, and who submits is told what is missing.
func TestF163F164F165F167F169KubernetesIsOffered(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"F163 image":      {"image=i", "command=c", "params=p"},
		"F164 definition": {"pod=" + file},
		"F165 kubeconfig": {"image=i", "authmethod=kubeconfig", "kubeconfig=" + file},
		"F167 tcp":        {"image=i", "streammethod=TCP"},
		"F169 keep":       {"image=i", "deletepodonrestart=no"},
	} {
		t.Run(name, func(t *testing.T) {
			d := podNode(t, args...)
			if types := d.Work.WorkTypes(); len(types) != 1 || types[0] != (wire.WorkCommand{WorkType: "pod"}) {
				t.Errorf("got types %v", types)
			}
			wantRefusal(t, d, "", noKubernetes)
		})
	}
}

func TestF165KubernetesRuntimeAuth(t *testing.T) {
	d := podNode(t, "image=i", "authmethod=runtime", "allowruntimeauth=yes")
	wantRefusal(t, d, "", "param secret_kube_config must be provided if AuthMethod=runtime")
	wantRefusal(t, d, "secret_kube_config=", "param secret_kube_config must be provided if AuthMethod=runtime")
	wantRefusal(t, d, "secret_kube_config=x kube_namespace=n", noKubernetes)
}

func TestF166KubernetesRuntimePermissions(t *testing.T) {
	none := podNode(t, "image=i")
	for _, tc := range []struct{ permission, names string }{
		{"allowruntimecommand", "kube_image kube_command"},
		{"allowruntimeparams", "kube_params pod_pending_timeout"},
		{"allowruntimeauth", "kube_namespace secret_kube_config"},
		{"allowruntimepod", "secret_kube_pod"},
	} {
		one := podNode(t, "image=i", tc.permission+"=yes")
		for _, name := range strings.Fields(tc.names) {
			wantRefusal(t, none, name+"=1s", name+" provided but not allowed")
			wantRefusal(t, none, name+"=", noKubernetes) // Counts as none.
			wantRefusal(t, one, name+"=1s", noKubernetes)
		}
	}
	all := podNode(t, "image=i", "allowruntimecommand=yes", "allowruntimeparams=yes", "allowruntimepod=yes")
	for _, name := range []string{"kube_command", "kube_image", "kube_params"} {
		wantRefusal(t, all, "secret_kube_pod=x "+name+"=y", "params kube_command, kube_image, kube_params not compatible with secret_kube_pod")
	}
}

func TestF168KubernetesPendingTimeout(t *testing.T) {
	d := podNode(t, "image=i", "allowruntimeparams=yes")
	wantRefusal(t, d, "pod_pending_timeout=10", `time: missing unit in duration "10"`)
	wantRefusal(t, d, "pod_pending_timeout=soon", `time: invalid duration "soon"`)
	wantRefusal(t, d, "pod_pending_timeout=1h20m30s", noKubernetes)
}

// What is configured of clusters, by parameters or the environment, reaches the program, and secrets do not reach its arguments.
func TestF170F171KubernetesClientSettings(t *testing.T) {
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "receptor-kubernetes"), []byte("#!/bin/sh\nprintf '%s\\n' \"$@\" >\"$2/arguments\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	environ := []string{"RECEPTOR_KUBE_SUPPORT_RECONNECT=disabled", "RECEPTOR_KUBE_CLIENTSET_QPS=5", "RECEPTOR_KUBE_CLIENTSET_BURST=7", "RECEPTOR_KUBE_CLIENTSET_RATE_LIMITER=never"}
	for want, args := range map[string][]string{
		`{"worktype":"pod","auth":"runtime","stream":"logger","reconnect":"disabled","qps":"5","burst":"7","ratelimiter":"never"}`: nil,
		`{"worktype":"pod","auth":"runtime","stream":"logger","reconnect":"auto","qps":"50","burst":"70","ratelimiter":"tokenbucket"}`: {
			"receptorkubesupportreconnect=auto", "receptorkubeclientsetqps=50", "receptorkubeclientsetburst=70", "receptorkubeclientsetratelimiter=tokenbucket",
		},
	} {
		data := t.TempDir()
		node := append([]string{"--node", "id=a", "datadir=" + data}, args...)
		d, err := Build(t.Context(), parse(t, append(node, "--local-only", "--work-kubernetes", "worktype=pod", "image=i", "authmethod=runtime", "allowruntimeauth=yes")...),
			Options{Stdout: newOutput(), Environ: environ})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = d.Close() })
		s, err := d.Work.Submit(workceptor.SubmitRequest{Node: "a", WorkType: "pod", Params: map[string]string{"secret_kube_config": "very secret"}})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.ReadPayload(strings.NewReader("")); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if status, err := d.Work.Wait(t.Context(), s.ID()); err != nil || status.State != workceptor.Failed { // It has not done its work.
			t.Errorf("got %v %q, %v", status.State, status.Detail, err)
		}
		unit := filepath.Join(data, "a", string(s.ID()))
		got, err := os.ReadFile(filepath.Join(unit, "arguments"))
		if text := "run\n" + unit + "\n" + want + "\n"; err != nil || string(got) != text {
			t.Errorf("got %q, %v, want %q", got, err, text)
		}
	}
}

func TestF172KubernetesFiles(t *testing.T) {
	absent := filepath.Join(t.TempDir(), "absent")
	cfg := parse(t, "--node", "id=a", "datadir="+t.TempDir(), "--local-only", "--work-kubernetes", "worktype=pod", "image=i", "authmethod=kubeconfig", "kubeconfig="+absent)
	d, err := Build(t.Context(), cfg, Options{Stdout: newOutput(), Environ: []string{}})
	if err == nil {
		_ = d.Close()
	}
	if want := "error accessing kubeconfig file: stat " + absent; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}
