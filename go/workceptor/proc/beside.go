package proc

import (
	"os"
	"path/filepath"
)

// Beside names the program of that name which was installed with another one: the one in its directory, or else the one in PATH.
func Beside(program, name string) string {
	path := filepath.Join(filepath.Dir(program), name)
	if _, err := os.Stat(path); err != nil || !filepath.IsAbs(path) {
		return name
	}
	return path
}
