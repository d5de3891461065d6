// Package unit says what a unit of work is: its ID, its states and how they follow one another, and the record that
// describes it on disk and in replies. It holds values and decisions only and makes no I/O.
//
// # Record
//
// [Record] is the status file: one JSON object and a newline, keys in the order State, Detail, StdoutSize, WorkType,
// ExtraData, then whatever other keys the file held when it was read. Missing keys read as zero values. [Status] is the
// same as a client sees it: keys in byte order, StateName added, secrets withheld, unknown keys left out.
//
// Between ExtraData and unknown keys stand those that other implementations do not write and lose when they write the
// file; each is left out where there is nothing to say. [Times] and [Outcome] hold them:
//
//	Created       when the node made the unit; these three in RFC 3339
//	Started       when the work was first seen to run
//	Finished      when the unit became complete
//	ExitCode      integer: exit status of the command
//	Signal        what ended the command, such as "SIGKILL"
//	Reason        stable code of a failure; the Reason constants list them
//	StdoutSHA256  of the output, whose final size is StdoutSize, in hexadecimal
//
// One more, VerifySignature, is of the file only: the unit's type wanted signatures when the unit was made. A reply has
// more: QueuePosition, while the unit waits for others to end, and Trouble, while the node that does it cannot be spoken to, with
// TroubleSince.
//
// # States
//
// [Record.Apply] is the state machine. Every pair of state and event has an answer; a finished unit stays as it is, and
// Canceled counts as finished. The only move out of a finished state is Failed "Killed" to Canceled: the runner writes
// the first when it was told to stop, and the node that told it knows that a client wanted it.
//
// Everything here may be used from several goroutines as long as each has its own values.
package unit

import (
	"math/rand/v2"
	"strconv"
)

// ID names a unit on its node: letters and digits only, see [ID.Valid].
type ID string

const (
	idLength    = 8
	maxIDLength = 64 // Longer than any in use; keeps a client's text from becoming an oversized file name.
	idAlphabet  = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// NewID returns a random ID of 8 letters and digits. The caller checks that it is not in use. An ID is no secret: with the
// generator of the runtime, which the system seeds, runners do without the cryptographic packages.
func NewID() ID {
	var out [idLength]byte
	for i := range out {
		out[i] = idAlphabet[rand.IntN(len(idAlphabet))]
	}
	return ID(out[:])
}

// Valid reports whether id may name a unit: 1 to 64 of 0-9, a-z, A-Z. Anything else never reaches the file system.
func (id ID) Valid() bool {
	if id == "" || len(id) > maxIDLength {
		return false
	}
	for _, c := range []byte(id) {
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		default:
			return false
		}
	}
	return true
}

// State is where a unit is in its life. Values are those of files and replies.
type State int

// The states. Any other number can come from a peer; it prints as "Unknown: N" and counts as not complete.
const (
	Pending   State = 0
	Running   State = 1
	Succeeded State = 2
	Failed    State = 3
	Canceled  State = 4
)

// String returns the StateName of replies.
func (s State) String() string {
	switch s {
	case Pending:
		return "Pending"
	case Running:
		return "Running"
	case Succeeded:
		return "Succeeded"
	case Failed:
		return "Failed"
	case Canceled:
		return "Canceled"
	}
	return "Unknown: " + strconv.Itoa(int(s))
}

// Complete reports whether nothing more will happen to the unit: Succeeded, Failed or Canceled.
func (s State) Complete() bool { return s == Succeeded || s == Failed || s == Canceled }
