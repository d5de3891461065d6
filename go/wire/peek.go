package wire

import "bytes"

// PeekRoute finds the origin and the update ID of a route message without parsing it, so that the many copies of an
// update that a flood brings cost next to nothing. ok is false for a message that is not laid out as nodes write it, or
// whose values have escapes: then only [ParseRouteUpdate] can tell.
func PeekRoute(msg []byte) (node, updateID []byte, ok bool) {
	rest, ok := bytes.CutPrefix(msg, []byte("\x01{\"NodeID\":\""))
	if !ok {
		return nil, nil, false
	}
	if node, rest, ok = peekString(rest); !ok {
		return nil, nil, false
	}
	if rest, ok = bytes.CutPrefix(rest, []byte(",\"UpdateID\":\"")); !ok {
		return nil, nil, false
	}
	updateID, _, ok = peekString(rest)
	return node, updateID, ok
}

// peekString splits off the rest of a JSON string without escapes.
func peekString(b []byte) (value, rest []byte, ok bool) {
	end := bytes.IndexByte(b, '"')
	if end < 0 || bytes.IndexByte(b[:end], '\\') >= 0 {
		return nil, nil, false
	}
	return b[:end], b[end+1:], true
}

// SameConnections reports whether two route messages that [RouteUpdate.Append] has made list the same connections.
func SameConnections(a, b []byte) bool {
	x, ok := peekConnections(a)
	y, same := peekConnections(b)
	return ok && same && bytes.Equal(x, y)
}

// peekConnections returns the list of neighbours as it stands in a message. Names contain no quotes but escaped ones, so
// the marks around it are found nowhere else.
func peekConnections(msg []byte) ([]byte, bool) {
	_, rest, ok := bytes.Cut(msg, []byte(",\"Connections\":"))
	if !ok {
		return nil, false
	}
	list, _, ok := bytes.Cut(rest, []byte(",\"ForwardingNode\":"))
	return list, ok
}
