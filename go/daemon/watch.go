package daemon

import (
	"maps"
	"os"
	"time"
)

// watchInterval is how often configuration files are looked at. The kernel could tell of changes, but not of those that
// reach a file through a symbolic link, as a mounted ConfigMap's, or through a network file system.
const watchInterval = time.Second

// untilLook is how long to wait for the next look: until the next full second, when the node wakes anyway to tell its
// neighbours that it lives.
func untilLook() time.Duration {
	return watchInterval - time.Duration(time.Now().Nanosecond())%watchInterval
}

// clockGrain is how much older than it is a file may say that it is.
const clockGrain = 20 * time.Millisecond

// fileWatch sees changes of files, each once it has come to rest.
type fileWatch struct {
	settled, latest map[string]stamp
}

// stamp is what a change of a file changes.
type stamp struct {
	modified time.Time
	size     int64
	exists   bool
}

func stamps(files []string) map[string]stamp {
	all := make(map[string]stamp, len(files))
	for _, file := range files {
		if info, err := os.Stat(file); err == nil {
			all[file] = stamp{info.ModTime(), info.Size(), true}
		} else {
			all[file] = stamp{}
		}
	}
	return all
}

// newFileWatch watches files that were read at some time. One that was written about then or later counts as changed.
func newFileWatch(files []string, readAt time.Time) *fileWatch {
	now := stamps(files)
	settled := maps.Clone(now)
	for file, s := range now {
		if s.modified.After(readAt.Add(-clockGrain)) {
			settled[file] = stamp{}
		}
	}
	return &fileWatch{settled, now}
}

// look returns the files that are not as they were, if they are the same as at the last look: an editor may still be
// writing. A file that is gone is waited for.
func (w *fileWatch) look(files []string) (changed []string) {
	now := stamps(files)
	resting := maps.Equal(now, w.latest)
	w.latest = now
	for _, file := range files {
		if now[file] != w.settled[file] {
			changed = append(changed, file)
		}
		resting = resting && now[file].exists
	}
	if !resting || len(changed) == 0 {
		return nil
	}
	w.settled = now
	return changed
}
