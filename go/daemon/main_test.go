package daemon

import (
	"os"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/workceptor/runner"
)

// The test binary is its own command runner.
func TestMain(m *testing.M) {
	if runner.IsRunner(os.Args[1:]) {
		os.Exit(runner.Main(os.Args[1:]))
	}
	os.Exit(m.Run())
}
