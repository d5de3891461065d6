package config

import (
	"net"
)

// checker applies the rules that go beyond types, directive after directive.
type checker struct {
	*parser
	entry     *entry
	services  map[string]Position // Stream services of this node.
	workTypes map[string]Position
	profiles  profiles
}

// check applies them to all directives that could be read, and completes their sections.
func check(p *parser) {
	c := &checker{
		parser:    p,
		services:  map[string]Position{"ping": {}, "unreach": {}},
		workTypes: map[string]Position{"remote": {}},
		profiles:  defined(p),
	}
	for _, e := range p.entries {
		if e.spec.check != nil && !e.broken {
			e.spec.check(c, e, e.section)
		}
	}
}

// refuse reports a problem with a parameter.
func (c *checker) refuse(param, hint, format string, args ...any) {
	pos, ok := c.entry.given[param]
	if !ok {
		pos = c.entry.pos
	}
	c.problem(pos, hint, format, args...)
}

// givenAt says where a name was taken; reserved names were taken nowhere.
func givenAt(first Position) string {
	if s := first.String(); s != "" {
		return "first given at " + s
	}
	return "the name is reserved"
}

func (c *checker) address(param, address string) {
	if _, _, err := net.SplitHostPort(address); err != nil {
		c.refuse(param, "", "%s", err)
	}
}
