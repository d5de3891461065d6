package session

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A local stream socket has no reset: its end reads as the end of data, whatever became of the stream. But the kernel
// gives ECONNRESET, once and after the data that is queued, to whoever reads from a socket whose other end was closed
// with input unread. Where the program is this process, the node can put that input there itself: it looks the program's
// end up among the descriptors of the process and writes a byte that nobody reads. So a reset is also seen by what knows
// nothing of stream.status: a child whose input the stream is, or the user of a copy of the descriptor.
//
// It cannot be done where the program has shut its sending direction down, or has given the descriptor away and closed it.

// programEnd is the program's end of a socket.
type programEnd struct {
	inode uint64 // 0 where this process does not have it.
	made  time.Time
}

// spoil writes one byte into a socket from the program's end; done closes the copy of the descriptor that this takes, and
// is for after this side's end was closed. Nobody may read this side's end any more.
func (p *programEnds) spoil(end programEnd) (done func()) {
	fd := p.copyOf(end)
	if fd < 0 {
		return func() {}
	}
	_ = unix.Sendto(fd, []byte{0}, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil) // Where it does not fit, there is input unread.
	return func() { closeFD(fd) }
}

// programEnds knows the sockets of this process by their inodes.
type programEnds struct {
	mu     sync.Mutex
	looked time.Time      // When the process was looked through last,
	known  map[uint64]int // and what was found.
}

const (
	ownDescriptors = "/proc/self/fd"
	handOverTime   = time.Second // By then the program has what it was sent.
)

// copyOf returns a copy of the descriptor that this process has of a socket; -1 if it has none.
func (p *programEnds) copyOf(end programEnd) int {
	inode := end.inode
	p.mu.Lock()
	defer p.mu.Unlock()
	if fd, ok := p.known[inode]; ok {
		if made := duplicate(fd, inode); made >= 0 {
			return made
		}
	} else if p.looked.After(end.made.Add(handOverTime)) {
		return -1 // It was not there then. When many streams break at once, one look has to do.
	}
	p.looked, p.known = time.Now(), map[uint64]int{}
	entries, err := os.ReadDir(ownDescriptors)
	if err != nil {
		return -1
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if found, ok := socketInode(fd); ok {
			p.known[found] = fd
		}
	}
	if fd, ok := p.known[inode]; ok {
		return duplicate(fd, inode)
	}
	return -1
}

// socketInode is the inode of an open socket.
func socketInode(fd int) (inode uint64, ok bool) {
	target, err := os.Readlink(filepath.Join(ownDescriptors, strconv.Itoa(fd)))
	if err != nil {
		return 0, false
	}
	number, ok := strings.CutPrefix(target, "socket:[")
	if !ok {
		return 0, false
	}
	inode, err = strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64)
	return inode, err == nil
}

// duplicate copies a descriptor if it is that of a socket. The program closes descriptors and opens others while this
// looks, so the copy is looked at once more.
func duplicate(fd int, inode uint64) int {
	if found, ok := socketInode(fd); !ok || found != inode {
		return -1
	}
	made, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	if inodeOf(made) != inode {
		closeFD(made)
		return -1
	}
	return made
}

// inodeOf is the inode of an open descriptor, 0 if there is none.
func inodeOf(fd int) uint64 {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return 0
	}
	return st.Ino
}
