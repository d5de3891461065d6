package unit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// MaxRecord is the longest status file that is written or read, in bytes.
const MaxRecord = 16 << 20

// Record is what the status file holds.
type Record struct {
	State      State
	Detail     string // Free text; some are relied on, see the Detail constants.
	StdoutSize int64  // Bytes of output known so far.
	WorkType   string // Configured name, or "remote".
	Extra      Extra
	Times
	Outcome
	// VerifySignature says that the unit's type wanted signatures when the unit was made, which is good while the type is not
	// offered.
	VerifySignature bool

	other map[string]json.RawMessage // Keys this version does not know, kept at rewrites.
}

// Extra is ExtraData, which depends on the kind of work: nil (null), [*CommandExtra], [*RemoteExtra], [*PodExtra], or
// [RawExtra] for what belongs to another kind of work.
type Extra interface{ appendJSON(dst []byte) []byte }

// CommandExtra is the ExtraData of a unit that a runner process executes. A record's value is shared between its
// copies: replace it, do not change it.
type CommandExtra struct {
	Pid    int    // The runner's process ID; 0 before the start, and for ever if there is none.
	Params string // The complete parameter string.
	// InProcess says that a function of the node's own program does the work. It is not shown to clients.
	InProcess bool
	// Submission is the name that another node has given to the submission that made the unit, for the time until its payload
	// is complete: see [RemoteExtra]. It is not shown to clients.
	Submission string
	// Attached says that the unit was made for a client who is attached to it, and is of no use without. It is not shown to clients.
	Attached bool
	other    map[string]json.RawMessage
}

// RemoteExtra is the ExtraData of a unit that lives on another node. It is shared between copies of a record: use
// [Record.EditRemote] to change it.
type RemoteExtra struct {
	RemoteNode     string
	RemoteWorkType string
	RemoteParams   map[string]string
	RemoteUnitID   ID   // Empty until the executor has made its unit.
	RemoteStarted  bool // The executor has accepted the whole payload.
	LocalCancelled bool
	LocalReleased  bool
	SignWork       bool
	TLSClient      string
	Expiration     time.Time // Zero: never.
	// Submission names the submission for the executor, which makes one unit of it, however often it has to be repeated. It is not
	// shown to clients: who knows it could end the unit before its payload is complete.
	Submission string
	other      map[string]json.RawMessage
}

// RawExtra is ExtraData of a kind of work that this package does not know, kept as it was read.
type RawExtra json.RawMessage

// Command returns the ExtraData of command work, or nil.
func (r Record) Command() *CommandExtra { c, _ := r.Extra.(*CommandExtra); return c }

// Pod returns the ExtraData of a unit that runs as a pod, or nil.
func (r Record) Pod() *PodExtra { p, _ := r.Extra.(*PodExtra); return p }

// Submission is the name of the submission that made the unit, if it is one of this node that still waits for its payload.
func (r Record) Submission() string {
	switch x := r.Extra.(type) {
	case *CommandExtra:
		return x.Submission
	case *PodExtra:
		return x.Submission
	}
	return ""
}

// Remote returns the ExtraData of remote work, or nil.
func (r Record) Remote() *RemoteExtra { x, _ := r.Extra.(*RemoteExtra); return x }

// SetPid stores the runner's process ID.
func (r *Record) SetPid(pid int) {
	next := CommandExtra{Pid: pid}
	if old := r.Command(); old != nil {
		next.Params, next.InProcess, next.Attached, next.other = old.Params, old.InProcess, old.Attached, old.other
	}
	r.Extra = &next
}

// EditRemote changes a copy of the remote ExtraData and puts it in place. It does nothing to other records.
func (r *Record) EditRemote(edit func(*RemoteExtra)) {
	if old := r.Remote(); old != nil {
		next := *old
		edit(&next)
		r.Extra = &next
	}
}

var errNotObject = errors.New("status is not a JSON object")

