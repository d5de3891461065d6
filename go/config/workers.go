package config

import (
	"strings"
	"time"
)

// WorkCommand is a type of work that runs a command.
type WorkCommand struct {
	WorkType           string
	Command            string
	Params             string // Split as a POSIX shell splits words, nothing expanded.
	AllowRuntimeParams bool
	VerifySignature    bool
	AllowPTY           bool // Clients may attach to the command, with a terminal or with pipes.
	MaxRunning         int  // Units that run at once; 0 is any number.
}

// WorkLimits bound what the node holds of work. Zero is no limit.
type WorkLimits struct {
	MaxRunning int           // Units of this node that run at once.
	KeepUnits  int           // Complete units that are kept.
	KeepFor    time.Duration // How long complete units are kept.

	keepFor string
}

// WorkPython is a type of work that runs a function of an installed Python plugin.
type WorkPython struct {
	WorkType string
	Plugin   string         // Name of an entry point in the group receptor.worker.
	Function string         // Of the plugin's module.
	Config   map[string]any // Passed to the function.

	Interpreter     string // Program; empty is the python3 beside the receptor program, or the one in PATH.
	VerifySignature bool
	MaxRunning      int // Units that run at once; 0 is any number.
}

// CommandRunner is how the daemon starts itself as the process that runs one command.
type CommandRunner struct {
	Command string
	Params  string
	UnitDir string
}

// workDirectives are the types of work that a node offers.
func workDirectives() []*directive {
	return []*directive{
		of(directive{name: "work-command", help: "Offer a type of work that runs a command", group: workers},
			WorkCommand{}, checkWorkCommand,
			text("worktype", "Name of the type of work", func(w *WorkCommand) *string { return &w.WorkType }).need().names(),
			text("command", "Command to run", func(w *WorkCommand) *string { return &w.Command }).need(),
			text("params", "Parameters of the command", func(w *WorkCommand) *string { return &w.Params }),
			boolean("allowruntimeparams", "Let the submitter add parameters", func(w *WorkCommand) *bool { return &w.AllowRuntimeParams }),
			boolean("verifysignature", "Accept signed submissions only", func(w *WorkCommand) *bool { return &w.VerifySignature }),
			boolean("allowpty", "Let clients attach to the command, with a terminal or pipes", func(w *WorkCommand) *bool { return &w.AllowPTY }),
			number("maxrunning", "How many units run at once while others wait in order, 0 for any number", func(w *WorkCommand) *int { return &w.MaxRunning }),
		),
		of(directive{name: "work-limits", help: "Limit how much work runs and is kept", group: workers, times: once},
			WorkLimits{}, checkWorkLimits,
			number("maxrunning", "How many units of this node run at once while others wait in order, 0 for any number", func(w *WorkLimits) *int { return &w.MaxRunning }),
			number("keepunits", "How many complete units are kept, the oldest are released, 0 for all", func(w *WorkLimits) *int { return &w.KeepUnits }),
			text("keepfor", "How long complete units are kept, as in 168h, all if absent", func(w *WorkLimits) *string { return &w.keepFor }),
		),
		of(directive{name: "work-python", help: "Offer a type of work that runs a function of a Python plugin", group: workers},
			WorkPython{}, checkWorkPython,
			text("worktype", "Name of the type of work", func(w *WorkPython) *string { return &w.WorkType }).need().names(),
			text("plugin", "Name of the plugin, an entry point of the group receptor.worker", func(w *WorkPython) *string { return &w.Plugin }).need(),
			text("function", "Function of the plugin to run", func(w *WorkPython) *string { return &w.Function }).need(),
			dict("config", "What the function is configured with", func(w *WorkPython) *map[string]any { return &w.Config }),
			text("interpreter", "Python program that has the plugin and pyreceptor installed", func(w *WorkPython) *string { return &w.Interpreter }).shown("python3"),
			boolean("verifysignature", "Accept signed submissions only", func(w *WorkPython) *bool { return &w.VerifySignature }),
			number("maxrunning", "How many units run at once while others wait in order, 0 for any number", func(w *WorkPython) *int { return &w.MaxRunning }),
		),
		of(directive{name: "command-runner", help: "Run the command of one unit of work", group: workers, times: once, hidden: true},
			CommandRunner{}, nil,
			text("command", "Command to run", func(r *CommandRunner) *string { return &r.Command }).need(),
			text("params", "Parameters of the command", func(r *CommandRunner) *string { return &r.Params }).need(),
			text("unitdir", "Directory of the unit", func(r *CommandRunner) *string { return &r.UnitDir }).need(),
		),
	}
}

func checkWorkCommand(c *checker, w *WorkCommand) {
	c.workType(w.WorkType)
	c.verifySignature(w.VerifySignature, w.WorkType)
	c.notNegative("maxrunning", w.MaxRunning)
}

func checkWorkLimits(c *checker, w *WorkLimits) {
	c.notNegative("maxrunning", w.MaxRunning)
	c.notNegative("keepunits", w.KeepUnits)
	if w.keepFor == "" {
		return
	}
	var err error
	if w.KeepFor, err = time.ParseDuration(w.keepFor); err != nil || w.KeepFor <= 0 {
		c.refuse("keepfor", "a duration such as 168h is expected", "keepfor %q cannot be used", w.keepFor)
		return
	}
	w.keepFor = w.KeepFor.String()
}

func (c *checker) notNegative(name string, value int) {
	if value < 0 {
		c.refuse(name, "0 is no limit", "%s must not be negative", name)
	}
}

func checkWorkPython(c *checker, w *WorkPython) {
	c.workType(w.WorkType)
	c.verifySignature(w.VerifySignature, w.WorkType)
	c.notNegative("maxrunning", w.MaxRunning)
	if w.Plugin == "" || strings.Contains(w.Plugin, ":") {
		c.refuse("plugin", "the name of an entry point", "plugin %q cannot be used", w.Plugin)
	}
	if w.Function == "" {
		c.refuse("function", "", "function must not be empty")
	}
}

// workType takes the name of a type of work.
func (c *checker) workType(name string) {
	if first, taken := c.workTypes[name]; taken {
		c.refuse("worktype", givenAt(first), "work type %s already registered", name)
		return
	}
	c.workTypes[name] = c.entry.pos
}

// verifySignature refuses to demand signatures that nobody can check.
func (c *checker) verifySignature(demanded bool, workType string) {
	if demanded && !c.has("work-verification") {
		c.refuse("verifysignature", "name the key with work-verification", "VerifySignature for work command '%s' is true, but the work verification public key is not specified", workType)
	}
}
