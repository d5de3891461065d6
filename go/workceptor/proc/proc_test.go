package proc

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestParse(t *testing.T) {
	text := "42 (a) b) (c) S 1 40 39 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 2 3"
	got, err := parse([]byte(text))
	if want := (Stat{Parent: 1, Group: 40, Session: 39, Start: 12345}); got != want || err != nil {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, text := range []string{"", "42", "42 (x) S 1 2 3", "42 (x) S 1 a b 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 c 1"} {
		if _, err := parse([]byte(text)); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
	self, err := Read(os.Getpid())
	if err != nil || self.Start == 0 || self.Group != syscall.Getpgrp() {
		t.Errorf("own process: got %+v, %v", self, err)
	}
	if BootID() == "" || !HasArgument(os.Getpid(), os.Args[0]) || HasArgument(os.Getpid(), "no such argument") {
		t.Error("own boot ID or command line is wrong")
	}
}

// TestKillGroup: only a group that can be told for certain is killed, also when its leader has gone.
func TestKillGroup(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 300 & echo $!; read line")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	leader := cmd.Process.Pid
	defer syscall.Kill(-leader, syscall.SIGKILL)
	out.Read(make([]byte, 16)) // The child is there.
	start := Start(leader)
	if KillGroup(leader, start+1, leader) || KillGroup(leader, 0, leader) || KillGroup(1, 1, 1) || KillGroup(0, 1, 1) {
		t.Fatal("a stranger's group was killed")
	}
	in.Close()
	cmd.Process.Wait()
	if KillGroup(leader, start, leader+1) {
		t.Fatal("a group of another session was killed")
	}
	if !KillGroup(leader, start, leader) {
		t.Error("the group was not found after its leader's end")
	}
}

// TestDescendants: children and their children are found, also those in sessions of their own.
func TestDescendants(t *testing.T) {
	cmd := exec.Command("sh", "-c", "setsid sleep 300 & echo; wait")
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.Read(make([]byte, 16))
	for len(Descendants()) < 2 {
		if t.Context().Err() != nil {
			t.Fatalf("got %v, want two", Descendants())
		}
	}
	SignalDescendants(syscall.SIGKILL)
	cmd.Wait()
	if left := Descendants(); len(left) != 0 {
		t.Errorf("got %v after they were killed", left)
	}
}

func TestCgroup(t *testing.T) {
	g := NewCgroup("/data/alpha/abcd1234")
	if g == nil {
		t.Skip("this process may not make cgroups")
	}
	defer g.Remove()
	sys := &syscall.SysProcAttr{Setsid: true}
	pid, err := g.Start(sys, func() (int, error) {
		return syscall.ForkExec("/bin/sleep", []string{"sleep", "300"}, &syscall.ProcAttr{Sys: sys})
	})
	if err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if !strings.Contains(string(text), "receptor-abcd1234") {
		t.Errorf("the process is in %s", text)
	}
	if KillCgroup(g.Path(), "/data/alpha/other") || KillCgroup("/tmp/receptor-abcd1234", "/data/alpha/abcd1234") || KillCgroup("", "/data/alpha/abcd1234") {
		t.Error("a stranger's cgroup was killed")
	}
	if !KillCgroup(g.Path(), "/data/alpha/abcd1234") {
		t.Error("the cgroup was not killed")
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil || status.Signal() != syscall.SIGKILL {
		t.Errorf("got %v, %v", status, err)
	}
	g.Remove()
	if _, err := os.Stat(g.Path()); err == nil {
		t.Error("the cgroup is left")
	}
	var none *Cgroup
	if none.Path() != "" || none.Kill() {
		t.Error("no cgroup is one")
	}
	none.Remove()
}
