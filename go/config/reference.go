package config

import (
	"fmt"
	"io"
	"strings"
)

// WriteReference writes the reference of all directives as a Markdown page for a program called prog.
func WriteReference(w io.Writer, prog string) error {
	var b strings.Builder
	b.WriteString(`# Directives

Every directive can be given on the command line (` + "`" + prog + ` --tcp-peer address=hub:2222 cost=2` + "`" + `), in a file of the first format (a
list, each item a directive) or in one of the second (a mapping that begins with ` + "`version: 2`" + `, under the key shown here).
"Bare" is the parameter that may be given without its name.
`)
	for g := general; g <= certificates; g++ {
		title := strings.TrimSuffix(groupTitles[g], ":")
		if title == "" {
			title = "The node and its process"
		}
		b.WriteString("\n## " + title + "\n")
		for _, d := range grouped(g) {
			d.reference(&b)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// howOften says in words how a directive may be used.
func (d *directive) howOften() string {
	switch d.times {
	case once:
		return "At most once."
	case alone:
		return "Alone: instead of running a node."
	}
	return "Any number of times."
}

func (d *directive) reference(b *strings.Builder) {
	fmt.Fprintf(b, "\n### %s\n\n%s. %s", d.name, d.help, d.howOften())
	if d.name != "version" {
		fmt.Fprintf(b, " In version 2: `%s`.", d.keyV2())
	}
	if d.bare != "" {
		fmt.Fprintf(b, " Bare: `%s`.", d.bare)
	}
	b.WriteString("\n")
	if len(d.params) == 0 {
		return
	}
	b.WriteString("\n| parameter | type | default | meaning |\n| --- | --- | --- | --- |\n")
	defaults := d.fresh()
	for i := range d.params {
		q := &d.params[i]
		def := q.shownDefault(defaults)
		if q.required {
			def = "required"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", q.name, kindLabels[q.kind], tableCell(def), tableCell(q.help))
	}
}

func tableCell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
