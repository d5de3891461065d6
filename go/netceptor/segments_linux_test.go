package netceptor

import (
	"bytes"
	"log"
	"testing"
)

// TestStreamsMoveRunsOfPackets: the QUIC library takes the mesh socket for one that splits large writes, in both directions,
// and has nothing to complain about.
func TestStreamsMoveRunsOfPackets(t *testing.T) {
	var said bytes.Buffer
	defer log.SetOutput(log.Writer())
	log.SetOutput(&said)
	nodes := chain(t, "a", "b")
	near, far := streamPair(t, nodes[0], nodes[1], "svc")
	for end, s := range map[string]*Stream{"dialer": near, "listener": far} {
		if !s.qc.ConnectionState().GSO {
			t.Errorf("%s: packets go one by one", end)
		}
	}
	if said.Len() > 0 {
		t.Errorf("the QUIC library complains: %s", said.String())
	}
}
