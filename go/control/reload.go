package control

import (
	"encoding/json"
	"errors"
	"fmt"
)

// The error codes of a failed reload, as clients turn them into exit codes.
const (
	ReloadNotReloadable = 3 // A section was changed that takes effect at start only.
	ReloadFailed        = 4 // The file cannot be used, or what it asks for cannot be done.
)

// ReloadError is a failed reload with its code.
type ReloadError struct {
	Code int
	Err  error
}

func (e *ReloadError) Error() string { return e.Err.Error() }
func (e *ReloadError) Unwrap() error { return e.Err }

var errNoConfigFile = errors.New("no configuration file was provided, reload function not set")

// reload has the configuration read again. It goes on if the client leaves: half a reload would be worse. The
// parameters `dry-run` in the text form and `"dry_run": true` in JSON tell what would change and change nothing.
func (s *session) reload(req request) (any, error) {
	var dryRun bool
	switch req.params {
	case "dry-run", "--dry-run":
		dryRun = true
	}
	if raw, found := req.keys["dry_run"]; found && json.Unmarshal(raw, &dryRun) != nil {
		return nil, errors.New("dry_run must be true or false")
	}
	err := errNoConfigFile
	var changes []string
	if s.srv.reload != nil {
		changes, err = s.srv.reload(s.ctx, dryRun)
	}
	if err == nil {
		reply := map[string]any{"Success": true}
		if len(changes) > 0 {
			reply["Changes"] = changes
		}
		if dryRun {
			reply["DryRun"] = true
		}
		return reply, nil
	}
	code := ReloadFailed
	if re, ok := errors.AsType[*ReloadError](err); ok && re.Code != 0 {
		code = re.Code
	}
	return map[string]any{"Success": false, "Error": fmt.Sprintf("%v ERRORCODE %d", err, code)}, nil
}
