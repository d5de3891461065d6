package daemon

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// kubernetesHelper is the program that runs units as pods. It is installed on its own.
const kubernetesHelper = "receptor-kubernetes"

// workKubernetes offers a type of work that runs in a cluster. It is known, advertised and its parameters are checked; what
// is submitted is refused, since the program that could run it is not part of this one.
func (d *Daemon) workKubernetes(s config.WorkKubernetes) (io.Closer, error) {
	missing := fmt.Errorf("work type %s runs as a Kubernetes pod, and the helper %s is not installed on node %s", s.WorkType, kubernetesHelper, d.Node.ID())
	return d.workType(s.WorkType, d.Work.RegisterFunction(workceptor.FunctionType{
		WorkType: s.WorkType, VerifySignature: s.VerifySignature,
		Check: func(params map[string]string) error {
			if err := kubernetesParams(s, params); err != nil {
				return err
			}
			return missing
		},
		Handler: workceptor.HandlerFunc(func(context.Context, *workceptor.Work) error { return missing }), // For units of another time.
	}))
}

// kubernetesParams refuses run-time parameters that the directive does not allow, in the words of existing nodes.
func kubernetesParams(s config.WorkKubernetes, params map[string]string) error {
	for _, group := range []struct {
		allowed bool
		names   []string
	}{
		{s.AllowRuntimeCommand, []string{"kube_command", "kube_image"}},
		{s.AllowRuntimeParams, []string{"kube_params", "pod_pending_timeout"}},
		{s.AllowRuntimeAuth, []string{"kube_namespace", "secret_kube_config"}},
		{s.AllowRuntimePod, []string{"secret_kube_pod"}},
	} {
		if group.allowed {
			continue
		}
		if i := slices.IndexFunc(group.names, func(name string) bool { return params[name] != "" }); i >= 0 {
			return fmt.Errorf("%s provided but not allowed", group.names[i])
		}
	}
	return nil
}
