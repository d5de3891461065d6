package proc

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
)

func TestParse(t *testing.T) {
	text := "42 (a) b) (c) S 1 40 39 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 2 3"
	got, err := parse([]byte(text))
	if want := (Stat{Group: 40, Session: 39, Start: 12345}); got != want || err != nil {
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
