package session

import (
	"fmt"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// TestClosedIsSaidOfTheNode: a program hears of its node, not of the parts that it does not know; what was being done is kept.
func TestClosedIsSaidOfTheNode(t *testing.T) {
	for _, err := range []error{netceptor.ErrClosed, workceptor.ErrClosed} {
		if e := toError(err, BadConfig); e.Code != Closed || e.Msg != "the node is closed" {
			t.Errorf("%v: code %v, %q", err, e.Code, e.Msg)
		}
		more := fmt.Errorf("listen on x: %w", err)
		if e := toError(more, BadConfig); e.Code != Closed || e.Msg != more.Error() {
			t.Errorf("%v: code %v, %q", more, e.Code, e.Msg)
		}
	}
}
