package config_test

import (
	"fmt"

	"github.com/pyreceptor/pyreceptor/go/config"
)

func ExampleParseArgs() {
	cfg, err := config.ParseArgs([]string{"--node", "id=hub", "--tcp-listener", "2222", "--tcp-peer", "edge:2222", "cost=2"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("node", cfg.Node().ID)
	for _, l := range config.All[config.TCPListener](cfg) {
		fmt.Println("listen on port", l.Port)
	}
	for pos, p := range config.All[config.TCPPeer](cfg) {
		fmt.Println("peer", p.Address, "at cost", p.Cost, "from", pos)
	}
	// Output:
	// node hub
	// listen on port 2222
	// peer edge:2222 at cost 2 from argument 5
}

func ExampleParseArgs_mistakes() {
	_, err := config.ParseArgs([]string{"--tcp-per", "edge:2222", "--tcp-listener", "bindadr=::1"})
	fmt.Println(err)
	// Output:
	// command error: unknown config type tcp-per (did you mean tcp-peer?)
	// config error: unknown field name bindadr (did you mean bindaddr?)
}
