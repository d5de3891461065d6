// Package pods is what a node and the program that runs its units as pods of a Kubernetes cluster say to each other. The node
// starts
//
//	receptor-kubernetes VERB UNITDIR SETTINGS
//
// with a [Verb] and, as JSON, [Settings], for each unit. The program plays the runner's part for it: it holds runner.lock, keeps
// the status file, writes the output, and outlives the node. What the pod is made of, and the access to the cluster, are in the
// unit's status file, so that no secret is in a list of processes. SIGTERM and SIGINT have it delete the pod and end the unit
// as Failed, "Killed".
//
// The program is not part of the node since the library it speaks to clusters with would double the size of that.
package pods

import (
	"encoding/json"
	"fmt"
	"time"
)

// Program is the name of the program.
const Program = "receptor-kubernetes"

// DeleteLimit is how long a cluster may take to delete a pod, or to say that it does not.
const DeleteLimit = 10 * time.Second

// Verb is what the program is to do with a unit.
type Verb string

// The verbs. Delete answers by its exit status, 0 also if there is no such pod, and says on standard error what is wrong; the others
// by the status of the unit.
const (
	Run    Verb = "run"    // Make the pod of a unit that has its payload, and attend to it until it has ended.
	Resume Verb = "resume" // Go on with the output of a unit that is Running.
	Delete Verb = "delete" // Delete the pod. The unit is left as it is.
)

// Values of [Settings.Auth] and [Settings.Stream].
const (
	InCluster  = "incluster"  // The service account of the pod that the node runs in.
	KubeConfig = "kubeconfig" // The kubeconfig of the unit, or, if it has none, of the usual places.
	Runtime    = "runtime"    // The kubeconfig of the unit.

	Logger = "logger" // The payload goes to the container's standard input, its log is the output.
	TCP    = "tcp"    // The container connects to the program, gets the payload and sends the output.
)

// Settings say how a unit is run. They have no secrets.
type Settings struct {
	WorkType string `json:"worktype"`
	Auth     string `json:"auth"`
	Stream   string `json:"stream"`

	// What is configured for all clusters, as text; empty is the default.
	Reconnect   string `json:"reconnect,omitempty"`   // Whether a log can be read on after a break: enabled, disabled or auto.
	QPS         string `json:"qps,omitempty"`         // Requests a second.
	Burst       string `json:"burst,omitempty"`       // Requests at once.
	RateLimiter string `json:"ratelimiter,omitempty"` // tokenbucket, never or always.
}

// Arguments returns the arguments of the program, its name left out.
func (s Settings) Arguments(verb Verb, unitDir string) []string {
	text, _ := json.Marshal(s) // Strings have a JSON form.
	return []string{string(verb), unitDir, string(text)}
}

// Parse reads arguments, the name of the program left out.
func Parse(args []string) (verb Verb, unitDir string, s Settings, err error) {
	if len(args) != 3 {
		return "", "", s, fmt.Errorf("got %d arguments, want VERB UNITDIR SETTINGS; nodes start this program by themselves", len(args))
	}
	verb, unitDir = Verb(args[0]), args[1]
	switch verb {
	case Run, Resume, Delete:
	default:
		return "", "", s, fmt.Errorf("%q: want %s, %s or %s", verb, Run, Resume, Delete)
	}
	if err := json.Unmarshal([]byte(args[2]), &s); err != nil {
		return "", "", s, fmt.Errorf("settings: %w", err)
	}
	return verb, unitDir, s, nil
}
