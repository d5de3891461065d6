package netceptor

import (
	"sync"
	"unsafe"
)

// Queues hold their packets in slabs: memory of a few fixed sizes, taken from a pool when a queue grows and given back
// when it has nothing to do. A burst so costs neither an allocation nor, once it is over, any memory.
var slabSizes = [...]int{4 << 10, 64 << 10, 512 << 10, 2 << 20, transitLimit + 512<<10}

var slabPools [len(slabSizes)]sync.Pool // Of *byte: the start of a slab.

// roomFor returns b with room for n more bytes. Growth beyond the largest slab is left to the runtime: queues are
// bounded below it.
func roomFor(b []byte, n int) []byte {
	if cap(b)-len(b) >= n {
		return b
	}
	for class, size := range slabSizes {
		if size < len(b)+n {
			continue
		}
		bigger := takeSlab(class)[:len(b)]
		copy(bigger, b)
		giveSlab(b)
		return bigger
	}
	return b
}

func takeSlab(class int) []byte {
	if p, ok := slabPools[class].Get().(*byte); ok {
		return unsafe.Slice(p, slabSizes[class])
	}
	return make([]byte, slabSizes[class])
}

// giveSlab returns the memory of b, which nobody may use any more. Memory that is no slab is left to the collector.
func giveSlab(b []byte) {
	for class, size := range slabSizes {
		if cap(b) == size {
			slabPools[class].Put(unsafe.SliceData(b[:1]))
			return
		}
	}
}

// shrunk gives back the memory of an empty queue that a burst has left behind, and returns what to go on with.
func shrunk(b []byte) []byte {
	if cap(b) <= slabSizes[0] {
		return b
	}
	giveSlab(b)
	return nil
}
