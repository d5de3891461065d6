package wire

import (
	"encoding/binary"
	"fmt"
)

// FrameOverhead is the size of the length field in front of each message of a [Batch].
const FrameOverhead = 2

// Batch is any number of messages in one piece of memory, each behind its length as a 16-bit little-endian integer that
// does not count itself: exactly the bytes that a TCP link carries. It may end in the middle of a frame while it is
// being received; [Batch.Next] leaves such a rest alone.
type Batch []byte

// AppendFrame appends one message, given in parts, as a frame. It returns dst unchanged and an error for an empty
// message (which crashes existing nodes) and for one over [MaxMessage].
func AppendFrame(dst Batch, parts ...[]byte) (Batch, error) {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	if size == 0 || size > MaxMessage {
		return dst, fmt.Errorf("%w: %d bytes, want 1 to %d", ErrFrameLength, size, MaxMessage)
	}
	dst = binary.LittleEndian.AppendUint16(dst, uint16(size))
	for _, p := range parts {
		dst = append(dst, p...)
	}
	return dst, nil
}

// Next splits off the first message. ok is false, and rest is b, if b does not hold a whole frame. The message may be
// empty: a peer that sends a zero-length frame is not obeyed but survived. msg is a part of b, not a copy.
func (b Batch) Next() (msg []byte, rest Batch, ok bool) {
	if len(b) < FrameOverhead {
		return nil, b, false
	}
	end := FrameOverhead + int(binary.LittleEndian.Uint16(b))
	if len(b) < end {
		return nil, b, false
	}
	return b[FrameOverhead:end:end], b[end:], true
}

// Whole returns the length of the longest prefix of b that ends at a frame boundary.
func (b Batch) Whole() int {
	n := 0
	for n+FrameOverhead <= len(b) {
		end := n + FrameOverhead + int(binary.LittleEndian.Uint16(b[n:]))
		if end > len(b) {
			break
		}
		n = end
	}
	return n
}

// Run returns the length of the frames at the start of b that hold data messages with the same header, hop count
// included: packets come in runs, and what holds for the header of the first one holds for all. 0 means that b does not
// begin with a whole data message; reserved bytes do not count.
func (b Batch) Run() int {
	first, rest, ok := b.Next()
	if !ok || len(first) < HeaderSize || Type(first[0]) != TypeData {
		return 0
	}
	for {
		msg, after, ok := rest.Next()
		if !ok || len(msg) < HeaderSize || [2]byte(msg) != [2]byte(first) || [HeaderSize - 4]byte(msg[4:]) != [HeaderSize - 4]byte(first[4:]) {
			return len(b) - len(rest)
		}
		rest = after
	}
}

// Count returns the number of whole messages.
func (b Batch) Count() (n uint64) {
	for _, rest, ok := b.Next(); ok; _, rest, ok = rest.Next() {
		n++
	}
	return n
}

// PatchHops is [PatchHops] for every message of a run.
func (b Batch) PatchHops(hops uint8) {
	for msg, rest, ok := b.Next(); ok; msg, rest, ok = rest.Next() {
		PatchHops(msg, hops)
	}
}
