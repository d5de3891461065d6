package main

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/pyreceptor/pyreceptor/go/simulation"
)

func TestEveryShapeRuns(t *testing.T) {
	for _, shape := range []string{"random", "line", "ring", "star", "tree"} {
		t.Run(shape, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := options{nodes: 12, shape: shape, degree: 2, seed: 7, limit: time.Hour, cond: simulation.Conditions{Delay: time.Millisecond, Loss: 0.01}}
				if err := o.run(t); err != nil {
					t.Error(err)
				}
			})
		})
	}
	if _, err := (&options{shape: "cube"}).build(); err == nil {
		t.Error("an unknown shape was built")
	}
}
