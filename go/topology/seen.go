package topology

import (
	"hash/maphash"
	"time"
)

// seenIDs remembers update IDs in the order in which they came: at most max of them, for at most Retention. An ID is
// kept as a hash under a key that peers cannot know, so it takes the same memory whatever its length, and nobody can
// make two IDs collide.
type seenIDs struct {
	max  int
	seed maphash.Seed
	base time.Time // When the first came.
	set  map[uint64]struct{}
	ring []seenID // A circular buffer that grows with use.
	head int      // The oldest.
	size int
}

type seenID struct {
	hash uint64
	at   time.Duration // Since base.
}

func newSeenIDs(max int) seenIDs {
	return seenIDs{max: max, seed: maphash.MakeSeed(), set: map[uint64]struct{}{}}
}

// add remembers id and reports whether it is new.
func (s *seenIDs) add(id string, now time.Time) bool {
	h := maphash.String(s.seed, id)
	if _, ok := s.set[h]; ok {
		return false
	}
	if s.size == s.max {
		s.drop()
	}
	if s.size == len(s.ring) {
		s.resize(min(max(1024, 2*s.size), s.max))
	}
	if s.base.IsZero() {
		s.base = now
	}
	s.set[h] = struct{}{}
	s.ring[(s.head+s.size)%len(s.ring)] = seenID{h, now.Sub(s.base)}
	s.size++
	return true
}

// has reports whether id was added and is remembered.
func (s *seenIDs) has(id []byte) bool {
	_, ok := s.set[maphash.Bytes(s.seed, id)]
	return ok
}

// expire forgets what is older than Retention. After a flood of IDs the memory is given back.
func (s *seenIDs) expire(now time.Time) {
	for s.size > 0 && now.Sub(s.base)-s.ring[s.head].at >= Retention {
		s.drop()
	}
	if len(s.ring) > 1024 && s.size < len(s.ring)/8 {
		s.resize(max(1024, len(s.ring)/4))
		set := make(map[uint64]struct{}, s.size)
		for h := range s.set {
			set[h] = struct{}{}
		}
		s.set = set
	}
}

func (s *seenIDs) drop() {
	delete(s.set, s.ring[s.head].hash)
	s.head = (s.head + 1) % len(s.ring)
	s.size--
}

func (s *seenIDs) resize(n int) {
	ring := make([]seenID, n)
	for i := range s.size {
		ring[i] = s.ring[(s.head+i)%len(s.ring)]
	}
	s.ring, s.head = ring, 0
}
