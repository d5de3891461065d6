package session

import (
	"bytes"
	"strings"
	"testing"
)

// TestEventsThatWaitAreBounded: by their number and by their size, and how many were too many is told.
func TestEventsThatWaitAreBounded(t *testing.T) {
	for name, size := range map[string]int{"many": 1, "large": eventBytes / 3} {
		q := newEventQueue(eventBacklog)
		text := strings.Repeat("x", size)
		for range eventBacklog + 1 {
			q.put(text)
		}
		frames, ok := q.take()
		if limit := eventBytes + size + 100; !ok || len(frames) > limit {
			t.Errorf("%s: %d bytes wait, want %d at most", name, len(frames), limit)
		}
		lost := `"n":1}`
		if name == "large" {
			lost = `"n":1022}`
		}
		if !bytes.HasSuffix(frames, []byte(lost)) {
			t.Errorf("%s: the last event is %s, want %s", name, frames[len(frames)-40:], lost)
		}
	}
}
