package workceptor

import (
	"encoding/json"
	"fmt"
	"maps"

	"github.com/pyreceptor/pyreceptor/go/workceptor/proc"
)

// PythonType is a work type that a function of a Python plugin serves: the "work-python" of a configuration. The process is
//
//	INTERPRETER -P -m receptor._plugin_worker PLUGIN:FUNCTION UNITDIR CONFIG
//
// where CONFIG is Config with the run-time parameters added as "params", as JSON. It plays the runner's part for its unit:
// locks, states, output. The plugin is found by its entry point in the group "receptor.worker" of that interpreter.
type PythonType struct {
	WorkType        string
	Plugin          string // Name of the entry point.
	Function        string // Of the plugin's module.
	Config          map[string]any
	Interpreter     string // "" is the python3 beside Config.Runner, or the one in PATH.
	VerifySignature bool
	MaxRunning      int
}

// RegisterPython adds a work type. Types that are registered after [Engine.Start] do not take up units found on disk.
func (e *Engine) RegisterPython(t PythonType) error {
	if t.WorkType == "" || t.Plugin == "" || t.Function == "" {
		return fmt.Errorf("work type %q: a name, a plugin and a function are required", t.WorkType)
	}
	if _, err := json.Marshal(t.Config); err != nil {
		return fmt.Errorf("work type %s: config: %w", t.WorkType, err)
	}
	interpreter := t.Interpreter
	if interpreter == "" {
		interpreter = proc.Beside(e.cfg.Runner, "python3") // That of the environment that the receptor program was installed into.
	}
	return e.register(workType{
		name: t.WorkType, verify: t.VerifySignature, limit: t.MaxRunning, interpreter: interpreter,
		plan: func(params map[string]string) (string, error) { return params["params"], nil },
		argv: func(params, unitDir string) []string {
			config := maps.Clone(t.Config)
			if config == nil {
				config = map[string]any{}
			}
			config["params"] = params
			text, _ := json.Marshal(config) // It could be marshalled before.
			return []string{interpreter, "-P", "-m", "receptor._plugin_worker", t.Plugin + ":" + t.Function, unitDir, string(text)}
		},
	})
}
