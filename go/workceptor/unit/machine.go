package unit

import (
	"fmt"
	"time"
)

// Details that clients and peers know. They are kept to the letter.
const (
	DetailCreated          = "Unit Created"
	DetailWaiting          = "Waiting for Input Data"
	DetailStarting         = "Starting Worker"
	DetailLaunching        = "Launching command runner"
	DetailNotStarted       = "Not started yet"
	DetailKilled           = "Killed"
	DetailCanceled         = "Canceled"
	DetailPendingAtRestart = "Pending at restart"
	DetailLocallyCancelled = "Locally Cancelled"
	DetailGone             = "Remote work unit is gone"
	DetailRunnerDied       = "Runner died"
	DetailDirectoryGone    = "Unit directory is gone"
)

// Kind says what happened to a unit.
type Kind uint8

// The kinds of [Event].
const (
	Prepare Kind = iota // A step before the start: stays Pending.
	Run                 // The work is running.
	Grow                // More output; nothing else changed.
	Succeed             // Ended well.
	Fail                // Ended badly, or could not start.
	Cancel              // Ended because a client asked for it.
	Mirror              // The executor of a remote unit says that it is in state To.
	Kinds               // How many kinds there are.
)

func (k Kind) String() string {
	if k >= Kinds {
		return "unknown"
	}
	return [...]string{"prepare", "run", "grow", "succeed", "fail", "cancel", "mirror"}[k]
}

// KeepSize as an [Event]'s Size leaves StdoutSize as it is.
const KeepSize int64 = -1

// Event is something that happened to a unit.
type Event struct {
	Kind   Kind
	To     State  // Mirror only: any number.
	Detail string // Replaces the record's; not used by Grow.
	Size   int64  // Bytes of output known now, or KeepSize.
}

// Step returns the state that follows from, and whether the event is accepted at all. A refused event leaves the state.
func Step(from State, detail string, e Event) (State, bool) {
	if from.Complete() {
		return from.step(detail, e)
	}
	switch e.Kind {
	case Prepare:
		if from == Running {
			return from, false // A unit does not go back before its start.
		}
		return Pending, true
	case Run:
		return Running, true
	case Grow:
		return from, true
	case Succeed:
		return Succeeded, true
	case Fail:
		return Failed, true
	case Cancel:
		return Canceled, true
	case Mirror:
		return e.To, true
	}
	return from, false
}

func (s State) step(detail string, e Event) (State, bool) {
	if s == Failed && detail == DetailKilled && e.Kind == Cancel {
		return Canceled, true
	}
	return s, false
}

// Apply changes the record as the event says and reports whether it was accepted. A refused event changes nothing.
func (r *Record) Apply(e Event) bool {
	next, ok := Step(r.State, r.Detail, e)
	if !ok {
		return false
	}
	r.State = next
	if e.Kind != Grow {
		r.Detail = e.Detail
	}
	if e.Size >= 0 {
		r.StdoutSize = e.Size
	}
	return true
}

// DetailRunning is the Detail of a running command; pid is the user's process.
func DetailRunning(pid int) string { return fmt.Sprintf("Running: PID %d", pid) }

// DetailExpired is the Detail of a remote unit whose time to live ran out at t before it had started.
func DetailExpired(t time.Time) string {
	return "Work unit expired on " + t.Local().Format("Mon Jan 2 15:04:05")
}

// ExitCode returns the exit code that a finished command's Detail tells, if it tells one.
func (r Record) ExitCode() (int, bool) {
	var code int
	if n, err := fmt.Sscanf(r.Detail, "exit status %d", &code); n != 1 || err != nil || !r.State.Complete() {
		return 0, false
	}
	return code, true
}