// Parse reads a status file. It is the whole file: trailing white space is allowed, anything else is an error, and so
// are values of a wrong type. Missing keys are zero values and unknown ones are kept.
func Parse(data []byte) (Record, error) {
	if len(data) > MaxRecord {
		return Record{}, fmt.Errorf("status has %d bytes, at most %d are read", len(data), MaxRecord)
	}
	keys, err := parseObject(data)
	if err != nil {
		return Record{}, err
	}
	var r Record
	var extra json.RawMessage
	err = take(keys, map[string]any{
		"State": &r.State, "Detail": &r.Detail, "StdoutSize": &r.StdoutSize, "WorkType": &r.WorkType, "ExtraData": &extra,
	})
	if err != nil {
		return Record{}, err
	}
	if r.StdoutSize < 0 {
		return Record{}, fmt.Errorf("StdoutSize is negative: %d", r.StdoutSize)
	}
	r.takeKeys(keys)
	r.other = keys
	r.Extra, err = parseExtra(extra)
	return r, err
}

func parseObject(data []byte) (map[string]json.RawMessage, error) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(data, &keys); err != nil {
		return nil, err
	}
	if keys == nil {
		return nil, errNotObject // null
	}
	return keys, nil
}

// take decodes the wanted keys and removes them from keys.
func take(keys map[string]json.RawMessage, want map[string]any) error {
	for _, name := range slices.Sorted(maps.Keys(want)) {
		raw, ok := keys[name]
		if !ok {
			continue
		}
		delete(keys, name)
		if err := json.Unmarshal(raw, want[name]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// parseExtra tells the kinds of ExtraData apart by their keys, as a record must be readable without the configuration.
func parseExtra(raw json.RawMessage) (Extra, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	keys, err := parseObject(raw)
	if err != nil {
		return RawExtra(raw), nil
	}
	if _, ok := keys["RemoteNode"]; ok {
		return parseRemote(keys)
	}
	for _, name := range []string{"PodName", "KubeNamespace", "KubeConfig", "KubePod"} { // Any of them: what is left out is empty.
		if _, ok := keys[name]; ok {
			return parsePod(keys)
		}
	}
	if _, ok := keys["Pid"]; ok {
		var c CommandExtra
		err := take(keys, map[string]any{
			"Pid": &c.Pid, "Params": &c.Params, "InProcess": &c.InProcess, "Submission": &c.Submission, "Attached": &c.Attached,
		})
		if err != nil {
			return nil, fmt.Errorf("ExtraData.%w", err)
		}
		c.other = keys
		return &c, nil
	}
	return RawExtra(raw), nil
}

func parseRemote(keys map[string]json.RawMessage) (Extra, error) {
	var x RemoteExtra
	err := take(keys, map[string]any{
		"RemoteNode": &x.RemoteNode, "RemoteWorkType": &x.RemoteWorkType, "RemoteParams": &x.RemoteParams,
		"RemoteUnitID": &x.RemoteUnitID, "RemoteStarted": &x.RemoteStarted, "LocalCancelled": &x.LocalCancelled,
		"LocalReleased": &x.LocalReleased, "SignWork": &x.SignWork, "TLSClient": &x.TLSClient, "Expiration": &x.Expiration,
		"Submission": &x.Submission,
	})
	if err != nil {
		return nil, fmt.Errorf("ExtraData.%w", err)
	}
	if x.RemoteUnitID != "" && !x.RemoteUnitID.Valid() {
		return nil, fmt.Errorf("ExtraData.RemoteUnitID: %q is not a unit ID", x.RemoteUnitID)
	}
	x.other = keys
	return &x, nil
}

// Append appends the status file that says r, newline included. Secret parameters are left out as soon as nobody needs them any
// more: when the executor has them, or never will.
func (r Record) Append(dst []byte) []byte {
	dst = append(dst, '{')
	dst = appendKey(dst, "State", int(r.State))
	dst = appendKey(append(dst, ','), "Detail", r.Detail)
	dst = appendKey(append(dst, ','), "StdoutSize", r.StdoutSize)
	dst = appendKey(append(dst, ','), "WorkType", r.WorkType)
	dst = append(dst, `,"ExtraData":`...)
	extra := r.Extra
	if x := r.Remote(); x != nil && (x.RemoteStarted || r.State.Complete()) {
		needless := *x
		needless.RemoteParams = x.plainParams()
		extra = &needless
	}
	dst = appendExtra(dst, extra)
	dst = r.appendKeys(dst)
	dst = appendOther(dst, r.other)
	return append(dst, '}', '\n')
}

func appendExtra(dst []byte, x Extra) []byte {
	if x == nil {
		return append(dst, "null"...)
	}
	return x.appendJSON(dst)
}

func (c *CommandExtra) appendJSON(dst []byte) []byte {
	dst = appendKey(append(dst, '{'), "Pid", c.Pid)
	dst = appendKey(append(dst, ','), "Params", c.Params)
	if c.InProcess {
		dst = appendKey(append(dst, ','), "InProcess", true)
	}
	dst = appendText(dst, "Submission", c.Submission)
	if c.Attached {
		dst = appendKey(append(dst, ','), "Attached", true)
	}
	return append(appendOther(dst, c.other), '}')
}

func (x *RemoteExtra) appendJSON(dst []byte) []byte {
	params := x.RemoteParams
	if params == nil {
		params = map[string]string{}
	}
	dst = appendKey(append(dst, '{'), "RemoteNode", x.RemoteNode)
	dst = appendKey(append(dst, ','), "RemoteWorkType", x.RemoteWorkType)
	dst = appendKey(append(dst, ','), "RemoteParams", params)
	dst = appendKey(append(dst, ','), "RemoteUnitID", x.RemoteUnitID)
	dst = appendKey(append(dst, ','), "RemoteStarted", x.RemoteStarted)
	dst = appendKey(append(dst, ','), "LocalCancelled", x.LocalCancelled)
	dst = appendKey(append(dst, ','), "LocalReleased", x.LocalReleased)
	dst = appendKey(append(dst, ','), "SignWork", x.SignWork)
	dst = appendKey(append(dst, ','), "TLSClient", x.TLSClient)
	dst = appendKey(append(dst, ','), "Expiration", x.Expiration)
	dst = appendText(dst, "Submission", x.Submission)
	return append(appendOther(dst, x.other), '}')
}

func (x RawExtra) appendJSON(dst []byte) []byte {
	var compact bytes.Buffer
	if json.Compact(&compact, x) != nil {
		return append(dst, "null"...)
	}
	return append(dst, compact.Bytes()...)
}

func appendKey(dst []byte, name string, value any) []byte {
	dst = append(append(append(dst, '"'), name...), '"', ':')
	return appendValue(dst, value)
}

func appendValue(dst []byte, value any) []byte {
	switch v := value.(type) { // What lists of thousands of units are full of.
	case int:
		return strconv.AppendInt(dst, int64(v), 10)
	case int64:
		return strconv.AppendInt(dst, v, 10)
	case string:
		if isPlain(v) {
			return append(append(append(dst, '"'), v...), '"')
		}
	}
	text, err := json.Marshal(value)
	if err != nil { // A year outside 0 to 9999 is the only value of a record that has no JSON form.
		return append(dst, "null"...)
	}
	return append(dst, text...)
}

// isPlain reports whether a text stands in JSON as it is.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}

func appendOther(dst []byte, other map[string]json.RawMessage) []byte {
	for _, name := range slices.Sorted(maps.Keys(other)) {
		dst = append(appendValue(append(dst, ','), name), ':')
		dst = appendValue(dst, other[name])
	}
	return dst
}

// Status is a unit as clients see it.
type Status struct {
	State      State
	Detail     string
	StdoutSize int64
	WorkType   string
	Extra      Extra
	Configured bool // False: the node offers no such work type, and ExtraData is shown as "Unknown WorkType".
	Times
	Outcome
	// QueuePosition is not 0 for a unit that waits until others of its node have ended: 1 is the next to start.
	QueuePosition int
	// Trouble is why the node that does the unit cannot be spoken to at the moment; it is tried again. TroubleSince is when it
	// could not for the first time since it last could.
	Trouble      string
	TroubleSince time.Time
	// Unsettled says of a complete unit that the checksum of its output, or the rest of its copy, is on its way. It is not part of replies.
	Unsettled bool
}

// Status returns the client's view of r. configured says whether the node knows the work type.
func (r Record) Status(configured bool) Status {
	return Status{
		State: r.State, Detail: r.Detail, StdoutSize: r.StdoutSize, WorkType: r.WorkType, Extra: r.Extra, Configured: configured,
		Times: r.Times, Outcome: r.Outcome,
	}
}

// StateName is the state as text.
func (s Status) StateName() string { return s.State.String() }

// ExitCode returns the exit code of a finished command, if it is known.
func (s Status) ExitCode() (int, bool) {
	return Record{State: s.State, Detail: s.Detail, Outcome: s.Outcome}.ExitCode()
}

// MarshalJSON returns the reply of "work status": keys in byte order, secrets withheld.
func (s Status) MarshalJSON() ([]byte, error) { return s.AppendJSON(nil), nil }

// AppendJSON appends what MarshalJSON returns.
func (s Status) AppendJSON(dst []byte) []byte {
	dst = append(dst, '{')
	if !s.Created.IsZero() {
		dst = append(appendKey(dst, "Created", s.Created), ',')
	}
	dst = appendKey(dst, "Detail", s.Detail)
	dst = appendCode(dst, s.Code)
	dst = append(dst, `,"ExtraData":`...)
	if s.Configured {
		dst = appendExtra(dst, withhold(s.Extra))
	} else {
		dst = append(dst, `"Unknown WorkType"`...)
	}
	dst = appendTime(dst, "Finished", s.Finished)
	if s.QueuePosition > 0 {
		dst = appendKey(append(dst, ','), "QueuePosition", s.QueuePosition)
	}
	dst = appendText(dst, "Reason", string(s.Reason))
	dst = appendText(dst, "Signal", s.Signal)
	dst = appendTime(dst, "Started", s.Started)
	dst = appendKey(append(dst, ','), "State", int(s.State))
	dst = appendKey(append(dst, ','), "StateName", s.State.String())
	dst = appendText(dst, "StdoutSHA256", s.SHA256)
	dst = appendKey(append(dst, ','), "StdoutSize", s.StdoutSize)
	dst = appendText(dst, "Trouble", s.Trouble)
	dst = appendTime(dst, "TroubleSince", s.TroubleSince)
	dst = appendKey(append(dst, ','), "WorkType", s.WorkType)
	return append(dst, '}')
}

// withhold returns what of ExtraData may be shown: no secret parameters, no keys that only this node understands.
func withhold(x Extra) Extra {
	switch x := x.(type) {
	case *CommandExtra:
		return &CommandExtra{Pid: x.Pid, Params: x.Params}
	case *RemoteExtra:
		shown := *x
		shown.other, shown.Submission = nil, ""
		shown.RemoteParams = x.plainParams()
		return &shown
	case *PodExtra:
		return x.shown()
	case RawExtra:
		return withholdRaw(x)
	}
	return x
}

// plainParams are the parameters that are no secrets. The map may be that of x.
func (x *RemoteExtra) plainParams() map[string]string {
	for name := range x.RemoteParams {
		if IsSecret(name) {
			plain := maps.Clone(x.RemoteParams)
			maps.DeleteFunc(plain, func(name, _ string) bool { return IsSecret(name) })
			return plain
		}
	}
	return x.RemoteParams
}

// withholdRaw leaves out every secret_ key.
func withholdRaw(x RawExtra) Extra {
	keys, err := parseObject(x)
	if err != nil {
		return x
	}
	maps.DeleteFunc(keys, func(name string, _ json.RawMessage) bool { return IsSecret(name) })
	return RawExtra(appendValue(nil, keys))
}

// IsSecret reports whether a parameter of this name must be kept from replies and unprotected connections.
func IsSecret(name string) bool {
	const prefix = "secret_"
	return len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
}
