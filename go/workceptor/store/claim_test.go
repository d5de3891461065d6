package store

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// TestClaim: one node at a time has the units; the next one may have them when it has ended.
func TestClaim(t *testing.T) {
	dir := t.TempDir()
	open := func() *Root {
		root, err := Open(dir, "alpha")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { root.Close() })
		return root
	}
	first, second := open(), open()
	if err := errors.Join(first.Claim(), second.Claim()); err != nil { // Nothing is there.
		t.Fatal(err)
	}
	createSoon(t, first, "")
	for range 2 { // A refusal is not the end of the first one's claim.
		if err := second.Claim(); !errors.Is(err, ErrInUse) {
			t.Fatalf("got %v, want ErrInUse", err)
		}
	}
	if _, _, _, err := second.Create(unit.Record{}, nothingTaken); !errors.Is(err, ErrInUse) {
		t.Fatalf("got %v, want ErrInUse", err)
	}
	if said := claimElsewhere(t, dir); !strings.HasSuffix(said, fmt.Sprintf("alpha, process %d\n", os.Getpid())) {
		t.Errorf("another process says %q", said)
	}
	if err := errors.Join(first.Close(), second.Claim()); err != nil {
		t.Fatal(err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(first.Path(), ClaimFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
	if said := claimElsewhere(t, dir); said != "claimed\n" { // And dies with it.
		t.Errorf("another process says %q", said)
	}
	if err := first.Claim(); err != nil {
		t.Fatal(err)
	}
}

const claimIn = "TEST_CLAIM_IN"

// claimElsewhere is what another process says of its attempt. It goes by without giving up what it has.
func claimElsewhere(t *testing.T, dir string) string {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestClaimElsewhere$")
	cmd.Env = append(os.Environ(), claimIn+"="+dir, "GORACE=atexit_sleep_ms=0")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	said, _ := bufio.NewReader(out).ReadString('\n')
	cmd.Wait()
	return said
}

func TestClaimElsewhere(t *testing.T) {
	dir := os.Getenv(claimIn)
	if dir == "" {
		t.Skip("the other process of TestClaim")
	}
	root, err := Open(dir, "alpha")
	if err == nil {
		err = root.Claim()
	}
	if err != nil {
		fmt.Println(err)
	} else {
		fmt.Println("claimed")
	}
	os.Exit(0)
}

// TestNoClaim: where no lock can be had there is none, and units can be made.
func TestNoClaim(t *testing.T) {
	root := openRoot(t)
	if err := os.MkdirAll(filepath.Join(root.Path(), ClaimFile), 0o700); err != nil {
		t.Fatal(err)
	}
	createSoon(t, root, "")
}
