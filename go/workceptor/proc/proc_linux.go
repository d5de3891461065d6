// Package proc looks at processes that are not, or no longer, children: it tells a process from a later one with the
// same ID, and ends the process group that a dead runner left behind.
package proc

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Stat is what /proc/PID/stat tells of a process.
type Stat struct {
	Zombie                 bool
	Parent, Group, Session int
	Start                  uint64 // Clock ticks since boot.
}

// BootID names this run of the kernel; start times mean nothing in another one.
func BootID() string { return bootID() }

var bootID = sync.OnceValue(func() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
})

// Read returns what is known about process pid.
func Read(pid int) (Stat, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Stat{}, err
	}
	return parse(text)
}

var errFormat = errors.New("unknown form of /proc/PID/stat")

// parse reads "PID (NAME) STATE PPID PGRP SESSION ...", where NAME may hold anything, and field 22 is the start time.
func parse(text []byte) (Stat, error) {
	end := bytes.LastIndexByte(text, ')')
	if end < 0 {
		return Stat{}, errFormat
	}
	words := strings.Fields(string(text[end+1:])) // words[0] is field 3.
	if len(words) < 20 {
		return Stat{}, errFormat
	}
	var s Stat
	var errs [4]error
	s.Zombie = words[0] == "Z" || words[0] == "X"
	s.Parent, errs[3] = strconv.Atoi(words[1])
	s.Group, errs[0] = strconv.Atoi(words[2])
	s.Session, errs[1] = strconv.Atoi(words[3])
	s.Start, errs[2] = strconv.ParseUint(words[19], 10, 64)
	return s, errors.Join(errs[:]...)
}

// Start returns the start time of pid, 0 if it is not known.
func Start(pid int) uint64 {
	s, err := Read(pid)
	if err != nil {
		return 0
	}
	return s.Start
}

// HasArgument reports whether arg stands on the command line of process pid.
func HasArgument(pid int, arg string) bool {
	line, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		return false
	}
	for word := range bytes.SplitSeq(line, []byte{0}) {
		if string(word) == arg {
			return true
		}
	}
	return false
}

// KillGroup sends SIGKILL to the process group that leader, started at start, leads or led, in the session that a
// runner with process ID session made. It does nothing, and answers false, unless some process of that group can be
// told for certain: the leader by its start time, another member by group and session.
func KillGroup(leader int, start uint64, session int) bool {
	if leader <= 1 || start == 0 || !groupIs(leader, start, session) {
		return false
	}
	return syscall.Kill(-leader, syscall.SIGKILL) == nil
}

func groupIs(leader int, start uint64, session int) bool {
	if s, err := Read(leader); err == nil {
		return s.Start == start && s.Group == leader
	}
	for _, s := range all() {
		// A member that outlived its leader: the group's number cannot have been given to a new process meanwhile.
		if s.Group == leader && s.Session == session && s.Start >= start {
			return true
		}
	}
	return false
}

// all looks at every process of the machine that can be seen.
func all() map[int]Stat {
	found := map[int]Stat{}
	dir, err := os.Open("/proc")
	if err != nil {
		return found
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if s, err := Read(pid); err == nil {
			found[pid] = s
		}
	}
	return found
}

// Descendants returns the process IDs of all living descendants of the calling process.
func Descendants() []int {
	children := map[int][]int{}
	living := map[int]bool{}
	for pid, s := range all() {
		children[s.Parent] = append(children[s.Parent], pid)
		living[pid] = !s.Zombie
	}
	var found []int
	for next := children[os.Getpid()]; len(next) > 0; {
		pid := next[0]
		next = append(next[1:], children[pid]...)
		if living[pid] {
			found = append(found, pid)
		}
	}
	return found
}

// SignalDescendants sends sig to all descendants of the calling process, which must not bury any meanwhile.
func SignalDescendants(sig syscall.Signal) {
	for _, pid := range Descendants() {
		syscall.Kill(pid, sig)
	}
}
