package control

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pyreceptor/pyreceptor/go/netceptor"
	"github.com/pyreceptor/pyreceptor/go/workceptor"
)

// The tests of this file are named after the rows of the table of features, section J (control service). What a row
// promises in detail is tested where the command is.

func TestF133UnixSocket(t *testing.T) {
	r := newRig(t)
	info, err := os.Lstat(r.path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	wantLine(t, bufio.NewReader(r.dialUnix(t)), "Receptor Control, node alpha")
}

func TestF134TCPListener(t *testing.T) {
	for name, conf := range map[string]*tls.Config{"plain": nil, "tls": serverConfig(t)} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			c := dialTCP(t, r, conf)
			if conf != nil {
				c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
			}
			in := bufio.NewReader(c)
			wantLine(t, in, "Receptor Control, node alpha")
			fmt.Fprintln(c, "work list")
			wantLine(t, in, "{}")
		})
	}
}

func TestF135MeshListener(t *testing.T) {
	r := newMeshRig(t)
	beta := newNode(t, "beta")
	connectNodes(t, r.node, beta, 1)
	services, err := beta.ListenStream("control", &netceptor.ServiceAd{Tags: map[string]string{"type": "Control Service"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	srv := New(Config{Node: beta})
	done := make(chan error, 1)
	go func() { done <- srv.ServeMesh(t.Context(), services) }()
	t.Cleanup(func() { srv.Close(); <-done })
	if _, _, err := r.node.WaitRoute(t.Context(), "beta"); err != nil {
		t.Fatal(err)
	}
	c := r.dialUnix(t)
	in := bufio.NewReader(c)
	wantLine(t, in, "Receptor Control, node alpha")
	fmt.Fprintln(c, "connect beta ctl2") // Not listening.
	wantLine(t, in, "ERROR: context canceled")
	fmt.Fprintln(c, "connect beta control ")
	wantLine(t, in, "Connecting")
	wantLine(t, in, "Receptor Control, node beta")
	fmt.Fprintln(c, `{"command":"status","requested_fields":["NodeID"]}`)
	wantLine(t, in, `{"NodeID":"beta"}`)
}

func TestF136TextAndJSON(t *testing.T) {
	eachTransport(t, func(t *testing.T, _ *rig, c net.Conn, in *bufio.Reader) {
		for _, request := range []string{"status", "STATUS", "s\rtatus\r", `{"command":"status"}`, `{"other":[1],"command":"status"}  `} {
			fmt.Fprintln(c, request)
			line, err := in.ReadString('\n')
			if err != nil || !strings.HasPrefix(line, `{"Advertisements":[`) {
				t.Errorf("%q: %q, %v", request, line, err)
			}
		}
	})
}

func TestF137SeveralCommands(t *testing.T) {
	eachTransport(t, func(t *testing.T, _ *rig, c net.Conn, in *bufio.Reader) {
		fmt.Fprint(c, "work list\n\nping\nwork nonsense\n{\"command\":\"status\",\"requested_fields\":[\"NodeID\"]}\nping beta") // All at once, the last one without its newline.
		wantLine(t, in, "{}")
		wantLine(t, in, "ERROR: no ping target")
		wantLine(t, in, "ERROR: bad command")
		wantLine(t, in, `{"NodeID":"alpha"}`)
		closeWrite(t, c)
		wantEnd(t, in, `{"From":"beta","Success":true,"Time":394579,"TimeStr":"394.579µs"}`+"\n")
	})
}

func TestF138Status(t *testing.T) {
	r := newRig(t)
	var got map[string]any
	r.askJSON(t, "status", &got)
	want := []string{
		"Advertisements", "Connections", "KnownConnectionCosts", "NodeID", "RoutingTable", "SystemCPUCount", "SystemMemoryMiB", "Version",
	}
	if keys := slices.Sorted(maps.Keys(got)); !slices.Equal(keys, want) {
		t.Errorf("keys %v, want %v", keys, want)
	}
	if n, ok := got["SystemMemoryMiB"].(float64); !ok || n < 1 {
		t.Errorf("SystemMemoryMiB %v", got["SystemMemoryMiB"])
	}
	if reply := r.ask(t, "status x"); reply != "ERROR: status command does not take parameters" {
		t.Error(reply)
	}
}

func TestF139StatusFields(t *testing.T) {
	r := newRig(t)
	for fields, want := range map[string]string{
		`["NodeID","Version"]`:      `{"NodeID":"alpha","Version":"1.4.9+git"}`,
		`["nonsense","NodeID"]`:     `{"NodeID":"alpha"}`,
		`[]`:                        `{}`,
		`["NodeID",1]`:              "ERROR: each element of requested_fields must be a string",
		`"NodeID"`:                  "ERROR: requested_fields must be a list of strings",
		`null`:                      "ERROR: requested_fields must be a list of strings",
		`{"NodeID":true}`:           "ERROR: requested_fields must be a list of strings",
		`["RoutingTable","NodeID"]`: `{"NodeID":"alpha","RoutingTable":{"beta":"beta","gamma":"beta"}}`,
	} {
		if got := r.ask(t, `{"command":"status","requested_fields":`+fields+`}`); got != want {
			t.Errorf("%s: %s, want %s", fields, got, want)
		}
	}
}

func TestF140PingTracerouteConnect(t *testing.T) {
	eachTransport(t, func(t *testing.T, _ *rig, c net.Conn, in *bufio.Reader) {
		fmt.Fprint(c, "ping gamma\nping nosuch\n{\"command\":\"ping\",\"target\":\"localhost\"}\n{\"command\":\"traceroute\",\"target\":\"beta\"}\nconnect nosuch control\nconnect gamma control\nping beta\n")
		wantLine(t, in, `{"From":"gamma","Success":true,"Time":394579,"TimeStr":"394.579µs"}`)
		wantLine(t, in, `{"Error":"no route to node","Success":false}`)
		wantLine(t, in, `{"From":"alpha","Success":true,"Time":394579,"TimeStr":"394.579µs"}`)
		wantLine(t, in, `{"0":{"From":"alpha","Time":114200,"TimeStr":"114.2µs"},"1":{"From":"beta","Time":394579,"TimeStr":"394.579µs"}}`)
		wantLine(t, in, "ERROR: INTERNAL_ERROR (local): no route to node")
		wantLine(t, in, "Connecting")
		wantLine(t, in, "Receptor Control, node gamma")
		wantLine(t, in, `{"From":"beta","Success":true,"Time":394579,"TimeStr":"394.579µs"}`) // Answered by gamma.
	})
}

func TestF141Reload(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Reload = reloader([]error{nil, &ReloadError{ReloadNotReloadable, errors.New("changed")}, errors.New("unreadable")})
	})
	for _, want := range []string{
		`{"Success":true}`, `{"Error":"changed ERRORCODE 3","Success":false}`, `{"Error":"unreadable ERRORCODE 4","Success":false}`,
	} {
		if got := r.ask(t, "reload and what follows is ignored"); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestF142Work(t *testing.T) {
	eachTransport(t, func(t *testing.T, r *rig, c net.Conn, in *bufio.Reader) {
		r.work.nextID = "unitAAAA"
		r.work.add("unitBBBB", "cat", workceptor.Succeeded, "output")
		r.work.add("unitCCCC", "remote", workceptor.Running, "")
		status := `{"Detail":"exit status 0","ExtraData":null,"State":2,"StateName":"Succeeded","StdoutSize":6,"WorkType":"cat"}`
		for request, want := range map[string]string{
			"work status unitBBBB": status,
			"work list unitBBBB":   `{"unitBBBB":` + status + `}`,
			`{"command":"work","subcommand":"Status","unitid":"unitBBBB"}`: status,
			"work cancel unitBBBB":  `{"cancelled":"unitBBBB"}`,
			"work cancel unitCCCC":  `{"cancel pending":"unitCCCC"}`,
			"work release unitCCCC": `{"release pending":"unitCCCC"}`,
		} {
			fmt.Fprintln(c, request)
			wantLine(t, in, want)
		}
		fmt.Fprintln(c, "work force-release unitCCCC")
		wantLine(t, in, `{"released":"unitCCCC"}`)
		fmt.Fprint(c, "work submit localhost upper\nsome input")
		wantLine(t, in, "Work unit created with ID unitAAAA. Send stdin data and EOF.")
		closeWrite(t, c)
		wantEnd(t, in, `{"result":"Job Started","unitid":"unitAAAA"}`+"\n")

		results := r.dialUnix(t)
		in = bufio.NewReader(results)
		wantLine(t, in, "Receptor Control, node alpha")
		fmt.Fprintln(results, "work results unitAAAA 5")
		wantLine(t, in, "Streaming results for work unit unitAAAA")
		wantEnd(t, in, "INPUT")
	})
}

func TestF143Errors(t *testing.T) {
	r := newRig(t)
	for request, want := range map[string]string{
		"nonsense":                              "Unknown command",
		"help":                                  "Unknown command",
		`{"command":"STATUS"}`:                  "Unknown command",
		` {"command":"status"}`:                 "Unknown command",
		`{"command":1}`:                         "command must be a string",
		`{}`:                                    "JSON did not contain a command",
		`{`:                                     "unexpected end of JSON input",
		`{"command":"status"} x`:                "invalid character 'x' after top-level value",
		"ping":                                  "no ping target",
		`{"command":"ping","target":1}`:         "ping target must be string",
		"traceroute":                            "no traceroute target",
		"connect a":                             "no connect target",
		"connect a b c d":                       "too many parameters",
		"work":                                  "bad command",
		`{"command":"work"}`:                    "field subcommand missing",
		"work status":                           "work status requires a unit ID",
		"work status x":                         "unknown work unit x",
		"work submit localhost":                 "work submit requires a target node and work type",
		"work submit localhost nosuch":          "unknown work type nosuch",
		`{"command":"work","subcommand":["x"]}`: "field subcommand must be a string",
		"work results ../../etc":                "unknown work unit ../../etc",
		`{"command":"connect","node":"a"}`:      "no connect target service",
		"topology":                              "Unknown command", // A node that cannot be looked into.
		`{"command":"config"}`:                  "Unknown command", // No configuration.
		`{"command":"session"}`:                 "Unknown command",
	} {
		if got := r.ask(t, request); got != "ERROR: "+want {
			t.Errorf("%s: %q, want %q", request, got, "ERROR: "+want)
		}
	}
}

// TestManyClients has two thousand idle clients and two hundred busy ones at once.
func TestManyClients(t *testing.T) {
	r := newRig(t)
	const idle, busy, rounds = 2000, 200, 20
	for range idle {
		near, far := net.Pipe()
		r.start(t.Context(), far, listening{kind: TCP})
		if _, err := io.ReadFull(near, make([]byte, len("Receptor Control, node alpha\n"))); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for range busy {
		c := r.dialUnix(t)
		wg.Go(func() {
			in := bufio.NewReader(c)
			if _, err := in.ReadString('\n'); err != nil {
				t.Error(err)
				return
			}
			for range rounds {
				fmt.Fprintln(c, "status")
				var reply map[string]any
				line, err := in.ReadBytes('\n')
				if err == nil {
					err = json.Unmarshal(line, &reply)
				}
				if err != nil || len(reply) != 8 {
					t.Errorf("%s: %v", line, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if s := r.Stats(); s.Sessions != idle+busy || s.Commands["status"].Count != busy*rounds {
		t.Errorf("%d sessions, %d commands", s.Sessions, s.Commands["status"].Count)
	}
}
