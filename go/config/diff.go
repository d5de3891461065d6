package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// ChangeKind says what happened to a directive.
type ChangeKind string

// The kinds of changes.
const (
	Added   ChangeKind = "added"
	Removed ChangeKind = "removed"
	Changed ChangeKind = "changed"
)

// Change is one difference between two configurations.
type Change struct {
	Kind   ChangeKind
	Old    Directive // Of Removed and Changed.
	New    Directive // Of Added and Changed.
	Params []string  // Of Changed: the parameters that differ, in the order of the help text.
}

// Directive is the new one, or the old one that was removed.
func (c Change) Directive() Directive {
	if c.Kind == Removed {
		return c.Old
	}
	return c.New
}

// String returns for example `changed tcp-peer hub:2222 (cost)`.
func (c Change) String() string {
	d := c.Directive()
	text := string(c.Kind) + " " + d.Name
	if label := d.Label(); label != "" {
		text += " " + label
	}
	if len(c.Params) > 0 {
		text += " (" + strings.Join(c.Params, ", ") + ")"
	}
	return text
}

// Diff tells how b differs from a in what it means: neither order nor spelling nor the place where something was written
// makes a difference, and a default is the same whether it is written or not. Directives of one kind belong together if
// their names (see [Directive.Label]) are the same. What was changed or added comes in the order of b, then what was
// removed in that of a.
func Diff(a, b *Config) []Change {
	same := make(map[string]int)
	for _, d := range a.Directives {
		same[d.Fingerprint()]++
	}
	var fresh []Directive
	for _, d := range b.Directives {
		if f := d.Fingerprint(); same[f] > 0 {
			same[f]--
			continue
		}
		fresh = append(fresh, d)
	}
	var gone []Directive
	for _, d := range slices.Backward(a.Directives) { // Of equal ones the last are gone.
		if f := d.Fingerprint(); same[f] > 0 {
			same[f]--
			gone = append(gone, d)
		}
	}
	slices.Reverse(gone)
	var changes []Change
	for _, d := range fresh {
		i := slices.IndexFunc(gone, func(old Directive) bool { return old.Name == d.Name && old.Label() == d.Label() })
		if i < 0 {
			changes = append(changes, Change{Kind: Added, New: d})
			continue
		}
		changes = append(changes, Change{Kind: Changed, Old: gone[i], New: d, Params: differing(gone[i], d)})
		gone = slices.Delete(gone, i, i+1)
	}
	for _, d := range gone {
		changes = append(changes, Change{Kind: Removed, Old: d})
	}
	return changes
}

// differing are the parameters in which two directives of one kind differ.
func differing(a, b Directive) []string {
	spec := lookup(a.Name)
	before, after := spec.pointer(a.Section), spec.pointer(b.Section)
	var names []string
	for i := range spec.params {
		q := &spec.params[i]
		if v, w := q.get(before), q.get(after); !reflect.DeepEqual(v, w) && fmt.Sprint(v) != fmt.Sprint(w) || isNil(v) != isNil(w) {
			names = append(names, q.name)
		}
	}
	return names
}

// isNil tells a list that was left out from an empty one.
func isNil(v any) bool {
	l, ok := v.([]string)
	return ok && l == nil
}
