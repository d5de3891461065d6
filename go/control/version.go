package control

import (
	"runtime"
	"slices"
	"time"
)

// now is the node's clock as replies show it.
func now() time.Time { return time.Now().UTC() }

func seconds(d time.Duration) float64 { return d.Seconds() }

// version tells which program this is, and what the client may ask of it.
func (s *session) version(request) (any, error) {
	commands := s.srv.commandNames()
	if s.allow != nil {
		commands = slices.DeleteFunc(commands, func(c string) bool { return !s.allow.Allow(s.client(), c) })
	}
	return map[string]any{
		"commands":       append([]string{}, commands...),
		"go":             runtime.Version(),
		"implementation": "pyreceptor",
		"node":           s.srv.node.ID(),
		"platform":       runtime.GOOS + "/" + runtime.GOARCH,
		"started":        s.srv.started.UTC(),
		"time":           now(),
		"uptime_s":       seconds(time.Since(s.srv.started)),
		"version":        s.srv.version,
	}, nil
}
