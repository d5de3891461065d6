package daemon

import (
	"strings"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// A type of work for Kubernetes is advertised, and who submits it is told what is missing.
func TestWorkKubernetesWithoutItsHelper(t *testing.T) {
	d, _ := relay(t, nil, "a", "--local-only", "--work-kubernetes", "worktype=pod", "namespace=ns", "image=i", "allowruntimeparams=yes")
	if types := d.Work.WorkTypes(); len(types) != 1 || types[0].WorkType != "pod" {
		t.Errorf("got types %v", types)
	}
	for params, want := range map[string]string{
		"kube_params":     "work type pod runs as a Kubernetes pod, and the helper receptor-kubernetes is not installed on node a",
		"kube_image":      "kube_image provided but not allowed",
		"secret_kube_pod": "secret_kube_pod provided but not allowed",
	} {
		_, err := d.Work.Submit(workceptor.SubmitRequest{Node: "a", WorkType: "pod", Params: map[string]string{params: "x"}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", params, err, want)
		}
	}
	if units := d.Work.List(); len(units) != 0 {
		t.Errorf("units were made: %v", units)
	}
}
