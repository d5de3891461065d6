package unit

import (
	"fmt"
	"strings"
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
	DetailDenied           = "Cannot be read: " // The reason follows.
	DetailDirectoryGone    = "Unit directory is gone"
	DetailQueued           = "Queued"
	DetailRunningFunction  = "Running"
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

	At      time.Time // When it happened; zero is not noted.
	Outcome Outcome   // Taken over by events that finish the unit.
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
	if s == Failed && Killed(detail) && e.Kind == Cancel {
		return Canceled, true
	}
	return s, false
}

// Killed reports whether a Failed unit's Detail says that its runner was told to stop; a Python worker names the signal.
func Killed(detail string) bool {
	return detail == DetailKilled || strings.HasPrefix(detail, "Killed by signal ")
}

// Apply changes the record as the event says and reports whether it was accepted. A refused event changes nothing. The
// first event that says that the unit runs is its start, and the one that finishes it sets its end and its outcome.
func (r *Record) Apply(e Event) bool {
	next, ok := Step(r.State, r.Detail, e)
	if !ok {
		return false
	}
	if next == Running && r.Started.IsZero() {
		r.Started = e.At
	}
	if next.Complete() {
		r.finish(e)
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

func (r *Record) finish(e Event) {
	before := r.Outcome
	r.Outcome = e.Outcome
	if r.State.Complete() { // Killed, because it was cancelled: what the runner knew still holds.
		r.Outcome = before
		r.Reason = e.Outcome.Reason
	}
	if r.Code == nil {
		if code, ok := exitCode(e.Detail); ok {
			r.Code = &code
		}
	}
	if r.Finished.IsZero() {
		r.Finished = e.At
		if r.Finished.Before(r.Started) && !e.At.IsZero() { // The clock was set back meanwhile.
			r.Finished = r.Started
		}
	}
}

// DetailRunning is the Detail of a running command; pid is the user's process.
func DetailRunning(pid int) string { return fmt.Sprintf("Running: PID %d", pid) }

// DetailExpired is the Detail of a remote unit whose time to live ran out at t before it had started.
func DetailExpired(t time.Time) string {
	return "Work unit expired on " + t.Local().Format("Mon Jan 2 15:04:05")
}

// ExitCode returns the exit code of a finished command, if it is known.
func (r Record) ExitCode() (int, bool) {
	switch {
	case !r.State.Complete():
		return 0, false
	case r.Code != nil:
		return *r.Code, true
	}
	return exitCode(r.Detail)
}

func exitCode(detail string) (int, bool) {
	var code int
	n, err := fmt.Sscanf(detail, "exit status %d", &code)
	return code, n == 1 && err == nil
}
