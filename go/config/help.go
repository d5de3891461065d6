package config

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// WriteHelp writes the help text for a program called prog.
func WriteHelp(w io.Writer, prog string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: %s [--<directive> [<param>=<value> | <bare value>] ...] ...\n\n", prog)
	for _, w := range builtIn {
		if w.file {
			w.name += " <filename>"
		}
		b.WriteString("   " + w.name + ": " + w.help + "\n")
	}
	for g := general; g <= certificates; g++ {
		b.WriteByte('\n')
		if title := groupTitles[g]; title != "" {
			b.WriteString(title + "\n")
		}
		for _, d := range grouped(g) {
			d.help1(&b)
		}
	}
	fmt.Fprintf(&b, "\nExample:\n   %s --node id=hub --tcp-listener 2222 --control-service filename=/tmp/receptor.sock\n", prog)
	_, err := io.WriteString(w, b.String())
	return err
}

// grouped returns the directives of a group that are not hidden, required ones first.
func grouped(g group) []*directive {
	ds := slices.DeleteFunc(slices.Clone(schema()), func(d *directive) bool { return d.group != g || d.hidden })
	slices.SortStableFunc(ds, func(a, b *directive) int { return before(a.required, b.required) })
	return ds
}

func before(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// help1 writes one directive.
func (d *directive) help1(b *strings.Builder) {
	fmt.Fprintf(b, "   --%s: %s%s\n", d.name, d.help, notes(d.required, ""))
	defaults := d.fresh()
	for i := range d.params {
		q := &d.params[i]
		fmt.Fprintf(b, "      %s=<%s>: %s%s\n", q.name, kindLabels[q.kind], q.help, notes(q.required, q.shownDefault(defaults)))
	}
}

func notes(required bool, def string) string {
	var list []string
	if required {
		list = append(list, "required")
	}
	if def != "" {
		list = append(list, "default: "+def)
	}
	if list == nil {
		return ""
	}
	return " (" + strings.Join(list, ", ") + ")"
}

// shownDefault is the default as the help shows it, "" for none.
func (q *param) shownDefault(defaults any) string {
	if q.def != "" || q.required {
		return q.def
	}
	switch v := q.get(defaults).(type) {
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case int:
		if q.octal {
			return fmt.Sprintf("%04o", v)
		}
		return strconv.Itoa(v)
	case string, bool:
		return fmt.Sprint(v)
	}
	return ""
}
