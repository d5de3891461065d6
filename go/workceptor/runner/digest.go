package runner

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"os"
	"sync"
	"sync/atomic"
)

const digestBuffer = 64 << 10

// digest computes the checksum of a file that grows, so that little is left to do at its end. A nil one has no sum.
type digest struct {
	file *os.File
	busy sync.WaitGroup
	turn chan struct{} // Holds a token while nobody is at work.
	hash hash.Hash
	buf  []byte
	done atomic.Int64 // Bytes that are in hash.
}

func newDigest(file *os.File) *digest {
	d := &digest{file: file, hash: sha256.New(), turn: make(chan struct{}, 1)}
	d.turn <- struct{}{}
	return d
}

// follow takes in the file up to size, in the background. It does nothing while that is still under way for an earlier
// size.
func (d *digest) follow(size int64) {
	if d == nil {
		return
	}
	select {
	case <-d.turn:
		d.busy.Go(func() {
			d.take(size, never)
			d.turn <- struct{}{}
		})
	default:
	}
}

func (d *digest) close() {
	if d != nil {
		d.busy.Wait()
		d.file.Close()
	}
}

func never() bool { return false }

// take gives up when stop says so.
func (d *digest) take(size int64, stop func() bool) (ok bool) {
	if size < d.done.Load() { // The command has cut its output.
		d.hash.Reset()
		d.done.Store(0)
	}
	if want := int(min(size-d.done.Load(), digestBuffer)); want > len(d.buf) {
		d.buf = make([]byte, want)
	}
	for done := d.done.Load(); done < size; {
		if stop() {
			return false
		}
		n, err := d.file.ReadAt(d.buf[:min(size-done, int64(len(d.buf)))], done)
		d.hash.Write(d.buf[:n])
		done = d.done.Add(int64(n))
		if err != nil && done < size {
			return false
		}
	}
	return true
}

// behind reports how much of the first size bytes is left to do.
func (d *digest) behind(size int64) int64 {
	if d == nil {
		return 0
	}
	return size - d.done.Load()
}

// sum returns the checksum of the first size bytes; "" if they cannot be read, or stop has said so.
func (d *digest) sum(size int64, stop func() bool) string {
	if d == nil {
		return ""
	}
	d.busy.Wait()
	if !d.take(size, stop) {
		return ""
	}
	return hex.EncodeToString(d.hash.Sum(nil))
}
