package unit

import (
	"encoding/json"
	"time"
)

// Reason is a stable code for why a unit is Failed or Canceled. Detail has the words for people; other implementations
// write no Reason.
type Reason string

// The reasons. New ones may be added; the meaning of one is never changed.
const (
	ReasonExit         Reason = "exit"          // The command ended with another exit status than 0; see ExitCode.
	ReasonSignal       Reason = "signal"        // A signal ended the command; see Signal.
	ReasonKilled       Reason = "killed"        // The runner was told to stop by somebody who is not the node.
	ReasonCanceled     Reason = "canceled"      // A client cancelled the unit.
	ReasonPayload      Reason = "payload"       // The payload broke off, or could not be stored.
	ReasonParams       Reason = "params"        // The parameters cannot be split into words.
	ReasonNotFound     Reason = "not_found"     // There is no such program.
	ReasonStart        Reason = "start"         // The program or its runner cannot be started, for another reason.
	ReasonRunnerDied   Reason = "runner_died"   // The runner ended without a last word.
	ReasonRebooted     Reason = "rebooted"      // The machine was started anew while the unit ran.
	ReasonRestart      Reason = "restart"       // The node ended before the unit could start, or with the function that ran it.
	ReasonDirectory    Reason = "directory"     // The unit's directory was taken away.
	ReasonStatus       Reason = "status"        // The status file could not be read.
	ReasonDisk         Reason = "disk"          // The node could not store what the unit needs.
	ReasonFunction     Reason = "function"      // The function that ran the unit answered with an error.
	ReasonPanic        Reason = "panic"         // The function that ran the unit broke down.
	ReasonPlugin       Reason = "plugin"        // The worker plugin cannot be loaded or raised an exception.
	ReasonPod          Reason = "pod"           // The cluster cannot be reached, refuses the pod, or the pod came to grief.
	ReasonHangup       Reason = "hangup"        // The client of an interactive unit is gone.
	ReasonExpired      Reason = "expired"       // Remote: not started within its time to live.
	ReasonGone         Reason = "gone"          // Remote: the executor does not know the unit any more.
	ReasonRefused      Reason = "refused"       // Remote: the executor refused the unit.
	ReasonTLS          Reason = "tls"           // Remote: the executor cannot be reached because TLS fails.
	ReasonNotDelivered Reason = "not_delivered" // Remote: the unit could not be handed to the executor.
)

// Outcome is how a unit ended, as far as it is known. It is part of the status file and of replies; keys that have
// nothing to say are left out.
type Outcome struct {
	Code   *int   // ExitCode: the exit status of the command. Nil if it had none. Shared between copies: do not change it.
	Signal string // What ended the command, such as "SIGKILL".
	Reason Reason // Empty for a unit that succeeded.
	SHA256 string // StdoutSHA256: of the first StdoutSize bytes of output, in hexadecimal.
}

// Times are when a unit passed through its life, zero if that is not known. They are those of the node that wrote them.
type Times struct{ Created, Started, Finished time.Time }

// Exit is the outcome of a command that ended with an exit status.
func Exit(code int) Outcome {
	o := Outcome{Code: &code}
	if code != 0 {
		o.Reason = ReasonExit
	}
	return o
}

// Because is an outcome of which only the reason is known.
func Because(r Reason) Outcome { return Outcome{Reason: r} }

// appendKeys appends what is known, in the order of the status file.
func (r Record) appendKeys(dst []byte) []byte {
	dst = appendTime(dst, "Created", r.Created)
	dst = appendTime(dst, "Started", r.Started)
	dst = appendTime(dst, "Finished", r.Finished)
	dst = appendCode(dst, r.Code)
	dst = appendText(dst, "Signal", r.Signal)
	dst = appendText(dst, "Reason", string(r.Reason))
	dst = appendText(dst, "StdoutSHA256", r.SHA256)
	if r.VerifySignature {
		dst = appendKey(append(dst, ','), "VerifySignature", true)
	}
	return dst
}

func appendTime(dst []byte, name string, t time.Time) []byte {
	if t.IsZero() {
		return dst
	}
	return appendKey(append(dst, ','), name, t)
}

func appendText(dst []byte, name, text string) []byte {
	if text == "" {
		return dst
	}
	return appendKey(append(dst, ','), name, text)
}

func appendCode(dst []byte, code *int) []byte {
	if code == nil {
		return dst
	}
	return appendKey(append(dst, ','), "ExitCode", *code)
}

// takeKeys reads what appendKeys writes and removes it from keys. A value that some other program has put there in a form of
// its own is left where it is.
func (r *Record) takeKeys(keys map[string]json.RawMessage) {
	for name, value := range map[string]any{
		"Created": &r.Created, "Started": &r.Started, "Finished": &r.Finished,
		"Signal": &r.Signal, "Reason": &r.Reason, "StdoutSHA256": &r.SHA256,
		"VerifySignature": &r.VerifySignature,
	} {
		if raw, ok := keys[name]; ok && json.Unmarshal(raw, value) == nil {
			delete(keys, name)
		}
	}
	var code int
	if raw, ok := keys["ExitCode"]; ok && string(raw) != "null" && json.Unmarshal(raw, &code) == nil {
		delete(keys, "ExitCode")
		r.Code = &code
	}
}
