package control

import (
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

// reload has the configuration read again. It goes on if the client leaves: half a reload would be worse.
func (s *session) reload() (any, error) {
	err := errNoConfigFile
	if s.srv.reload != nil {
		err = s.srv.reload(s.ctx)
	}
	if err == nil {
		return map[string]any{"Success": true}, nil
	}
	code := ReloadFailed
	if re, ok := errors.AsType[*ReloadError](err); ok && re.Code != 0 {
		code = re.Code
	}
	return map[string]any{"Success": false, "Error": fmt.Sprintf("%v ERRORCODE %d", err, code)}, nil
}
