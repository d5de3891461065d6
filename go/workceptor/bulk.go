package workceptor

import (
	"io"
	"sync"
	"time"
)

const (
	// pieceSize is how much is read before it is written, if it comes fast: small pieces cost a system call each.
	pieceSize = 128 << 10

	// fillTime is how long what has come waits for more.
	fillTime = 10 * time.Millisecond
)

// pieces hold what is on its way into a file; who copies has one while there is something to copy.
var pieces = sync.Pool{New: func() any { return new([pieceSize]byte) }}

// filler reads until there is no more room, its reader ends, or the first that came has waited for fillTime. A stream between
// nodes brings no more than a packet at a time to who is quick.
type filler struct{ io.Reader }

func (f filler) Read(p []byte) (n int, err error) {
	for began := time.Now(); n < len(p) && err == nil; {
		var more int
		more, err = f.Reader.Read(p[n:])
		n += more
		if time.Since(began) >= fillTime {
			break
		}
	}
	return n, err
}
