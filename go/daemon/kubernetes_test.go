package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

const noKubernetes = "work type pod runs as a Kubernetes pod, and the helper receptor-kubernetes is not installed on node a"

// pods is a node that offers the type of work pod.
func pods(t *testing.T, args ...string) *Daemon {
	t.Helper()
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
			d := pods(t, args...)
			if types := d.Work.WorkTypes(); len(types) != 1 || types[0] != (wire.WorkCommand{WorkType: "pod"}) {
				t.Errorf("got types %v", types)
			}
			wantRefusal(t, d, "", noKubernetes)
		})
	}
}

func TestF165KubernetesRuntimeAuth(t *testing.T) {
	d := pods(t, "image=i", "authmethod=runtime", "allowruntimeauth=yes")
	wantRefusal(t, d, "", "param secret_kube_config must be provided if AuthMethod=runtime")
	wantRefusal(t, d, "secret_kube_config=", "param secret_kube_config must be provided if AuthMethod=runtime")
	wantRefusal(t, d, "secret_kube_config=x kube_namespace=n", noKubernetes)
}

func TestF166KubernetesRuntimePermissions(t *testing.T) {
	none := pods(t, "image=i")
	for _, tc := range []struct{ permission, names string }{
		{"allowruntimecommand", "kube_image kube_command"},
		{"allowruntimeparams", "kube_params pod_pending_timeout"},
		{"allowruntimeauth", "kube_namespace secret_kube_config"},
		{"allowruntimepod", "secret_kube_pod"},
	} {
		one := pods(t, "image=i", tc.permission+"=yes")
		for _, name := range strings.Fields(tc.names) {
			wantRefusal(t, none, name+"=1s", name+" provided but not allowed")
			wantRefusal(t, none, name+"=", noKubernetes) // Counts as none.
			wantRefusal(t, one, name+"=1s", noKubernetes)
		}
	}
	all := pods(t, "image=i", "allowruntimecommand=yes", "allowruntimeparams=yes", "allowruntimepod=yes")
	for _, name := range []string{"kube_command", "kube_image", "kube_params"} {
		wantRefusal(t, all, "secret_kube_pod=x "+name+"=y", "params kube_command, kube_image, kube_params not compatible with secret_kube_pod")
	}
}

func TestF168KubernetesPendingTimeout(t *testing.T) {
	d := pods(t, "image=i", "allowruntimeparams=yes")
	wantRefusal(t, d, "pod_pending_timeout=10", `time: missing unit in duration "10"`)
	wantRefusal(t, d, "pod_pending_timeout=soon", `time: invalid duration "soon"`)
	wantRefusal(t, d, "pod_pending_timeout=1h20m30s", noKubernetes)
}

// What is configured of clusters has no effect, and keeps no node from starting.
func TestF170F171KubernetesClientSettings(t *testing.T) {
	for _, setting := range []string{"supportreconnect=disabled", "clientsetqps=5", "clientsetburst=7", "clientsetratelimiter=never"} {
		d, err := Build(t.Context(), parse(t, "--node", "id=a", "datadir="+t.TempDir(), "receptorkube"+setting, "--local-only",
			"--work-kubernetes", "worktype=pod", "namespace=ns", "image=i"), Options{Stdout: newOutput(), Environ: []string{}})
		if err != nil {
			t.Errorf("%s: %v", setting, err)
			continue
		}
		wantRefusal(t, d, "", noKubernetes)
		if err := d.Close(); err != nil {
			t.Error(err)
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
