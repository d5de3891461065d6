package simulation

import (
	"flag"
	"testing"
	"testing/synctest"
)

// Main calls f inside a bubble with a simulated clock, as the last thing that a program's main does: it prints PASS, or
// what f reported to its *testing.T and FAIL, and exits with status 0 or 1. The flags of package flag's CommandLine are
// not parsed. Tests use synctest.Test.
func Main(f func(t *testing.T)) {
	testing.Init()
	_ = flag.CommandLine.Parse(nil) // Or testing would take the program's arguments for its own.
	every := func(pattern, name string) (bool, error) { return true, nil }
	testing.Main(every, []testing.InternalTest{{Name: "simulation", F: func(t *testing.T) { synctest.Test(t, f) }}}, nil, nil)
}
