package control

import (
	"encoding/json"
	"errors"
	"runtime"
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

// advertisement is an element of the reply's Advertisements. The order of fields is that of the reply.
type advertisement struct {
	NodeID       wire.NodeID
	Service      string
	Time         time.Time
	ConnType     wire.ConnType
	Tags         map[string]string
	WorkCommands []wire.WorkCommand
}

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
	reply := map[string]any{}
	for name, value := range statusFields(snapshot, s.srv.version) {
		if !some || wanted[name] {
			reply[name] = value()
		}
	}
	return reply, nil
}

// StatusReply is the reply of the command status about st, for other protocols that offer the same. It marshals to JSON.
func StatusReply(st netceptor.Status, version string) map[string]any {
	reply := map[string]any{}
	for name, value := range statusFields(func() netceptor.Status { return st }, version) {
		reply[name] = value()
	}
	return reply
}

func statusFields(snapshot func() netceptor.Status, version string) map[string]func() any {
	return map[string]func() any{
		"Advertisements":       func() any { return advertisements(snapshot()) },
		"Connections":          func() any { return append([]netceptor.Connection{}, snapshot().Connections...) },
		"KnownConnectionCosts": func() any { return knownCosts(snapshot()) },
		"NodeID":               func() any { return snapshot().NodeID },
		"RoutingTable":         func() any { return orEmpty(snapshot().RoutingTable) },
		"SystemCPUCount":       func() any { return runtime.NumCPU() },
		"SystemMemoryMiB":      func() any { return memoryMiB() },
		"Version":              func() any { return version },
	}
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

func advertisements(st netceptor.Status) []advertisement {
	list := make([]advertisement, 0, len(st.Advertisements))
	for _, ad := range st.Advertisements {
		list = append(list, advertisement{ad.NodeID, ad.Service, ad.Time, ad.ConnType, ad.Tags, ad.WorkCommands})
	}
	return list
}

func knownCosts(st netceptor.Status) map[wire.NodeID]map[wire.NodeID]float64 {
	known := make(map[wire.NodeID]map[wire.NodeID]float64, len(st.KnownConnectionCosts))
	for node, costs := range st.KnownConnectionCosts {
		known[node] = orEmpty(costs)
	}
	return known
}

// orEmpty keeps a map without entries from being written as null.
func orEmpty[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return map[K]V{}
	}
	return m
}
