package workceptor

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/workceptor/store"
)

// smallDisk returns a directory on a file system of 256 KiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("cannot mount a file system: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

func TestPayloadFillsTheDisk(t *testing.T) {
	dir := smallDisk(t)
	e := openEngine(t, dir, noMesh{"alpha"})
	s, err := e.Submit(request("localhost", "cat", ""))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ReadPayload(strings.NewReader(strings.Repeat("x", 1<<20))); err == nil {
		t.Error("the payload was stored")
	}
	status := wait(t, e, s.ID())
	stdin := filepath.Join(dir, "alpha", string(s.ID()), store.StdinFile)
	if status.State != Failed || status.Detail != "Error reading input data: write "+stdin+": no space left on device" {
		t.Errorf("got %v %q", status.State, status.Detail)
	}
	if got := file(t, e, s.ID(), "status"); !strings.Contains(got, "no space left on device") {
		t.Errorf("the file says %s", got)
	}
	id := submit(t, e, request("localhost", "cat", ""), "there is room again")
	wantStatus(t, wait(t, e, id), Succeeded, "exit status 0", 19)
}

// TestRemoteOutputFillsTheDisk: the unit says so, and goes on when there is room.
func TestRemoteOutputFillsTheDisk(t *testing.T) {
	m := newTestMesh()
	beta := openEngine(t, t.TempDir(), m.node("beta"))
	releaseAll(t, beta)
	m.serve("beta", beta)
	dir := smallDisk(t)
	alpha := openEngine(t, dir, m.node("alpha"))
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 128<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	id := submit(t, alpha, request("beta", "shraw", `-c "head -c 150000 /dev/zero; sleep 300"`), "")
	until(t, alpha, id, "a full disk", func(s Status) bool {
		return s.State == Running && s.Detail == "Error writing stdout: write "+filepath.Join(dir, "alpha", string(id), store.StdoutFile)+": no space left on device"
	})
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	r, err := alpha.Results(testContext(t), id, 149999)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Read(make([]byte, 1)); err != nil {
		t.Errorf("the last byte: %v", err)
	}
}
