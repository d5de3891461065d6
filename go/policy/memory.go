package policy

import (
	"hash/maphash"
	"math/rand/v2"
	"regexp"
	"sync/atomic"

	"github.com/pyreceptor/pyreceptor/go/wire"
)

const (
	// sets and ways bound what is remembered of one field: names whose hash falls into one set share its places.
	sets = 256
	ways = 4
	// maxRemembered is the longest name that is remembered, in bytes, so that invented names cannot fill the memory.
	maxRemembered = 1024
)

// name is what a packet carries in one of its four fields.
type name interface {
	wire.NodeID | wire.ServiceName
}

// memory holds the regular expressions for one field, and what they said about the names seen last. It is safe for
// concurrent use once all expressions are added: each place is replaced as a whole.
type memory[K name] struct {
	text  func(K) string
	seed  maphash.Seed
	exprs []*regexp.Regexp
	index map[string]int // By pattern: rules share expressions.
	sets  *[sets][ways]atomic.Pointer[answer[K]]
}

// answer is what each expression says about a name. It never changes.
type answer[K name] struct {
	name K
	said []bool
}

func newMemory[K name](text func(K) string) *memory[K] {
	return &memory[K]{text: text, seed: maphash.MakeSeed(), index: map[string]int{}}
}

// add registers an expression and returns its index.
func (m *memory[K]) add(pattern string, expr *regexp.Regexp) int {
	if i, ok := m.index[pattern]; ok {
		return i
	}
	if m.sets == nil {
		m.sets = new([sets][ways]atomic.Pointer[answer[K]])
	}
	m.index[pattern] = len(m.exprs)
	m.exprs = append(m.exprs, expr)
	return m.index[pattern]
}

// ask returns what the expressions say about a name.
func (m *memory[K]) ask(name K) []bool {
	set := &m.sets[maphash.Comparable(m.seed, name)%sets]
	for i := range set {
		if a := set[i].Load(); a != nil && a.name == name {
			return a.said
		}
	}
	text := m.text(name)
	said := make([]bool, len(m.exprs))
	for i, expr := range m.exprs {
		said[i] = expr.MatchString(text)
	}
	if len(text) <= maxRemembered {
		set[place(set)].Store(&answer[K]{name, said})
	}
	return said
}

// place chooses where in a set a new answer goes: a free place, or any.
func place[K name](set *[ways]atomic.Pointer[answer[K]]) int {
	for i := range set {
		if set[i].Load() == nil {
			return i
		}
	}
	return rand.IntN(ways)
}
