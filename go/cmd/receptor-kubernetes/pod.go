package main

import (
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/pyreceptor/pyreceptor/go/workceptor/runner"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// worker is the container that does the unit's work.
const worker = "worker"

// definition is the pod of a unit, in namespace unless the unit says where.
func definition(x *unit.PodExtra, workType, namespace string) (*corev1.Pod, error) {
	pod := &corev1.Pod{TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}}
	pod.GenerateName = strings.ToLower(workType) + "-"
	var err error
	if x.KubePod == "" {
		pod.Spec.Containers, err = container(x)
	} else {
		err = read(x.KubePod, pod)
	}
	if err != nil {
		return nil, err
	}
	if pod.Namespace == "" {
		pod.Namespace = namespace
	}
	for i := range pod.Spec.Containers {
		if c := &pod.Spec.Containers[i]; c.Name == worker {
			c.Stdin, c.StdinOnce = true, true
		}
	}
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	return pod, nil
}

// container is what the unit says of an image and a command.
func container(x *unit.PodExtra) ([]corev1.Container, error) {
	command, err := runner.Split(x.Command)
	if err != nil {
		return nil, fmt.Errorf("command: %w", err)
	}
	args, err := runner.Split(x.Params)
	if err != nil {
		return nil, fmt.Errorf("params: %w", err)
	}
	return []corev1.Container{{Name: worker, Image: x.Image, Command: command, Args: args}}, nil
}

// read takes metadata and spec of a definition, YAML or JSON.
func read(text string, pod *corev1.Pod) error {
	var given corev1.Pod
	if err := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096).Decode(&given); err != nil {
		return fmt.Errorf("definition of the pod: %w", err)
	}
	generateName := pod.GenerateName
	pod.ObjectMeta, pod.Spec = given.ObjectMeta, given.Spec
	pod.GenerateName = generateName
	if given.Name != "" {
		pod.Name, pod.GenerateName = "", given.Name+"-"
	}
	for _, c := range pod.Spec.Containers {
		if c.Name == worker {
			return nil
		}
	}
	return errors.New("at least one container must be named " + worker)
}

// callBack has the first container know where this program listens.
func callBack(pod *corev1.Pod, host, port string) {
	pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "RECEPTOR_HOST", Value: host}, {Name: "RECEPTOR_PORT", Value: port}}
}

// workerStatus is that of the container named worker, nil if the cluster says nothing of it.
func workerStatus(pod *corev1.Pod) *corev1.ContainerStatus {
	for i := range pod.Status.ContainerStatuses {
		if c := &pod.Status.ContainerStatuses[i]; c.Name == worker {
			return c
		}
	}
	return nil
}

// workerEnd is how the container named worker has ended, nil if that is not known.
func workerEnd(pod *corev1.Pod) *corev1.ContainerStateTerminated {
	if pod == nil {
		return nil
	}
	if c := workerStatus(pod); c != nil {
		return c.State.Terminated
	}
	return nil
}

// ended reports whether the work of a pod is over.
func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed || workerEnd(pod) != nil
}
