package config

import "strings"

// WorkKubernetes is a type of work that runs as a pod.
type WorkKubernetes struct {
	WorkType            string
	Namespace           string
	Image               string
	Command             string
	Params              string
	AuthMethod          string // incluster, kubeconfig or runtime.
	KubeConfig          string // File; empty: the usual places.
	Pod                 string // File with a pod definition, in place of Image, Command and Params.
	AllowRuntimeAuth    bool
	AllowRuntimeCommand bool
	AllowRuntimeParams  bool
	AllowRuntimePod     bool
	DeletePodOnRestart  bool
	StreamMethod        string // logger or tcp.
	VerifySignature     bool
	MaxRunning          int // Units that run at once; 0 is any number.
}

// kubernetesDirectives are the types of work that run in a cluster.
func kubernetesDirectives() []*directive {
	return []*directive{
		of(directive{name: "work-kubernetes", help: "Offer a type of work that runs as a Kubernetes pod, by the program receptor-kubernetes", group: workers, plural: "work-kubernetes"},
			WorkKubernetes{AuthMethod: "incluster", StreamMethod: "logger", DeletePodOnRestart: true}, checkWorkKubernetes,
			text("worktype", "Name of the type of work", func(k *WorkKubernetes) *string { return &k.WorkType }).need().names(),
			text("namespace", "Namespace of the pods", func(k *WorkKubernetes) *string { return &k.Namespace }),
			text("image", "Container image of the pods", func(k *WorkKubernetes) *string { return &k.Image }),
			text("command", "Command to run in the container", func(k *WorkKubernetes) *string { return &k.Command }),
			text("params", "Parameters of the command", func(k *WorkKubernetes) *string { return &k.Params }),
			text("authmethod", "Where the access to the cluster comes from: incluster, kubeconfig or runtime", func(k *WorkKubernetes) *string { return &k.AuthMethod }).among("incluster", "kubeconfig", "runtime"),
			text("kubeconfig", "File with the access to the cluster, with authmethod=kubeconfig", func(k *WorkKubernetes) *string { return &k.KubeConfig }),
			text("pod", "File with a pod definition whose container is named worker", func(k *WorkKubernetes) *string { return &k.Pod }),
			boolean("allowruntimeauth", "Let the submitter give the access and the namespace", func(k *WorkKubernetes) *bool { return &k.AllowRuntimeAuth }),
			boolean("allowruntimecommand", "Let the submitter give image and command", func(k *WorkKubernetes) *bool { return &k.AllowRuntimeCommand }),
			boolean("allowruntimeparams", "Let the submitter add parameters", func(k *WorkKubernetes) *bool { return &k.AllowRuntimeParams }),
			boolean("allowruntimepod", "Let the submitter give the pod definition", func(k *WorkKubernetes) *bool { return &k.AllowRuntimePod }),
			boolean("deletepodonrestart", "Delete a pod whose output was lost by a restart of this node", func(k *WorkKubernetes) *bool { return &k.DeletePodOnRestart }),
			text("streammethod", "How output is read: logger or tcp", func(k *WorkKubernetes) *string { return &k.StreamMethod }).among("logger", "tcp"),
			boolean("verifysignature", "Accept signed submissions only", func(k *WorkKubernetes) *bool { return &k.VerifySignature }),
			number("maxrunning", "How many units run at once while others wait in order, 0 for any number", func(k *WorkKubernetes) *int { return &k.MaxRunning }),
		),
	}
}

func checkWorkKubernetes(c *checker, k *WorkKubernetes) {
	c.workType(k.WorkType)
	k.AuthMethod, k.StreamMethod = strings.ToLower(k.AuthMethod), strings.ToLower(k.StreamMethod)
	switch k.AuthMethod {
	case "incluster", "kubeconfig", "runtime":
	default:
		c.refuse("authmethod", "one of incluster, kubeconfig, runtime", "invalid AuthMethod: %s", k.AuthMethod)
	}
	if k.KubeConfig != "" && k.AuthMethod != "kubeconfig" {
		c.refuse("kubeconfig", "", "can only provide KubeConfig when AuthMethod=kubeconfig")
	}
	if k.Namespace == "" && k.AuthMethod != "kubeconfig" && !k.AllowRuntimeAuth {
		c.refuse("", "", "must provide namespace when AuthMethod is not kubeconfig")
	}
	if k.Pod != "" && (k.Image != "" || k.Command != "" || k.Params != "") {
		c.refuse("pod", "", "can only provide Pod when Image, Command, and Params are empty")
	}
	if k.Image == "" && k.Pod == "" && !k.AllowRuntimeCommand && !k.AllowRuntimePod {
		c.refuse("", "give image or pod, or let the submitter do so with allowruntimecommand or allowruntimepod", "must specify a container image to run")
	}
	if k.StreamMethod != "logger" && k.StreamMethod != "tcp" {
		c.refuse("streammethod", "", "stream mode must be logger or tcp")
	}
	c.notNegative("maxrunning", k.MaxRunning)
	c.verifySignature(k.VerifySignature, k.WorkType)
}
