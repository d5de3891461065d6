package policy_test

import (
	"fmt"

	"github.com/pyreceptor/pyreceptor/go/policy"
	"github.com/pyreceptor/pyreceptor/go/wire"
)

func Example() {
	p, err := policy.Compile([]policy.Rule{
		{Action: "accept", FromNode: "/(hub|edge)/", ToService: "control"},
		{Action: "reject", ToService: "control"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	control, _ := wire.Service("control")
	ephemeral, _ := wire.Service("eXqR24mT")
	fmt.Println(p.Judge("hub", "edge", ephemeral, control))
	fmt.Println(p.Judge("laptop", "edge", ephemeral, control))
	fmt.Println(p.Judge("laptop", "edge", ephemeral, ephemeral))
	for _, h := range p.Hits() {
		fmt.Println(h.Rule, h.Packets)
	}
	// Output:
	// accept
	// reject
	// accept
	// 0 1
	// 1 1
	// -1 1
}

func ExampleCompile_error() {
	_, err := policy.Compile([]policy.Rule{{Action: "drop", FromNode: "/(a|b/"}})
	fmt.Println(err)
	// Output: error in rule 0: fromnode: regular expression /(a|b/: missing closing )
}
