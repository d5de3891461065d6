package config

import "strings"

// nearest returns which of names is closest to s, "" if none is close enough to be what was meant.
func nearest(s string, names []string) string {
	s = strings.ToLower(s)
	if len(s) > 64 {
		return ""
	}
	best, bestDistance := "", len(s)/3+1
	for _, name := range names {
		if d := distance(s, name); d <= bestDistance && (best == "" || d < bestDistance) && d < len(name) {
			best, bestDistance = name, d
		}
	}
	return best
}

// distance counts the insertions, deletions, replacements and swaps of neighbours that turn a into b.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

func didYouMean(s string, names []string) string {
	if n := nearest(s, names); n != "" {
		return "did you mean " + n + "?"
	}
	return ""
}

func directiveNames() []string {
	var names []string
	for _, d := range schema() {
		if !d.hidden {
			names = append(names, d.name)
		}
	}
	return names
}

func (d *directive) paramNames() []string {
	names := make([]string, len(d.params))
	for i := range d.params {
		names[i] = d.params[i].name
	}
	return names
}
