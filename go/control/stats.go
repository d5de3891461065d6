package control

import (
	"errors"
	"maps"
	"sync"
	"time"
)

// Stats are the numbers of a server since it was made.
type Stats struct {
	Sessions uint64 // Clients that are connected now.
	Accepted uint64 // Clients that were, all in all.
	Denied   uint64 // Commands that were refused by rules.
	Commands map[string]CommandStats
}

// CommandStats are the numbers of one command; of those of work, one sub-command.
type CommandStats struct {
	Count, Errors uint64
	Time          time.Duration // All in all, from the request to the reply or the end of the stream.
}

type stats struct {
	mu sync.Mutex
	Stats
}

// note counts a command. The end of a session is none of its errors.
func (s *stats) note(name string, took time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Commands == nil {
		s.Commands = map[string]CommandStats{}
	}
	c := s.Commands[name]
	c.Count++
	c.Time += took
	if err != nil && !errors.Is(err, errSessionOver) && err != error(errHandedOn) {
		c.Errors++
	}
	s.Commands[name] = c
}

func (s *stats) deny() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Denied++
}

func (s *stats) session(begins bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if begins {
		s.Sessions++
		s.Accepted++
		return
	}
	s.Sessions--
}

// Stats returns the numbers of the server.
func (s *Server) Stats() Stats {
	s.stats.mu.Lock()
	defer s.stats.mu.Unlock()
	out := s.stats.Stats
	out.Commands = maps.Clone(out.Commands)
	return out
}
