// Receptor-runner is the process between a node and the command of one unit of work. The receptor program can be that too;
// this one has nothing else in it, so that it starts faster and is smaller. A node prefers it when it lies beside its own.
package main

import (
	"os"

	"github.com/pyreceptor/pyreceptor/go/workceptor/runner"
)

func main() { os.Exit(runner.Main(os.Args[1:])) }
