package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

var (
	errStatusParameters = errors.New("status command does not take parameters")
	errFieldsElement    = errors.New("each element of requested_fields must be a string")
	errFieldsType       = errors.New("requested_fields must be a list of strings")
)

// status tells about the node: everything, or the fields that were asked for.
func (s *session) status(req request) (any, error) {
	if req.params != "" {
		return nil, errStatusParameters
	}
	raw, some := req.keys["requested_fields"]
	wanted, err := requestedFields(raw, some)
	if err != nil {
		return nil, err
	}
	snapshot := sync.OnceValue(s.srv.node.Status) // Not taken at all for a version.
	fields := statusFields(snapshot, s.srv.version)
	if list := s.srv.certificates(); len(list) > 0 {
		fields["Certificates"] = func(dst []byte) []byte {
			b, _ := json.Marshal(list) // Texts and times have a form.
			return append(dst, b...)
		}
	}
	if some {
		maps.DeleteFunc(fields, func(name string, _ func([]byte) []byte) bool { return !wanted[name] })
	}
	return encoded(appendMap(nil, fields, func(dst []byte, value func([]byte) []byte) []byte { return value(dst) })), nil
}

// certificate is an element of the reply's Certificates, which existing nodes do not have: until when the profiles are
// good.
type certificate struct {
	Name    string
	Server  bool
	Expiry  time.Time
	NodeIDs []wire.NodeID
}

// certificates are those of the node's TLS profiles, if it has any.
func (s *Server) certificates() []certificate {
	if s.tls == nil {
		return nil
	}
	var list []certificate
	for _, p := range s.tls() {
		if p.Expiry != nil {
			list = append(list, certificate{p.Name, p.Server, *p.Expiry, p.NodeIDs})
		}
	}
	return list
}

// StatusReply is the reply of the command status about st, for other protocols that offer the same. It marshals to JSON.
func StatusReply(st netceptor.Status, version string) map[string]any {
	reply := map[string]any{}
	for name, value := range statusFields(func() netceptor.Status { return st }, version) {
		reply[name] = json.RawMessage(value(nil))
	}
	return reply
}

// statusFields returns what appends the value of each key.
func statusFields(snapshot func() netceptor.Status, version string) map[string]func([]byte) []byte {
	costs := func(dst []byte, m map[wire.NodeID]float64) []byte { return appendMap(dst, m, appendNumber) }
	return map[string]func([]byte) []byte{
		"Advertisements":       func(dst []byte) []byte { return appendList(dst, snapshot().Advertisements, appendAdvertisement) },
		"Connections":          func(dst []byte) []byte { return appendList(dst, snapshot().Connections, appendConnection) },
		"KnownConnectionCosts": func(dst []byte) []byte { return appendMap(dst, snapshot().KnownConnectionCosts, costs) },
		"NodeID":               func(dst []byte) []byte { return appendString(dst, snapshot().NodeID) },
		"RoutingTable":         func(dst []byte) []byte { return appendMap(dst, snapshot().RoutingTable, appendString) },
		"SystemCPUCount":       func(dst []byte) []byte { return strconv.AppendInt(dst, int64(runtime.NumCPU()), 10) },
		"SystemMemoryMiB":      func(dst []byte) []byte { return fmt.Append(dst, memoryMiB()) },
		"Version":              func(dst []byte) []byte { return appendString(dst, version) },
	}
}

func appendConnection(dst []byte, c netceptor.Connection) []byte {
	dst = appendString(append(dst, `{"NodeID":`...), c.NodeID)
	dst = appendNumber(append(dst, `,"Cost":`...), c.Cost)
	return append(dst, '}')
}

func appendAdvertisement(dst []byte, ad wire.Advertisement) []byte {
	dst = appendString(append(dst, `{"NodeID":`...), ad.NodeID)
	dst = appendString(append(dst, `,"Service":`...), ad.Service)
	dst = appendTime(append(dst, `,"Time":`...), ad.Time)
	dst = strconv.AppendInt(append(dst, `,"ConnType":`...), int64(ad.ConnType), 10)
	dst = append(dst, `,"Tags":`...)
	if ad.Tags == nil {
		dst = append(dst, "null"...)
	} else {
		dst = appendMap(dst, ad.Tags, appendString)
	}
	dst = append(dst, `,"WorkCommands":`...)
	if ad.WorkCommands == nil {
		dst = append(dst, "null"...)
	} else {
		dst = appendList(dst, ad.WorkCommands, appendWorkCommand)
	}
	return append(dst, '}')
}

func appendWorkCommand(dst []byte, w wire.WorkCommand) []byte {
	dst = appendString(append(dst, `{"WorkType":`...), w.WorkType)
	dst = strconv.AppendBool(append(dst, `,"Secure":`...), w.Secure)
	return append(dst, '}')
}

func requestedFields(raw json.RawMessage, some bool) (map[string]bool, error) {
	if !some {
		return nil, nil
	}
	var list []json.RawMessage
	if raw[0] != '[' || json.Unmarshal(raw, &list) != nil {
		return nil, errFieldsType
	}
	wanted := map[string]bool{}
	for _, element := range list {
		name, ok := stringValue(element)
		if !ok {
			return nil, errFieldsElement
		}
		wanted[name] = true
	}
	return wanted, nil
}

// orEmpty keeps a map without entries from being written as null.
func orEmpty[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return map[K]V{}
	}
	return m
}
