package workceptor

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/workceptor/pods"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// TestF166WhatAPodIsMadeOf: what is configured, what the submitter may add to it, and the files as they are at the submission.
func TestF166WhatAPodIsMadeOf(t *testing.T) {
	config, pod := filepath.Join(t.TempDir(), "config"), filepath.Join(t.TempDir(), "pod")
	for _, file := range []string{config, pod} {
		if err := os.WriteFile(file, []byte(filepath.Base(file)+" of the node"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	image := KubernetesType{Image: "img:1", Command: "sh -c", Params: "a", Namespace: "ns", KubeConfig: config}
	open := image
	open.AllowRuntimeAuth, open.AllowRuntimeCommand, open.AllowRuntimeParams, open.AllowRuntimePod = true, true, true, true
	for name, tc := range map[string]struct {
		of     KubernetesType
		params map[string]string
		want   unit.PodExtra
	}{
		"configured": {image, nil, unit.PodExtra{Image: "img:1", Command: "sh -c", Params: "a", KubeNamespace: "ns", KubeConfig: "config of the node"}},
		"definition": {KubernetesType{Pod: pod, Namespace: "ns"}, nil, unit.PodExtra{KubePod: "pod of the node", KubeNamespace: "ns"}},
		"submitted": {open, map[string]string{
			"kube_image": "other:9", "kube_command": "bash", "kube_params": "b c", "kube_namespace": "mine", "secret_kube_config": "theirs", "pod_pending_timeout": "5m",
		}, unit.PodExtra{
			Image: "other:9", Command: "bash", Params: "a b c", KubeNamespace: "mine", KubeConfig: "theirs", ForeignConfig: true, PendingTimeout: "5m",
		}},
		"submitted definition": {open, map[string]string{"secret_kube_pod": "spec"}, unit.PodExtra{KubePod: "spec", KubeNamespace: "ns", KubeConfig: "config of the node"}},
		"empty values":         {image, map[string]string{"kube_image": "", "secret_kube_pod": ""}, unit.PodExtra{Image: "img:1", Command: "sh -c", Params: "a", KubeNamespace: "ns", KubeConfig: "config of the node"}},
	} {
		t.Run(name, func(t *testing.T) {
			tc.of.Helper = "/bin/true"
			got, err := tc.of.plan("a", tc.params)
			if err != nil {
				t.Fatal(err)
			}
			text := func(x *unit.PodExtra) string { return string(unit.Record{Extra: x}.Append(nil)) }
			if text(got) != text(&tc.want) {
				t.Errorf("got %s, want %s", text(got), text(&tc.want))
			}
		})
	}
	for want, of := range map[string]KubernetesType{
		"could not read pod: open /absent":                           {Pod: "/absent", Helper: "/bin/true"},
		"could not read kubeconfig: open /absent":                    {Image: "i", KubeConfig: "/absent", Helper: "/bin/true"},
		"the program receptor-kubernetes is not installed on node a": {Image: "i", Helper: "/absent"},
	} {
		if _, err := of.plan("a", nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestF166KubernetesTypesNeedAWay(t *testing.T) {
	e := openEngine(t, t.TempDir(), noMesh{"a"})
	if err := e.RegisterKubernetes(KubernetesType{Settings: pods.Settings{WorkType: "pod"}}); err == nil || !strings.Contains(err.Error(), `work type "pod": a name, a way to the cluster`) {
		t.Errorf("got %v", err)
	}
}

// TestPodTypeTakenBackMeanwhile: a unit whose type was taken back while it was made is refused, and leaves nothing.
func TestPodTypeTakenBackMeanwhile(t *testing.T) {
	e := localEngine(t)
	if _, err := e.create(unit.Record{WorkType: "pod", Extra: &unit.PodExtra{}}, nil); !errors.Is(err, ErrUnknownType) {
		t.Errorf("got %v, want ErrUnknownType", err)
	}
	if found := left(t, e); len(found) != 0 || len(e.List()) != 0 {
		t.Errorf("left: %v, %v", found, e.List())
	}
}
