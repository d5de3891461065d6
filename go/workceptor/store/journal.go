package store

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// To make a directory with a file in it durable, the disk has to write at half a dozen places, one after the other. The journal
// is one file of fixed length, so that what a unit began with is durable with one write, which units that are made at the same
// time share. An entry is good until the unit's directory is durable, or released. It has room for the record of a command;
// longer ones, and those of more units than there are entries, do without.
const (
	journalEntry   = 1 << 10
	journalEntries = 256
	journalRoom    = 64 * journalEntry * journalEntries // What must be free on the disk: one that is nearly full has better use for it.
)

type journal struct {
	path string

	mu     sync.Mutex
	file   *os.File // nil: none is there, or could be made.
	free   []int
	places map[unit.ID]int
	kept   map[unit.ID]int // Those of units that could not be made anew. The file is not used for others then.
	taken  bool            // Entries were taken out, and the disk does not know.

	syncs shared
}

// add makes an entry durable, if it can.
func (j *journal) add(id unit.ID, record []byte) (added bool) {
	if j.write(id, appendEntry(id, record)) && j.syncs.do(j.sync) == nil {
		return true
	}
	j.drop(id)
	return false
}

func (j *journal) sync() error {
	j.mu.Lock()
	file := j.file
	j.taken = false
	j.mu.Unlock()
	return syncData(file)
}

// keep leaves the file for the next start, but for the entries of units that are released before.
func (j *journal) keep(entries map[unit.ID]int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.places = map[unit.ID]int{}
	if file, err := openRegular(j.path, os.O_RDWR); err == nil {
		j.file, j.kept = file, entries
	}
}

// flush makes durable what was taken out.
func (j *journal) flush() error {
	j.mu.Lock()
	needed := j.taken && j.file != nil
	j.mu.Unlock()
	if !needed {
		return nil
	}
	return j.syncs.do(j.sync)
}

// write puts the entry into the file if it has room for it.
func (j *journal) write(id unit.ID, entry []byte) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(entry) > journalEntry || j.places == nil && j.openLocked() != nil || len(j.free) == 0 {
		return false
	}
	last := len(j.free) - 1
	j.places[id], j.free = j.free[last], j.free[:last]
	_, err := j.file.WriteAt(entry, int64(j.places[id])*journalEntry)
	return err == nil
}

// syncData makes the content of a file durable whose length has not changed.
func syncData(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.Fdatasync(int(fd)) })
	return errors.Join(err, failed)
}

var errNoRoom = errors.New("the disk is nearly full")

// openLocked makes the file. It is tried once.
func (j *journal) openLocked() error {
	j.places = map[unit.ID]int{}
	var disk unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(j.path), &disk); err != nil {
		return err
	}
	if disk.Bavail*uint64(disk.Bsize) < journalRoom {
		return errNoRoom
	}
	file, err := openRegular(j.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err == nil {
		_, err = file.Write(make([]byte, journalEntry*journalEntries)) // From now on nothing has to be allocated for it.
	}
	if err == nil {
		err = errors.Join(file.Sync(), syncDir(filepath.Dir(j.path)))
	}
	if err != nil {
		file.Close() // May be nil, which is no harm.
		return errors.Join(err, os.Remove(j.path))
	}
	j.file = file
	for place := range journalEntries {
		j.free = append(j.free, place)
	}
	return nil
}

func (j *journal) ids() []unit.ID {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Collect(maps.Keys(j.places))
}

func (j *journal) has(id unit.ID) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	_, ok := j.places[id]
	return ok
}

// drop takes an entry out. That is on the disk with the next one, or after a flush.
func (j *journal) drop(id unit.ID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if place, ok := j.kept[id]; ok {
		delete(j.kept, id)
		_, err := j.file.WriteAt([]byte{0}, int64(place)*journalEntry)
		j.taken = j.taken || err == nil
		return
	}
	place, ok := j.places[id]
	if !ok {
		return
	}
	delete(j.places, id)
	if _, err := j.file.WriteAt([]byte{0}, int64(place)*journalEntry); err == nil { // If not, its place is not used again.
		j.free, j.taken = append(j.free, place), true
	}
}

// close ends the use of the file, and deletes it if it has no entries.
func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	if len(j.free) == journalEntries {
		if gone := os.Remove(j.path); !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	j.file, j.free = nil, nil
	return err
}

func appendEntry(id unit.ID, record []byte) []byte {
	return append(fmt.Appendf(nil, "%s %d %08x\n", id, len(record), checksum(string(id), record)), record...)
}

func checksum(id string, record []byte) uint32 {
	return crc32.Update(crc32.ChecksumIEEE([]byte(id)), crc32.IEEETable, record)
}

// parseEntry answers "" for a place that has none, or one that the disk has written in part.
func parseEntry(place []byte) (id unit.ID, record []byte) {
	head, rest, _ := strings.Cut(string(place), "\n")
	var name string
	var size int
	var sum uint32
	if _, err := fmt.Sscanf(head, "%s %d %x", &name, &size, &sum); err != nil || size < 0 || size > len(rest) {
		return "", nil
	}
	record = []byte(rest[:size])
	if !unit.ID(name).Valid() || checksum(name, record) != sum {
		return "", nil
	}
	return unit.ID(name), record
}

// read returns what a node that has ended left in the journal. Whatever else is in its place is not waited for, nor held in memory.
func (j *journal) read() ([]byte, error) {
	f, err := openRegular(j.path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, journalEntry*journalEntries))
}

// replay makes the directories of the units durable that are in the journal of a node that has ended, those anew that the disk has
// not, and deletes the journal if it could do that for all.
func (r *Root) replay() error {
	text, failed := r.journal.read()
	if errors.Is(failed, fs.ErrNotExist) {
		return nil
	}
	entries := map[unit.ID]int{}
	var restored []unit.ID
	for place := 0; (place+1)*journalEntry <= len(text); place++ {
		id, record := parseEntry(text[place*journalEntry:][:journalEntry])
		if id == "" {
			continue
		}
		entries[id] = place
		if err := r.restore(r.Dir(id), record); err != nil {
			failed = errors.Join(failed, err)
		} else {
			restored = append(restored, id)
		}
	}
	if failed != nil {
		r.journal.keep(entries)
		for _, id := range restored {
			r.journal.drop(id)
		}
		return errors.Join(failed, r.journal.flush())
	}
	if err := os.Remove(r.journal.path); err != nil {
		return err
	}
	return syncDir(r.path)
}

func (r *Root) restore(d *Dir, record []byte) error {
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return err
	}
	stdin, err := os.OpenFile(d.File(StdinFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		stdin.Close()
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	first, err := unit.Parse(record)
	if err != nil {
		return err
	}
	if now, err := d.read(); err != nil || !now.Created.Equal(first.Created) { // It may be that of a recycled directory.
		if err := errors.Join(d.write(tempFile, record, true), os.Rename(d.File(tempFile), d.File(StatusFile))); err != nil {
			return err
		}
	}
	return r.syncUnit(d)
}
