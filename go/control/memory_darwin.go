package control

import (
	"sync"

	"golang.org/x/sys/unix"
)

// memoryMiB returns the machine's physical memory.
var memoryMiB = sync.OnceValue(func() uint64 {
	size, _ := unix.SysctlUint64("hw.memsize")
	return size >> 20
})
