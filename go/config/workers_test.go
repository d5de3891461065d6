package config

import (
	"strings"
	"testing"
	"time"
)

func TestWorkLimits(t *testing.T) {
	cfg := mustLoad(t, "- work-limits: {maxrunning: 4, keepunits: 100, keepfor: 1h30m}\n- work-command: {worktype: w, command: cat, allowpty: yes, maxrunning: 2}\n")
	l := one[WorkLimits](t, cfg)
	if l.MaxRunning != 4 || l.KeepUnits != 100 || l.KeepFor != 90*time.Minute {
		t.Errorf("got %+v", l)
	}
	if w := one[WorkCommand](t, cfg); !w.AllowPTY || w.MaxRunning != 2 {
		t.Errorf("got %+v", w)
	}
	for args, want := range map[string]string{
		"--work-limits maxrunning=-1":                                "maxrunning must not be negative",
		"--work-limits keepunits=-1":                                 "keepunits must not be negative",
		"--work-limits keepfor=forever":                              `keepfor "forever" cannot be used`,
		"--work-limits keepfor=-1h":                                  `keepfor "-1h" cannot be used`,
		"--work-command worktype=w command=cat maxrunning=-1":        "maxrunning must not be negative",
		"--work-python worktype=w plugin=p function=f maxrunning=-1": "maxrunning must not be negative",
	} {
		if _, err := ParseArgs(strings.Fields("--node a " + args)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", args, err, want)
		}
	}
}
