package netceptor

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPeersPage: the tests that PEERS.md names exist, and the names of bad inputs are those of this package.
func TestPeersPage(t *testing.T) {
	page, err := os.ReadFile("PEERS.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../*/*_test.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests found: %v", err)
	}
	var sources strings.Builder
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sources.Write(b)
	}
	for _, name := range regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(string(page), -1) {
		if !strings.Contains(sources.String(), "\nfunc "+name[1]+"(") {
			t.Errorf("PEERS.md names %s, which does not exist", name[1])
		}
	}
	var inputs []string
	for _, h := range hostileMessages() {
		inputs = append(inputs, h.name)
	}
	for _, input := range regexp.MustCompile("`TestHostileMessages` \"([^\"]+)\"").FindAllStringSubmatch(string(page), -1) {
		start, _ := strings.CutSuffix(input[1], " ...")
		if !strings.Contains("\n"+strings.Join(inputs, "\n"), "\n"+start) {
			t.Errorf("PEERS.md names the input %q, which is not tried", input[1])
		}
	}
}
