// Command receptor-kubernetes runs a unit of work as a pod of a Kubernetes cluster, for the node that starts it: package
// go/workceptor/pods says how. Each unit has a process of its own, which outlives the node.
//
// # A unit
//
// The pod is made from the unit's definition or image, and watched until its condition Ready is true or it has ended. With the
// stream method "logger" the payload then goes to the standard input of the container named worker, by attaching to it, and the
// container's log is the output. With "tcp" the container connects to the address in its variables RECEPTOR_HOST and
// RECEPTOR_PORT, reads the payload there until its end, and sends the output until the end of that. Nobody has to prove anything on that
// connection: it is for networks that belong to the cluster.
//
// The state is Pending "Connecting to Kubernetes", "Pod created" and "Sending stdin to pod", then Running "Pod Running" when the
// payload has been sent, and in the end Succeeded "Finished". That says that the output is complete: how the container has ended
// is in ExitCode. It is Failed, with the Reason "pod" or "exit", if the pod cannot be made, does not get ready or comes to grief
// before it does. The pod stays in the cluster until the unit is cancelled or released.
//
// # A log that breaks off
//
// Logs are read with the time of each line. After a break, or a restart of this program, the log is asked for from the second of the
// last line on, and what is known of it is left out: as many lines as have been written since, and as many bytes of a line
// that has no end yet. How far the output has got is in the file pod.log of the unit. So no byte is lost or doubled, as long as
// the cluster keeps the log. A log that ends is asked for again until the container has ended by what the cluster says; if the
// cluster does not say, until there was nothing new five times, and if it says that the container runs while logs end at once,
// for an hour. API servers that are too old for this (before 1.23.14, 1.24.8, 1.25.4) have the log read once, as does the
// setting "disabled".
//
// # Decisions
//
//   - A kubeconfig that comes with a submission may not name files or programs of this machine.
//   - How much output a failed pod had is told; existing nodes say that it had none.
//   - A payload of which the container has had a part is not sent a second time.
//   - The unit's namespace is that of the pod, wherever it came from.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/klog/v2"

	"github.com/pyreceptor/pyreceptor/go/workceptor/pods"
)

func main() {
	klog.SetOutput(os.Stderr)
	klog.LogToStderr(false)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", pods.Program, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	verb, unitDir, settings, err := pods.Parse(args)
	if err != nil {
		return err
	}
	if verb == pods.Delete {
		return deletePod(unitDir, settings)
	}
	h, err := take(unitDir, settings)
	if err != nil {
		return err
	}
	defer h.release()
	if verb == pods.Resume {
		return h.resume(ctx)
	}
	return h.run(ctx)
}
