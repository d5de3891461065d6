//go:build !linux && !darwin

package control

// memoryMiB returns 0: this system has no common way to ask for its memory.
func memoryMiB() uint64 { return 0 }
