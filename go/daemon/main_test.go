package daemon

import (
	"fmt"
	"os"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/workceptor/runner"
)

// The test binary is its own command runner, and the far end of its benchmark.
func TestMain(m *testing.M) {
	if runner.IsRunner(os.Args[1:]) {
		os.Exit(runner.Main(os.Args[1:]))
	}
	if len(os.Args) == 2 && os.Args[1] == farEnd {
		if err := serveFarEnd(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}
