package unit

import (
	"encoding/json"
	"fmt"
)

// Details of units that run as pods. DetailCreatingPod goes on with the error.
const (
	DetailConnecting    = "Connecting to Kubernetes"
	DetailPodCreated    = "Pod created"
	DetailSendingStdin  = "Sending stdin to pod"
	DetailPodRunning    = "Pod Running"
	DetailPodFinished   = "Finished"
	DetailPodNotRunning = "Failed to restart: work unit is not in running state, cannot be restarted"
	DetailPodNoRestart  = "Failed to restart: restart not implemented for streammethod tcp"
	DetailCreatingPod   = "Error creating pod: "
)

// PodExtra is the ExtraData of a unit that runs as a pod of a Kubernetes cluster. It is shared between copies of a record: use
// [Record.EditPod] to change it.
type PodExtra struct {
	Image, Command, Params string // What the container runs; empty if KubePod says it.
	KubeNamespace          string // Where the pod is; empty while the access to the cluster is to tell.
	KubeConfig             string // The access to the cluster: the content of a kubeconfig file. It is not shown to clients.
	KubePod                string // The definition of the pod, YAML or JSON. It is not shown to clients.
	PodName                string // Empty until the cluster has made the pod.

	// PendingTimeout is how long the pod may take to become ready, as a duration of Go; empty is for ever. It is not shown to clients.
	PendingTimeout string
	// ForeignConfig says that KubeConfig came with the submission, so that what it names of this machine is not to be believed. It is
	// not shown to clients.
	ForeignConfig bool
	// Submission is that of [CommandExtra]. It is not shown to clients.
	Submission string
	other      map[string]json.RawMessage
}

// EditPod changes a copy of the ExtraData of a pod and puts it in place. It does nothing to other records.
func (r *Record) EditPod(edit func(*PodExtra)) {
	if old := r.Pod(); old != nil {
		next := *old
		edit(&next)
		r.Extra = &next
	}
}

func parsePod(keys map[string]json.RawMessage) (Extra, error) {
	var p PodExtra
	err := take(keys, map[string]any{
		"Image": &p.Image, "Command": &p.Command, "Params": &p.Params, "KubeNamespace": &p.KubeNamespace, "KubeConfig": &p.KubeConfig,
		"KubePod": &p.KubePod, "PodName": &p.PodName, "PendingTimeout": &p.PendingTimeout, "ForeignConfig": &p.ForeignConfig, "Submission": &p.Submission,
	})
	if err != nil {
		return nil, fmt.Errorf("ExtraData.%w", err)
	}
	p.other = keys
	return &p, nil
}

func (p *PodExtra) appendJSON(dst []byte) []byte {
	dst = appendKey(append(dst, '{'), "Image", p.Image)
	dst = appendKey(append(dst, ','), "Command", p.Command)
	dst = appendKey(append(dst, ','), "Params", p.Params)
	dst = appendKey(append(dst, ','), "KubeNamespace", p.KubeNamespace)
	dst = appendKey(append(dst, ','), "KubeConfig", p.KubeConfig)
	dst = appendKey(append(dst, ','), "KubePod", p.KubePod)
	dst = appendKey(append(dst, ','), "PodName", p.PodName)
	dst = appendText(dst, "PendingTimeout", p.PendingTimeout)
	if p.ForeignConfig {
		dst = appendKey(append(dst, ','), "ForeignConfig", true)
	}
	dst = appendText(dst, "Submission", p.Submission)
	return append(appendOther(dst, p.other), '}')
}

// shown is what clients see.
func (p *PodExtra) shown() *PodExtra {
	return &PodExtra{Image: p.Image, Command: p.Command, Params: p.Params, KubeNamespace: p.KubeNamespace, PodName: p.PodName}
}
