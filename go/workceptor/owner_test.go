package workceptor

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/workceptor/store"
)

// nobody is another user than root.
const nobody = 65534

const ofAnotherUser = "TEST_DATADIR_OF_ANOTHER_USER"

// TestUnitsOfAnotherUserAreLeftAlone: a node that was started as another user than before fails no unit for that, and says
// whose the files are and what to do.
func TestUnitsOfAnotherUserAreLeftAlone(t *testing.T) {
	if dir := os.Getenv(ofAnotherUser); dir != "" {
		anotherUser(t, dir)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can be two users")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	data, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(program, data, 0o755)
	}
	if err == nil {
		err = os.Chmod(filepath.Dir(dir), 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	done := `{"State":2,"Detail":"exit status 0","StdoutSize":3,"WorkType":"cat","ExtraData":null}`
	running := `{"State":1,"Detail":"Running: PID 5","StdoutSize":0,"WorkType":"cat","ExtraData":null}`
	place(t, dir, "done0001", done, "abc")
	place(t, dir, "runs0001", running, "")
	place(t, dir, "closed01", done, "abc") // The directory, too, is root's.
	for _, path := range []string{"alpha", "alpha/done0001", "alpha/runs0001"} {
		if err := os.Chown(filepath.Join(dir, path), nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), ofAnotherUser+"="+dir, "TMPDIR=/tmp")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("as uid %d: %v\n%s", nobody, err, out)
	}
	for id, want := range map[string]string{"done0001": done, "runs0001": running, "closed01": done} {
		if got, err := os.ReadFile(filepath.Join(dir, "alpha", id, "status")); err != nil || string(got) != want {
			t.Errorf("the status of %s is %s (%v) now, it was %s", id, got, err, want)
		}
	}
}

// anotherUser is the other half of the test, as the user nobody on units of root.
func anotherUser(t *testing.T, dir string) {
	e := openEngine(t, dir, noMesh{"alpha"})
	for _, id := range []UnitID{"done0001", "runs0001", "closed01"} {
		s, err := e.Status(id)
		if err != nil || s.State != Pending {
			t.Errorf("%s is %v %q, %v; want that it is not told how it has ended", id, s.State, s.Detail, err)
		}
		for _, words := range []string{
			"Cannot be read: ", "belongs to uid 0, and this program runs as uid 65534",
			fmt.Sprintf("chown -R 65534 %s", filepath.Join(dir, "alpha")), filepath.Join(dir, "alpha", string(id), "status"),
		} {
			if !strings.Contains(s.Detail, words) {
				t.Errorf("%s: %q does not say %q", id, s.Detail, words)
			}
		}
		if _, err := e.Cancel(testContext(t), id); err == nil || !strings.Contains(err.Error(), "belongs to uid 0") {
			t.Errorf("cancel of %s: %v", id, err)
		}
		if _, err := e.Release(testContext(t), id, false); err == nil || !strings.Contains(err.Error(), "belongs to uid 0") {
			t.Errorf("release of %s: %v", id, err)
		}
		if _, err := e.Release(testContext(t), id, true); err != nil {
			t.Errorf("release of %s with force: %v", id, err)
		}
		if _, err := e.Status(id); err == nil {
			t.Errorf("%s is listed after its release with force", id)
		}
	}
	recordThatCannotBeRead(t, e)
}

// recordThatCannotBeRead: a runner that works for another user leaves one, and its unit is not failed for it.
func recordThatCannotBeRead(t *testing.T, e *Engine) {
	id := submit(t, e, request("localhost", "sh", `"sleep 1000"`), "")
	until(t, e, id, "that it runs", func(s Status) bool { return s.State == Running })
	j, err := e.find(id)
	if err != nil {
		t.Fatal(err)
	}
	info, err := j.dir.RunnerInfo()
	if err != nil {
		t.Fatal(err)
	}
	status := j.dir.File(store.StatusFile)
	if err := os.Chmod(status, 0); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(info.Runner, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s := until(t, e, id, "that it cannot be read", func(s Status) bool { return strings.HasPrefix(s.Detail, "Cannot be read: ") })
	if s.State != Running {
		t.Errorf("it is %v %q", s.State, s.Detail)
	}
	if err := os.Chmod(status, 0o600); err != nil {
		t.Fatal(err)
	}
	if rec, err := j.dir.Read(); err != nil || rec.State.Complete() {
		t.Errorf("its record is %+v, %v; want the one that the runner had left", rec, err)
	}
	if err := syscall.Kill(-info.Program, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if _, err := e.Release(testContext(t), id, true); err != nil {
		t.Error(err)
	}
}
