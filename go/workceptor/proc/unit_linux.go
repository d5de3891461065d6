package proc

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// UnitVariable is in the environment of every command: the directory of its unit. It tells what descends from the command,
// whatever sessions and parents it has, as long as it keeps its environment.
const UnitVariable = "RECEPTOR_UNIT_DIR"

// Environ returns environ with the variable of the unit in unitDir, and without that of a unit around it.
func Environ(environ []string, unitDir string) []string {
	return Setenv(environ, unitVariable(unitDir))
}

// Setenv returns environ with a variable in the form NAME=VALUE, and without others of that name: programs differ in which of
// two they believe.
func Setenv(environ []string, variable string) []string {
	name, _, _ := strings.Cut(variable, "=")
	kept := slices.DeleteFunc(slices.Clone(environ), func(v string) bool { return strings.HasPrefix(v, name+"=") })
	return append(kept, variable)
}

func unitVariable(unitDir string) string {
	if abs, err := filepath.Abs(unitDir); err == nil {
		unitDir = abs
	}
	return UnitVariable + "=" + unitDir
}

// OfUnit returns the process IDs of what lives of the unit in unitDir: processes that have its variable, can be looked at by
// the caller, and started not before since, in clock ticks of this boot. The caller is never one of them.
func OfUnit(unitDir string, since uint64) (pids []int) {
	want := []byte(unitVariable(unitDir))
	for pid, s := range all() {
		if s.Zombie || s.Start < since || pid == os.Getpid() {
			continue
		}
		environ, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
		if err != nil {
			continue
		}
		for v := range bytes.SplitSeq(environ, []byte{0}) {
			if bytes.Equal(v, want) {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids
}

// EndUnit sends sig, and then SIGKILL after grace, to all of a unit (see OfUnit) until nothing is left of it or limit is over.
// It reports whether there was anything. It polls: no event tells that strangers have ended.
func EndUnit(unitDir string, since uint64, sig syscall.Signal, grace, limit time.Duration) (found bool) {
	began := time.Now()
	told := map[int]bool{}
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		left := OfUnit(unitDir, since)
		if len(left) == 0 {
			return found
		}
		found = true
		late := time.Since(began) >= grace
		for _, pid := range left { // One that was made while others were told is met by another round.
			switch {
			case late:
				syscall.Kill(pid, syscall.SIGKILL)
			case !told[pid]:
				told[pid] = true
				syscall.Kill(pid, sig)
			}
		}
		if time.Since(began) >= grace+limit {
			return found
		}
		time.Sleep(pause)
	}
}
