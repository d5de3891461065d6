package control

import (
	"encoding/json"
	"errors"
	"strings"
)

// request is one command line, taken apart as far as all commands have in common.
type request struct {
	command string                     // Lower case in the text form, as it was sent in JSON.
	params  string                     // Text form: what follows the first space.
	keys    map[string]json.RawMessage // JSON form; nil in the text form.
}

// The texts of requests that are no requests.
var (
	errNoCommand      = errors.New("JSON did not contain a command")
	errCommandType    = errors.New("command must be a string")
	errUnknownCommand = errors.New("Unknown command") //lint:ignore ST1005 clients know this text
)

// parseRequest takes a line without its newline apart. It is not empty. A line that begins with a brace is JSON, any
// other is text: a command word, and parameters behind the first space.
func parseRequest(line []byte) (request, error) {
	if line[0] != '{' {
		word, params, _ := strings.Cut(string(line), " ")
		return request{command: strings.ToLower(word), params: params}, nil
	}
	var r request
	if err := json.Unmarshal(line, &r.keys); err != nil {
		return request{}, err
	}
	command, found, isString := r.text("command")
	if !found {
		return request{}, errNoCommand
	}
	if !isString {
		return request{}, errCommandType
	}
	r.command = command
	return r, nil
}

// isText reports whether the request came in the text form.
func (r request) isText() bool { return r.keys == nil }

// text returns a value of the JSON form: whether there is one, and whether it is a string.
func (r request) text(key string) (value string, found, isString bool) {
	raw, found := r.keys[key]
	value, isString = stringValue(raw)
	return value, found, isString
}

func stringValue(raw json.RawMessage) (string, bool) {
	var value string
	if len(raw) == 0 || raw[0] != '"' || json.Unmarshal(raw, &value) != nil {
		return "", false
	}
	return value, true
}

// words are the parameters of the text form, cut at every single space: two spaces make an empty word, and so does a
// trailing one. There is always at least one.
func (r request) words() []string { return strings.Split(r.params, " ") }
