package control_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"

	"github.com/pyreceptor/pyreceptor/go/control"
	"github.com/pyreceptor/pyreceptor/go/netceptor"
)

func Example() {
	node, err := netceptor.New(netceptor.Config{ID: "alpha"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer node.Close()
	dir, err := os.MkdirTemp("", "control")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	srv := control.New(control.Config{Node: node, Version: "1.0"})
	l, err := control.ListenUnix(dir+"/sock", 0o600)
	if err != nil {
		fmt.Println(err)
		return
	}
	served := make(chan error)
	go func() { served <- srv.Serve(context.Background(), l, control.Unix) }()

	conn, err := net.Dial("unix", dir+"/sock")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Fprintln(conn, `{"command":"status","requested_fields":["NodeID","Version"]}`)
	replies := bufio.NewScanner(conn)
	for range 2 {
		replies.Scan()
		fmt.Println(replies.Text())
	}
	conn.Close()
	srv.Close() // Ends all sessions and waits for them.
	fmt.Println(<-served)
	// Output:
	// Receptor Control, node alpha
	// {"NodeID":"alpha","Version":"1.0"}
	// <nil>
}
