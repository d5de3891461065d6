package workceptor

import (
	"errors"
	"fmt"
	"sort"

	"github.com/pyreceptor/pyreceptor/go/wire"
	"github.com/pyreceptor/pyreceptor/go/workceptor/runner"
)

// workType is a type of work that this node does itself.
type workType struct {
	name   string
	verify bool
	limit  int  // Units that may run at once; 0 is any number.
	exec   bool // Clients may attach to the command's terminal or pipes.

	interpreter string // The process is this program instead of a runner; "" for other work than that of Python.

	pods *KubernetesType // Not nil: the units run as pods, and the process is a helper instead of a runner.

	// plan checks the parameters of a request and returns what ExtraData says of them. Pods have their own.
	plan func(params map[string]string) (string, error)

	// One of the two: a function of this program, or the arguments of the process that runs a unit, program first. A command
	// is run by a runner of the pool, and has these for a unit with a client attached.
	handler Handler
	command string
	argv    func(params, unitDir string) []string
}

// RegisterCommand adds a work type. Types that are registered after [Engine.Start] do not take up units found on disk.
func (e *Engine) RegisterCommand(t CommandType) error {
	if t.WorkType == "" || t.Command == "" {
		return fmt.Errorf("work type %q: a name and a command are required", t.WorkType)
	}
	return e.register(workType{
		name: t.WorkType, verify: t.VerifySignature, limit: t.MaxRunning, exec: t.AllowExec, command: t.Command,
		plan: func(params map[string]string) (string, error) { return t.combine(params["params"]) },
		argv: func(params, unitDir string) []string {
			return append([]string{e.cfg.Runner}, runner.Arguments(e.cfg.LogLevel, t.Command, params, unitDir)...)
		},
	})
}

// combine joins configured and run-time parameters.
func (t CommandType) combine(extra string) (string, error) {
	switch {
	case extra == "":
		return t.Params, nil
	case !t.AllowRuntimeParams:
		return "", errors.New("extra params provided but not allowed")
	case t.Params == "":
		return extra, nil
	}
	return t.Params + " " + extra, nil
}

// RegisterFunction adds a work type that a function of this program serves. It may be called at any time.
func (e *Engine) RegisterFunction(t FunctionType) error {
	if t.WorkType == "" || t.Handler == nil {
		return fmt.Errorf("work type %q: a name and a handler are required", t.WorkType)
	}
	return e.register(workType{
		name: t.WorkType, verify: t.VerifySignature, limit: t.MaxRunning, handler: t.Handler,
		plan: func(params map[string]string) (string, error) {
			if t.Check != nil {
				if err := t.Check(params); err != nil {
					return "", err
				}
			}
			return params["params"], nil
		},
	})
}

func (e *Engine) register(t workType) error {
	if t.limit < 0 {
		return fmt.Errorf("work type %s: at most %d units running: want a number from 1, or 0 for no limit", t.name, t.limit)
	}
	e.mu.Lock()
	if _, taken := e.types[t.name]; taken || t.name == remoteWorkType {
		e.mu.Unlock()
		return fmt.Errorf("work type %s %w", t.name, ErrRegistered)
	}
	e.types[t.name] = t
	e.mu.Unlock()
	e.configure(t.name, true)
	e.gate.setLimit(t.name, t.limit)
	return nil
}

// Unregister takes a work type back: new units of it are refused, those that have begun or wait for others go on. It does nothing for a type
// that is not registered. One that is registered under its name afterwards brings the limit that counts for those that wait.
func (e *Engine) Unregister(name string) {
	e.mu.Lock()
	delete(e.types, name)
	e.mu.Unlock()
	e.configure(name, false)
}

// configure says of all units of a type whether it is offered.
func (e *Engine) configure(name string, offered bool) {
	for _, j := range e.jobs() {
		j.mu.Lock()
		if j.rec.WorkType == name {
			j.configured = offered
		}
		j.mu.Unlock()
	}
}

func (e *Engine) workType(name string) (workType, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	t, ok := e.types[name]
	return t, ok
}

// WorkTypes returns what the node offers, for its advertisements, in order of name.
func (e *Engine) WorkTypes() []wire.WorkCommand {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []wire.WorkCommand
	for _, t := range e.types {
		all = append(all, wire.WorkCommand{WorkType: t.name, Secure: t.verify})
	}
	sort.Slice(all, func(i, j int) bool { return all[i].WorkType < all[j].WorkType })
	return all
}
