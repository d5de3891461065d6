package control

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// work is what the work commands need of the engine: [engine] in a node, something small in tests.
type work interface {
	VerifySubmit(workType, signature string, trusted bool) error
	VerifyUnit(id workceptor.UnitID, signature string, trusted bool) error
	Submit(workceptor.SubmitRequest) (submission, error)
	Status(workceptor.UnitID) (workceptor.Status, error)
	List() map[workceptor.UnitID]workceptor.Status
	Cancel(ctx context.Context, id workceptor.UnitID) (pending bool, err error)
	Release(ctx context.Context, id workceptor.UnitID, force bool) (pending bool, err error)
	Results(ctx context.Context, id workceptor.UnitID, offset int64) (io.ReadCloser, error)
	Follow(ctx context.Context, id workceptor.UnitID, offset int64, w io.Writer) error
	Subscribe(size int) changes
	Exec(workceptor.ExecRequest) (interactive, error)
	Sign(wire.NodeID) (string, error)
}

// interactive is a command that a client is attached to.
type interactive interface {
	workceptor.Stream
	ID() workceptor.UnitID
}

// changes is a subscription to changes of units.
type changes struct {
	C     <-chan workceptor.Change
	Lost  func() uint64 // All in all.
	Close func()
}

// submission is a unit that waits for its payload.
type submission interface {
	ID() workceptor.UnitID
	ReadPayload(io.Reader) error
	Start(context.Context) (result string, err error)
}

type engine struct{ *workceptor.Engine }

func (e engine) Submit(req workceptor.SubmitRequest) (submission, error) {
	sub, err := e.Engine.Submit(req)
	if err != nil {
		return nil, err // Not a nil *Submission in an interface.
	}
	return sub, nil
}

func (e engine) Exec(req workceptor.ExecRequest) (interactive, error) {
	x, err := e.Engine.Exec(req)
	if err != nil {
		return nil, err
	}
	return x, nil
}

func (e engine) Subscribe(size int) changes {
	sub := e.Engine.Subscribe(size)
	return changes{sub.C, sub.Lost, sub.Close}
}

var (
	errBadWorkCommand    = errors.New("bad command")
	errSubcommandMissing = errors.New("field subcommand missing")
	errSubcommandType    = errors.New("field subcommand must be a string")
	errUnitMissing       = errors.New("field unitid missing")
	errUnitType          = errors.New("field unitid must be a string")
	errSignatureType     = errors.New("field signature must be a string")
)

// workSubcommands are those of work, for rules and statistics.
var workSubcommands = []string{"cancel", "exec", "follow", "force-release", "list", "release", "results", "status", "submit"}

// workCommand executes a sub-command of work.
func (s *session) workCommand(req request) (any, error) {
	sub, args, err := subcommand(req)
	if err != nil {
		return nil, err
	}
	switch sub {
	case "submit", submitOnce:
		return nil, s.workSubmit(req, sub, args)
	case "list":
		return s.workList(req, args)
	case "status":
		return s.workStatus(req, args)
	case "cancel":
		return s.workCancel(req, args)
	case "release", "force-release":
		return s.workRelease(req, args, sub)
	case "results":
		return nil, s.workResults(req, args)
	case "follow":
		return nil, s.workFollow(req)
	case "exec":
		return nil, s.workExec(req)
	}
	return nil, errBadWorkCommand
}

// subcommand returns the lower-case sub-command and, in the text form, the words behind it.
func subcommand(req request) (sub string, args []string, err error) {
	if req.isText() {
		words := req.words()
		return strings.ToLower(words[0]), words[1:], nil
	}
	sub, found, isString := req.text("subcommand")
	switch {
	case !found:
		return "", nil, errSubcommandMissing
	case !isString:
		return "", nil, errSubcommandType
	}
	return strings.ToLower(sub), nil, nil
}

// unitOf reads the unit that a request is about and, where it is taken, the signature. The rest is what follows the unit
// in the text form.
func unitOf(req request, args []string, missing error) (id workceptor.UnitID, signature string, rest []string, err error) {
	if req.isText() {
		if len(args) == 0 {
			return "", "", nil, missing
		}
		return workceptor.UnitID(args[0]), "", args[1:], nil
	}
	unit, found, isString := req.text("unitid")
	switch {
	case !found:
		return "", "", nil, errUnitMissing
	case !isString:
		return "", "", nil, errUnitType
	}
	signature, found, isString = req.text("signature")
	if found && !isString {
		return "", "", nil, errSignatureType
	}
	return workceptor.UnitID(unit), signature, nil, nil
}

// exists refuses what cannot be the name of a unit before it gets any further.
func exists(id workceptor.UnitID) error {
	if !id.Valid() {
		return &workceptor.UnknownUnitError{ID: id}
	}
	return nil
}
