package config

import (
	"fmt"
	"net"
	"strings"
)

// checker applies the rules that go beyond types, directive after directive.
type checker struct {
	*parser
	entry     *entry
	services  map[string]Position // Stream services of this node.
	workTypes map[string]Position
	profiles  profiles
}

// check applies them to all directives, and completes their sections. Of one that could not be read whole, only what was
// read is checked.
func check(p *parser) {
	c := &checker{
		parser:    p,
		services:  map[string]Position{"ping": {}, "unreach": {}},
		workTypes: map[string]Position{"remote": {}},
		profiles:  defined(p),
	}
	for _, e := range p.entries {
		if e.spec.check == nil {
			continue
		}
		before := len(p.problems)
		e.spec.check(c, e, e.section)
		if len(p.problems) > before {
			e.broken = true
		}
	}
}

// refuse reports a problem with a parameter, "" for the directive as a whole.
func (c *checker) refuse(param, hint, format string, args ...any) {
	pos, ok := c.entry.given[param]
	switch {
	case !ok && c.entry.broken: // It may be given, in a way that could not be read.
		return
	case !ok:
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
		hint := ""
		switch {
		case strings.Contains(address, "://"):
			hint = "write HOST:PORT, without a scheme"
		case manyColons(address):
			hint = bracketsHint
		}
		c.refuse(param, hint, "%s", err)
	}
}

const bracketsHint = "put the brackets of an IPv6 address around it, as in [fe80::1]:2222"

// manyColons reports whether a host, with or without a port, looks like an IPv6 address without its brackets.
func manyColons(host string) bool {
	return strings.Count(host, ":") > 1 && !strings.HasPrefix(host, "[")
}

// bindAddress is for the address that a listener binds to, which the port is put behind.
func (c *checker) bindAddress(host string, port int) {
	switch address := fmt.Sprintf("%s:%d", host, port); {
	case manyColons(host):
		c.refuse("bindaddr", "put the brackets of an IPv6 address around it, as in [fe80::1]", "address %s: too many colons in address", address)
	case manyColons(address):
		c.refuse("bindaddr", "leave the port out; it is a parameter of its own", "address %s: too many colons in address", address)
	}
}
