package control

import (
	"bufio"
	"net"
	"strings"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// TestSubmitVanished has a client close its connection, as the end of a process does, after the whole payload or half of
// it: nobody can tell, so the unit does not start.
func TestSubmitVanished(t *testing.T) {
	eachTransport(t, func(t *testing.T, r *rig, c net.Conn, in *bufio.Reader) {
		if strings.HasSuffix(t.Name(), "/mesh") {
			t.Skip("a stream of the mesh whose node or program dies is reset")
		}
		r.work.started = make(chan *fakeUnit, 1)
		if _, err := c.Write([]byte("work submit localhost cat\nhalf of")); err != nil {
			t.Fatal(err)
		}
		if _, err := in.ReadString('\n'); err != nil { // Unread data would make the close a reset.
			t.Fatal(err)
		}
		c.Close()
		u := <-r.work.started
		if u.status.State != workceptor.Failed || u.status.Detail != "Error reading input data: "+errVanished.Error() {
			t.Errorf("state %v, %q", u.status.State, u.status.Detail)
		}
	})
}
