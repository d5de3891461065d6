package workceptor

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/pyreceptor/pyreceptor/go/fault"
	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor/remote"
	"github.com/pyreceptor/pyreceptor/go/workceptor/unit"
)

// Names of package unit that callers of the engine need.
type (
	UnitID = unit.ID
	State  = unit.State
	Status = unit.Status
)

// The states of a unit.
const (
	Pending   = unit.Pending
	Running   = unit.Running
	Succeeded = unit.Succeeded
	Failed    = unit.Failed
	Canceled  = unit.Canceled
)

// Errors that callers tell apart with errors.Is. The texts that a client sees are those of the errors that wrap them.
var (
	ErrUnknownUnit = errors.New("unknown work unit")
	ErrClosed      = errors.New("work engine is closed")
	ErrCancelled   = errors.New("work unit was cancelled before it started")
	ErrRegistered  = errors.New("already registered")
	ErrUnknownTLS  = errors.New("unknown TLS config") // No tls-client of this node has the name.
	ErrUnknownType = remote.ErrUnknownType            // Of this node or, of a unit that does not start, of the one that is to do it.
)

// RefusedError is why a unit does not start that is for another node.
type RefusedError = remote.RefusedError

// ExpiredError answers a submission whose unit has come to the end of its time to live before it could start: "Work unit expired on ...".
type ExpiredError struct{ At time.Time }

func (e *ExpiredError) Error() string { return unit.DetailExpired(e.At) }

// UnknownUnitError is what every method answers for an ID that names no unit: "unknown work unit ID".
type UnknownUnitError struct{ ID UnitID }

func (e *UnknownUnitError) Error() string { return "unknown work unit " + string(e.ID) }

// Is makes errors.Is(err, ErrUnknownUnit) true.
func (e *UnknownUnitError) Is(target error) bool { return target == ErrUnknownUnit }

// Stream is a connection whose sending direction can be closed on its own. Abort ends both directions such that the other
// end sees a failure, not the end of data: so ends a payload that must not be taken for complete.
type Stream interface {
	net.Conn
	CloseWrite() error
	Abort(code uint64) error
}

// Mesh is what the engine needs of the node it belongs to.
type Mesh interface {
	ID() wire.NodeID
	// DialStream opens a stream to a service; tlsClient names a TLS client profile, "" for none. The error's text is
	// shown to clients; that of a failed TLS handshake contains "CRYPTO_ERROR". If it has a method Reason() string, that is
	// what [Status].Trouble says.
	DialStream(ctx context.Context, node wire.NodeID, service, tlsClient string) (Stream, error)
	// WaitRoute returns nil once node is reachable, or an error when ctx ends.
	WaitRoute(ctx context.Context, node wire.NodeID) error
}

// Config is what an engine needs. It is not changed after [New].
type Config struct {
	Mesh    Mesh   // Required.
	DataDir string // Units live in DataDir/NODE/UNIT. Required.
	// Runner is the path of the program that becomes the command runner: the receptor binary, or any program that begins as that
	// does, with runner.Main if runner.IsRunner says so of its arguments. Required for commands.
	Runner string
	// LogLevel is passed to runners; "" is "info".
	LogLevel string
	// Environ is the environment of runners and commands; nil is that of this process.
	Environ []string
	Logger  *slog.Logger // nil discards.
	// OnPanic is told what a goroutine of the engine has panicked with, in that goroutine, which ends; whoever is told has
	// to give the engine up. nil lets the program end, as a panic does.
	OnPanic func(*fault.Error)
	// Limits are the first ones; see [Engine.SetLimits].
	Limits Limits
	// HasTLSClient reports whether a TLS client profile of that name exists; nil knows none.
	HasTLSClient func(name string) bool
	// Sign makes the signature for a request to node; nil answers "signing key is empty".
	Sign func(node wire.NodeID) (string, error)
	// Verify checks a signature that is not empty; nil answers "verifying key not specified". Its error's whole text is
	// what the client sees.
	Verify func(signature string) error
}

// CommandType is a work type that runs a program: the "work-command" of a configuration.
type CommandType struct {
	WorkType           string // Unique on the node; "remote" is taken.
	Command            string // Program; searched in PATH if it has no slash.
	Params             string // Base parameters, split like a shell does.
	AllowRuntimeParams bool
	VerifySignature    bool // Clients that are not on a Unix socket must sign.
	AllowExec          bool // Clients may attach to the command, to a terminal for instance: "work exec".
	MaxRunning         int  // Units that run at once; others wait in order. 0 is any number.
}

// SubmitRequest is one "work submit".
type SubmitRequest struct {
	Node      wire.NodeID // Own ID or "localhost" in any case: local work.
	WorkType  string
	Params    map[string]string
	TLSClient string // Remote work only.
	TTL       string // Go duration text, "" none. Remote work only.
	SignWork  bool   // Remote work only.
	// Submission names the submission, if it is not "", such that it can be repeated: a unit that was made by one of the same name
	// is ended and deleted if its payload is not complete, and answered with [*BegunError] if it is. A unit with such a name is also
	// deleted, instead of kept as Failed, when its payload breaks off or the engine ends before it is complete. At most
	// [MaxSubmission] letters and digits; nobody must be able to guess it.
	Submission string
}

// MaxSubmission is the longest [SubmitRequest.Submission].
const MaxSubmission = 64

// Results of [Submission.Start].
const (
	JobStarted   = "Job Started"
	JobSubmitted = "Job Submitted" // It waits: for its node to be reachable, or for other units to end.
)

// Change is one event of a [Subscription].
type Change struct {
	Unit     UnitID
	Status   Status
	Released bool // The unit is gone; Status is its last one.
}
