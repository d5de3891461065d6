package daemon

import (
	"cmp"
	"fmt"
	"io"
	"os"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
	"github.com/pyreceptor/pyreceptor/go/workceptor/pods"
)

// workKubernetes offers a type of work that runs in a cluster.
func (d *Daemon) workKubernetes(s config.WorkKubernetes) (io.Closer, error) {
	if err := kubeConfigFile(s); err != nil {
		return nil, err
	}
	node := d.target.Node()
	return d.workType(s.WorkType, d.Work.RegisterKubernetes(workceptor.KubernetesType{
		Settings: pods.Settings{
			WorkType: s.WorkType, Auth: s.AuthMethod, Stream: s.StreamMethod,
			Reconnect:   d.kubeSetting(node.KubeSupportReconnect, "SUPPORT_RECONNECT"),
			QPS:         d.kubeSetting(node.KubeQPS, "CLIENTSET_QPS"),
			Burst:       d.kubeSetting(node.KubeBurst, "CLIENTSET_BURST"),
			RateLimiter: d.kubeSetting(node.KubeRateLimiter, "CLIENTSET_RATE_LIMITER"),
		},
		Namespace: s.Namespace, Image: s.Image, Command: s.Command, Params: s.Params, KubeConfig: s.KubeConfig, Pod: s.Pod,
		AllowRuntimeAuth: s.AllowRuntimeAuth, AllowRuntimeCommand: s.AllowRuntimeCommand, AllowRuntimeParams: s.AllowRuntimeParams,
		AllowRuntimePod: s.AllowRuntimePod, KeepPodOnRestart: !s.DeletePodOnRestart, VerifySignature: s.VerifySignature, MaxRunning: s.MaxRunning,
	}))
}

// kubeSetting is what is configured of clusters, or what the environment says.
func (d *Daemon) kubeSetting(configured, name string) string {
	return cmp.Or(configured, LookupEnv(d.environ, "RECEPTOR_KUBE_"+name))
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
