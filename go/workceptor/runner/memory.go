package runner

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// forgetProgram gives back the pages of the program that its start has touched: a runner needs few of them, and finds those
// again in the page cache. It leaves a program with shared libraries alone, whose loader may have changed pages that look
// as if they were as in the file.
func forgetProgram() {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	type area struct{ from, to uint64 }
	var unchanged []area
	program := ""
	for line := range strings.Lines(string(maps)) {
		words := strings.Fields(line) // FROM-TO PERMISSIONS OFFSET DEVICE INODE PATH
		if len(words) < 6 || !strings.HasPrefix(words[5], "/") {
			continue
		}
		if program == "" {
			program = words[5]
		}
		from, to, _ := strings.Cut(words[0], "-")
		first, err1 := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if words[5] != program || err1 != nil || err2 != nil {
			return
		}
		if !strings.Contains(words[1], "w") {
			unchanged = append(unchanged, area{first, end})
		}
	}
	for _, a := range unchanged {
		unix.Syscall(unix.SYS_MADVISE, uintptr(a.from), uintptr(a.to-a.from), unix.MADV_DONTNEED)
	}
}
