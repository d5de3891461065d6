package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// kubernetesHelper is the program that runs units as pods. It is installed on its own.
const kubernetesHelper = "receptor-kubernetes"

// workKubernetes offers a type of work that runs in a cluster. It is known, advertised and its parameters are checked; what
// is submitted is refused, since the program that could run it is not part of this one.
func (d *Daemon) workKubernetes(s config.WorkKubernetes) (io.Closer, error) {
	if err := kubeConfigFile(s); err != nil {
		return nil, err
	}
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

// kubeConfigFile reports that the file with the access to the cluster is not there, in the words of existing nodes.
func kubeConfigFile(s config.WorkKubernetes) error {
	if s.KubeConfig == "" {
		return nil
	}
	if _, err := os.Stat(s.KubeConfig); err != nil {
		return fmt.Errorf("error accessing kubeconfig file: %w", err)
	}
	return nil
}

// kubernetesParams refuses run-time parameters that the directive does not allow, that miss or contradict each other, in
// the words of existing nodes. An empty one counts as none.
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
	if s.AuthMethod == "runtime" && params["secret_kube_config"] == "" {
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
