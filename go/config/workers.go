package config

import "strings"

// WorkCommand is a type of work that runs a command.
type WorkCommand struct {
	WorkType           string
	Command            string
	Params             string // Split as a POSIX shell splits words, nothing expanded.
	AllowRuntimeParams bool
	VerifySignature    bool
}

// WorkPython is a type of work that runs a function of an installed Python plugin.
type WorkPython struct {
	WorkType string
	Plugin   string         // Name of an entry point in the group receptor.worker.
	Function string         // Of the plugin's module.
	Config   map[string]any // Passed to the function.
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
		),
		of(directive{name: "work-python", help: "Offer a type of work that runs a function of a Python plugin", group: workers},
			WorkPython{}, checkWorkPython,
			text("worktype", "Name of the type of work", func(w *WorkPython) *string { return &w.WorkType }).need().names(),
			text("plugin", "Name of the plugin, an entry point of the group receptor.worker", func(w *WorkPython) *string { return &w.Plugin }).need(),
			text("function", "Function of the plugin to run", func(w *WorkPython) *string { return &w.Function }).need(),
			dict("config", "What the function is configured with", func(w *WorkPython) *map[string]any { return &w.Config }),
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
}

func checkWorkPython(c *checker, w *WorkPython) {
	c.workType(w.WorkType)
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
