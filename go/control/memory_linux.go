package control

import (
	"sync"

	"golang.org/x/sys/unix"
)

// memoryMiB returns the machine's physical memory.
var memoryMiB = sync.OnceValue(func() uint64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return uint64(info.Totalram) * uint64(max(info.Unit, 1)) >> 20
})
