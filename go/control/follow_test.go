package control

import (
	"bufio"
	"net"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

func TestWorkFollow(t *testing.T) {
	eachTransport(t, func(t *testing.T, r *rig, c net.Conn, in *bufio.Reader) {
		r.work.add("unitAAAA", "cat", workceptor.Succeeded, "HELLO")
		r.work.add("unitBBBB", "secure", workceptor.Succeeded, "HELLO")
		for line, want := range map[string]string{
			"work follow unitAAAA\n": "ERROR: bad command",
			`{"command":"work","subcommand":"follow","unitid":"nounit","startpos":0}` + "\n":    "ERROR: unknown work unit nounit",
			`{"command":"work","subcommand":"follow","unitid":"unitAAAA"}` + "\n":               "ERROR: field startpos missing",
			`{"command":"work","subcommand":"follow","startpos":0}` + "\n":                      "ERROR: field unitid missing",
			`{"command":"work","subcommand":"follow","unitid":"unitAAAA","startpos":-1}` + "\n": "ERROR: field startpos must not be negative",
		} {
			if _, err := c.Write([]byte(line)); err != nil {
				t.Fatal(err)
			}
			wantLine(t, in, want)
		}
		secure := `{"command":"work","subcommand":"follow","unitid":"unitBBBB","startpos":0}` + "\n"
		if _, isUnix := c.(*net.UnixConn); !isUnix {
			if _, err := c.Write([]byte(secure)); err != nil {
				t.Fatal(err)
			}
			wantLine(t, in, "ERROR: could not verify signature: signature is empty")
		}
		if _, err := c.Write([]byte(`{"command":"work","subcommand":"follow","unitid":"unitAAAA","startpos":1}` + "\n")); err != nil {
			t.Fatal(err)
		}
		wantLine(t, in, "Following work unit unitAAAA")
		wantLine(t, in, `{"Output":4}`)
		wantEnd(t, in, `ELLO{"Status":{"Detail":"exit status 0","ExtraData":null,"State":2,"StateName":"Succeeded","StdoutSize":5,"WorkType":"cat"}}`+"\n")
	})
}
