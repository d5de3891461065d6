package daemon_test

import (
	"context"
	"fmt"

	"github.com/pyreceptor/pyreceptor/go/config"
	"github.com/pyreceptor/pyreceptor/go/daemon"
)

func ExampleBuild() {
	cfg, err := config.ParseArgs([]string{"--node", "id=hub", "--tcp-listener", "port=0", "bindaddr=127.0.0.1"})
	if err != nil {
		fmt.Println(err)
		return
	}
	d, err := daemon.Build(context.Background(), cfg, daemon.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(d.Node.ID(), "runs")
	fmt.Println("closed:", d.Close())
	// Output:
	// hub runs
	// closed: <nil>
}
