// Package runner is the process between the node and one user's command.
package runner

// IsRunner reports whether a process with these arguments (program name left out) is to be a runner.
func IsRunner(args []string) bool {
	for _, a := range args {
		if a == "--command-runner" {
			return true
		}
	}
	return false
}

// Main runs one command and returns the exit code.
func Main(args []string) int { return 255 }
