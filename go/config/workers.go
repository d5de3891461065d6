package config

// WorkCommand is a type of work that runs a command.
type WorkCommand struct {
	WorkType           string
	Command            string
	Params             string // Split as a POSIX shell splits words, nothing expanded.
	AllowRuntimeParams bool
	VerifySignature    bool
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
			text("worktype", "Name of the type of work", func(w *WorkCommand) *string { return &w.WorkType }).need(),
			text("command", "Command to run", func(w *WorkCommand) *string { return &w.Command }).need(),
			text("params", "Parameters of the command", func(w *WorkCommand) *string { return &w.Params }),
			boolean("allowruntimeparams", "Let the submitter add parameters", func(w *WorkCommand) *bool { return &w.AllowRuntimeParams }),
			boolean("verifysignature", "Accept signed submissions only", func(w *WorkCommand) *bool { return &w.VerifySignature }),
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
	if first, taken := c.workTypes[w.WorkType]; taken {
		c.refuse("worktype", givenAt(first), "work type %s already registered", w.WorkType)
	} else {
		c.workTypes[w.WorkType] = c.entry.pos
	}
	if w.VerifySignature && !c.has("work-verification") {
		c.refuse("verifysignature", "", "VerifySignature for work command '%s' is true, but the work verification public key is not specified", w.WorkType)
	}
}
