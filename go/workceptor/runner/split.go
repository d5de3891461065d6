package runner

import "errors"

// Errors of [Split]. Their texts become the Detail of a unit.
var (
	errQuote  = errors.New("EOF found when expecting closing quote")
	errEscape = errors.New("EOF found after escape character")
)

// Split cuts a parameter string into words as a POSIX shell does, without expanding anything: blanks and newlines
// separate words, single quotes keep everything, double quotes keep all but a backslash before one of " \ $ ` or a
// newline, a backslash outside of quotes keeps the next character, a backslash before a newline vanishes with it, and
// # at the start of a word begins a comment that ends with the line.
func Split(text string) ([]string, error) {
	s := splitter{rest: text}
	for !s.atEnd() {
		switch c := s.next(); c {
		case ' ', '\t', '\r', '\n':
			s.endWord()
		case '#':
			if s.inWord {
				s.add(c)
			} else {
				s.skipLine()
			}
		case '\'':
			s.single()
		case '"':
			s.double()
		case '\\':
			s.escape()
		default:
			s.add(c)
		}
	}
	s.endWord()
	if s.err != nil {
		return nil, s.err
	}
	return s.words, nil
}

type splitter struct {
	rest   string
	word   []byte
	inWord bool // Also true for an empty word in quotes.
	words  []string
	err    error
}

func (s *splitter) atEnd() bool { return s.rest == "" || s.err != nil }

func (s *splitter) next() byte {
	c := s.rest[0]
	s.rest = s.rest[1:]
	return c
}

func (s *splitter) add(c byte) { s.word, s.inWord = append(s.word, c), true }

func (s *splitter) endWord() {
	if s.inWord {
		s.words = append(s.words, string(s.word))
	}
	s.word, s.inWord = s.word[:0], false
}

func (s *splitter) skipLine() {
	for s.rest != "" && s.next() != '\n' {
	}
}

func (s *splitter) single() {
	s.inWord = true
	for s.rest != "" {
		c := s.next()
		if c == '\'' {
			return
		}
		s.add(c)
	}
	s.err = errQuote
}

func (s *splitter) double() {
	s.inWord = true
	for s.rest != "" {
		switch c := s.next(); {
		case c == '"':
			return
		case c == '\\' && s.rest != "" && special(s.rest[0]):
			if c = s.next(); c != '\n' {
				s.add(c)
			}
		default:
			s.add(c)
		}
	}
	s.err = errQuote
}

func special(c byte) bool { return c == '"' || c == '\\' || c == '$' || c == '`' || c == '\n' }

func (s *splitter) escape() {
	if s.rest == "" {
		s.err = errEscape
		return
	}
	if c := s.next(); c != '\n' {
		s.add(c)
	}
}
