package control

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

var (
	errSubmitTooShort  = errors.New("work submit requires a target node and work type")
	errNodeMissing     = errors.New("field node missing")
	errWorkTypeMissing = errors.New("field worktype missing")

	errSubmissionMissing = errors.New("field submission missing")
)

// reservedKeys of a submit request are not parameters of the work.
var reservedKeys = map[string]bool{
	"command": true, "subcommand": true, "node": true, "worktype": true, "tlsclient": true, "ttl": true, "signwork": true,
	"signature": true,
}

// workSubmit makes a unit, takes its payload from the rest of the connection, and starts it.
func (s *session) workSubmit(req request, sub string, args []string) error {
	submit, signature, err := submitOf(req, args)
	if err == nil && sub == submitOnce {
		err = takeSubmission(&submit)
	}
	if err != nil {
		return err
	}
	if err := s.srv.work.VerifySubmit(submit.WorkType, signature, s.trusted); err != nil {
		return err
	}
	unit, err := s.srv.work.Submit(submit)
	if begun, ok := errors.AsType[*workceptor.BegunError](err); ok {
		_ = s.reply(map[string]any{"result": workceptor.JobStarted, "unitid": begun.ID})
		return errSessionOver
	}
	if err != nil {
		return err
	}
	if err := s.send([]byte(fmt.Sprintf("Work unit created with ID %s. Send stdin data and EOF.\n", unit.ID()))); err != nil {
		// Nobody knows the unit, so nobody could ask for its results: it fails, and does not start.
		_ = unit.ReadPayload(failing{err})
		return err
	}
	if err := unit.ReadPayload(payload{s}); err != nil {
		_ = s.refuse(err)
		return errSessionOver
	}
	// From here the work is wanted, even if the client does not wait for the answer.
	result, err := unit.Start(s.ctx)
	if err != nil {
		_ = s.refuse(err)
		return errSessionOver
	}
	_ = s.reply(map[string]any{"result": result, "unitid": unit.ID()})
	return errSessionOver
}

// submitOnce is a submit that another node may repeat, with the key submission. For rules and statistics it is a submit.
const submitOnce = "submit-once"

// takeSubmission reads the key that a plain submit would take for a parameter of the work.
func takeSubmission(submit *workceptor.SubmitRequest) error {
	submit.Submission = submit.Params["submission"]
	delete(submit.Params, "submission")
	if submit.Submission == "" {
		return errSubmissionMissing
	}
	return nil
}

// payload is what follows the request. It is complete only if the client still waits for the answer: one that has closed
// its connection has died, or was stopped, in the middle.
type payload struct{ s *session }

var errVanished = errors.New("client closed the connection before it had ended the payload")

func (p payload) Read(b []byte) (int, error) {
	n, err := p.s.in.Read(b)
	if err == io.EOF && deserted(p.s.conn) {
		err = errVanished
	}
	return n, err
}

// failing is a payload that cannot be read.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func submitOf(req request, args []string) (submit workceptor.SubmitRequest, signature string, err error) {
	if req.isText() {
		if len(args) < 2 {
			return submit, "", errSubmitTooShort
		}
		submit.Node, submit.WorkType = wire.NodeID(args[0]), args[1]
		if params := strings.Join(args[2:], " "); params != "" { // As it was: the words were cut at single spaces.
			submit.Params = map[string]string{"params": params}
		}
		return submit, "", nil
	}
	values := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(req.keys)) {
		value, ok := stringValue(req.keys[key])
		if !ok {
			return submit, "", fmt.Errorf("submit parameters must all be strings and %s is not", key)
		}
		values[key] = value
	}
	if _, ok := values["node"]; !ok {
		return submit, "", errNodeMissing
	}
	if _, ok := values["worktype"]; !ok {
		return submit, "", errWorkTypeMissing
	}
	submit = workceptor.SubmitRequest{
		Node: wire.NodeID(values["node"]), WorkType: values["worktype"], TLSClient: values["tlsclient"], TTL: values["ttl"],
		SignWork: values["signwork"] == "true", Params: map[string]string{},
	}
	for key, value := range values {
		if !reservedKeys[key] {
			submit.Params[key] = value
		}
	}
	return submit, values["signature"], nil
}
