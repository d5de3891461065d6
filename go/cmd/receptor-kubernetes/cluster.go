package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/client-go/discovery"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/pyreceptor/pyreceptor/go/workceptor/pods"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

const defaultQPS = 100

// cluster is the access to one.
type cluster struct {
	config    *rest.Config
	client    corev1.CoreV1Interface
	namespace string // Of the pods, unless their definition has another.
}

// connect reads the access to the unit's cluster. It asks nobody yet.
func connect(x *unit.PodExtra, s pods.Settings) (*cluster, error) {
	c := &cluster{namespace: x.KubeNamespace}
	var err error
	switch {
	case s.Auth == pods.InCluster && x.KubeConfig == "":
		c.config, err = rest.InClusterConfig()
	case x.KubeConfig != "":
		err = c.useContent(x)
	default:
		err = c.useDefault()
	}
	if err != nil {
		return nil, err
	}
	c.config.ContentType = runtime.ContentTypeJSON
	c.limit(s)
	c.client, err = corev1.NewForConfig(c.config)
	return c, err
}

// useContent takes the access from the content of a kubeconfig file.
func (c *cluster) useContent(x *unit.PodExtra) error {
	raw, err := clientcmd.Load([]byte(x.KubeConfig))
	if err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	if x.ForeignConfig {
		if err := harmless(raw); err != nil {
			return err
		}
	}
	return c.use(clientcmd.NewDefaultClientConfig(*raw, &clientcmd.ConfigOverrides{}))
}

func (c *cluster) useDefault() error {
	config := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(), &clientcmd.ConfigOverrides{})
	raw, err := config.RawConfig()
	if err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	if c.namespace == "" && raw.Contexts[raw.CurrentContext] == nil {
		return errors.New("could not determine namespace: the kubeconfig has no current context; give the work type a namespace")
	}
	return c.use(config)
}

func (c *cluster) use(config clientcmd.ClientConfig) (err error) {
	if c.namespace == "" {
		if c.namespace, _, err = config.Namespace(); err != nil {
			return fmt.Errorf("kubeconfig: %w", err)
		}
	}
	if c.config, err = config.ClientConfig(); err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	return nil
}

// harmless refuses a kubeconfig that has this machine run programs or read files: who submits work has no right to either.
func harmless(raw *api.Config) error {
	const content = "; give its content in the kubeconfig"
	for name, user := range raw.AuthInfos {
		switch {
		case user.Exec != nil || user.AuthProvider != nil:
			return fmt.Errorf("kubeconfig of the submission: user %s: programs are not run for it; give a token or a certificate", name)
		case user.TokenFile != "" || user.ClientCertificate != "" || user.ClientKey != "":
			return fmt.Errorf("kubeconfig of the submission: user %s: files of the node are not read for it%s", name, content)
		}
	}
	for name, server := range raw.Clusters {
		if server.CertificateAuthority != "" {
			return fmt.Errorf("kubeconfig of the submission: cluster %s: files of the node are not read for it%s", name, content)
		}
	}
	return nil
}

// limit sets how often the cluster is asked. What cannot be read is said and left out.
func (c *cluster) limit(s pods.Settings) {
	c.config.QPS = defaultQPS
	if s.QPS != "" {
		qps, err := strconv.Atoi(s.QPS)
		if err != nil || qps < 1 {
			complain(fmt.Errorf("receptorkubeclientsetqps=%s: want a number from 1; %d is used", s.QPS, defaultQPS))
		} else {
			c.config.QPS = float32(qps)
		}
	}
	c.config.Burst = int(10 * c.config.QPS)
	if s.Burst != "" {
		burst, err := strconv.Atoi(s.Burst)
		if err != nil || burst < 1 {
			complain(fmt.Errorf("receptorkubeclientsetburst=%s: want a number from 1; %d is used", s.Burst, c.config.Burst))
		} else {
			c.config.Burst = burst
		}
	}
	switch s.RateLimiter {
	case "never":
		c.config.RateLimiter = flowcontrol.NewFakeNeverRateLimiter()
	case "always":
		c.config.RateLimiter = flowcontrol.NewFakeAlwaysRateLimiter()
	}
}

func (c *cluster) pods() corev1.PodInterface { return c.client.Pods(c.namespace) }

// canReconnect reports whether the log of a pod can be read on after a break: older API servers may leave out lines then.
func (c *cluster) canReconnect(setting string) bool {
	switch setting {
	case "enabled", "auto":
		return true
	case "":
	default:
		return false
	}
	client, err := discovery.NewDiscoveryClientForConfig(c.config)
	if err != nil {
		return false
	}
	info, err := client.ServerVersion()
	if err != nil {
		return false
	}
	v, err := version.ParseGeneric(info.GitVersion)
	return err == nil && reconnects(v)
}

func reconnects(v *version.Version) bool {
	for _, first := range []*version.Version{version.MustParseGeneric("1.23.14"), version.MustParseGeneric("1.24.8"), version.MustParseGeneric("1.25.4")} {
		if v.Major() == first.Major() && v.Minor() == first.Minor() {
			return v.AtLeast(first)
		}
	}
	return v.AtLeast(version.MustParseGeneric("1.26.0"))
}

func complain(err error) { fmt.Fprintf(os.Stderr, "%s: %v\n", pods.Program, err) }
