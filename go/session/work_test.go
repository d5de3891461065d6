package session

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestNoUnitWithoutItsPayload: a program that cannot be given the socket for the payload leaves no unit that nobody knows.
func TestNoUnitWithoutItsPayload(t *testing.T) {
	p := open(t)
	p.must("open", "config", map[string]any{"node": "p", "data_dir": t.TempDir()})
	var before unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &before); err != nil {
		t.Fatal(err)
	}
	defer unix.Prlimit(0, unix.RLIMIT_NOFILE, &before, nil) //nolint:errcheck // It was so before.
	for most := uint64(0); most < before.Cur; most++ {
		if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: most, Max: before.Max}, nil); err != nil {
			t.Fatal(err)
		}
		_, code, _ := p.reply(p.send(map[string]any{"op": "work.submit", "node": "far", "worktype": "cat"}))
		if code == "" {
			return
		}
		if units, _ := p.must("work.list"); len(units) > 0 {
			t.Fatalf("with %d open files the submit was refused (%v), and there is a unit: %v", most, code, units)
		}
	}
}
