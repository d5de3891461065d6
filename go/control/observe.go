package control

import (
	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/policy"
	"github.com/pyreceptor/pyreceptor/go/topology"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// observed is what events, topology and links need of the node beside [Mesh]. *[netceptor.Node] has it.
type observed interface {
	Subscribe(size int) *netceptor.Subscription
	Inspect() ([]topology.Known, *topology.Table)
	Routes() *topology.Table
	Services() []netceptor.Service
	Service(node wire.NodeID, name string) (netceptor.Service, bool)
	Links() []netceptor.Link
	Backends() []netceptor.BackendStatus
	Counters() netceptor.Counters
	Policy() *policy.Policy
}

func (s *Server) observing() bool {
	_, ok := s.node.(observed)
	return ok
}

func (s *session) observed() observed { return s.srv.node.(observed) }

// workType is a work type in the replies of additive commands.
type workType struct {
	Secure bool   `json:"secure"`
	Type   string `json:"type"`
}

func workTypes(commands []wire.WorkCommand) []workType {
	all := make([]workType, len(commands))
	for i, c := range commands {
		all[i] = workType{c.Secure, c.WorkType}
	}
	return all
}

// connectionName says what kind of connections a service takes.
func connectionName(c wire.ConnType) string {
	switch c {
	case wire.ConnDatagram:
		return "datagram"
	case wire.ConnStream:
		return "stream"
	case wire.ConnStreamTLS:
		return "stream-tls"
	}
	return "unknown"
}
