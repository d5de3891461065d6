package identity_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/pyreceptor/pyreceptor/go/identity"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

// An authority signs a node's certificate, with which the node then serves.
func Example() {
	dir, err := os.MkdirTemp("", "identity")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	file := func(name string) string { return filepath.Join(dir, name) }

	err = identity.InitFiles("our mesh", 2048, identity.Validity{}, file("ca.crt"), file("ca.key"))
	if err != nil {
		panic(err)
	}
	names := identity.Names{DNS: []string{"hub.example"}, Nodes: []wire.NodeID{"hub"}}
	err = identity.RequestFiles("hub", names, "", 2048, file("hub.key"), file("hub.csr"))
	if err != nil {
		panic(err)
	}
	err = identity.SignFiles(file("hub.csr"), file("ca.crt"), file("ca.key"), file("hub.crt"), identity.Validity{}, nil)
	if err != nil {
		panic(err)
	}

	server, err := identity.NewServer(identity.ServerOptions{
		Name: "mesh", Cert: file("hub.crt"), Key: file("hub.key"), RequireClientCert: true, ClientCAs: file("ca.crt"),
	}, identity.Owner{Node: "hub"})
	if err != nil {
		panic(err)
	}
	status := server.Status()
	fmt.Println(status.Name, status.NodeIDs, status.Err)
	// Output: mesh [hub] <nil>
}
